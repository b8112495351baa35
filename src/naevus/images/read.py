"""Reading and writing picture files: the one place where a picture is decoded.

JPEG files go through libjpeg-turbo (simplejpeg), which can leave out the frequencies that a smaller
picture does not need; the other formats go through Pillow. simplejpeg was chosen by measurement
(``benchmarks/bench_cache.py``, 21 camera originals of 1 to 10 megapixels to 256 px, milliseconds of
one processor a picture): simplejpeg 9.6, OpenCV 10.0, Pillow's draft 10.9, Pillow without scaling
35, scikit-image without anti-aliasing 66. It alone offers all eighths as scales. A
quarter more pixels than needed are decoded (`decoders.SPARE`), for a tenth more time: the mean
absolute difference to the anti-aliased picture is then 1.0 grey level (at most 1.6 for any one);
without it, 1.6 (2.5).
"""

from __future__ import annotations

import io
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from PIL import UnidentifiedImageError

from naevus.errors import PictureError
from naevus.files import write_bytes
from naevus.images import decoders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray
    from PIL import Image
    from PIL.ImageFile import ImageFile

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"})
"""Suffixes of the files that are taken for pictures, in lower case."""


@dataclass(frozen=True)
class Limits:
    """What is refused before anything is decoded.

    Args:
        pixels: Most pixels (width x height) a picture may have; the square of its longer side may
            have twice as many.
        file_bytes: Most bytes its file may have.
    """

    pixels: int = 100_000_000
    file_bytes: int = 500_000_000


class Header(NamedTuple):
    """Width and height in pixels as the picture will be shown, and the file's format."""

    width: int
    height: int
    format: str


_DEFAULT_LIMITS = Limits()
_FETCH_AGAIN = "fetch it again from its source"


def probe(path: Path, limits: Limits = _DEFAULT_LIMITS) -> Header:
    """Read a picture's header, decoding nothing.

    Raises:
        PictureError: The file is absent, empty, unreadable, not a picture, or beyond the limits.
    """
    _check_file(path, limits)
    with _opened(path) as stream, _named(path):
        image = _open(path, stream)
        _check_pixels(path, image, limits)
        return Header(*decoders.shown_size(image), decoders.format_of(image))


def read(
    path: Path, *, shortest: int | None = None, limits: Limits = _DEFAULT_LIMITS
) -> NDArray[np.uint8]:
    """Read a whole picture: upright, transparency over white, 8 bits a channel.

    Of a file with several frames the first is read. 16-bit values keep their high byte.

    Args:
        path: A JPEG, PNG, TIFF, BMP or WebP file.
        shortest: Pixels that the shorter side will be needed at. A JPEG is then decoded at the
            smallest scale M/8 (M = 1..8) that leaves a quarter more than that, for the area
            resize to come; other formats come whole. Nothing is ever enlarged.
        limits: What is refused from the header alone.

    Returns:
        H x W x 3, RGB.

    Raises:
        PictureError: As `probe`, or the file is cut off or damaged.
    """
    return read_with_header(path, shortest=shortest, limits=limits)[0]


def read_with_header(
    path: Path, *, shortest: int | None = None, limits: Limits = _DEFAULT_LIMITS
) -> tuple[NDArray[np.uint8], Header]:
    """Read a whole picture as `read` does, and its header as `probe` does, opening it once.

    Raises:
        PictureError: As `read`.
    """
    pixels, header = _decode(path, limits, shortest, decoders.over_white)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    return pixels, header


def read_grey(path: Path, limits: Limits = _DEFAULT_LIMITS) -> NDArray[np.uint8]:
    """Read the values of a grey picture such as a mask; transparency is left aside.

    Returns:
        H x W; 1-bit pictures have 0 and 255.

    Raises:
        PictureError: As `read`, or the picture is in colour.
    """
    pixels, _ = _decode(path, limits, None, decoders.without_alpha)
    if pixels.ndim == 2:
        return pixels
    grey = pixels[:, :, 0]
    if not ((grey == pixels[:, :, 1]).all() and (grey == pixels[:, :, 2]).all()):
        raise PictureError(path, "is in colour", "a mask must be a grey picture of 0 and 255")
    return np.ascontiguousarray(grey)


def read_mask(path: Path, limits: Limits = _DEFAULT_LIMITS) -> NDArray[np.bool_]:
    """Read a mask: what is lighter than middle grey (over 127) is foreground.

    Returns:
        H x W.

    Raises:
        PictureError: As `read_grey`.
    """
    return read_grey(path, limits) > 127


def write_png(path: Path, pixels: NDArray[Any]) -> None:
    """Write a PNG atomically; the same pixels give the same bytes.

    OpenCV's encoder at its own settings: a crop of 192 px takes a ninth of the time that Pillow
    takes at its own, and a seventh more bytes.

    Args:
        path: Where to; missing folders are made.
        pixels: H x W x 3 or H x W uint8, or a H x W mask (written as 0 and 255).
    """
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * 255
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".png", np.ascontiguousarray(pixels))
    write_bytes(path, encoded.tobytes())


def _decode(
    path: Path,
    limits: Limits,
    shortest: int | None,
    values_of: Callable[[Image.Image], NDArray[np.uint8]],
) -> tuple[NDArray[np.uint8], Header]:
    _check_file(path, limits)
    with _opened(path) as stream:
        data = stream.read()
    with _named(path):
        image = _open(path, io.BytesIO(data))
        _check_pixels(path, image, limits)
        form = decoders.format_of(image)
        if form == "JPEG":
            pixels = decoders.decode_jpeg(data, image, shortest)
        else:
            decoders.load(data, image)
            pixels = values_of(image)
        # Asked after loading: by then a PNG's late EXIF is there, and Pillow has turned a TIFF.
        pixels = decoders.upright(pixels, decoders.orientation(image))
        return pixels, Header(*decoders.shown_size(image), form)


def _check_file(path: Path, limits: Limits) -> None:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise PictureError(path, "is not there", "check the name and the folder") from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if not stat.S_ISREG(status.st_mode):
        kind = "is a folder" if stat.S_ISDIR(status.st_mode) else "is not an ordinary file"
        raise PictureError(path, kind, "name a picture file")
    if status.st_size == 0:
        raise PictureError(path, "is empty", _FETCH_AGAIN)
    if status.st_size > limits.file_bytes:
        raise PictureError(
            path,
            f"has {status.st_size:,} bytes, more than the limit of {limits.file_bytes:,}",
            "raise the limit on file size, or save it smaller",
        )


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as stream:
            yield stream
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> PictureError:
    why = getattr(error, "strerror", None) or error
    return PictureError(path, f"cannot be read ({why})", "check that you may read it")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises at a damaged file into a PictureError."""
    try:
        yield
    except PictureError:
        raise
    except Exception as error:
        raise PictureError(
            path,
            f"is cut off, damaged or of a rare kind ({error})",
            f"{_FETCH_AGAIN}, or save it anew",
        ) from error


def _open(path: Path, stream: BinaryIO) -> ImageFile:
    try:
        return decoders.open_picture(stream)
    except UnidentifiedImageError:
        raise PictureError(
            path,
            "is not a JPEG, PNG, TIFF, BMP or WebP picture, or its beginning is damaged",
            f"{_FETCH_AGAIN}, or take it out of the folder",
        ) from None


def _check_pixels(path: Path, image: ImageFile, limits: Limits) -> None:
    width, height = image.size
    if width * height > limits.pixels:
        raise PictureError(
            path,
            f"has {width:,} x {height:,} pixels, more than the limit of {limits.pixels:,}",
            "raise the limit on pixels, or save it smaller",
        )
    # A crop is square: round a lesion along all of a narrow strip it has its length squared.
    if max(width, height) ** 2 > 2 * limits.pixels:
        raise PictureError(
            path,
            f"has {width:,} x {height:,} pixels, too long for the limit of {limits.pixels:,}",
            "raise the limit on pixels, or cut it to the lesion",
        )
