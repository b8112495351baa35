"""``naevus export``: join finished folds into one verified bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from naevus.cli.console import console, errors, reporter
from naevus.cli.options import CHECKS, NETWORKS, AllowMissing, Data, Fold, Force, Out, Runs, Storage
from naevus.errors import DataError
from naevus.io.extras import require

if TYPE_CHECKING:
    from naevus.bundles.spec import BundleSpec
    from naevus.export.export import Checked
    from naevus.export.graphs import Agreement


def export(
    runs: Runs,
    out: Out,
    fold: Fold = None,
    storage: Storage = None,
    average: Annotated[
        bool,
        typer.Option(
            "--average",
            help="Average the weights of each task's networks into one network.",
            rich_help_panel=NETWORKS,
        ),
    ] = False,
    measure_costs: Annotated[
        bool,
        typer.Option(
            "--measure-costs",
            help="Measure the loss of accuracy of each storage and precision on all held-out "
            "images; takes minutes.",
            rich_help_panel=NETWORKS,
        ),
    ] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            metavar="OOF.parquet",
            help="Predictions of exactly these networks as an ensemble, on images that none of "
            "them was trained on.",
            rich_help_panel=NETWORKS,
        ),
    ] = None,
    data: Data = None,
    allow_missing: AllowMissing = False,
    force: Force = False,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Run code outside naevus that a run's recipe names as its network.",
            rich_help_panel=CHECKS,
        ),
    ] = False,
) -> None:
    """Export the networks of runs as one bundle for prediction.

    Examples:
      naevus export runs/seg runs/cls --out lesions.naevus
      naevus export runs/cls --fold 0 --storage int8 --out bundles/small

    Takes all finished folds of the runs, for one task or several. OUT is a folder, or a single
    file if it ends in .naevus. Each exported graph is compared with its network on 200 images.
    Nothing is written unless probabilities agree within 0.002 and 99.9 % of decisions are the
    same. Use --average only for networks that differ in nothing but seed or fold.

    Temperature, offsets, prediction sets and scores are fitted on the runs' out-of-fold
    predictions. If those come from other networks than the exported ones, the bundle states it.
    An average of classification networks that held out the same fold is scored directly. For
    other combinations, pass their predictions with --calibration.
    """
    from naevus.datasets.masksurvey import check_areas
    from naevus.io.progress import warn_all
    from naevus.runs.comparison import read_out_of_fold
    from naevus.runs.manifest import trial_notes
    from naevus.runs.run import open_run

    require("train", "export")
    if storage == "int8":
        require("quantise", "--storage int8")
    if len({folder.resolve() for folder in runs}) < len(runs):
        raise DataError("a run is named twice", "name each run once")
    opened = [open_run(folder, allow_missing=allow_missing, reporter=reporter) for folder in runs]
    warn_all(reporter, trial_notes(opened))
    for run in opened:
        if run.recipe.task == "segmentation":
            check_areas(run.predictions(), run.folder, force=force, reporter=reporter)
    fitted = None if calibration is None else read_out_of_fold(calibration)
    from naevus.export.export import ExportCallbacks, ExportOptions, export_runs  # imports torch

    options = ExportOptions(
        folds=tuple(dict.fromkeys(fold)) if fold else None,
        storage=storage,
        average=average,
        data=data,
        calibration=fitted,
        measure=measure_costs,
        trust=trust,
    )
    checked: list[Checked] = []
    try:
        with reporter.progress("exporting and checking") as move:
            bundle = export_runs(opened, out, options, ExportCallbacks(checked.append, move))
    finally:
        if checked:
            console.print(_table(checked))
    _report(bundle.spec)
    console.print(f"bundle: {out}", soft_wrap=True)
    errors.print("Research use only, never a diagnosis.", style="dim")


def _report(spec: BundleSpec) -> None:
    """Print the scores and a short form of the model card."""
    table = Table(title=f"scores, with 95 % intervals by {spec.unit}")
    for name in ("measure", "value", "interval", "on"):
        table.add_column(name, justify="left" if name == "measure" else "right")
    places = {
        on: number for number, on in enumerate(dict.fromkeys(s.measured_on for s in spec.scores), 1)
    }
    for score in spec.scores:
        interval = "" if score.low is None else f"{score.low:z.3f} to {score.high:z.3f}"
        table.add_row(score.name, f"{score.value:z.3f}", interval, str(places[score.measured_on]))
    console.print(table)
    lines = [f"{number}: {on}" for on, number in places.items()]
    if spec.classifier is not None and spec.classifier.calibrated_on is not None:
        fitted = f"fitted on {spec.classifier.calibrated_on}"
        lines.append(f"temperature {spec.classifier.temperature:.3f}, {fitted}")
    lines += [
        f"{choice.task}: {choice.storage}, {choice.precision}: {choice.reason}"
        for choice in spec.recommended
    ]
    lines += [
        f"{each.task}: {each.storage}, {each.precision}: cannot run on this machine: {each.problem}"
        for each in spec.storage_refusals
    ]
    console.print("\n".join(lines))


def _table(checked: list[Checked]) -> Table:
    table = Table(title="agreement of the exported graphs with the networks")
    for name in ("file", "from", "compared", "images", "largest Δp", "mean Δp", "same decisions"):
        words = name in {"file", "from", "compared"}
        table.add_column(name, justify="left" if words else "right", no_wrap=name == "file")
    for member in checked:
        size = f"{member.size / 1e6:.1f} MB"
        table.add_row(
            member.file,
            member.origin,
            "fp32 graph : network",
            *_cells(member.graph, member),
        )
        if member.stored_agreement is not None:
            compared = f"{member.storage} ({size}) : fp32 graph"
            table.add_row("", "", compared, *_cells(member.stored_agreement, member))
    return table


def _cells(agreement: Agreement, member: Checked) -> tuple[str, ...]:
    kind = "held out" if member.held_out else "training"
    return (
        f"{agreement.images} {kind}",
        f"{agreement.largest:.1e}",
        f"{agreement.mean:.1e}",
        f"{agreement.decisions:.2%}",
    )
