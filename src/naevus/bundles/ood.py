"""A bundle's statistics of training images on disk, as one file of plain arrays."""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from naevus.bundles.spec import EXPORT_AGAIN
from naevus.errors import BundleError, DataError
from naevus.evaluation.ood import FactorModel, OODStatistics
from naevus.io.files import write_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from naevus.bundles.bundle import Bundle

    Arrays = Mapping[str, NDArray[Any]]


OOD_FILE = "ood.npz"
"""What bundles call the file; ``classifier.ood`` names it."""
LARGEST = 8 * 1024**2
"""Most bytes of a file that is read, and of all its arrays."""
_SCALES: Final = "scales"
"""Centre and spread."""
DAMAGE: Final = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    MemoryError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What zipfile and NumPy raise where a file of arrays is damaged."""


def write_ood_statistics(path: Path, ood_statistics: Sequence[OODStatistics]) -> None:
    """Write the statistics of a bundle's classifier, one of each member, in order.

    The same statistics give the same bytes.

    Raises:
        NaevusError: The file cannot be written.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for number, reference in enumerate(ood_statistics):
        model = reference.model
        arrays[f"{number}.deviations"] = reference.deviations
        arrays[f"{number}.mean"] = model.mean
        arrays[f"{number}.basis"] = model.basis
        arrays[f"{number}.variances"] = model.variances
        arrays[f"{number}.noise"] = np.array(model.noise)
        arrays[f"{number}.{_SCALES}"] = np.array((reference.centre, reference.spread))
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    write_bytes(path, content.getvalue())


def read_ood_statistics(path: Path, members: int) -> tuple[OODStatistics, ...]:
    """Read what `write_ood_statistics` wrote.

    Args:
        path: The file.
        members: How many networks the bundle's classifier has.

    Raises:
        BundleError: It is absent, too large, damaged, or of another number of networks.
    """
    try:
        arrays = _arrays(path)
        ood_statistics = tuple(_reference(arrays, number) for number in range(members))
    except (*DAMAGE, DataError) as error:
        problem = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise BundleError(f"{path}: no usable statistics ({problem})", EXPORT_AGAIN) from error
    if any(name.partition(".")[0] == str(members) for name in arrays):
        raise BundleError(f"{path}: statistics of more than {members} networks", EXPORT_AGAIN)
    return ood_statistics


def ood_statistics_of(bundle: Bundle) -> tuple[OODStatistics | None, ...]:
    """Return the statistics of each member of a bundle's classifier; None where it has none.

    Raises:
        BundleError: The file cannot be used.
    """
    classifier = bundle.classifier
    if classifier.ood is None:
        return (None,) * len(classifier.members)
    return read_ood_statistics(bundle.folder / classifier.ood, len(classifier.members))


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    with zipfile.ZipFile(path) as stored:
        size = sum(entry.file_size for entry in stored.infolist())
    if max(size, path.stat().st_size) > LARGEST:
        raise ValueError(f"more than {LARGEST // 1024**2} MB")
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _reference(arrays: Arrays, number: int) -> OODStatistics:
    scales = _array(arrays, f"{number}.{_SCALES}", np.float64, 1)
    if len(scales) != 2:
        raise ValueError(f"{len(scales)} scales in place of 2")
    model = FactorModel(
        _array(arrays, f"{number}.mean", np.float32, 1),
        _array(arrays, f"{number}.basis", np.float16, 2),
        _array(arrays, f"{number}.variances", np.float32, 1),
        float(_array(arrays, f"{number}.noise", np.float64, 0)),
    )
    return OODStatistics(
        _array(arrays, f"{number}.deviations", np.float32, 1), model, *scales.tolist()
    )


def _array(arrays: Arrays, name: str, kind: type[np.generic], axes: int) -> NDArray[Any]:
    if name not in arrays:
        raise ValueError(f"{name} is missing")
    array = arrays[name]
    if array.dtype != kind or array.ndim != axes:
        raise ValueError(f"{name} is {array.dtype} of {array.ndim} axes")
    return array
