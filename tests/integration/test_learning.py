"""Networks learn what is in the pictures: diagnoses that can be learnt, masks of any frame."""

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
from naevus.runs.recipe import TrainConfig
from naevus.taxonomy import ISIC2018
from naevus.training.data import BatchMaker
from naevus.training.loop import Trainer, Watch
from naevus.training.tasks import ClassificationLearning, SegmentationLearning

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

    from naevus.datasets.cache import PixelStore

    Learning = ClassificationLearning | SegmentationLearning

pytestmark = pytest.mark.slow

COMMON: dict[str, Any] = {"sizes": [[0, 96]], "workers": 0, "precision": "32"}
CLASSIFICATION = TrainConfig.model_validate(
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
SEGMENTATION = TrainConfig.model_validate(
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
    """Pictures in memory, where a `PixelStore` is wanted."""

    @property
    def index(self) -> Store:
        return self


def store(pictures: Mapping[str, NDArray[np.uint8]]) -> PixelStore:
    return cast("PixelStore", Store(pictures))


def trained(config: TrainConfig, learning: Learning, folder: Path) -> nn.Module:
    """Return the network as it would be exported."""
    torch.set_num_threads(1)
    torch.manual_seed(config.seed)
    network = learning.network()
    fabric = Fabric(accelerator="cpu", devices=1)
    batches = BatchMaker(learning.training, config)
    trainer = Trainer(network, learning, batches, config, fabric, folder)
    trainer.fit(Watch(lambda *_: None, lambda _: None))
    return trainer.used.eval()


@pytest.fixture(scope="module")
def crops() -> tuple[dict[str, NDArray[np.uint8]], dict[str, str]]:
    """Twenty lesions of each diagnosis, a photograph each, cut out; and their diagnoses."""
    pictures, diagnoses = {}, {}
    for code in ISIC2018.codes:
        for seed in range(20):
            pixels, mask = draw_lesion(code, seed, size=128)
            pictures[f"{code}-{seed}"] = cut(pixels, mask, mode="crop", size=112).pixels
            diagnoses[f"{code}-{seed}"] = code
    return pictures, diagnoses


def learnt(name: str) -> bool:
    return int(name.partition("-")[2]) < 12


def held_out_accuracy(
    pictures: dict[str, NDArray[np.uint8]], diagnoses: dict[str, str], folder: Path
) -> float:
    """Train on three fifths of the lesions; return the balanced accuracy on the others."""
    training = [name for name in pictures if learnt(name)]
    others = [name for name in pictures if not learnt(name)]
    learning = ClassificationLearning(
        CLASSIFICATION, {"pictures": store(pictures)}, training, others, diagnoses, ISIC2018
    )
    network = trained(CLASSIFICATION, learning, folder)
    return float(learning.inspect(network, 96)["balanced_accuracy"])


def test_diagnoses_are_learnt_and_shuffled_ones_are_not(
    crops: tuple[dict[str, NDArray[np.uint8]], dict[str, str]], tmp_path: Path
) -> None:
    pictures, diagnoses = crops
    assert held_out_accuracy(pictures, diagnoses, tmp_path / "true") > 0.5

    training = [name for name in pictures if learnt(name)]
    mixed = np.random.default_rng(0).permutation([diagnoses[name] for name in training])
    shuffled = diagnoses | {name: str(code) for name, code in zip(training, mixed, strict=True)}
    # Chance is 1/7; the standard error over 56 pictures is below 0.05.
    assert held_out_accuracy(pictures, shuffled, tmp_path / "shuffled") < 0.29


Frame = Literal["square", "stretched", "upright", "padded"]


def framed(
    pixels: NDArray[np.uint8], mask: NDArray[np.bool_], frame: Frame
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Bring a square picture and its mask to 3:2 (or 2:3) by stretching, or by adding skin."""
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
    pictures, masks = {}, {}
    for number in range(70):
        code = ISIC2018.codes[number % 7]
        pixels, mask = draw_lesion(code, 100 + number, size=112)
        pictures[f"p{number}"] = pixels
        masks[f"p{number}"] = mask.astype(np.uint8) * np.uint8(255)
    stores = {"pictures": store(pictures), "masks": store(masks)}
    learning = SegmentationLearning(SEGMENTATION, stores, list(pictures), [])
    return trained(SEGMENTATION, learning, tmp_path_factory.mktemp("segmenter"))


def mean_jaccard(network: nn.Module, frame: Frame) -> float:
    """Return the Jaccard index of masks of 28 unseen pictures, at the framed pictures' size."""
    drawn = [draw_lesion(ISIC2018.codes[n % 7], 500 + n, size=192) for n in range(28)]
    pairs = [framed(*pair, frame) for pair in drawn]
    squares = np.stack([squash(pixels, 96) for pixels, _ in pairs])
    with torch.inference_mode():
        surfaces = torch.sigmoid(network(torch.from_numpy(squares))).numpy()
    return float(
        np.mean(
            [
                compare_masks(truth, at_size(surface, *truth.shape)).jaccard
                for surface, (_, truth) in zip(surfaces, pairs, strict=True)
            ]
        )
    )


def test_other_frames_than_square_cost_little(segmenter: nn.Module) -> None:
    square = mean_jaccard(segmenter, "square")
    assert square > 0.75
    assert mean_jaccard(segmenter, "stretched") > square - 0.02
    assert mean_jaccard(segmenter, "upright") > square - 0.02
    assert mean_jaccard(segmenter, "padded") > square - 0.05
