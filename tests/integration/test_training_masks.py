"""Masks for training or crops: checked before a job, counted, and equal when read again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from naevus.cli.main import app
from naevus.datasets.cache import ImageCache
from naevus.datasets.layouts import load
from naevus.datasets.masksurvey import check_areas
from naevus.errors import DataError
from naevus.images.preprocess import ImageFiles, InputSpec
from naevus.images.read import write_png
from naevus.inference.out_of_fold import copies_for
from naevus.runs.images import crop_masks, select_images
from naevus.runs.recipe import load_recipe
from naevus.training.data import TrainingData
from naevus.training.prepare import CropCounts, check_before, check_cached, prepare
from tests.helpers.finished_runs import finished_run
from tests.helpers.onnx_graphs import classification_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from typer.testing import Result

SIDE = 40
LESION = np.zeros((SIDE, SIDE), np.uint8)
LESION[8:20, 6:26] = 1
EMPTY = np.zeros_like(LESION)


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})


def dataset(folder: Path, masks: Sequence[NDArray[np.uint8] | None]) -> Path:
    """Write images of two diagnoses with these masks, and their table."""
    rng = np.random.default_rng(3)
    lines = ["image_id,path,mask_path,diagnosis"]
    for number, mask in enumerate(masks):
        name = f"p{number:02}"
        write_png(folder / f"{name}.png", rng.integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8))
        if mask is not None:
            write_png(folder / "masks" / f"{name}_segmentation.png", mask)
        file = "" if mask is None else f"masks/{name}_segmentation.png"
        lines.append(f"{name},{name}.png,{file},{('NV', 'MEL')[number % 2]}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "manifest.csv"


SETTINGS: dict[str, Any] = {
    "epochs": 1,
    "sizes": [[0, 32]],
    "data.cache_size": 32,
    "network.pretrained": "none",
    "workers": 0,
}
SMALL: dict[str, dict[str, Any]] = {
    "segmentation": {
        **SETTINGS,
        "network.architecture": "plain-unet",
        "network.decoder": {"channels": [4, 8]},
    },
    "classification": {
        **SETTINGS,
        "network.backbone": "test_resnet",
        "data.crop_mode": "crop",
        "data.taxonomy": "auto",
    },
}


def words_of(task: str) -> list[str]:
    def toml(value: Any) -> str:
        return "{channels = [4, 8]}" if isinstance(value, dict) else json.dumps(value)

    return [
        word for name, value in SMALL[task].items() for word in ("--set", f"{name}={toml(value)}")
    ]


@pytest.mark.parametrize(
    ("task", "masks", "message"),
    [
        ("segmentation", [EMPTY] * 7 + [LESION] * 5, "7 of 12 masks are empty or full"),
        ("segmentation", [1 - LESION] * 10 + [LESION] * 2, "10 of 12 masks are light along"),
        ("segmentation", [LESION + 1] * 9 + [LESION] * 3, "9 of 12 masks cannot be used"),
        ("classification", [EMPTY] * 7 + [LESION] * 5, "7 of 12 masks are empty or full"),
        ("classification", [None] * 7 + [LESION] * 5, "7 of 12 images have no mask to be cropped"),
        ("classification", [None] * 11 + [LESION], "11 of 12 images have no mask to be cropped"),
    ],
)
def test_a_job_with_implausible_masks_is_not_started(
    tmp_path: Path, task: str, masks: list[NDArray[np.uint8] | None], message: str
) -> None:
    data, out = dataset(tmp_path / "data", masks), tmp_path / "run"
    result = call("train", task, data, "--out", out, *words_of(task))
    assert result.exit_code == 2
    assert message in result.stderr
    assert "--force" in result.stderr or "naevus data check" in result.stderr
    assert not out.exists()
    recipe = load_recipe(None, task, SMALL[task])  # type: ignore[arg-type]
    training_data = TrainingData(select_images(load(data), recipe), tmp_path / "cache", force=True)
    (note, *_) = check_before(training_data.sources(), recipe, data, force=True)
    assert "(--force)" in note


def still(_: str) -> Callable[[int, int], None]:
    return lambda _done, _total: None


@pytest.mark.parametrize("force", [False, True])
def test_cached_masks_are_checked_again(tmp_path: Path, force: bool) -> None:
    """A sample of the masks is checked before caching, and all of them afterwards."""
    masks = [EMPTY] * 4 + [LESION] * 2 + [LESION[:30]] * 2
    data = dataset(tmp_path / "data", masks)
    for task, output in (
        ("segmentation", "4 of 6 masks"),
        ("classification", "2 of 6 images cropped"),
    ):
        recipe = load_recipe(None, task, SMALL[task])  # type: ignore[arg-type]
        dataset_ = select_images(load(data), recipe)
        training_data = TrainingData(dataset_, tmp_path / "cache", force=force)
        refused = prepare(training_data, recipe, still)
        assert set(refused) == {"p06", "p07"}, "their masks are of another size"
        assert "has 40 x 30 pixels, but its image 40 x 40" in refused["p06"]
        if force:
            (note,) = check_cached(training_data, recipe)
            assert output in note
        else:
            with pytest.raises(DataError, match=output):
                check_cached(training_data, recipe)


def test_crops_are_counted(tmp_path: Path) -> None:
    masks = [LESION, EMPTY, None, LESION * 255]
    data = dataset(tmp_path / "data", masks)
    folder = data.parent
    sources = [
        ImageFiles(
            f"p{n:02}",
            folder / f"p{n:02}.png",
            None if mask is None else folder / "masks" / f"p{n:02}_segmentation.png",
        )
        for n, mask in enumerate(masks)
    ]
    cache = ImageCache.build(sources, InputSpec("crop", 16), tmp_path / "cache")
    counts = CropCounts.of(cache, sources)
    assert counts == CropCounts(4, 2, ("p02",), ("p01",))
    assert str(counts).startswith(
        "2 of 4 images cropped around the lesion; centre squares: 1 without"
    )


def test_train_prints_and_saves_the_counts_of_crops(tmp_path: Path) -> None:
    """Use masks of 0 and 1, one empty and one missing, and a smaller copy of one image."""
    masks: list[NDArray[np.uint8] | None] = [LESION] * 16
    masks[3], masks[5] = EMPTY, None
    data = dataset(tmp_path / "data", masks)
    copies = tmp_path / "copies"
    copies.mkdir()
    Image.open(data.parent / "p04.png").resize((30, 30)).save(copies / "p04.png")
    out = tmp_path / "run"
    words = ("train", "classification", data, "--out", out, "--fold", "0", "--copies", copies)
    result = call(*words, *words_of("classification"))
    assert result.exit_code == 0, result.output
    assert "crops (images): 14 of 16 images cropped around the lesion" in result.output
    kept = json.loads((out / "crops.json").read_text())
    assert kept["images"]["without_mask"] == ["p05"]
    assert kept["images"]["implausible_mask"] == ["p03"]
    assert kept["copies-0"]["cropped"] == 1


@pytest.mark.parametrize("predicted", [False, True])
def test_copies_are_cropped_by_the_masks_of_training(tmp_path: Path, predicted: bool) -> None:
    masks: list[NDArray[np.uint8] | None] = [LESION] * 12
    data = dataset(tmp_path / "data", masks)
    run = finished_run(
        tmp_path / "run",
        "classification",
        data,
        folds=(),
        data={"cache_size": 32, "crop_mode": "crop"},
    )
    if predicted:
        for number in range(11):
            mask = tmp_path / "masks" / f"p{number:02}_segmentation.png"
            write_png(mask, np.roll(LESION * 255, 9, axis=1))
        run.inputs["masks"] = str(tmp_path / "masks")
    dataset_ = select_images(load(data), run.recipe)
    folder = tmp_path / "masks" if predicted else None
    training_data = TrainingData(dataset_, tmp_path / "cache", masks=folder)
    prepare(training_data, run.recipe, still)
    learnt = training_data.caches["images"]
    assert sum(mode == "full" for mode in learnt.modes.values()) == predicted

    bundle = classification_bundle(tmp_path / "classes", crop_mode="crop", size=32)
    files = {row.image_id: row.path for row in dataset_.rows() if row.path}
    inputs = copies_for(bundle, files, crop_masks(run))
    for image_id in files:
        np.testing.assert_array_equal(inputs[image_id], learnt[image_id])


def test_scores_of_empty_ground_truth_are_refused(tmp_path: Path) -> None:
    table = pd.DataFrame({"lesion_area": [0.0, 0.0, 0.3]})
    with pytest.raises(DataError, match="2 of 3 masks are empty or full"):
        check_areas(table, tmp_path, force=False)
    check_areas(table, tmp_path, force=True)
    check_areas(table[1:], tmp_path, force=False)


def test_the_challenge_s_score_of_empty_ground_truth_is_refused(tmp_path: Path) -> None:
    for number in range(3):
        for folder in ("truth", "answers"):
            write_png(tmp_path / folder / f"ISIC_000000{number}_segmentation.png", EMPTY)
    words = ("challenge", "score", tmp_path / "truth", tmp_path / "answers")
    refused = call(*words)
    assert refused.exit_code == 2
    assert "3 of 3 masks are empty" in refused.stderr
    forced = call(*words, "--force")
    assert forced.exit_code == 0
    assert "note: " in forced.output
