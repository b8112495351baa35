"""``naevus ablate`` and ``shortcuts``: what changes gain, what is guessed without a lesion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from naevus.cli.console import console, errors, log_on_screen, reporter
from naevus.cli.options import AllowMissing, Force
from naevus.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import RenderableType

    from naevus.evaluation.ablation import Ablation
    from naevus.evaluation.shortcuts import ShortcutScores


# ``naevus shortcuts``: what can be guessed of the diagnoses without the lesion.


def shortcuts(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run of classification.")],
    data: Annotated[
        Path | None, typer.Option(help="Its data set, with masks, if it is no longer there.")
    ] = None,
    allow_missing: AllowMissing = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Tell how well diagnoses are guessed from what is not the lesion.

    Gradient boosting guesses by age, sex and site alone; logistic regression by the run's frozen
    embeddings of pictures whose lesion is hidden: filled with the mean colour of the skin, in its
    own outline or in a hole that is the same in all pictures, or all but a ring at the border.
    What is far above chance there may be learnt in place of the lesion. Every guess is about a
    lesion that neither network nor guesser saw. Kept in RUN/shortcuts.json.

    Examples:
      naevus shortcuts runs/cls
      naevus shortcuts runs/cls --data ISIC2018 --json
    """
    from naevus.io.files import write_json
    from naevus.runs.results import open_run
    from naevus.runs.run import dataset_of
    from naevus.workflows.shortcuts import measure_shortcuts

    opened = open_run(run, allow_missing=allow_missing, reporter=reporter)
    if opened.config.task != "classification":
        raise DataError(f"{run}: is no run of classification", "name one")
    table = opened.answers()
    dataset = dataset_of(opened, data)
    if dataset is None:
        raise DataError(f"{opened.inputs['data']}: is not there", "name the data set with --data")
    records = dataset.table.drop_duplicates("image_id").set_index("image_id", drop=False)
    scores, coverage = measure_shortcuts(opened, table, records, reporter)
    found = {**scores.to_dict(), **coverage}
    write_json(run / "shortcuts.json", found)
    if json:
        console.print_json(data=found)
        return
    for part in _tables(scores, coverage):
        console.print(part)
    errors.print("Research use only, never a diagnosis.", style="dim")


def _tables(scores: ShortcutScores, share: Mapping[str, float]) -> Iterable[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    from naevus.reports.document import spread_with_interval

    table = Table(
        "guessed from", title=f"{scores.pictures:,} pictures of {scores.groups:,} lesions"
    )
    for column in ("lesions", "balanced accuracy", "mean AUC", "melanoma AUC"):
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
    table.caption = "95 % intervals by lesion; AUCs rank balanced probabilities"
    yield table
    if share["without_mask"]:
        yield Text(
            f"note: {share['without_mask']:,} pictures with an answer have no plausible mask and "
            "are left out",
            style="yellow",
        )
    yield Text(
        f"The common hole covers {share['hole']:.0%} of the picture; {share['fits']:.0%} of the "
        "lesions fit in. Of the others, what sticks out is filled too and may tell their size."
    )


def ablate(
    plan: Annotated[Path, typer.Argument(help="What is tried: TOML, as recipes/ablations has.")],
    data: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    out: Annotated[Path, typer.Option(help="Runs and tables; what is there is not made again.")],
    folds: Annotated[
        Path | None, typer.Option(help="Folds made by `naevus folds`; else 5 with seed 2018.")
    ] = None,
    fold: Annotated[int, typer.Option(help="The fold that is held out.")] = 0,
    arm: Annotated[
        list[str] | None, typer.Option(help="This arm and the reference alone; may be repeated.")
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Predicted masks that crops are cut by.")
    ] = None,
    copies: Annotated[
        list[Path] | None, typer.Option(help="Other copies of the same ids, for every arm.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="One setting of all arms.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Decoded pictures; beside the runs by default.")
    ] = None,
    allow_missing: AllowMissing = False,
    force: Force = False,
) -> None:
    """Train a recipe's variations under one budget and compare them on one held-out fold.

    Started again with the same words it goes on; runs are under OUT/arms. The table, with paired
    differences from the reference by lesion, is OUT/ablation.md, .csv and .json.

    Examples:
      naevus ablate plan.toml ISIC2018 --out runs/ablations
      naevus ablate plan.toml ISIC2018 --arm crop --arm both --out runs/crops
    """
    from naevus.runs.recipe import parse_setting
    from naevus.runs.run import images_and_folds
    from naevus.training.unused import once, refuse_unused_by_all
    from naevus.workflows.ablation import Workshop, load_plan, recipes

    chosen = load_plan(plan)
    shown = chosen.shown(tuple(arm or ()))
    settings = once([parse_setting(text) for text in setting or ()], {})
    configs = recipes(chosen, plan.parent, settings)
    names = chosen.to_train(shown)
    trained = configs[names[0]]
    measured = {chosen.arms[name].detail_of for name in names}
    refuse_unused_by_all(
        [configs[name] for name in configs if name in measured.union(names)],
        settings,
        masks=masks,
        copies=copies or (),
    )
    dataset, dealt = images_and_folds(data, trained, folds, masks, copies or [], reporter)
    dealt.held_out(fold)  # refuses a fold that is not there, before a folder is made
    workshop = Workshop(
        chosen,
        dataset,
        dealt,
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
    from naevus.io.files import atomic, write_json, write_text

    write_text(out / "ablation.md", found.markdown())
    write_json(out / "ablation.json", found.to_dict())
    with atomic(out / "ablation.csv") as temporary:
        found.table().to_csv(temporary, index=False)


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
