"""What a folder of answers is: a run of train, or what predict wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.cli.console import reporter
from naevus.errors import DataError, RunError
from naevus.io.progress import warn_all

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pandas as pd

    from naevus.datasets.dataset import Dataset
    from naevus.runs.run import Run


def is_run(folder: Path) -> bool:
    """Tell a run (true) from predictions (false).

    Raises:
        RunError: The folder is neither.
    """
    if (folder / "run.toml").exists():
        return True
    if (folder / "predictions.parquet").exists():
        return False
    raise RunError(
        f"{folder}: is neither a run nor predictions", "name a folder of train or predict"
    )


def open_run(folder: Path, *, allow_missing: bool) -> Run:
    """Open a run; tell what it has no answer for where that is allowed.

    Raises:
        RunError: There is none, or it is incomplete.
    """
    from naevus.runs.run import Run

    run = Run.open(folder, allow_missing=allow_missing)
    if allow_missing and run.finished():
        tell(f"{folder}: {found}: left out" for found in run.left_out(run.answers()))
    return run


def check_areas(table: pd.DataFrame, where: Path, *, force: bool) -> None:
    """Refuse scores of masks most of whose ground truth is empty or full.

    Args:
        table: Scores of masks, with the true ``area`` of each, a share; older ones lack it.
        where: Where the ground truth is, for the message.
        force: Say it, and take them nevertheless.

    Raises:
        DataError: They are.
    """
    from naevus.datasets.masksurvey import implausible_problem, refuse
    from naevus.images.masks import PLAUSIBLE_SHARES

    if "area" not in table.columns:
        return
    empty = int((table["area"] < PLAUSIBLE_SHARES[0]).sum())
    full = int((table["area"] > PLAUSIBLE_SHARES[1]).sum())
    note = refuse(implausible_problem(len(table), empty, full), where, force=force)
    tell([] if note is None else [note])


def tell(notes: Iterable[str]) -> None:
    """Print notes on what does not count."""
    warn_all(reporter, notes)


def truth_of(
    folder: Path,
    data: Path | None,
    taxonomy: str = "auto",
    image_type: str = "auto",
    *,
    part: str | None = None,
    split: str | None = None,
) -> Dataset:
    """Return the data set that predictions are judged by, or some of its pictures.

    Raises:
        DataError: None is named, it cannot be read, or it has no such part or split.
    """
    from naevus.datasets.layouts import load, report_types

    if data is None:
        raise DataError(f"{folder}: needs the truth", "name its data set with --data")
    named = load(data, taxonomy=None if taxonomy == "auto" else taxonomy)
    report_types(named, image_type, reporter)
    dataset = named.of_type(image_type)
    if part is not None:
        dataset = dataset.part(part)
    if split is not None:
        dataset = dataset.split(split)
    return dataset
