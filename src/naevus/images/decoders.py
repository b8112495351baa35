"""The decoders behind `read`: libjpeg-turbo for JPEG, Pillow for headers and the other formats.

Whatever is wrong with the bytes comes out as some exception, which `read` turns into one that names
the file.
"""

from __future__ import annotations

import threading
import warnings
from contextlib import contextmanager
from math import ceil
from typing import TYPE_CHECKING, Final

import numpy as np
import simplejpeg
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from numpy.typing import NDArray
    from PIL.ImageFile import ImageFile

FORMATS: Final = ("JPEG", "PNG", "TIFF", "WEBP", "BMP")
"""The formats that are read, as Pillow names them."""

SPARE: Final = 1.25
"""How much larger a scaled JPEG is left than needed, so that resizing has something to average."""

_ORIENTATION = 0x0112
_PNG_END = b"\0\0\0\0IEND\xae\x42\x60\x82"
_TIFF_PIECES = ((273, 279), (324, 325))  # offsets and byte counts of strips, of tiles
_PILLOW = threading.Lock()


def open_picture(stream: BinaryIO) -> ImageFile:
    """Read a picture's header.

    Raises:
        PIL.UnidentifiedImageError: It is none of `FORMATS`.
    """
    with _pillow_silenced():
        return Image.open(stream, formats=FORMATS)


def format_of(image: ImageFile) -> str:
    """Return the format's name; a camera's multi-picture JPEG is a JPEG."""
    return "JPEG" if image.format == "MPO" else str(image.format)


def orientation(image: ImageFile) -> int:
    """Return how the camera was held, 1..8 (EXIF 2.3, tag 0x0112); 1, upright, if unknown."""
    try:
        with _pillow_silenced():
            # Not the PNG reader's own method, which decodes the picture to look behind it.
            return int(Image.Image.getexif(image).get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - broken EXIF raises anything; the picture is still good
        return 1


def shown_size(image: ImageFile) -> tuple[int, int]:
    """Return width and height once the picture stands upright."""
    width, height = image.size
    # Pillow gives a TIFF's size as it will be shown.
    if image.format != "TIFF" and orientation(image) in {5, 6, 7, 8}:
        return height, width
    return width, height


def upright(pixels: NDArray[np.uint8], held: int) -> NDArray[np.uint8]:
    """Undo an orientation 1..8."""
    if held in {5, 6, 7, 8}:
        pixels = pixels.swapaxes(0, 1)
    if held in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    if held in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def decode_jpeg(data: bytes, image: ImageFile, shortest: int | None) -> NDArray[np.uint8]:
    """Decode a JPEG, at the smallest scale M/8 that leaves ``SPARE * shortest`` pixels.

    Returns:
        H x W x 3, not yet upright.

    Raises:
        ValueError: The data is cut off or damaged.
    """
    height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    least = ceil(SPARE * shortest) if shortest else 0
    if least > min(height, width):  # libjpeg-turbo would enlarge
        least = 0
    four = space in {"CMYK", "YCCK"}
    # Strict: libjpeg-turbo fills what a cut-off file lacks with grey and only warns.
    decoded: NDArray[np.uint8] = simplejpeg.decode_jpeg(
        data, "CMYK" if four else "RGB", min_height=least, min_width=least, strict=True
    )
    return _without_ink(decoded, inverted="adobe" in image.info) if four else decoded


def load(data: bytes, image: ImageFile) -> None:
    """Decode a picture of another format than JPEG into ``image``.

    Raises:
        ValueError: The file's end is missing.
        Exception: Whatever else Pillow raises at damaged files.
    """
    if _cut_off(data, image):
        raise ValueError("its end is missing")
    if image.format == "TIFF":  # Pillow looks at its limit once more
        with _pillow_silenced():
            image.load()
    else:
        image.load()


def over_white(image: Image.Image) -> NDArray[np.uint8]:
    """Return a loaded picture as H x W x 3, or H x W if it is 16-bit grey; alpha over white."""
    if image.mode.startswith("I;16"):
        return _high_byte(image)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.array(_checked_depth(image).convert("RGB"))


def without_alpha(image: Image.Image) -> NDArray[np.uint8]:
    """Return a loaded picture as H x W x 3, or H x W if it is grey; alpha left aside."""
    if image.mode.startswith("I;16"):
        return _high_byte(image)
    if image.mode in {"1", "L"}:
        return np.array(image.convert("L"))
    return np.array(_checked_depth(image).convert("RGBA"))[:, :, :3]


@contextmanager
def _pillow_silenced() -> Iterator[None]:
    """Keep Pillow from judging sizes, which `Limits` does, and from warning of broken EXIF.

    Both are global to the process, hence the lock.
    """
    with _PILLOW, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _without_ink(cmyk: NDArray[np.uint8], *, inverted: bool) -> NDArray[np.uint8]:
    """Return the light that ink leaves; Adobe's JPEGs store it that way round (255 = no ink)."""
    light = (cmyk if inverted else 255 - cmyk).astype(np.uint16)
    return ((light[:, :, :3] * light[:, :, 3:] + 127) // 255).astype(np.uint8)


def _cut_off(data: bytes, image: ImageFile) -> bool:
    """Tell of files that Pillow would show although their end is missing."""
    if image.format == "PNG":
        return _PNG_END not in data
    if image.format == "WEBP":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        return any(
            offset + length > len(data)
            for offsets, lengths in _TIFF_PIECES
            for offset, length in zip(tags.get(offsets, ()), tags.get(lengths, ()), strict=False)
        )
    return False


def _high_byte(image: Image.Image) -> NDArray[np.uint8]:
    return (np.asarray(image) >> 8).astype(np.uint8)


def _checked_depth(image: Image.Image) -> Image.Image:
    if image.mode in {"I", "F"}:
        raise ValueError("32 bits a channel")
    return image
