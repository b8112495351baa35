"""The images of a fold: held-out images are those that the data set has, and none is missed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from naevus.datasets.folds import limit_images, make_folds
from naevus.datasets.layouts import load
from naevus.errors import DataError
from naevus.io.progress import SilentReporter
from naevus.runs.recipe import Recipe, load_recipe
from naevus.training.splits import check_splits, split_of

if TYPE_CHECKING:
    from pathlib import Path


class Notes(SilentReporter):
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, text: str, label: str = "note") -> None:
        self.lines.append(text)


def recipe_of(**settings: object) -> Recipe:
    return load_recipe(None, "segmentation", settings)


def test_a_fold_holds_out_only_images_that_are_there(synthetic_images: Path) -> None:
    whole = load(synthetic_images).part("task1").with_masks()
    folds = make_folds(whole)
    limited = limit_images(whole, 12)
    found = [split_of(recipe_of(), folds, fold, limited) for fold in range(folds.k)]
    assert sorted(name for each in found for name in each.held_out) == sorted(limited.ids)
    for each in found:
        assert sorted((*each.training, *each.validation, *each.held_out)) == sorted(limited.ids)


def test_too_few_images_are_refused_or_reported(synthetic_images: Path) -> None:
    whole = load(synthetic_images).part("task1").with_masks()
    folds = make_folds(whole)
    one = limit_images(whole, 1)
    (fold,) = (k for k in range(folds.k) if split_of(recipe_of(), folds, k, one).held_out)
    with pytest.raises(DataError, match=f"fold {fold} trains on none of the 1 image of"):
        check_splits(recipe_of(), folds, [fold], one, Notes())
    with pytest.raises(DataError, match="holds out none of the 1 image of"):
        check_splits(recipe_of(), folds, [(fold + 1) % folds.k], one, Notes())
    few = limit_images(whole, 4)
    held = [k for k in range(folds.k) if split_of(recipe_of(), folds, k, few).held_out]
    notes = Notes()
    tiny = {"data.validation_fraction": 1e-9}
    check_splits(recipe_of(**tiny), folds, held[:1], few, notes)
    (line,) = notes.lines
    assert line.startswith(f"fold {held[0]} has 0 validation images of ")
    for needs in ({"early_stopping": 2}, {"select": "best", "monitor": "precision"},
                  {"optimiser.schedule": "plateau"}):  # fmt: skip
        with pytest.raises(DataError, match=f"fold {held[0]} has no validation images, which"):
            check_splits(recipe_of(**tiny, **needs), folds, held[:1], few, notes)


def test_a_job_that_wants_no_validation_images_is_not_warned(synthetic_images: Path) -> None:
    whole = load(synthetic_images).part("task1").with_masks()
    notes = Notes()
    none = recipe_of(**{"data.validation_fraction": 0})
    check_splits(none, make_folds(whole), range(5), whole, notes)
    enough = recipe_of(**{"data.validation_fraction": 0.3})
    check_splits(enough, make_folds(whole), range(5), whole, notes)
    assert notes.lines == []
