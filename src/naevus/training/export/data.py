"""The data set of a run, where it is still there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from naevus.errors import DataError
from naevus.training.selection import load_for, select_pictures

if TYPE_CHECKING:
    from naevus.datasets.records import Dataset
    from naevus.training.run import Run


def dataset_of(run: Run, data: Path | None = None) -> Dataset | None:
    """Return a run's training pictures; None where their folder is gone.

    Args:
        run: The run.
        data: The data set's folder, where it has moved since.

    Raises:
        DataError: ``data`` is no folder, or what is there is another data set.
    """
    folder = Path(run.inputs["data"]) if data is None else data
    if not folder.is_dir():
        if data is not None:
            raise DataError(f"{data}: no such folder", "name the data set of the run")
        return None
    dataset = select_pictures(load_for(folder, run.config), run.config)
    if dataset.fingerprint() != run.inputs["fingerprint"]:
        raise DataError(
            f"{folder}: is not the data that {run.folder} was trained on",
            "name that data with --data",
        )
    return dataset
