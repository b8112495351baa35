"""What a folder of answers is: a run of train, or what predict wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.errors import DataError, RunError

if TYPE_CHECKING:
    from pathlib import Path

    from naevus.datasets.records import Dataset


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


def truth_of(
    folder: Path, data: Path | None, taxonomy: str = "auto", image_type: str = "auto"
) -> Dataset:
    """Return the data set that predictions are judged by.

    Raises:
        DataError: None is named, or it cannot be read.
    """
    from naevus.datasets.layouts import load

    if data is None:
        raise DataError(f"{folder}: needs the truth", "name its data set with --data")
    named = load(data, taxonomy=None if taxonomy == "auto" else taxonomy)
    return named.of_type(image_type)
