"""Networks learn from image content: learnable diagnoses, masks of any aspect ratio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

import cv2
import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray

from naevus.datasets.synthetic import draw_lesion
from naevus.evaluation.mask_metrics import compare_masks
from naevus.images.geometry import resize, squash
from naevus.images.masks import at_size
from naevus.images.preprocess import cut
from naevus.runs.recipe import Recipe
from naevus.taxonomy import ISIC2018
from naevus.training.callbacks import Callback
from naevus.training.data import BatchLoader
from naevus.training.loop import Trainer
from naevus.training.tasks import ClassificationTask, SegmentationTask

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

    from naevus.datasets.cache import ImageCache

    TrainingTask = ClassificationTask | SegmentationTask

pytestmark = pytest.mark.slow

COMMON: dict[str, Any] = {"sizes": [[0, 96]], "workers": 0, "precision": "32"}
CLASSIFICATION = Recipe.model_validate(
    {
        **COMMON,
        "task": "classification",
        "epochs": 6,
        "batch_size": 16,
        "loss": {"label_smoothing": 0.05},
        "optimiser": {"learning_rate": 3e-3, "ema": 0.95},
        "augment": {"hue": 5},
    }
)
SEGMENTATION = Recipe.model_validate(
    {
        **COMMON,
        "task": "segmentation",
        "epochs": 6,
        "batch_size": 8,
        "network": {"decoder": {"decoder_channels": [32, 16, 16, 8, 8]}},
        "optimiser": {"learning_rate": 3e-3, "ema": 0.9},
        "augment": {"stretch": 1.5},
    }
)


class Store(dict[str, NDArray[np.uint8]]):
    """Images in memory, in place of an `ImageCache`."""

    @property
    def index(self) -> Store:
        return self


def cache(images: Mapping[str, NDArray[np.uint8]]) -> ImageCache:
    return cast("ImageCache", Store(images))


def trained(recipe: Recipe, training_task: TrainingTask, folder: Path) -> nn.Module:
    """Return the network with its preprocessing, as exported."""
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    network = training_task.network()
    fabric = Fabric(accelerator="cpu", devices=1)
    batches = BatchLoader(training_task.training, recipe)
    trainer = Trainer(network, training_task, batches, recipe, fabric, folder)
    trainer.fit(Callback())
    return trainer.used.eval()


@pytest.fixture(scope="module")
def crops() -> tuple[dict[str, NDArray[np.uint8]], dict[str, str]]:
    """Return crops of twenty lesions of each diagnosis, and their diagnoses."""
    images, diagnoses = {}, {}
    for code in ISIC2018.codes:
        for seed in range(20):
            pixels, mask = draw_lesion(code, seed, size=128)
            images[f"{code}-{seed}"] = cut(pixels, mask, mode="crop", size=112).pixels
            diagnoses[f"{code}-{seed}"] = code
    return images, diagnoses


def learnt(name: str) -> bool:
    return int(name.partition("-")[2]) < 12


def held_out_accuracy(
    images: dict[str, NDArray[np.uint8]], diagnoses: dict[str, str], folder: Path
) -> float:
    """Train on three fifths of the lesions; return the balanced accuracy on the others."""
    training = [name for name in images if learnt(name)]
    others = [name for name in images if not learnt(name)]
    training_task = ClassificationTask(
        CLASSIFICATION, {"images": cache(images)}, training, others, diagnoses, ISIC2018
    )
    network = trained(CLASSIFICATION, training_task, folder)
    return float(training_task.inspect(network, 96)["balanced_accuracy"])


def test_diagnoses_are_learnt_and_shuffled_ones_are_not(
    crops: tuple[dict[str, NDArray[np.uint8]], dict[str, str]], tmp_path: Path
) -> None:
    images, diagnoses = crops
    assert held_out_accuracy(images, diagnoses, tmp_path / "true") > 0.5

    training = [name for name in images if learnt(name)]
    mixed = np.random.default_rng(0).permutation([diagnoses[name] for name in training])
    shuffled = diagnoses | {name: str(code) for name, code in zip(training, mixed, strict=True)}
    # Chance is 1/7; the standard error over 56 images is below 0.05.
    assert held_out_accuracy(images, shuffled, tmp_path / "shuffled") < 0.29


Frame = Literal["square", "stretched", "upright", "padded"]


def framed(
    pixels: NDArray[np.uint8], mask: NDArray[np.bool_], frame: Frame
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Change a square image and its mask to 3:2 (or 2:3) by stretching, or by adding skin."""
    side = len(mask)
    if frame == "padded":
        room = side // 4
        wide = cv2.copyMakeBorder(pixels, 0, 0, room, room, cv2.BORDER_REPLICATE)
        return np.asarray(wide, np.uint8), np.pad(mask, ((0, 0), (room, room)))
    height, width = {
        "square": (side, side),
        "stretched": (side, 3 * side // 2),
        "upright": (3 * side // 2, side),
    }[frame]
    grey = resize(mask.astype(np.uint8) * np.uint8(255), height, width)
    return resize(pixels, height, width), grey > 127


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    images, masks = {}, {}
    for number in range(70):
        code = ISIC2018.codes[number % 7]
        pixels, mask = draw_lesion(code, 100 + number, size=112)
        images[f"p{number}"] = pixels
        masks[f"p{number}"] = mask.astype(np.uint8) * np.uint8(255)
    caches = {"images": cache(images), "masks": cache(masks)}
    training_task = SegmentationTask(SEGMENTATION, caches, list(images), [])
    return trained(SEGMENTATION, training_task, tmp_path_factory.mktemp("segmenter"))


def mean_jaccard(network: nn.Module, frame: Frame) -> float:
    """Return the Jaccard index of masks of 28 unseen images, at the framed images' size."""
    synthetic = [draw_lesion(ISIC2018.codes[n % 7], 500 + n, size=192) for n in range(28)]
    pairs = [framed(*pair, frame) for pair in synthetic]
    inputs = np.stack([squash(pixels, 96) for pixels, _ in pairs])
    with torch.inference_mode():
        logit_maps = torch.sigmoid(network(torch.from_numpy(inputs))).numpy()
    return float(
        np.mean(
            [
                compare_masks(truth, at_size(surface, *truth.shape)).jaccard
                for surface, (_, truth) in zip(logit_maps, pairs, strict=True)
            ]
        )
    )


def test_other_aspect_ratios_cost_little_accuracy(segmenter: nn.Module) -> None:
    square = mean_jaccard(segmenter, "square")
    assert square > 0.75
    assert mean_jaccard(segmenter, "stretched") > square - 0.02
    assert mean_jaccard(segmenter, "upright") > square - 0.02
    assert mean_jaccard(segmenter, "padded") > square - 0.05
