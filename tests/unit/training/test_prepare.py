"""The start of a run: what it needs before its folder is written."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from naevus.datasets.folds import Folds, make_folds
from naevus.datasets.layouts import load
from naevus.errors import DataError, NaevusError
from naevus.runs.images import select_images
from naevus.runs.recipe import load_recipe
from naevus.runs.run import Run, held
from naevus.training import prepare
from naevus.training.data import TrainingData
from naevus.training.prepare import copies_in, prepare_reported, start_run
from tests.helpers.attribute_images import TRUTH, write_task2

SMALL: dict[str, Any] = {
    "sizes": [[0, 32]],
    "epochs": 1,
    "data.cache_size": 32,
    "network.pretrained": "none",
    "network.architecture": "plain-unet",
    "network.decoder": {"channels": [4, 8]},
}
FAULTS: dict[str, dict[str, Any]] = {
    "no such network": {"network.architecture": "unet", "network.encoder": "tu-resnet99"},
    "no weights": {"network.pretrained": "imagenet"},
    "wrong options": {"network.decoder": {"channels": [4]}},
    "no validation images": {"select": "best", "data.validation_fraction": 1e-9},
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_start_that_fails_writes_no_run(
    fault: dict[str, Any], synthetic_images: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(None, "segmentation", SMALL | fault)
    dataset = select_images(load(synthetic_images), recipe)
    folds = Folds(dataset.table[["image_id", "group_id"]].assign(fold="0"))
    folds.table.loc[0, "fold"] = "1"
    training_data = TrainingData(dataset, tmp_path / "cache")
    with pytest.raises(NaevusError):
        start_run(tmp_path / "run", recipe, folds, training_data, [0])
    assert not (tmp_path / "run").exists()
    good = load_recipe(None, "segmentation", SMALL)
    run = start_run(tmp_path / "run", good, folds, training_data, [0])
    assert Run.open(run.folder).recipe == good


LACKING = r"one: fold 0 holds out no image .*: streaks is lacking; use a data set with the masks"
ATTRIBUTE_FAULTS = {
    "damaged": ("one", r"one: no mask of streaks can be used: .*; run `naevus data check`"),
    "damaged in a copy": ("two", r"two: no mask of streaks can be used"),
    "copies alone have one": ("one", LACKING),
    "not held out": ("one", LACKING),
    "never all together": ("one", LACKING),
}


@pytest.mark.parametrize("fault", ATTRIBUTE_FAULTS)
def test_attributes_that_could_not_be_evaluated_are_refused_before_training(
    fault: str, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        write_task2(tmp_path / name, 8, 32)

    def masks(name: str, attribute: str = "streaks") -> list[Path]:
        return sorted((tmp_path / name / TRUTH).glob(f"*_{attribute}.png"))

    if fault.startswith("damaged"):
        for path in masks(ATTRIBUTE_FAULTS[fault][0]):
            path.write_bytes(b"damaged")
    elif fault == "copies alone have one":
        for path in masks("one"):
            path.unlink()
    elif fault == "not held out":
        for path in masks("one")[::2]:
            path.unlink()
    else:  # of the held-out images, which have even numbers, each lacks something
        for path in [*masks("one")[::4], *masks("one", "globules")[2::4]]:
            path.unlink()
    recipe = load_recipe(None, "attributes", SMALL | {"data.lesion": False})
    dataset = select_images(load(tmp_path / "one"), recipe)
    folds = Folds(
        dataset.table[["image_id"]].assign(group_id=list("abcdefgh"), fold=list("01" * 4))
    )
    further = (copies_in(tmp_path / "two", dataset, recipe),)
    data = TrainingData(dataset, tmp_path / "cache", further=further)
    with pytest.raises(DataError, match=ATTRIBUTE_FAULTS[fault][1]):
        start_run(tmp_path / "run", recipe, folds, data, [0])
    assert not (tmp_path / "run").exists()
    if fault in ("not held out", "never all together"):
        assert start_run(tmp_path / "run", recipe, folds, data, [1]).folder.exists()


def test_a_fold_whose_held_out_masks_are_all_damaged_is_refused(
    synthetic_images: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(None, "segmentation", SMALL)
    root = Path(shutil.copytree(synthetic_images, tmp_path / "images"))
    dataset = select_images(load(root), recipe)
    folds = Folds(dataset.table[["image_id", "group_id"]].assign(fold="0"))
    folds.table.loc[0, "fold"] = "1"
    row = next(row for row in dataset.rows() if row.image_id in folds.held_out(1))
    assert row.mask_path is not None
    row.mask_path.write_bytes(b"damaged")
    data = TrainingData(dataset, tmp_path / "cache")
    with pytest.raises(DataError, match=r"fold 1 holds out no image with a usable mask; run"):
        start_run(tmp_path / "run", recipe, folds, data, [1])


@pytest.mark.parametrize("before", [None, 1], ids=["new", "extended"])
@pytest.mark.parametrize("asked", [2, 3])
def test_a_job_that_another_one_overtakes_leaves_its_folds_alone(
    before: int | None,
    asked: int,
    synthetic_images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both prepare the same images; the other has 2 epochs, and still trains fold 1."""

    def start(epochs: int) -> Run:
        recipe = load_recipe(None, "segmentation", settings | {"epochs": epochs})
        return start_run(tmp_path / "run", recipe, folds, data, [0, 1])

    settings = SMALL | {"optimiser.schedule": "constant"}
    dataset = select_images(load(synthetic_images), load_recipe(None, "segmentation", settings))
    folds = make_folds(dataset, k=2)
    data = TrainingData(dataset, tmp_path / "cache")
    result = tmp_path / "run" / "fold-0" / "oof.parquet"
    with ExitStack() as stack:

        def overtake(*given: Any) -> Any:
            monkeypatch.undo()
            start(2)
            result.parent.mkdir(exist_ok=True)
            result.write_text("2 epochs")
            stack.enter_context(held(tmp_path / "run" / "fold-1"))
            return prepare_reported(*given)

        if before:
            start(before)
        monkeypatch.setattr(prepare, "prepare_reported", overtake)
        if asked == 2:
            assert start(2).finished() == [0]
        else:  # it is an extension itself, and waits for the folds
            with pytest.raises(NaevusError, match="fold-1 is in use"):
                start(3)
    assert result.read_text() == "2 epochs"
    assert Run.open(tmp_path / "run").recipe.epochs == 2
