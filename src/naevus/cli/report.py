"""``naevus report``: a run's, or a prediction's, results as one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from naevus.cli.console import console, errors, progress
from naevus.errors import DataError, RunError

if TYPE_CHECKING:
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
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to; report/ inside RUN by default.")
    ] = None,
) -> None:
    """Write a report: scores, figures, subgroups, and the pictures most worth a look.

    One page, report.html, that needs no network and prints well; beside it every table as CSV and
    Parquet, every figure as SVG and PDF, and all values in report.json. It may hold small copies
    of pictures.

    Examples:
      naevus report runs/cls
      naevus report runs/cls --data ISIC2018 --out cls-report
      naevus report answers --data ISIC2018
    """
    from naevus.reports.report import make_report, write_report

    if (results / "run.toml").exists():
        found = _of_run(results, data)
    elif (results / "predictions.parquet").exists():
        found = _of_predictions(results, data)
    else:
        raise RunError(
            f"{results}: is neither a run nor predictions", "name a folder of train or predict"
        )
    with progress("reading pictures") as move:
        document = make_report(found, move)
    page = write_report(document, out or results / "report")
    console.print(document.summary, markup=False)
    console.print(f"{page}", soft_wrap=True)


def _of_run(folder: Path, data: Path | None) -> Results:
    from naevus.reports.results import of_run
    from naevus.training.run import Run

    run = Run.open(folder)
    table = run.join()
    return of_run(folder, table, _dataset(data, Path(run.inputs["data"])))


def _dataset(named: Path | None, trained: Path) -> Dataset | None:
    from naevus.datasets.layouts import load

    if named is None and not trained.exists():
        errors.print(f"{trained} is not there: no pictures, no subgroups; name it with --data")
        return None
    return load(named or trained)


def _of_predictions(folder: Path, data: Path | None) -> Results:
    from naevus.datasets.layouts import load
    from naevus.reports.results import of_predictions

    if data is None:
        raise DataError(f"{folder}: needs the truth", "name its data set with --data")
    return of_predictions(folder, load(data))
