"""The OOD statistics of a bundle on disk: one file of plain arrays."""

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
"""The usual file name in a bundle; ``classifier.ood`` contains the actual one."""
LARGEST = 8 * 1024**2
"""The maximum size of the file and of all its arrays, in bytes."""
_SCALES: Final = "scales"
"""The name of the array with centre and spread."""
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
"""The errors that zipfile and NumPy raise for a damaged file of arrays."""


def write_ood_statistics(path: Path, ood_statistics: Sequence[OODStatistics]) -> None:
    """Write the OOD statistics of a classifier, one per member, in order.

    Equal statistics give equal bytes.

    Raises:
        NaevusError: The file cannot be written.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for number, statistics in enumerate(ood_statistics):
        model = statistics.model
        arrays[f"{number}.deviations"] = statistics.deviations
        arrays[f"{number}.mean"] = model.mean
        arrays[f"{number}.basis"] = model.basis
        arrays[f"{number}.variances"] = model.variances
        arrays[f"{number}.noise"] = np.array(model.noise)
        arrays[f"{number}.{_SCALES}"] = np.array((statistics.centre, statistics.spread))
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    write_bytes(path, content.getvalue())


def read_ood_statistics(path: Path, members: int) -> tuple[OODStatistics, ...]:
    """Read OOD statistics written by `write_ood_statistics`.

    Args:
        path: The file.
        members: The number of networks in the bundle's classifier.

    Raises:
        BundleError: The file is missing, too large, damaged, or has another number of networks.
    """
    try:
        arrays = _arrays(path)
        ood_statistics = tuple(_member_statistics(arrays, number) for number in range(members))
    except (*DAMAGE, DataError) as error:
        problem = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise BundleError(f"{path}: no usable statistics ({problem})", EXPORT_AGAIN) from error
    if any(name.partition(".")[0] == str(members) for name in arrays):
        raise BundleError(f"{path}: statistics of more than {members} networks", EXPORT_AGAIN)
    return ood_statistics


def ood_statistics_of(bundle: Bundle) -> tuple[OODStatistics | None, ...]:
    """Return the OOD statistics of each member of a classifier, or None for each without them.

    Raises:
        BundleError: The file is not usable.
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


def _member_statistics(arrays: Arrays, number: int) -> OODStatistics:
    scales = _array(arrays, f"{number}.{_SCALES}", np.float64, 1)
    if len(scales) != 2:
        raise ValueError(f"{len(scales)} scales instead of 2")
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
        raise ValueError(f"{name} is {array.dtype} with {array.ndim} axes")
    return array
