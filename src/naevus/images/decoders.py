"""Decoders behind `read`: Pillow for headers and all formats but JPEG, which `jpeg` decodes.

Invalid bytes raise various exceptions, which `read` turns into an error that names the file.
"""

from __future__ import annotations

import io
import os
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from naevus.images import jpeg

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from numpy.typing import NDArray
    from PIL.ImageFile import ImageFile

    from naevus.images.profiles import Conversion

FORMATS: Final[tuple[str, ...]] = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "AVIF", "JPEG2000")
"""Formats that are read without an extra, by Pillow's names."""

_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 258
_NEW_SUBFILE_TYPE, _REDUCED = 254, 0b101  # a smaller copy, or a mask
_MOST_PAGES = 64
_PNG_BEGINNING = b"\x89PNG\r\n\x1a\n"
_PNG_METADATA = frozenset({b"IHDR", b"eXIf", b"tEXt", b"zTXt", b"iTXt"})
_PNG_NO_PIXELS = b"\0\0\0\0IDAT\x35\xaf\x06\x1e"
_MOST_CHUNKS, _MOST_METADATA = 200_000, 10_000_000
_PNG_END = b"\0\0\0\0IEND\xae\x42\x60\x82"
_TIFF_PIECES = ((273, 279), (324, 325))  # offsets and byte counts of strips, of tiles
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})
_STRIP = 4_000_000  # pixels converted to RGB at a time
_PILLOW = threading.Lock()


def _renew_lock() -> None:
    global _PILLOW  # noqa: PLW0603 - a thread that is gone may have held it
    _PILLOW = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


class DepthError(ValueError):
    """An image with more than 16 bits per channel; the message says how many."""


class MissingExtraError(ValueError):
    """A format whose decoder is not installed; the message names the extra."""


def open_image(stream: BinaryIO) -> ImageFile:
    """Read an image's header.

    A JPEG whose markers Pillow does not understand is repaired by `jpeg.fix`.

    Raises:
        PIL.UnidentifiedImageError: The format is not one of `FORMATS`.
        MissingExtraError: It is a HEIF image, and the decoder is not installed.
        DepthError: It is a TIFF image of more than 16 bits per channel that Pillow cannot open.
    """
    beginning = stream.read(12)
    stream.seek(-len(beginning), os.SEEK_CUR)
    formats = FORMATS
    if beginning[4:8] == b"ftyp" and beginning[8:] in _HEIF_BRANDS:
        formats = _with_heif(stream)
    with _pillow_silenced():
        try:
            return Image.open(stream, formats=formats)
        except UnidentifiedImageError:
            if not beginning.startswith(jpeg.BEGINNING):
                _check_tiff_depth(stream)
                raise
            stream.seek(0)
            fixed = jpeg.fix(stream.read())
            if fixed is None:
                raise
            return Image.open(io.BytesIO(fixed.content()), formats=["JPEG"])


def _check_tiff_depth(stream: BinaryIO) -> None:
    """Refuse a TIFF of more bits than Pillow opens, such as one of several float channels."""
    stream.seek(0)
    try:
        tags = ImageFileDirectory_v2(stream.read(8))
        stream.seek(tags.next)
        tags.load(stream)
        bits = int(np.max(tags.get(_BITS_PER_SAMPLE, (1,))))
    except Exception:  # noqa: BLE001 (no TIFF, or a damaged one: Pillow's own error says so)
        return
    if bits > 16:
        raise DepthError(f"{bits} bits per channel")


def _with_heif(stream: BinaryIO) -> tuple[str, ...]:
    at = stream.tell()
    brands = stream.read(64)[16:]
    stream.seek(at)
    if b"avif" in brands:
        return FORMATS
    try:
        import pi_heif  # noqa: PLC0415 (an extra)
    except ImportError:
        raise MissingExtraError("HEIC/HEIF") from None
    pi_heif.register_heif_opener()
    return ("HEIF",)


def format_of(image: Image.Image) -> str:
    """Return the format's name; a camera's multi-image JPEG counts as JPEG."""
    return "JPEG" if image.format == "MPO" else str(image.format)


def has_several_scans(image: ImageFile, data: bytes) -> bool:
    """Return whether a JPEG has several scans, from its header and its first scan.

    Pillow has read to the end of that scan's header, which contains the number of components.
    """
    if "progressive" in image.info or image.fp is None:
        return True
    count = image.layers  # type: ignore[attr-defined]
    at = image.fp.tell() - 4 - 2 * count
    return not (0 < at < len(data) and data[at] == count)


def is_first_of_several(image: ImageFile) -> bool:
    """Return whether a file has more pages or frames than the one that is read.

    Reduced copies and masks among a TIFF's pages do not count, nor do further images in a camera's
    JPEG. Call it before the image is loaded.
    """
    if image.format == "TIFF":
        return _has_more_pages(image)
    if format_of(image) in {"JPEG", "HEIF"}:
        return False
    return bool(getattr(image, "is_animated", False))


def _has_more_pages(image: ImageFile) -> bool:
    if not image.tag_v2.next:  # type: ignore[attr-defined]
        return False
    try:
        with _pillow_silenced():
            for page in range(1, _MOST_PAGES):
                image.seek(page)
                if not int(image.tag_v2.get(_NEW_SUBFILE_TYPE, 0)) & _REDUCED:  # type: ignore[attr-defined]
                    return True
    except Exception:  # noqa: BLE001 - the end, or a damaged page: the first is still good
        return False
    finally:
        with _pillow_silenced():
            image.seek(0)
    return True


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1..8 (EXIF 2.3, tag 0x0112); 1, upright, if unknown."""
    try:
        with _pillow_silenced():
            # Not the PNG reader's own method, which decodes the image to find late EXIF:
            # `find_late_exif` does that without decoding.
            return int(Image.Image.getexif(image).get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - broken EXIF raises anything; the image is still good
        return 1


def find_late_exif(stream: BinaryIO, image: ImageFile) -> ImageFile:
    """Read a PNG's metadata after its pixels, such as EXIF, without decoding the pixels.

    Pillow reads it only when it loads the image.
    """
    if image.format != "PNG":
        return image
    early: list[bytes] = []
    late: list[bytes] = []
    pixels = False
    stream.seek(8)
    for _ in range(_MOST_CHUNKS):
        head = stream.read(8)
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if len(head) < 8 or kind == b"IEND":
            break
        pixels = pixels or kind == b"IDAT"
        if kind in _PNG_METADATA and length < _MOST_METADATA:
            (late if pixels else early).append(head + stream.read(length + 4))
        else:
            stream.seek(length + 4, os.SEEK_CUR)
    if not late:
        return image
    written = b"".join([_PNG_BEGINNING, *early, *late, _PNG_NO_PIXELS])
    with _pillow_silenced():
        return Image.open(io.BytesIO(written), formats=["PNG"])


def shown_size(image: ImageFile, held: int) -> tuple[int, int]:
    """Return width and height of the upright image."""
    width, height = image.size
    # Pillow gives the upright size of a TIFF.
    if image.format != "TIFF" and held in {5, 6, 7, 8}:
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


def load(data: bytes, image: ImageFile) -> None:
    """Load an image that is not a JPEG.

    Raises:
        ValueError: The file's end is missing.
        Exception: Any other exception of Pillow, if the file is damaged.
    """
    if _cut_off(data, image):
        raise ValueError("its end is missing")
    if image.format == "TIFF":  # Pillow checks its limit again
        with _pillow_silenced():
            image.load()
    else:
        image.load()


def over_white(image: Image.Image, conversion: Conversion | None = None) -> NDArray[np.uint8]:
    """Return a loaded image as H x W x 3, sRGB; alpha over white.

    It works in strips of whole rows, so that only the image and the result are in memory.
    """
    width, height = image.size
    whole = np.empty((height, width, 3), np.uint8)
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        whole[top : top + rows] = _strip_over_white(strip, conversion)
    return whole


def _strip_over_white(image: Image.Image, conversion: Conversion | None) -> NDArray[np.uint8]:
    if not image.has_transparency_data:
        return _in_srgb(image, conversion)
    rgba = image.convert("RGBA")
    if conversion is not None:
        opaque = image.convert("L") if conversion.space == "L" else rgba.convert("RGB")
        colours = Image.fromarray(_in_srgb(opaque, conversion))
        colours.putalpha(rgba.getchannel("A"))
        rgba = colours
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))


def _in_srgb(image: Image.Image, conversion: Conversion | None) -> NDArray[np.uint8]:
    """Return an opaque image as H x W x 3, sRGB."""
    if image.mode.startswith("I;16"):
        grey = _high_byte(image)
        image = Image.fromarray(grey)
    if conversion is None:
        return np.asarray(_checked_depth(image).convert("RGB"))
    return conversion.apply(np.asarray(_checked_depth(image).convert(conversion.space)))


def without_ink(cmyk: NDArray[np.uint8], *, inverted: bool) -> NDArray[np.uint8]:
    """Convert CMYK to RGB; Adobe's JPEGs store it inverted (255 = no ink)."""
    light = (cmyk if inverted else 255 - cmyk).astype(np.uint16)
    return ((light[:, :, :3] * light[:, :, 3:] + 127) // 255).astype(np.uint8)


def stored(image: Image.Image, data: bytes) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    """Return a loaded image's stored values, and its palette if it has one.

    Returns:
        H x W or H x W x C (alpha last, if there is one), uint8 or uint16; the palette is 256 x 3.

    Raises:
        ValueError: It has 32 bits per channel, or 16 of which only 8 can be read.
    """
    if image.mode == "P":
        entries = np.asarray(image.getpalette("RGB") or (), np.uint8).reshape(-1, 3)[:256]
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(entries)] = entries
        return np.array(image), palette
    if image.mode.startswith("I;16"):
        return np.array(image).astype(np.uint16), None
    if image.mode == "1":
        return np.array(image.convert("L")), None
    _checked_depth(image)
    if image.mode != "L" and _has_16_bits(image, data):  # Pillow would drop 8 of them
        if image.format != "PNG":
            raise ValueError("16 bits per channel in several channels")
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        return np.asarray(found, np.uint16), None
    if image.mode in {"L", "LA", "RGB", "RGBA"}:
        return np.array(image), None
    return np.array(image.convert("RGBA")), None


def _has_16_bits(image: Image.Image, data: bytes) -> bool:
    if image.format == "PNG":
        return data[24] == 16
    if image.format == "TIFF":
        depths = image.tag_v2.get(_BITS_PER_SAMPLE, (1,))  # type: ignore[attr-defined]
        return bool(np.max(depths) > 8)
    return False


@contextmanager
def _pillow_silenced() -> Iterator[None]:
    """Keep Pillow from checking sizes, which `Limits` does, and from warning of broken EXIF.

    Both are global to the process, hence the lock.
    """
    with _PILLOW, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _cut_off(data: bytes, image: ImageFile) -> bool:
    """Return whether the end of a file is missing that Pillow would still decode."""
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
        raise DepthError("32 bits per channel")
    return image
