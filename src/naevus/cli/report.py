"""``naevus report``: a run's, or a prediction's, results as one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from naevus.cli.answers import AllowMissing, Force, check_areas, is_run, open_run, tell, truth_of
from naevus.cli.console import console, progress
from naevus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from naevus.datasets.dataset import Dataset
    from naevus.reports.results import Results


def report(
    results: Annotated[
        Path, typer.Argument(metavar="RUN|PREDICTIONS", help="A run, or what predict wrote.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="Its data set; of a run the one it was trained on, if it is there."),
    ] = None,
    bundle: Annotated[
        list[Path] | None,
        typer.Option(help="What PREDICTIONS were made with: shows heat maps. A run has its own."),
    ] = None,
    pictures: Annotated[
        bool, typer.Option(help="Whether small copies of pictures are shown.")
    ] = True,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write to; report/ inside RUN|PREDICTIONS by default."),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(help="Of the data set of PREDICTIONS: this part alone, such as task3."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Of the data set of PREDICTIONS: train, validation or test alone."),
    ] = None,
    allow_missing: AllowMissing = False,
    force: Force = False,
    figures: Annotated[
        bool, typer.Option("--figures", help="Write the figures as SVG and PDF too, for a paper.")
    ] = False,
) -> None:
    """Write a report: scores, figures, subgroups, and the pictures most worth a look.

    One page, report.html, that needs no network and prints well; beside it every table as CSV,
    JSON and Parquet, and all values in report.json. It holds small copies of pictures where the
    data set is at hand: show it to those who may see them, or make it with --no-pictures.

    Examples:
      naevus report runs/cls
      naevus report runs/cls --data ISIC2018 --out cls-report --figures
      naevus report answers --data ISIC2018 --bundle runs/cls
    """
    from naevus.cli.summary import show
    from naevus.reports.report import make_report, write_report

    of_run = is_run(results)
    if of_run and any(option is not None for option in (bundle, part, split)):
        raise ConfigError("--bundle, --part and --split are for PREDICTIONS", "leave them out")
    found = (
        _of_run(results, data, allow_missing=allow_missing)
        if of_run
        else _of_predictions(
            results,
            truth_of(results, data, part=part, split=split),
            bundle or (),
            allow_missing=allow_missing,
        )
    )
    if found.outlined is not None:
        check_areas(found.outlined, data or results, force=force)
    with progress("reading pictures") as move:
        document = make_report(found, move, pictures=pictures)
    page = write_report(document, out or results / "report", figures=figures)
    show(document)
    console.print(f"{page}", soft_wrap=True)


def _of_run(folder: Path, data: Path | None, *, allow_missing: bool) -> Results:
    from naevus.reports.trained import of_run
    from naevus.runs.run import dataset_of

    run = open_run(folder, allow_missing=allow_missing)
    run.answers()  # refuses what is missing, where that is not allowed
    dataset = dataset_of(run, data)
    if dataset is None:
        tell([f"{run.inputs['data']} is not there: no pictures, no subgroups; name it with --data"])
    return of_run(folder, run.join(), dataset)


def _of_predictions(
    folder: Path, dataset: Dataset, named: Sequence[Path], *, allow_missing: bool
) -> Results:
    from naevus.bundles.bundle import find_bundles
    from naevus.reports.predicted import of_predictions

    bundles = [each for each in find_bundles(named) if each.spec.classifier is not None]
    found = of_predictions(folder, dataset, bundles, allow_missing=allow_missing)
    tell(found.notes)
    return found
