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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import cv2
import numpy as np
from PIL import UnidentifiedImageError

from naevus.errors import PictureError
from naevus.files import write_bytes
from naevus.images import decoders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from numpy.typing import NDArray
    from PIL import Image
    from PIL.ImageFile import ImageFile as OpenedImage

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


class DecodedImage(NamedTuple):
    """An image as it was read.

    Attributes:
        pixels: H x W x 3, RGB; scaled where that was asked for.
        header: Its own size and format.
        flags: What a reader should know of the file: keys of `naevus.flags.FLAGS`.
    """

    pixels: NDArray[np.uint8]
    header: Header
    flags: tuple[str, ...]


_DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class ImageBytes:
    """An image file that is held in memory, such as an upload; read as a file is.

    Args:
        name: What messages call it.
        content: All bytes of the file.
    """

    name: str
    content: bytes = field(repr=False)

    @classmethod
    def from_stream(cls, stream: BinaryIO, name: str, limits: Limits = _DEFAULT_LIMITS) -> Self:
        """Take what a binary stream holds from where it stands; it is not closed.

        Raises:
            PictureError: It holds more than the limit, cannot be read, or gives text.
        """
        try:
            content = stream.read(limits.file_bytes + 1)
        except (OSError, ValueError) as error:
            raise _unreadable(Path(name), error) from None
        if not isinstance(content, bytes | bytearray | memoryview):
            raise PictureError(Path(name), "gives text, not bytes", "open it in binary mode")
        _check_bytes(Path(name), len(content), limits)
        return cls(name, bytes(content))


ImageFile = Path | ImageBytes
"""What is read: a file, or its bytes."""
_FETCH_AGAIN = "fetch it again from its source"


def probe(path: ImageFile, limits: Limits = _DEFAULT_LIMITS) -> Header:
    """Read a picture's header, decoding nothing.

    Raises:
        PictureError: The file is absent, empty, unreadable, not a picture, or beyond the limits.
    """
    named, stream = _opened(path, limits)
    with stream, _named(named):
        image = _open(named, stream)
        _check_pixels(named, image, limits)
        return Header(*decoders.shown_size(image), decoders.format_of(image))


def read(
    path: ImageFile, *, shortest: int | None = None, limits: Limits = _DEFAULT_LIMITS
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
    return read_with_header(path, shortest=shortest, limits=limits).pixels


def read_with_header(
    path: ImageFile, *, shortest: int | None = None, limits: Limits = _DEFAULT_LIMITS
) -> DecodedImage:
    """Read a whole picture as `read` does, and its header as `probe` does, opening it once.

    Raises:
        PictureError: As `read`.
    """
    pixels, header = _decode(path, limits, shortest, decoders.over_white)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    return DecodedImage(pixels, header, ())


def read_grey(path: ImageFile, limits: Limits = _DEFAULT_LIMITS) -> NDArray[np.uint8]:
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
        raise PictureError(
            _name(path), "is in colour", "a mask must be a grey picture of 0 and 255"
        )
    return np.ascontiguousarray(grey)


def read_mask(path: ImageFile, limits: Limits = _DEFAULT_LIMITS) -> NDArray[np.bool_]:
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
    source: ImageFile,
    limits: Limits,
    shortest: int | None,
    values_of: Callable[[Image.Image], NDArray[np.uint8]],
) -> tuple[NDArray[np.uint8], Header]:
    path, data = _content(source, limits)
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
    _check_bytes(path, status.st_size, limits)


def _check_bytes(path: Path, count: int, limits: Limits) -> None:
    if count == 0:
        raise PictureError(path, "is empty", _FETCH_AGAIN)
    if count > limits.file_bytes:
        raise PictureError(
            path,
            f"has {count:,} bytes, more than the limit of {limits.file_bytes:,}",
            "raise the limit on file size, or save it smaller",
        )


def _name(source: ImageFile) -> Path:
    return Path(source.name) if isinstance(source, ImageBytes) else source


def _opened(source: ImageFile, limits: Limits) -> tuple[Path, BinaryIO]:
    """Return what messages call a file, and a stream of it, once it is checked."""
    if isinstance(source, ImageBytes):
        _check_bytes(_name(source), len(source.content), limits)
        return _name(source), io.BytesIO(source.content)
    _check_file(source, limits)
    try:
        return source, source.open("rb")
    except OSError as error:
        raise _unreadable(source, error) from None


def _content(source: ImageFile, limits: Limits) -> tuple[Path, bytes]:
    """Return what messages call a file, and all its bytes."""
    if isinstance(source, ImageBytes):
        _check_bytes(_name(source), len(source.content), limits)
        return _name(source), source.content
    path, stream = _opened(source, limits)
    try:
        with stream:
            return path, stream.read()
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


def _open(path: Path, stream: BinaryIO) -> OpenedImage:
    try:
        return decoders.open_picture(stream)
    except UnidentifiedImageError:
        raise PictureError(
            path,
            "is not a JPEG, PNG, TIFF, BMP or WebP picture, or its beginning is damaged",
            f"{_FETCH_AGAIN}, or take it out of the folder",
        ) from None


def _check_pixels(path: Path, image: OpenedImage, limits: Limits) -> None:
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
