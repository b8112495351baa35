"""A small synthetic image with reference outputs, to check inference engines with."""

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
"""The usual file name in a bundle; ``sample.file`` contains the actual one."""
LARGEST: Final = 4 * 1024**2
"""The maximum size of the file and of all its arrays, in bytes."""
STEP: Final = 8
"""The stride in pixels of the segmenter logits that are stored, in both directions."""
_FLOORS: Final[dict[tuple[bool, Precision], float]] = {
    (False, "fp32"): 0.005,
    (False, "bf16"): 0.03,
    (True, "fp32"): 0.03,
    (True, "bf16"): 0.05,
}
"""The minimum tolerance, by (whether weights are stored in int8, precision)."""
_PIXELS: Final = "pixels"


class Sample(NamedTuple):
    """A synthetic image and the networks' outputs for the batch from `sample_batch`.

    Attributes:
        pixels: S x S x 3, uint8.
        predictions: The result of `compared` by member file: 8 x C logits of a classifier,
            8 x h x w of a segmenter, 8 x K x h x w of a network with attributes.
    """

    pixels: NDArray[np.uint8]
    predictions: Mapping[str, NDArray[np.float32]]


def sample_batch(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Return the image at a network's size, flipped and turned: 8 x size x size x 3.

    Pixels are selected without interpolation, so every machine computes the same values.
    """
    picked = (np.arange(size) * len(pixels)) // size
    square = pixels[picked][:, picked]
    turned = [np.rot90(square, times) for times in range(4)]
    return np.ascontiguousarray([each for one in turned for each in (one, one[:, ::-1])])


def compared(outputs: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the logits to compare; segmenter logits with a stride of `STEP`.

    Attribute maps, if the network outputs them, follow the lesion map: 8 x K x h x w.
    """
    if "logits" in outputs:
        return outputs["logits"]
    if "attributes" not in outputs:
        return outputs["logit"][:, ::STEP, ::STEP]
    lesion = [outputs["logit"][:, None]] if "logit" in outputs else []
    return np.concatenate([*lesion, outputs["attributes"]], axis=1)[..., ::STEP, ::STEP]


def distance(answer: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Return the distance of an output from the reference, or infinity if it is not finite.

    The distance is the root mean squared difference divided by the reference's standard deviation.
    """
    if answer.shape != reference.shape or not np.isfinite(answer).all():
        return float("inf")
    right = reference.astype(np.float64)
    error = np.sqrt(np.mean(np.square(answer - right)))
    return float(error / max(right.std(), 1e-6))


def tolerance(measured: float, storage: Storage, precision: Precision) -> float:
    """Return the tolerated distance from the reference: twice the measured one, or a minimum.

    Args:
        measured: The largest measured distance.
        storage: The data type of the stored weights.
        precision: The data type of the computation.
    """
    return max(2 * measured, _FLOORS[storage == "int8", precision])


def write_sample(path: Path, sample: Sample) -> None:
    """Write a sample; equal samples give equal bytes.

    Raises:
        NaevusError: The file cannot be written.
    """
    content = io.BytesIO()
    arrays: dict[str, NDArray[Any]] = {_PIXELS: sample.pixels, **sample.predictions}
    np.savez_compressed(content, allow_pickle=False, **arrays)
    write_bytes(path, content.getvalue())


def read_sample(path: Path, files: Mapping[str, int]) -> Sample:
    """Read a sample written by `write_sample`.

    Args:
        path: The file.
        files: The input size by member file.

    Raises:
        BundleError: The file is missing, too large or damaged, or a member is missing in it.
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
        raise BundleError(f"{path}: no usable sample (its image is not square)", EXPORT_AGAIN)
    for name, values in predictions.items():
        if values.dtype != np.float32 or len(values) != 8 or not np.isfinite(values).all():
            raise BundleError(f"{path}: no usable sample (outputs of {name})", EXPORT_AGAIN)
    return Sample(pixels, predictions)
