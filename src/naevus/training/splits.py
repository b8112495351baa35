"""What a fold trains on, validates on and holds out, and what a recipe needs of these images."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from naevus.datasets.folds import validation_split
from naevus.errors import DataError
from naevus.io.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from naevus.datasets.dataset import Dataset
    from naevus.datasets.folds import Folds
    from naevus.io.progress import Reporter
    from naevus.runs.recipe import Recipe


class Split(NamedTuple):
    """The images of a fold that a data set has, by id.

    Attributes:
        training: The training images.
        validation: The validation split of the images that are not held out.
        held_out: The images that the trained network predicts.
    """

    training: list[str]
    validation: list[str]
    held_out: list[str]


def split_of(recipe: Recipe, folds: Folds, fold: int, dataset: Dataset) -> Split:
    """Return the images of a fold; folds may have others, as those of a whole data set do.

    Raises:
        FoldsError: There is no such fold.
    """
    held_out = sorted(set(folds.held_out(fold)).intersection(dataset.ids))
    fraction = recipe.data.validation_fraction
    return Split(*validation_split(folds, fold, dataset, fraction, recipe.seed), held_out)


def check_splits(
    recipe: Recipe, folds: Folds, chosen: Iterable[int], dataset: Dataset, reporter: Reporter
) -> None:
    """Check that folds have the images that their training needs, and report what they lack.

    Raises:
        DataError: A fold has no training images, holds none out, or has no validation images
            although the recipe needs them.
        FoldsError: There is no such fold.
    """
    for fold in chosen:
        split = split_of(recipe, folds, fold, dataset)
        there = f"the {counted(len(dataset), 'image')} of {dataset.root}"
        for what, ids in (("holds out", split.held_out), ("trains on", split.training)):
            if not ids:
                raise DataError(
                    f"fold {fold} {what} none of {there}",
                    "raise --limit, or name folds of these images",
                )
        check_validation(recipe, fold, split.validation)
        if not split.validation and recipe.data.validation_fraction:
            reporter.warning(
                f"fold {fold} has 0 validation images of {len(split.training)}: no validation loss "
                "or score is logged"
            )


def check_validation(recipe: Recipe, fold: int, ids: Iterable[str]) -> None:
    """Check that there are validation images, if the recipe needs them.

    Raises:
        DataError: There are none.
    """
    if recipe.monitors and not list(ids):
        raise DataError(
            f"fold {fold} has no validation images, which {recipe.monitors} needs",
            f"raise data.validation_fraction or --limit, or leave out {recipe.monitors}",
        )
