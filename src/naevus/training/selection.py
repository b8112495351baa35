"""Which pictures of a data set a recipe is about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from naevus.errors import DataError

if TYPE_CHECKING:
    from naevus.datasets.records import Dataset
    from naevus.training.config import Task, TrainConfig

USUAL_PART: Final[dict[Task, str]] = {"segmentation": "task1", "classification": "task3"}
"""The challenge's part of each task."""


def select_pictures(dataset: Dataset, config: TrainConfig) -> Dataset:
    """Return the training pictures that a recipe is about.

    A recipe that names no parts means the challenge's own for its task where the data has them
    (Task 1 for masks, Task 3 for diagnoses), and everything elsewhere.

    Raises:
        DataError: There are none, or the data has no such part.
    """
    usual = USUAL_PART[config.task]
    parts = config.data.parts or ((usual,) if usual in dataset.parts else dataset.parts)
    chosen = dataset.part(*parts).split("train").pictures()
    labelled = chosen.with_masks() if config.task == "segmentation" else chosen.with_diagnosis()
    if not len(labelled):
        what = "masks" if config.task == "segmentation" else "diagnoses"
        raise DataError(
            f"{dataset.root}: no training pictures with {what} in {', '.join(parts)}",
            "check the folder with `naevus check`, or set data.parts",
        )
    return labelled
