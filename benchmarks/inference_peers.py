"""Scripts to compare with: from image files to probabilities with torch or ONNX Runtime.

The comparison is fair: `torch.inference_mode`, all threads, normalisation inside the network, full
batches of 32 (a compiled network is compiled once), and a mask that is thresholded at one half
without postprocessing, which costs less than naevus's masks.
"""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from inference_material import SIZE
from naevus.inference.engines import OnnxRuntimeEngine
from naevus.io.parallel import BATCH, batches, cpu_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from naevus.training.networks import Preprocessed

    Network = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    """Takes BATCH x SIZE x SIZE x 3 pixels to logits."""

MARGIN = 0.15
MASKED = 0.5


@dataclass(frozen=True)
class Script:
    """A script from files to probabilities.

    Args:
        classify: The classifier.
        segment: The segmenter; None: the classifier gets whole images.
        ahead: Whether threads read the next batch in the background with Pillow's scaled decoding;
            otherwise images are read one after the other at full size, as in most scripts.
    """

    classify: Network
    segment: Network | None = None
    ahead: bool = False

    def __call__(self, paths: Sequence[Path]) -> NDArray[np.float32]:
        """Return N x C probabilities."""
        read = self._read_ahead if self.ahead else self._read_one_by_one
        return np.concatenate([self._answer(images) for images in read(paths)])

    def _read_one_by_one(self, paths: Sequence[Path]) -> Iterator[list[Image.Image]]:
        for piece in batches(paths):
            yield [Image.open(path).convert("RGB") for path in piece]

    def _read_ahead(self, paths: Sequence[Path]) -> Iterator[list[Image.Image]]:
        pieces = batches(paths)
        with ThreadPoolExecutor(cpu_count()) as pool:
            waiting = [pool.submit(self._drafted, path) for path in pieces[0]]
            for following in [*pieces[1:], []]:
                coming = [pool.submit(self._drafted, path) for path in following]
                yield [each.result() for each in waiting]
                waiting = coming

    def _drafted(self, path: Path) -> Image.Image:
        image: Image.Image = Image.open(path)
        least = SIZE if self.segment is None else 2 * SIZE  # a crop is a part of it
        image.draft("RGB", (least, least))
        image = image.convert("RGB")
        return image.resize((SIZE, SIZE)) if self.segment is None else image

    def _answer(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        if self.segment is not None:
            logit_maps = _whole(self.segment, [squashed(image) for image in images])
            images = [cropped(*pair) for pair in zip(images, logit_maps, strict=True)]
        logits = _whole(self.classify, [squashed(image) for image in images])
        return np.asarray(torch.softmax(torch.from_numpy(logits), dim=1))


def squashed(image: Image.Image) -> NDArray[np.uint8]:
    """Return an image at the networks' size."""
    return np.asarray(image.resize((SIZE, SIZE)))


def cropped(image: Image.Image, logit: NDArray[np.float32]) -> Image.Image:
    """Crop an image to its lesion: logits resized to the image, thresholded at one half."""
    probability = 1 / (1 + np.exp(-logit))
    enlarged = Image.fromarray(probability).resize(image.size, Image.Resampling.BILINEAR)
    mask = np.asarray(enlarged) > MASKED
    box = Image.fromarray(mask).getbbox()
    if box is None:
        return image
    left, top, right, bottom = box
    margin = round(MARGIN * max(right - left, bottom - top))
    return image.crop((left - margin, top - margin, right + margin, bottom + margin))


def eager(network: Preprocessed) -> Network:
    """Run a network unchanged, in float32."""

    def run(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(batch)))

    return run


def channels_last(network: Preprocessed, *, half: bool, compiled: bool = False) -> Network:
    """Run a network channels last, in bf16 autocast (``half``) or float32, optionally compiled."""
    placed = copy.deepcopy(network).to(memory_format=torch.channels_last)
    function = torch.compile(placed) if compiled else placed

    def run(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            return np.asarray(function(torch.from_numpy(batch)).float())

    return run


def onnxruntime(graph: Path, output: str) -> Network:
    """Run a graph in ONNX Runtime."""
    engine = OnnxRuntimeEngine(graph)
    return lambda batch: engine.run(batch)[output]


def _whole(network: Network, arrays: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Run a batch that is padded with its last image."""
    filled = [*arrays, *[arrays[-1]] * (BATCH - len(arrays))]
    return network(np.stack(filled))[: len(arrays)]
