"""Reading and writing image files: the one place where an image is decoded.

JPEG files go through libjpeg-turbo (simplejpeg), which can leave out the frequencies that a smaller
image does not need; the other formats go through Pillow. Colours come out as sRGB (`profiles`),
whatever profile a file carries. simplejpeg was chosen by measurement
(``benchmarks/bench_cache.py``, 21 camera originals of 1 to 10 megapixels to 256 px, milliseconds of
one processor an image): simplejpeg 9.6, OpenCV 10.0, Pillow's draft 10.9, Pillow without scaling
35, scikit-image without anti-aliasing 66. It alone offers all eighths as scales. A
quarter more pixels than needed are decoded (`jpeg.SPARE`), for a tenth more time: the mean
absolute difference to the anti-aliased image is then 1.0 grey level (at most 1.6 for any one);
without it, 1.6 (2.5).
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
"""Suffixes of the files that are taken for images, in lower case."""

DECODING: Final = 2
"""Raised whenever the same file gives other pixels: what was made of it is then made again."""

IN_FLIGHT: Final = 200_000_000
"""Most pixels that are decoded at a time by all threads; a larger image is decoded alone."""

SMALL: Final = 1_000_000
"""Images of no more pixels are not counted among them."""


@dataclass(frozen=True)
class Limits:
    """What is refused before anything is decoded.

    Args:
        pixels: Most pixels (width x height) an image may have; the square of its longer side may
            have twice as many. None: what `allow_megapixels` set, else 150,000,000 of a JPEG,
            which is decoded scaled, and 100,000,000 of others.
        file_bytes: Most bytes its file may have.
    """

    pixels: int | None = None
    file_bytes: int = 500_000_000

    def pixels_of(self, input_spec: str) -> int:
        """Return the most pixels of a file of this format."""
        pixels = _allowed if self.pixels is None else self.pixels
        if pixels is not None:
            return pixels
        return 150_000_000 if input_spec == "JPEG" else 100_000_000

    def settings(self) -> dict[str, int]:
        """Return the limits in force, for what is kept with them."""
        return {
            "jpeg_pixels": self.pixels_of("JPEG"),
            "pixels": self.pixels_of("PNG"),
            "file_bytes": self.file_bytes,
        }


_allowed: int | None = None


def allow_megapixels(most: float | None) -> None:
    """Set how large images may be wherever `Limits` says nothing, in the whole process.

    Commands do it for their option ``--megapixels``; None: the defaults of `Limits`.
    """
    global _allowed  # noqa: PLW0603 - a command's option holds wherever it reads images
    _allowed = None if most is None else round(most * 1e6)


class Header(NamedTuple):
    """Width and height in pixels as the image will be shown, and the file's format."""

    width: int
    height: int
    format: str


class DecodedImage(NamedTuple):
    """An image as it was read.

    Attributes:
        pixels: H x W x 3, RGB; scaled where that was asked for.
        header: Its own size and format.
        flags: What a reader should know of the file: keys of `naevus.types.FLAGS`.
    """

    pixels: NDArray[np.uint8]
    header: Header
    flags: tuple[str, ...]


class StoredValues(NamedTuple):
    """What is stored of each pixel.

    Attributes:
        values: H x W or H x W x C, uint8 or uint16; 1-bit images have 0 and 255, palettes'
            numbers come as they are.
        palette: 256 x 3, RGB of each number, where there is one.
        format: The file's format.
    """

    values: NDArray[Any]
    palette: NDArray[np.uint8] | None
    format: str


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
            ImageError: It holds more than the limit, cannot be read, or gives text.
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
"""What is read: a file, or its bytes."""
_FETCH_AGAIN = "fetch it again from its source"


def probe(path: ImageFile, limits: Limits = _DEFAULT_LIMITS) -> Header:
    """Read an image's header, decoding nothing.

    Raises:
        ImageError: The file is absent, empty, unreadable, not an image, or beyond the limits.
    """
    return probe_with_turn(path, limits)[0]


def read(
    path: ImageFile, *, shortest: int | None = None, limits: Limits = _DEFAULT_LIMITS
) -> NDArray[np.uint8]:
    """Read a whole image: upright, in sRGB, transparency over white, 8 bits a channel.

    Of a file with several frames the first is read. 16-bit values keep their high byte.

    Args:
        path: A JPEG, PNG, TIFF, BMP, WebP, GIF, AVIF, JPEG 2000 or (with the extra ``heif``) HEIC
            file, or the bytes of one.
        shortest: Pixels that the shorter side will be needed at. A JPEG is then decoded at the
            smallest scale M/8 (M = 1..8) that leaves a quarter more than that, for the area
            resize to come; other formats come whole. Nothing is ever enlarged.
        limits: What is refused from the header alone.

    Returns:
        H x W x 3, RGB.

    Raises:
        ImageError: As `probe`, or the file is cut off or damaged.
    """
    return read_with_header(path, shortest=shortest, limits=limits).pixels


def read_with_header(
    path: ImageFile, *, shortest: int | None = None, limits: Limits = _DEFAULT_LIMITS
) -> DecodedImage:
    """Read a whole image as `read` does, and its header as `probe` does, opening it once.

    Raises:
        ImageError: As `read`.
    """
    return _decode(path, limits, shortest)


def read_stored(path: ImageFile, limits: Limits = _DEFAULT_LIMITS) -> StoredValues:
    """Read the values of a file as they are stored, such as a mask's; upright.

    Raises:
        ImageError: As `read`.
    """
    named, data = _content(path, limits)
    with _named(named):
        stream = io.BytesIO(data)
        image = _open(named, stream)
        _check_pixels(named, image, limits)
        input_spec, palette = decoders.format_of(image), None
        flags: list[str] = []
        with _IN_FLIGHT.room_for(_cost(image, input_spec, None)):
            if input_spec == "JPEG":
                values: NDArray[Any] = _decode_jpeg(
                    image, stream.getvalue(), None, limits, flags, in_colour=False
                )
                if "damaged" in flags:  # doubtful values would be taken as they are
                    raise ValueError("parts of it are missing or doubtful")
            else:
                decoders.load(data, image)
                values, palette = decoders.stored(image, data)
            values = decoders.upright(values, decoders.orientation(image))
        return StoredValues(values, palette, input_spec)


def probe_with_turn(path: ImageFile, limits: Limits = _DEFAULT_LIMITS) -> tuple[Header, int]:
    """Read a header as `probe` does, and the EXIF orientation (1..8) that was undone for it.

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
    """Take the pixels of an image of Pillow as `read` takes those of a file.

    Args:
        image: Opened or made by Pillow; of several frames the one it stands at. It may carry a
            profile and EXIF, as files do.
        name: What messages call it.
        limits: What is refused before it is loaded.

    Raises:
        ImageError: It is beyond the limits, or the file behind it is cut off or damaged.
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


def _decode(source: ImageFile, limits: Limits, shortest: int | None) -> DecodedImage:
    path, data = _content(source, limits)
    with _named(path):
        stream = io.BytesIO(data)
        image = _open(path, stream)
        _check_pixels(path, image, limits)
        input_spec = decoders.format_of(image)
        flags: list[str] = []
        with _IN_FLIGHT.room_for(_cost(image, input_spec, shortest)):
            if input_spec == "JPEG":
                pixels = _decode_jpeg(
                    image, stream.getvalue(), shortest, limits, flags, in_colour=True
                )
            else:
                if decoders.is_first_of_several(image):
                    flags.append("first_frame")
                decoders.load(data, image)
                pixels = decoders.over_white(image, _conversion(image, data, flags))
            # Asked after loading: by then a PNG's late EXIF is there, and Pillow has turned a TIFF.
            held = decoders.orientation(image)
            pixels = decoders.upright(pixels, held)
        return DecodedImage(
            pixels, Header(*decoders.shown_size(image, held), input_spec), tuple(flags)
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
    """Return how the image becomes sRGB; of a profile that cannot be used the flags tell."""
    if image.format == "JPEG":  # what most are: nothing, or sRGB as often before
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


def _cost(image: OpenedImage, input_spec: str, shortest: int | None) -> int:
    """Return about how many pixels are held while an image is decoded."""
    width, height = image.size
    if input_spec != "JPEG" or "progressive" in image.info or not shortest:
        return width * height
    scale = min(1.0, jpeg.SPARE * shortest / min(width, height))
    return round(width * height * scale**2)


_SRGB_BEFORE: set[bytes] = set()
_MOST_KNOWN, _SHORT_PROFILE = 32, 65_536
_NO_WAIT: Final = nullcontext()


class _Room:
    """Pixels that may be held by all threads together."""

    def __init__(self, pixels: int) -> None:
        self._all = self._free = pixels
        self._changed = threading.Condition()

    def room_for(self, pixels: int) -> AbstractContextManager[None]:
        """Wait for room, and hold it; small images go by, for waiting costs them more."""
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
    global _IN_FLIGHT  # noqa: PLW0603 - threads that are gone may have taken some
    _IN_FLIGHT = _Room(IN_FLIGHT)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_room)


def _check_file(path: Path, limits: Limits) -> None:
    try:
        status = path.stat()
    except FileNotFoundError:
        remedy = too_long(path) or "check the name and the folder"
        raise ImageError(path, "is not there", remedy) from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if not stat.S_ISREG(status.st_mode):
        kind = "is a folder" if stat.S_ISDIR(status.st_mode) else "is not an ordinary file"
        raise ImageError(path, kind, "name an image file")
    _check_bytes(path, status.st_size, limits)


def _check_bytes(path: Path, count: int, limits: Limits) -> None:
    if count == 0:
        raise ImageError(path, "is empty", _FETCH_AGAIN)
    if count > limits.file_bytes:
        raise ImageError(
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


def _unreadable(path: Path, error: Exception) -> ImageError:
    why = getattr(error, "strerror", None) or error
    return ImageError(path, f"cannot be read ({why})", "check that you may read it")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises at a damaged file into a ImageError."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(
            path,
            f"is cut off, damaged or of a rare kind ({error})",
            f"{_FETCH_AGAIN}, or save it anew",
        ) from error


def _open(path: Path, stream: BinaryIO) -> OpenedImage:
    try:
        return decoders.open_image(stream)
    except UnidentifiedImageError:
        raise ImageError(
            path,
            "is not a JPEG, PNG, TIFF, BMP, WebP, GIF, AVIF, JPEG 2000 or HEIC image, "
            "or its beginning is damaged",
            f"{_FETCH_AGAIN}, or take it out of the folder",
        ) from None
    except decoders.MissingExtraError as error:
        raise ImageError(
            path,
            f"is an image in {error}, whose decoder is not installed",
            'pip install "naevus[heif]", or save it as JPEG',
        ) from None


def _check_pixels(path: Path, image: Image.Image, limits: Limits) -> None:
    check_size(path, *image.size, limits.pixels_of(decoders.format_of(image)))


def check_size(path: Path, width: int, height: int, most: int) -> None:
    """Refuse an image of more pixels than ``most``, or one too long for that.

    Raises:
        ImageError: It is one.
    """
    if width * height > most:
        raise ImageError(
            path,
            f"has {width:,} x {height:,} pixels, more than the limit of {most:,}",
            f"raise the limit with --megapixels {ceil(width * height / 1e6)}, or save it smaller",
        )
    # A crop is square: round a lesion along all of a narrow strip it has its length squared.
    longest = max(width, height)
    if longest**2 > 2 * most:
        raise ImageError(
            path,
            f"has {width:,} x {height:,} pixels, too long for the limit of {most:,}",
            f"raise the limit with --megapixels {ceil(longest**2 / 2e6)}, or cut it to the lesion",
        )
