"""The images that a recipe or a run learns from: their selection, folds and masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from naevus.datasets.folds import Folds, limit_images, make_folds
from naevus.datasets.layouts import load, report_types
from naevus.datasets.sources import mask_file
from naevus.errors import DataError
from naevus.io.files import stored
from naevus.io.progress import SILENT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from naevus.datasets.dataset import Dataset
    from naevus.io.progress import Reporter
    from naevus.runs.recipe import Recipe
    from naevus.runs.run import Run
    from naevus.types import Task

USUAL_PART: Final[dict[Task, str]] = {
    "segmentation": "task1",
    "classification": "task3",
    "attributes": "task1",
}
"""The challenge's part for each task; Tasks 1 and 2 share their images."""

_LABELS: Final[dict[Task, str]] = {
    "segmentation": "masks",
    "classification": "diagnoses",
    "attributes": "masks of attributes",
}
"""The labels that each task learns."""


def load_for(folder: Path, recipe: Recipe) -> Dataset:
    """Load the data set in a folder with the taxonomy of a recipe.

    Raises:
        DataError: It has no known layout, or its files contradict each other.
    """
    named = recipe.data.taxonomy
    return load(folder, taxonomy=None if named == "auto" else named)


def images_of_parts(dataset: Dataset, recipe: Recipe) -> Dataset:
    """Return the training images of a recipe's parts, labelled or not.

    By default these are the challenge's part for the task (Task 1 for masks, Task 3 for
    diagnoses) if the data has it, otherwise all parts.

    Raises:
        DataError: The data has no such part.
    """
    chosen = dataset.part(*_parts(dataset, recipe)).split("train").images()
    return chosen.of_type(recipe.data.image_type)


def select_images(dataset: Dataset, recipe: Recipe) -> Dataset:
    """Return the labelled training images of a recipe's parts.

    For classification, the taxonomy contains only the diagnoses that occur.

    Raises:
        DataError: There are none, all have the same diagnosis, or the data has no such part.
    """
    chosen = images_of_parts(dataset, recipe)
    if recipe.task == "attributes":
        labelled = chosen.with_attributes()
    elif recipe.task == "segmentation":
        labelled = chosen.with_masks()
    else:
        labelled = chosen.with_diagnosis()
    if not len(labelled):
        raise DataError(
            f"{dataset.root}: no training images with {_LABELS[recipe.task]} in "
            f"{', '.join(_parts(dataset, recipe))}",
            "check the folder with `naevus data check`, or set data.parts",
        )
    labelled = limit_images(labelled, recipe.data.limit)
    if recipe.task != "classification":
        return labelled
    there = labelled.table["diagnosis"].unique().tolist()
    if len(there) < 2:
        raise DataError(
            f"{dataset.root}: all training images show {there[0]}", "use two diagnoses or more"
        )
    return replace(labelled, taxonomy=labelled.taxonomy.present(there))


def images_and_folds(
    data: Path,
    recipe: Recipe,
    folds: Path | None,
    masks: Path | None,
    copies: Sequence[Path],
    reporter: Reporter = SILENT,
) -> tuple[Dataset, Folds]:
    """Return the images of a folder that a recipe can learn from, and their folds.

    Args:
        data: The folder.
        recipe: The recipe.
        folds: A file of folds; None: folds are made here.
        masks: A folder of masks for the crops, checked before loading.
        copies: Folders of alternative copies, checked before loading.
        reporter: Receives notes on excluded images.

    Raises:
        DataError: A folder is absent, contains no mask of any image, or there are no images.
        FoldsError: The folds belong to other images.
    """
    loaded = load_for(data, recipe)
    for folder in (*copies, *([masks] if masks else ())):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder", "name a folder of files by image id")
    if masks and not any(stored(mask_file(masks, name), name).exists() for name in loaded.ids):
        raise DataError(f"{masks}: holds no mask of any image", "name OUT/masks of predict")
    dataset = select_images(loaded, recipe)
    report_types(loaded, recipe.data.image_type, reporter)
    if recipe.data.limit:
        reporter.warning(f"{len(dataset):,} images; results are those of a trial", "limited")
    if recipe.task == "classification" and loaded.taxonomy != dataset.taxonomy:
        reporter.message(f"classes: {', '.join(dataset.taxonomy.codes)} (those that occur)")
    if folds is None:
        return dataset, make_folds(dataset)
    assign_parts = Folds.read(folds)
    assign_parts.report_exceptions(reporter)
    assign_parts.check(dataset, among=images_of_parts(loaded, recipe))
    return dataset, assign_parts


def dataset_of(run: Run, data: Path | None = None) -> Dataset | None:
    """Return a run's training images; None if their folder no longer exists.

    Args:
        run: The run.
        data: The data set's folder, if it has moved since training.

    Raises:
        DataError: ``data`` does not exist, or is another data set.
    """
    folder = Path(run.inputs["data"]) if data is None else data
    if not folder.exists():
        if data is not None:
            raise DataError(f"{data}: no such folder or file", "name the data set of the run")
        return None
    dataset = select_images(load_for(folder, run.recipe), run.recipe)
    if dataset.fingerprint() != run.inputs["fingerprint"]:
        raise DataError(
            f"{folder}: is not the data that {run.folder} was trained on",
            "name that data with --data",
        )
    return dataset


def masks_used(dataset: Dataset, predicted: Path | None) -> dict[str, Path | None]:
    """Return the mask of each image, for learning or for crops.

    Args:
        dataset: The images.
        predicted: Folder of predicted masks (``<id>_segmentation.png``), which replace all masks
            of the data set.
    """
    if predicted is None:
        return {row.image_id: row.mask_path for row in dataset.rows()}
    files = {name: stored(mask_file(predicted, name), name) for name in dataset.ids}
    return {name: path if path.exists() else None for name, path in files.items()}


def crop_masks(run: Run, reporter: Reporter = SILENT) -> Mapping[str, Path | None]:
    """Return the masks of a run's crops: predicted masks, or those of the data set."""
    if run.recipe.data.crop_mode == "full":
        return {}
    dataset = dataset_of(run)
    if dataset is None:
        raise DataError(
            f"{run.inputs['data']}: does not exist, but {run.folder} needs its masks for crops",
            "put the data set back",
        )
    predicted = Path(run.inputs["masks"]) if run.inputs["masks"] else None
    if predicted is not None and not predicted.is_dir():
        raise DataError(
            f"{predicted}: does not exist, but {run.folder} needs its masks for crops",
            "put the masks back",
        )
    masks = masks_used(dataset, predicted)
    lacking = sum(path is None for path in masks.values())
    if lacking:
        reporter.warning(
            f"{lacking} of {len(masks)} images have no mask: centre squares, as in training"
        )
    return masks


def _parts(dataset: Dataset, recipe: Recipe) -> tuple[str, ...]:
    usual = USUAL_PART[recipe.task]
    return recipe.data.parts or ((usual,) if usual in dataset.parts else dataset.parts)
