"""Which pictures of a data set a recipe is about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from naevus.datasets.layouts import load
from naevus.errors import DataError

if TYPE_CHECKING:
    from naevus.datasets.dataset import Dataset
    from naevus.training.config import Task, TrainConfig
    from naevus.training.run import Run

USUAL_PART: Final[dict[Task, str]] = {"segmentation": "task1", "classification": "task3"}
"""The challenge's part of each task."""


def load_for(folder: Path, config: TrainConfig) -> Dataset:
    """Return the data set of a folder, its diagnoses read as a recipe says.

    Raises:
        DataError: It has no known layout, or contradicts itself.
    """
    named = config.data.taxonomy
    return load(folder, taxonomy=None if named == "auto" else named)


def pictures_of_parts(dataset: Dataset, config: TrainConfig) -> Dataset:
    """Return the training pictures of a recipe's parts, labelled or not.

    A recipe that names no parts means the challenge's own for its task where the data has them
    (Task 1 for masks, Task 3 for diagnoses), and everything elsewhere.

    Raises:
        DataError: The data has no such part.
    """
    chosen = dataset.part(*_parts(dataset, config)).split("train").pictures()
    return chosen.of_type(config.data.image_type)


def select_pictures(dataset: Dataset, config: TrainConfig) -> Dataset:
    """Return the training pictures that a recipe can learn from: of its parts, with labels.

    The taxonomy is that of the diagnoses that are there, where diagnoses are learnt.

    Raises:
        DataError: There are none, they all have one diagnosis, or the data has no such part.
    """
    chosen = pictures_of_parts(dataset, config)
    labelled = chosen.with_masks() if config.task == "segmentation" else chosen.with_diagnosis()
    if not len(labelled):
        what = "masks" if config.task == "segmentation" else "diagnoses"
        raise DataError(
            f"{dataset.root}: no training pictures with {what} in "
            f"{', '.join(_parts(dataset, config))}",
            "check the folder with `naevus check`, or set data.parts",
        )
    if config.task == "segmentation":
        return labelled
    there = labelled.table["diagnosis"].unique().tolist()
    if len(there) < 2:
        raise DataError(
            f"{dataset.root}: all training pictures show {there[0]}", "use two diagnoses or more"
        )
    return replace(labelled, taxonomy=labelled.taxonomy.present(there))


def dataset_of(run: Run, data: Path | None = None) -> Dataset | None:
    """Return a run's training pictures; None where their folder is gone.

    Args:
        run: The run.
        data: The data set's folder, where it has moved since.

    Raises:
        DataError: ``data`` is not there, or what is there is another data set.
    """
    folder = Path(run.inputs["data"]) if data is None else data
    if not folder.exists():
        if data is not None:
            raise DataError(f"{data}: no such folder or file", "name the data set of the run")
        return None
    dataset = select_pictures(load_for(folder, run.config), run.config)
    if dataset.fingerprint() != run.inputs["fingerprint"]:
        raise DataError(
            f"{folder}: is not the data that {run.folder} was trained on",
            "name that data with --data",
        )
    return dataset


def _parts(dataset: Dataset, config: TrainConfig) -> tuple[str, ...]:
    usual = USUAL_PART[config.task]
    return config.data.parts or ((usual,) if usual in dataset.parts else dataset.parts)
