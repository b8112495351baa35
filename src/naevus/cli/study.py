"""``naevus study``: compare variations of a recipe, and measure shortcuts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from naevus.cli.console import console, errors, log_on_screen, reporter
from naevus.cli.options import (
    AllowMissing,
    Cache,
    Copies,
    Data,
    DataFolder,
    FoldsFile,
    Force,
    HeldOutFold,
    Json,
    Limit,
    Masks,
    Out,
    Run,
    Set,
)
from naevus.errors import DataError
from naevus.io.extras import require
from naevus.io.words import images_of, plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import RenderableType

    from naevus.evaluation.ablation import Ablation
    from naevus.evaluation.shortcuts import ShortcutScores
    from naevus.types import Unit


def shortcuts(
    run: Run,
    data: Data = None,
    allow_missing: AllowMissing = False,
    json: Json = False,
) -> None:
    """Measure how well diagnoses can be predicted without the lesion.

    Examples:
      naevus study shortcuts runs/cls
      naevus study shortcuts runs/cls --data ISIC2018 --json

    Gradient boosting predicts from age, sex and site alone. Logistic regression predicts from the
    run's embeddings of images in which the lesion is filled with the mean skin colour: in its own
    shape, in a shape common to all images, or everywhere but a ring at the border. Scores far
    above chance show shortcuts that a network may use instead of the lesion. All predictions are
    out of fold. Writes RUN/shortcuts.json.
    """
    require("evaluate", "this study")
    from naevus.io.files import write_json
    from naevus.runs.images import dataset_of
    from naevus.runs.run import open_run
    from naevus.workflows.shortcuts import measure_shortcuts

    opened = open_run(run, allow_missing=allow_missing, reporter=reporter)
    if opened.recipe.task != "classification":
        raise DataError(f"{run}: not a classification run", "name a classification run")
    table = opened.predictions()
    dataset = dataset_of(opened, data)
    if dataset is None:
        raise DataError(f"{opened.inputs['data']}: not found", "name the data set with --data")
    records = dataset.table.drop_duplicates("image_id").set_index("image_id", drop=False)
    scores, coverage = measure_shortcuts(opened, table, records, reporter)
    found = {**scores.to_dict(), **coverage}
    write_json(run / "shortcuts.json", found)
    if json:
        console.print_json(data=found)
        return
    for part in _tables(scores, coverage, opened.unit):
        console.print(part)
    errors.print("Research use only, never a diagnosis.", style="dim")


def _tables(
    scores: ShortcutScores, fraction: Mapping[str, float], unit: Unit
) -> Iterable[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    from naevus.reports.document import spread_with_interval

    table = Table(
        "predicted from",
        title=images_of(scores.images, scores.groups, unit),
    )
    for column in (plural(unit), "balanced accuracy", "mean AUC", "melanoma AUC"):
        table.add_column(column, justify="right")
    for guess in scores.guesses:
        table.add_row(
            guess.source,
            f"{guess.groups:,}",
            spread_with_interval(guess.balanced_accuracy),
            spread_with_interval(guess.mean_auc),
            spread_with_interval(guess.melanoma),
        )
    table.add_row("chance", "", f"{scores.chance:.3f}", "0.500", "0.500", style="dim")
    table.caption = f"95 % intervals by {unit}; AUCs rank balanced probabilities"
    yield table
    if fraction["without_mask"]:
        yield Text(
            f"note: left out {fraction['without_mask']:,} predicted images without a plausible "
            "mask",
            style="yellow",
        )
    yield Text(
        f"The common shape covers {fraction['hole']:.0%} of the image; "
        f"{fraction['fits']:.0%} of the lesions fit inside it. For the others, the parts outside "
        "are filled as well, which may reveal their size."
    )


def ablate(
    plan: Annotated[
        Path,
        typer.Argument(metavar="PLAN", help="A TOML file of variations; see recipes/ablations."),
    ],
    data: DataFolder,
    out: Out,
    arm: Annotated[
        list[str] | None,
        typer.Option(
            "--arm", help="Compare only this variation with the reference; may be repeated."
        ),
    ] = None,
    settings: Set = None,
    folds: FoldsFile = None,
    fold: HeldOutFold = 0,
    masks: Masks = None,
    copies: Copies = None,
    limit: Limit = None,
    cache: Cache = None,
    allow_missing: AllowMissing = False,
    force: Force = False,
) -> None:
    """Train variations of a recipe with the same budget and compare them.

    Examples:
      naevus study ablate plan.toml ISIC2018 --out runs/ablations
      naevus study ablate plan.toml ISIC2018 --arm crop --out runs/crops

    Compares the variations (arms) on one held-out fold. The same command resumes an interrupted
    job; the runs are in OUT/arms. Writes a table of paired differences from the reference, with
    intervals by lesion or patient, to OUT/ablation.md, .csv and .json.
    """
    require("train", "an ablation")
    from naevus.io.outputs import check_free
    from naevus.io.settings import parse_setting
    from naevus.runs.images import images_and_folds
    from naevus.training.splits import check_splits
    from naevus.training.unused import once, refuse_unused_by_all
    from naevus.workflows.ablation_plan import load_plan, recipes

    check_free(out, "arms", ((cache or out / "cache").name,))
    chosen = load_plan(plan)
    shown = chosen.shown(tuple(arm or ()))
    overrides = once(
        [parse_setting(text) for text in settings or ()], {"--limit data.limit": limit}
    )
    configs = recipes(chosen, plan.parent, overrides)
    names = chosen.to_train(shown)
    trained = configs[names[0]]
    measured = {chosen.arms[name].detail_of for name in names}
    refuse_unused_by_all(
        [configs[name] for name in configs if name in measured.union(names)],
        overrides,
        masks=masks,
        copies=copies or (),
    )
    dataset, assign_parts = images_and_folds(data, trained, folds, masks, copies or [], reporter)
    check_splits(trained, assign_parts, [fold], dataset, reporter)
    from naevus.workflows.ablation import Workshop  # imports torch

    workshop = Workshop(
        chosen,
        dataset,
        assign_parts,
        fold,
        out,
        cache=cache or out / "cache",
        masks=masks,
        copies=tuple(copies or ()),
        force=force,
        reporter=reporter,
    )
    with log_on_screen():
        found = workshop.ablation(shown, configs, allow_missing=allow_missing)
    _write(found, out)
    _show(found, out)


def _write(found: Ablation, out: Path) -> None:
    from naevus.io.files import write_json, write_text
    from naevus.io.formats import csv_of

    write_text(out / "ablation.md", found.markdown())
    write_json(out / "ablation.json", found.to_dict())
    write_text(out / "ablation.csv", csv_of(found.table()))


def _show(found: Ablation, out: Path) -> None:
    from rich.table import Table

    head, *rows = found.summary()
    table = Table(title=found.title)
    for number, column in enumerate(head):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for line in (found.budget, *found.lines()):
        console.print(line)
    console.print(f"tables: {out / 'ablation.md'}, .csv, .json")
    errors.print("Research use only, never a diagnosis.", style="dim")
