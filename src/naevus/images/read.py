"""Read and write image files; every image is decoded here.

JPEG files are decoded by libjpeg-turbo (simplejpeg), which can skip the frequencies that a smaller
image does not need. Pillow decodes the other formats. Colours are converted to sRGB (`profiles`).

simplejpeg was the fastest decoder measured (``benchmarks/bench_cache.py``, camera originals to 256
px, milliseconds of one processor per image), and the only one with all scales in eighths:

======================================  ====
simplejpeg                               9.6
OpenCV                                  10.0
Pillow's draft mode                     10.9
Pillow without scaling                  35
scikit-image without anti-aliasing      66
======================================  ====

JPEGs are decoded a quarter larger than needed (`jpeg.SPARE`), which takes a tenth more time. The
mean absolute difference to the anti-aliased image then falls from 1.6 to 1.0 grey levels.
"""

from __future__ import annotations

import io
import os
import stat
import threading
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import cv2
import numpy as np
from PIL import UnidentifiedImageError

from naevus.errors import ImageError
from naevus.images import decoders, jpeg, profiles
from naevus.io.extras import how_to_install
from naevus.io.files import too_long, write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from typing import BinaryIO

    from numpy.typing import NDArray
    from PIL import Image
    from PIL.ImageFile import ImageFile as OpenedImage

    from naevus.images.profiles import Conversion

_JPEG_SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".jpe"})
_HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
_JPEG2000_SUFFIXES = frozenset({".jp2", ".j2k", ".jpf", ".jpx", ".j2c"})
IMAGE_SUFFIXES = (
    frozenset({".png", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".avif"})
    | _JPEG_SUFFIXES
    | _JPEG2000_SUFFIXES
    | _HEIF_SUFFIXES
)
"""Suffixes of image files, in lower case."""

DECODING: Final = 2
"""Version of the decoding. It grows whenever a file gives other pixels, so that caches rebuild."""

IN_FLIGHT: Final = 200_000_000
"""Pixels that all threads together may decode at a time; a larger image is decoded alone."""

SMALL: Final = 1_000_000
"""Images of at most this many pixels do not count towards `IN_FLIGHT`."""


@dataclass(frozen=True)
class Limits:
    """Limits on image files, checked before decoding.

    Args:
        pixels: Maximum number of pixels (width x height); the square of the longer side may have
            twice as many. None: the value of `allow_megapixels`, otherwise 150,000,000 for JPEGs,
            which are decoded to scale, and 100,000,000 for other formats.
        file_bytes: Maximum size of a file in bytes.
    """

    pixels: int | None = None
    file_bytes: int = 500_000_000

    def pixels_of(self, file_format: str) -> int:
        """Return the maximum number of pixels of a file format."""
        pixels = _allowed if self.pixels is None else self.pixels
        if pixels is not None:
            return pixels
        return 150_000_000 if file_format == "JPEG" else 100_000_000

    def settings(self) -> dict[str, int]:
        """Return the effective limits, to be stored with results."""
        return {
            "jpeg_pixels": self.pixels_of("JPEG"),
            "pixels": self.pixels_of("PNG"),
            "file_bytes": self.file_bytes,
        }


_allowed: int | None = None


def allow_megapixels(most: float | None) -> None:
    """Set the default pixel limit of `Limits` for the whole process.

    Commands call it for their option ``--megapixels``. None restores the defaults.
    """
    global _allowed  # noqa: PLW0603 - a command's option holds wherever it reads images
    _allowed = None if most is None else round(most * 1e6)


class Header(NamedTuple):
    """Width and height of the upright image in pixels, and the file's format."""

    width: int
    height: int
    format: str


class DecodedImage(NamedTuple):
    """A decoded image.

    Attributes:
        pixels: H x W x 3, RGB; reduced if requested.
        header: The original size, and the format.
        flags: Flags of the file: keys of `naevus.types.FLAGS`.
    """

    pixels: NDArray[np.uint8]
    header: Header
    flags: tuple[str, ...]


class StoredValues(NamedTuple):
    """The stored values of an image file.

    Attributes:
        values: H x W or H x W x C, uint8 or uint16; 1-bit images have 0 and 255, images with a
            palette have indices.
        palette: 256 x 3, RGB of each index, if there is a palette.
        format: The file's format.
    """

    values: NDArray[Any]
    palette: NDArray[np.uint8] | None
    format: str


_DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class ImageBytes:
    """An image file in memory, such as an upload; it is read like a file.

    Args:
        name: Name for messages.
        content: The file's bytes.
    """

    name: str
    content: bytes = field(repr=False)

    @classmethod
    def from_stream(cls, stream: BinaryIO, name: str, limits: Limits = _DEFAULT_LIMITS) -> Self:
        """Read a binary stream from its current position; the stream stays open.

        Raises:
            ImageError: The stream exceeds the limit, cannot be read, or gives text.
        """
        try:
            content = stream.read(limits.file_bytes + 1)
        except (OSError, ValueError) as error:
            raise _unreadable(Path(name), error) from None
        if not isinstance(content, bytes | bytearray | memoryview):
            raise ImageError(
                Path(name), f"gives {type(content).__name__}, not bytes", "open it with 'rb'"
            )
        _check_bytes(Path(name), len(content), limits)
        return cls(name, bytes(content))


ImageFile = Path | ImageBytes
"""An image file: its path, or its bytes."""
_FETCH_AGAIN = "fetch it again from its source"


def probe(path: ImageFile, limits: Limits = _DEFAULT_LIMITS) -> Header:
    """Read an image's header without decoding the image.

    Raises:
        ImageError: The file is missing, empty, unreadable, not an image, or beyond the limits.
    """
    return probe_with_turn(path, limits)[0]


def read(
    path: ImageFile, *, shortest: int | None = None, limits: Limits = _DEFAULT_LIMITS
) -> NDArray[np.uint8]:
    """Read an image: upright, in sRGB, transparency over white, 8 bits per channel.

    If a file has several frames, the first is read. 16-bit values keep their high byte.

    Args:
        path: A JPEG, PNG, TIFF, BMP, WebP, GIF, AVIF, JPEG 2000 or (with the extra ``heif``) HEIC
            file, or the bytes of one.
        shortest: Required length of the shorter side in pixels. A JPEG is decoded at the smallest
            scale M/8 (M = 1..8) that leaves a quarter more, for the area resize that follows.
            Other formats are decoded at full size. Images are never enlarged.
        limits: Limits that are checked before decoding.

    Returns:
        H x W x 3, RGB.

    Raises:
        ImageError: As `probe`, or the file is truncated or damaged.
    """
    return read_with_header(path, shortest=shortest, limits=limits).pixels


def read_with_header(
    path: ImageFile, *, shortest: int | None = None, limits: Limits = _DEFAULT_LIMITS
) -> DecodedImage:
    """Read an image as `read` does and its header as `probe` does, opening the file once.

    Raises:
        ImageError: As `read`.
    """
    return _decode(path, limits, shortest)


def read_stored(path: ImageFile, limits: Limits = _DEFAULT_LIMITS) -> StoredValues:
    """Read the stored values of a file, such as a mask's; upright.

    Raises:
        ImageError: As `read`.
    """
    named, data = _content(path, limits)
    with _named(named):
        stream = io.BytesIO(data)
        image = _open(named, stream)
        _check_pixels(named, image, limits)
        file_format, palette = decoders.format_of(image), None
        flags: list[str] = []
        with _IN_FLIGHT.room_for(_cost(image, file_format, None)):
            if file_format == "JPEG":
                values: NDArray[Any] = _decode_jpeg(
                    image, stream.getvalue(), None, limits, flags, in_colour=False
                )
                if "damaged" in flags:  # wrong values would go unnoticed
                    raise ValueError("parts of it may be missing or wrong")
            else:
                decoders.load(data, image)
                values, palette = decoders.stored(image, data)
            values = decoders.upright(values, decoders.orientation(image))
        return StoredValues(values, palette, file_format)


def probe_with_turn(path: ImageFile, limits: Limits = _DEFAULT_LIMITS) -> tuple[Header, int]:
    """Read a header as `probe` does, and the file's EXIF orientation (1..8).

    Raises:
        ImageError: As `probe`.
    """
    named, stream = _opened(path, limits)
    with stream, _named(named):
        image = _open(named, stream)
        _check_pixels(named, image, limits)
        image = decoders.find_late_exif(stream, image)
        held = decoders.orientation(image)
        return Header(*decoders.shown_size(image, held), decoders.format_of(image)), held


def from_pillow(image: Image.Image, name: str, limits: Limits = _DEFAULT_LIMITS) -> DecodedImage:
    """Convert one of Pillow's images as `read` converts a file.

    Args:
        image: An image opened or created by Pillow, at its current frame. A profile and EXIF
            count, as in files.
        name: Name for messages.
        limits: Limits that are checked before loading.

    Raises:
        ImageError: The image is beyond the limits, or its file is truncated or damaged.
    """
    path = Path(name)
    flags: list[str] = []
    with _named(path):
        _check_pixels(path, image, limits)
        with _IN_FLIGHT.room_for(image.width * image.height):
            image.load()
            pixels = decoders.over_white(image, _conversion(image, b"", flags))
            pixels = decoders.upright(pixels, decoders.orientation(image))
    height, width = pixels.shape[:2]
    return DecodedImage(pixels, Header(width, height, image.format or "image"), tuple(flags))


def write_png(path: Path, pixels: NDArray[Any]) -> None:
    """Write a PNG atomically; the same pixels give the same bytes.

    OpenCV's encoder takes a ninth of Pillow's time for a crop of 192 px, at default settings, and
    writes a seventh more bytes.

    Args:
        path: The file to write; missing folders are created.
        pixels: H x W x 3 or H x W uint8, or a H x W mask (written as 0 and 255).
    """
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * 255
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".png", np.ascontiguousarray(pixels))
    write_bytes(path, encoded.tobytes())


def _decode(source: ImageFile, limits: Limits, shortest: int | None) -> DecodedImage:
    path, data = _content(source, limits)
    with _named(path):
        stream = io.BytesIO(data)
        image = _open(path, stream)
        _check_pixels(path, image, limits)
        file_format = decoders.format_of(image)
        flags: list[str] = []
        with _IN_FLIGHT.room_for(_cost(image, file_format, shortest)):
            if file_format == "JPEG":
                pixels = _decode_jpeg(
                    image, stream.getvalue(), shortest, limits, flags, in_colour=True
                )
            else:
                if decoders.is_first_of_several(image):
                    flags.append("first_frame")
                decoders.load(data, image)
                pixels = decoders.over_white(image, _conversion(image, data, flags))
            # After loading, a PNG's late EXIF is known, and Pillow has rotated a TIFF.
            held = decoders.orientation(image)
            pixels = decoders.upright(pixels, held)
        return DecodedImage(
            pixels, Header(*decoders.shown_size(image, held), file_format), tuple(flags)
        )


def _decode_jpeg(
    image: OpenedImage,
    data: bytes,
    shortest: int | None,
    limits: Limits,
    flags: list[str],
    *,
    in_colour: bool,
) -> NDArray[np.uint8]:
    width, height = image.size
    if decoders.has_several_scans(image, data):
        jpeg.check_scans(data, width * height, limits.pixels_of("JPEG"))
    pixels, damaged = jpeg.decode(data, shortest, progressive="progressive" in image.info)
    if damaged:
        flags.append("damaged")
    conversion = _conversion(image, data, flags) if in_colour else None
    inverted = "adobe" in image.info
    if conversion is None:
        return decoders.without_ink(pixels, inverted=inverted) if pixels.shape[2] == 4 else pixels
    if conversion.space == "L":
        return conversion.apply(pixels[:, :, 0])
    return conversion.apply(255 - pixels if inverted and pixels.shape[2] == 4 else pixels)


def _conversion(image: Image.Image, data: bytes, flags: list[str]) -> Conversion | None:
    """Return the image's conversion to sRGB; flag a profile that cannot be used."""
    if image.format == "JPEG":  # mostly without a profile, or with a known sRGB profile
        embedded = image.info.get("icc_profile")
        if embedded is None and "exif" not in image.info:
            return None
        if embedded in _SRGB_BEFORE and image.mode != "CMYK":
            return None
    try:
        profile = profiles.profile_of(image, data)
        if profile is None:
            return None
        found = profiles.conversion(profile, profiles.channels_of(image.mode))
    except profiles.BrokenProfileError:
        flags.append("broken_profile")
        return None
    if found is None and len(_SRGB_BEFORE) < _MOST_KNOWN and len(profile) < _SHORT_PROFILE:
        _SRGB_BEFORE.add(profile)
    return found


def _cost(image: OpenedImage, file_format: str, shortest: int | None) -> int:
    """Return about how many pixels are in memory while an image is decoded."""
    width, height = image.size
    if file_format != "JPEG" or "progressive" in image.info or not shortest:
        return width * height
    scale = min(1.0, jpeg.SPARE * shortest / min(width, height))
    return round(width * height * scale**2)


_SRGB_BEFORE: set[bytes] = set()
_MOST_KNOWN, _SHORT_PROFILE = 32, 65_536
_NO_WAIT: Final = nullcontext()


class _Room:
    """The number of pixels that all threads together may hold."""

    def __init__(self, pixels: int) -> None:
        self._all = self._free = pixels
        self._changed = threading.Condition()

    def room_for(self, pixels: int) -> AbstractContextManager[None]:
        """Reserve room for pixels, waiting if needed; small images do not wait."""
        return _NO_WAIT if pixels <= SMALL else self._taken(pixels)

    @contextmanager
    def _taken(self, pixels: int) -> Iterator[None]:
        taken = min(pixels, self._all)
        with self._changed:
            while self._free < taken:
                self._changed.wait()
            self._free -= taken
        try:
            yield
        finally:
            with self._changed:
                self._free += taken
                self._changed.notify_all()


_IN_FLIGHT = _Room(IN_FLIGHT)


def _renew_room() -> None:
    global _IN_FLIGHT  # noqa: PLW0603 - threads that are gone may have reserved some
    _IN_FLIGHT = _Room(IN_FLIGHT)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_room)


def _check_file(path: Path, limits: Limits) -> None:
    try:
        status = path.stat()
    except FileNotFoundError:
        remedy = too_long(path) or "check the name and the folder"
        raise ImageError(path, _ABSENT, remedy) from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if not stat.S_ISREG(status.st_mode):
        kind = "is a folder" if stat.S_ISDIR(status.st_mode) else "is not a regular file"
        raise ImageError(path, kind, "name an image file")
    _check_bytes(path, status.st_size, limits)


_ABSENT, _UNREADABLE = "does not exist", "cannot be read"
TRANSIENT: Final = (_ABSENT, _UNREADABLE)
"""How problems begin that are the system's, not the file's: they may be gone the next time."""


def _check_bytes(path: Path, count: int, limits: Limits) -> None:
    if count == 0:
        raise ImageError(path, "is empty", _FETCH_AGAIN)
    if count > limits.file_bytes:
        raise ImageError(
            path,
            f"has {count:,} bytes, more than the limit of {limits.file_bytes:,}",
            "raise the limit on file size, or save a smaller file",
        )


def _name(source: ImageFile) -> Path:
    return Path(source.name) if isinstance(source, ImageBytes) else source


def _opened(source: ImageFile, limits: Limits) -> tuple[Path, BinaryIO]:
    """Check a file, and return its name for messages and a stream."""
    if isinstance(source, ImageBytes):
        _check_bytes(_name(source), len(source.content), limits)
        return _name(source), io.BytesIO(source.content)
    _check_file(source, limits)
    try:
        return source, source.open("rb")
    except OSError as error:
        raise _unreadable(source, error) from None


def _content(source: ImageFile, limits: Limits) -> tuple[Path, bytes]:
    """Return a file's name for messages, and its bytes."""
    if isinstance(source, ImageBytes):
        _check_bytes(_name(source), len(source.content), limits)
        return _name(source), source.content
    path, stream = _opened(source, limits)
    try:
        with stream:
            return path, stream.read()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> ImageError:
    why = getattr(error, "strerror", None) or error
    return ImageError(path, f"{_UNREADABLE} ({why})", "check that you have permission to read it")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn any exception that a decoder raises into an `ImageError`."""
    try:
        yield
    except ImageError:
        raise
    except decoders.DepthError as error:
        raise _too_deep(path, error) from None
    except Exception as error:
        raise ImageError(
            path,
            f"is truncated, damaged or of an unsupported kind ({error})",
            f"{_FETCH_AGAIN}, or save it again",
        ) from error


def _too_deep(path: Path, error: decoders.DepthError) -> ImageError:
    return ImageError(path, f"has {error}, which is not supported", "save it with 8 or 16")


def _open(path: Path, stream: BinaryIO) -> OpenedImage:
    try:
        return decoders.open_image(stream)
    except UnidentifiedImageError:
        raise ImageError(
            path,
            "is not a JPEG, PNG, TIFF, BMP, WebP, GIF, AVIF, JPEG 2000 or HEIC image, "
            "or its beginning is damaged",
            f"{_FETCH_AGAIN}, or remove it from the folder",
        ) from None
    except decoders.DepthError as error:
        raise _too_deep(path, error) from None
    except decoders.MissingExtraError as error:
        raise ImageError(
            path,
            f"is an image in {error}, whose decoder is not installed",
            f"{how_to_install('heif')}, or save it as JPEG",
        ) from None


def _check_pixels(path: Path, image: Image.Image, limits: Limits) -> None:
    check_size(path, *image.size, limits.pixels_of(decoders.format_of(image)))


def check_size(path: Path, width: int, height: int, most: int) -> None:
    """Check that an image has at most ``most`` pixels and is not too long.

    Raises:
        ImageError: It exceeds a limit.
    """
    if width * height > most:
        raise ImageError(
            path,
            f"has {width:,} x {height:,} pixels, more than the limit of {most:,}",
            f"raise the limit with --megapixels {ceil(width * height / 1e6)}, "
            "or save a smaller image",
        )
    # A crop is square: around a lesion that fills a narrow strip it has the square of its length.
    longest = max(width, height)
    if longest**2 > 2 * most:
        raise ImageError(
            path,
            f"has {width:,} x {height:,} pixels, too long for the limit of {most:,}",
            f"raise the limit with --megapixels {ceil(longest**2 / 2e6)}, or crop it to the lesion",
        )
