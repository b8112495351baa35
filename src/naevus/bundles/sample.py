"""A small drawn image and what a bundle's networks say of it: by that engines are judged."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from naevus.bundles.ood import DAMAGE
from naevus.bundles.spec import EXPORT_AGAIN
from naevus.errors import BundleError
from naevus.io.files import write_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from naevus.types import Precision, Storage

SAMPLE_FILE: Final = "sample.npz"
"""What bundles call the file; ``sample.file`` names it."""
LARGEST: Final = 4 * 1024**2
"""Most bytes of a file that is read, and of all its arrays."""
STEP: Final = 8
"""Of a segmenter's logits every so many pixels, down and to the right, are kept."""
_FLOORS: Final[dict[tuple[bool, Precision], float]] = {
    (False, "fp32"): 0.005,
    (False, "bf16"): 0.03,
    (True, "fp32"): 0.03,
    (True, "bf16"): 0.05,
}
"""The least tolerance, by whether numbers are stored in 8 bits and by what is computed in."""
_PIXELS: Final = "pixels"


class Sample(NamedTuple):
    """A drawn image, and what networks say of it in the views of `sample_batch`.

    Attributes:
        pixels: S x S x 3, uint8.
        predictions: By the member's file, what `compared` takes of its outputs: 8 x C logits of a
            classifier, 8 x h x w of a segmenter, 8 x K x h x w of one with attributes.
    """

    pixels: NDArray[np.uint8]
    predictions: Mapping[str, NDArray[np.float32]]


def sample_batch(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Return the image at a network's size, flipped and turned: 8 x size x size x 3.

    Pixels are only picked, never mixed: every machine makes the same numbers.
    """
    picked = (np.arange(size) * len(pixels)) // size
    square = pixels[picked][:, picked]
    turned = [np.rot90(square, times) for times in range(4)]
    return np.ascontiguousarray([view for one in turned for view in (one, one[:, ::-1])])


def compared(outputs: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the logits to compare; of a segmenter, every one of `STEP` in each direction.

    Where a network gives maps of attributes, they follow the lesion's: 8 x K x h x w.
    """
    if "logits" in outputs:
        return outputs["logits"]
    if "attributes" not in outputs:
        return outputs["logit"][:, ::STEP, ::STEP]
    lesion = [outputs["logit"][:, None]] if "logit" in outputs else []
    return np.concatenate([*lesion, outputs["attributes"]], axis=1)[..., ::STEP, ::STEP]


def distance(answer: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Return how far an answer is from the reference: infinitely where it is no finite number.

    It is the root of the mean squared difference, as a fraction of the reference's own spread.
    """
    if answer.shape != reference.shape or not np.isfinite(answer).all():
        return float("inf")
    right = reference.astype(np.float64)
    error = np.sqrt(np.mean(np.square(answer - right)))
    return float(error / max(right.std(), 1e-6))


def tolerance(measured: float, storage: Storage, precision: Precision) -> float:
    """Return how far answers may be from the reference: twice what was measured, or a floor.

    Args:
        measured: The largest distance that was seen.
        storage: How the network's numbers are stored.
        precision: What it was computed in.
    """
    return max(2 * measured, _FLOORS[storage == "int8", precision])


def write_sample(path: Path, sample: Sample) -> None:
    """Write a sample; the same one gives the same bytes.

    Raises:
        NaevusError: The file cannot be written.
    """
    content = io.BytesIO()
    arrays: dict[str, NDArray[Any]] = {_PIXELS: sample.pixels, **sample.predictions}
    np.savez_compressed(content, allow_pickle=False, **arrays)
    write_bytes(path, content.getvalue())


def read_sample(path: Path, files: Mapping[str, int]) -> Sample:
    """Read what `write_sample` wrote.

    Args:
        path: The file.
        files: The members' files, and the side of the square that each sees.

    Raises:
        BundleError: It is absent, too large or damaged, or lacks a member.
    """
    try:
        with zipfile.ZipFile(path) as stored:
            size = sum(entry.file_size for entry in stored.infolist())
        if max(size, path.stat().st_size) > LARGEST:
            raise ValueError(f"more than {LARGEST // 1024**2} MB")
        with np.load(path, allow_pickle=False) as arrays:
            pixels = arrays[_PIXELS]
            predictions = {name: arrays[name] for name in files}
    except DAMAGE as error:
        problem = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise BundleError(f"{path}: no usable sample ({problem})", EXPORT_AGAIN) from error
    square = pixels.ndim == 3 and pixels.shape[0] == pixels.shape[1] and pixels.shape[2] == 3
    if pixels.dtype != np.uint8 or not square or not pixels.size:
        raise BundleError(f"{path}: no usable sample (its pixels are no square)", EXPORT_AGAIN)
    for name, values in predictions.items():
        if values.dtype != np.float32 or len(values) != 8 or not np.isfinite(values).all():
            raise BundleError(f"{path}: no usable sample (of {name})", EXPORT_AGAIN)
    return Sample(pixels, predictions)
