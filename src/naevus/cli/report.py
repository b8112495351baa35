"""``naevus report``: a run's, or a prediction's, results as one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from naevus.cli.answers import is_run, truth_of
from naevus.cli.console import console, errors, progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from naevus.datasets.records import Dataset
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
    found = _of_run(results, data) if of_run else _of_predictions(results, data, bundle or ())
    with progress("reading pictures") as move:
        document = make_report(found, move, pictures=pictures)
    page = write_report(document, out or results / "report", figures=figures)
    show(document)
    console.print(f"{page}", soft_wrap=True, markup=False)


def _of_run(folder: Path, data: Path | None) -> Results:
    from naevus.reports.trained import of_run
    from naevus.training.run import Run

    run = Run.open(folder)
    return of_run(folder, run.join(), _dataset(data, Path(run.inputs["data"])))


def _dataset(named: Path | None, trained: Path) -> Dataset | None:
    from naevus.datasets.layouts import load

    if named is None and not trained.exists():
        errors.print(f"{trained} is not there: no pictures, no subgroups; name it with --data")
        return None
    return load(named or trained)


def _of_predictions(folder: Path, data: Path | None, named: Sequence[Path]) -> Results:
    from naevus.bundles.bundle import find_bundles
    from naevus.reports.predicted import of_predictions

    dataset = truth_of(folder, data)
    bundles = [each for each in find_bundles(named) if each.spec.classifier is not None]
    return of_predictions(folder, dataset, bundles)
