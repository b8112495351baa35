"""Inputs from Python: paths, bytes, streams, Pillow images, arrays, tensors; metadata."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple, Protocol, TypeAlias

import numpy as np
from PIL import Image

from naevus.errors import DataError, ImageError
from naevus.evaluation.patient import PatientCounts
from naevus.images.read import ImageBytes, Limits, check_size, from_pillow

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from naevus.datasets.patient_table import PatientTable
    from naevus.evaluation.patient import PatientModel
    from naevus.images.preprocess import ImageData

    MetadataLike = str | os.PathLike[str] | Mapping[str, Any] | pd.DataFrame | PatientTable

_CPU: Final = (1, 3)  # DLPack's device types of CPU memory, ordinary and pinned
_RGB: Final = (
    "give uint8, height x width x 3 in the order red, green, blue (convert images from OpenCV "
    "with cv2.cvtColor), or height x width in grey"
)


class SupportsArray(Protocol):
    """An object that NumPy can convert to an array, such as a tensor on the CPU."""

    def __array__(self) -> NDArray[Any]: ...


ImageLike: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | ImageBytes | BinaryIO | Image.Image"
    " | NDArray[np.uint8] | SupportsArray"
)
"""The types that are accepted as one image."""


class ImageInput(NamedTuple):
    """An image to predict.

    Attributes:
        image_id: The image's id.
        image: The file, its bytes, or pixels.
        flags: Flags known before prediction.
        problem: Why the image cannot be predicted, if so.
    """

    image_id: str
    image: ImageData
    flags: tuple[str, ...] = ()
    problem: ImageError | None = None


def is_one(given: object) -> bool:
    """Return whether an object is one image rather than several.

    One-dimensional arrays, such as a column of paths, are several.
    """
    if getattr(given, "ndim", 0) == 1 and not isinstance(given, memoryview):
        return False
    kinds = (str, os.PathLike, bytes, bytearray, memoryview, ImageBytes, Image.Image, np.ndarray)
    return isinstance(given, kinds) or any(
        hasattr(given, name) for name in ("read", "__array__", "__dlpack__")
    )


def image_input_of(given: object, number: int, limits: Limits) -> ImageInput:
    """Convert an object to an image input.

    Bytes and streams are read like files. A Pillow image is converted to sRGB by its profile,
    rotated upright by its EXIF and composited over white, like a file. An array, or a tensor on the
    CPU, contains pixels: uint8, 0 to 255, in sRGB; H x W x 3 in the order red, green, blue, or H x
    W in grey. Channels may come first (3 x H x W, 1 x H x W) if the last axis cannot be channels.

    Args:
        given: The image.
        number: The image's index, which is its id if it has no name.
        limits: Limits that are checked before decoding.

    Raises:
        DataError: The object is not an image, or pixels have another shape or type.
    """
    name = f"image {number}"
    if isinstance(given, str | os.PathLike):
        path = Path(os.fsdecode(given))
        return ImageInput(path.stem, path)
    if isinstance(given, ImageBytes | bytes | bytearray | memoryview):
        held = given if isinstance(given, ImageBytes) else ImageBytes(name, bytes(given))
        return ImageInput(Path(held.name).stem, held)
    if isinstance(given, Image.Image):
        return _of_pillow(given, name, limits)
    if isinstance(given, np.ndarray) or hasattr(given, "__array__") or hasattr(given, "__dlpack__"):
        return _of_array(given, name, limits)
    if callable(getattr(given, "read", None)):
        return _of_stream(given, name, limits)
    raise DataError(
        f"{name} is of type {type(given).__name__}",
        "give a path, bytes, a stream opened with 'rb', a Pillow image, an array or a tensor",
    )


def _of_stream(stream: Any, name: str, limits: Limits) -> ImageInput:
    name_of_source = getattr(stream, "name", None)
    image_id = (
        Path(name_of_source).stem
        if isinstance(name_of_source, str) and Path(name_of_source).stem
        else name
    )
    try:
        return ImageInput(image_id, ImageBytes.from_stream(stream, image_id, limits))
    except ImageError as problem:
        return ImageInput(image_id, Path(image_id), problem=problem)


def _of_pillow(image: Image.Image, name: str, limits: Limits) -> ImageInput:
    name_of_source = getattr(image, "filename", "")
    image_id = Path(os.fsdecode(name_of_source)).stem if name_of_source else name
    content = _unloaded_jpeg(image)
    if content is not None:
        return ImageInput(image_id, ImageBytes(image_id, content))
    try:
        decoded = from_pillow(image, image_id, limits)
    except ImageError as problem:
        return ImageInput(image_id, Path(image_id), problem=problem)
    return ImageInput(image_id, decoded.pixels, decoded.flags)


def _unloaded_jpeg(image: Image.Image) -> bytes | None:
    """Return the bytes of a JPEG that Pillow opened but did not load.

    It is then decoded to scale like a file, so that both give the same prediction.
    """
    stream = getattr(image, "fp", None)
    if image.format != "JPEG" or stream is None or getattr(image, "decoderconfig", None):
        return None
    try:
        at = stream.tell()
        stream.seek(0)
        content = stream.read()
        stream.seek(at)
    except (OSError, ValueError):  # closed meanwhile: Pillow reports it
        return None
    return bytes(content)


def _of_array(array: Any, name: str, limits: Limits) -> ImageInput:
    pixels, grey = _pixels(array, name)
    try:
        check_size(Path(name), pixels.shape[1], pixels.shape[0], limits.pixels_of("array"))
    except ImageError as problem:
        return ImageInput(name, pixels, problem=problem)
    return ImageInput(name, pixels, ("grey",) if grey else ())


def _pixels(given: Any, name: str) -> tuple[NDArray[np.uint8], bool]:
    """Return pixels H x W x 3, and whether the input is grey."""
    array = _on_cpu(given, name)
    if array.ndim == 3 and array.shape[2] not in {1, 3} and array.shape[0] in {1, 3}:
        array = np.moveaxis(array, 0, 2)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    remedy = _remedy(array)
    if remedy:
        raise DataError(f"{name}: {array.dtype} {array.shape} is not an image", remedy)
    grey = array.ndim == 2
    if grey:
        array = np.repeat(array[:, :, None], 3, axis=2)
    return np.ascontiguousarray(array), grey


def _on_cpu(given: Any, name: str) -> NDArray[Any]:
    """Convert an array or a tensor of any library to a NumPy array."""
    kind = type(given).__name__
    if isinstance(given, np.ma.MaskedArray):
        raise DataError(f"{name} is a masked array", "give it with filled masked values")
    if isinstance(given, np.ndarray):
        return given
    if not _is_on_cpu(given):
        raise DataError(f"{name}: the {kind} is not on the CPU", "move it with .cpu()")
    try:
        return np.asarray(given) if hasattr(given, "__array__") else np.from_dlpack(given)
    except Exception as error:  # each library has its own errors
        line = " ".join(str(error).split())[:200]
        problem = f"{name}: the {kind} is not convertible to an array ({line})"
        raise DataError(problem, _RGB) from error


def _is_on_cpu(given: Any) -> bool:
    device = getattr(given, "__dlpack_device__", None)
    try:
        return device is None or int(device()[0]) in _CPU
    except Exception:  # noqa: BLE001 - a device unknown to DLPack
        return False


def _remedy(array: NDArray[Any]) -> str | None:
    """Return the remedy for an array that is not an image; None if it is one."""
    if array.ndim == 4:
        return "give several images as a list: list(batch)"
    if array.dtype.kind in "OUS":
        return "give paths as a list: paths.tolist()"
    if array.dtype.kind == "f":
        return "scale the values to 0..255, round them, and convert them to uint8"
    if array.ndim == 3 and array.dtype == np.uint8 and 4 in {array.shape[0], array.shape[2]}:
        return "remove the transparency (pixels[:, :, :3]), or give a Pillow image"
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    return None if array.dtype == np.uint8 and shaped and array.size else _RGB


def table_of(metadata: MetadataLike) -> PatientTable:
    """Return metadata as a table, from a file, a pandas table or mappings.

    Raises:
        DataError: They are none of these, or invalid.
    """
    # Tables need pandas, which a prediction without metadata does without.
    from naevus.datasets.patient_table import PatientTable  # noqa: PLC0415

    if isinstance(metadata, PatientTable):
        return metadata
    if isinstance(metadata, str | os.PathLike):
        return PatientTable.read(Path(metadata))
    if isinstance(metadata, Mapping):
        return PatientTable.from_mapping(metadata)
    if hasattr(metadata, "columns"):
        return PatientTable.of(metadata)
    raise DataError(
        f"metadata are of type {type(metadata).__name__}",
        "give the path of a table, a pandas table, or a mapping such as {'age': 55}",
    )


def with_scale(metadata: PatientTable | None, mm_per_pixel: float) -> PatientTable:
    """Return metadata with one scale for all images.

    Raises:
        DataError: The scale is impossible.
        ConfigError: The metadata have scales already.
    """
    from naevus.datasets.patient_table import PatientTable  # noqa: PLC0415 (as above)

    return (metadata or PatientTable(())).with_scale(mm_per_pixel)


def counts_of(metadata: PatientTable, model: PatientModel, ids: Sequence[str]) -> PatientCounts:
    """Return how many of some images have metadata that count, and what does not count."""
    from naevus.datasets.layouts.values import ages_left_out  # noqa: PLC0415 (brings pandas)

    patients = [metadata.patient(image_id) for image_id in ids]
    keys = [metadata.key_of(image_id) for image_id in ids]
    return PatientCounts(
        len(ids),
        sum(map(model.is_known, patients)),
        [one for one, key in zip(ids, keys, strict=True) if key is None and not metadata.everyone],
        sorted(metadata.rows.keys() - set(keys)),
        model.unknown(patients),
        metadata.ignored,
        ages_left_out(metadata.not_ages) if metadata.not_ages else "",
    )
