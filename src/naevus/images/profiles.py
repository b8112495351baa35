"""Colour profiles: find an image's colour space, and convert its pixels to sRGB by LittleCMS.

The networks were trained on sRGB. A profile equal to sRGB within two levels of 255 is skipped,
whatever its name. Any other profile is applied, relative colorimetric with black point
compensation. A profile is broken if it is unusable, does not fit the image's channels, or swaps
black and white.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

Space = Literal["L", "RGB", "CMYK"]

MOST_BYTES: Final = 16_000_000
"""Larger profiles are rejected; those of printing presses have up to 3,000,000 bytes."""

_SPACES: Final[dict[str, Space]] = {"GRAY": "L", "RGB ": "RGB", "CMYK": "CMYK"}
_ALIKE = 2  # levels; smaller differences come from rounding in tables
_STRIP = 1_000_000  # pixels converted at a time
_LEAST_RANGE = 100  # levels between black and white
_RAMP = np.arange(0, 256, 5, dtype=np.uint8)


class BrokenProfileError(ValueError):
    """An unusable profile."""


class Primaries(NamedTuple):
    """The chromaticities x, y of an RGB space's channels and of its white."""

    red: tuple[float, float]
    green: tuple[float, float]
    blue: tuple[float, float]
    white: tuple[float, float] = (0.3127, 0.3290)


SRGB: Final = Primaries((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
ADOBE_RGB: Final = Primaries((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
DISPLAY_P3: Final = Primaries((0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
BT2020: Final = Primaries((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
ADOBE_GAMMA: Final = 563 / 256

BY_CODE_POINT: Final = {1: SRGB, 9: BT2020, 12: DISPLAY_P3}
_UNSPECIFIED = 2
_LIKE_SRGB = frozenset({1, 5, 6})  # BT.709 and both BT.601, which viewers treat as sRGB
_SRGB_CURVES = frozenset({1, 2, 6, 13, 14, 15})  # sRGB, and curves that viewers treat as sRGB
_GAMMAS: Final[dict[int, float]] = {4: 2.2, 5: 2.8, 8: 1.0}
_ISO_HEADER = 200_000  # bytes that contain the boxes describing an image
_SRGB_GAMA, _NEAR_GAMA, _NEAR_XY = 0.45455, 0.02, 0.005
_EXIF_IFD, _INTEROP_IFD, _COLOUR_SPACE, _OLD_ADOBE = 0x8769, 0xA005, 0xA001, 2
_ADOBE_SIGNS = (
    b"R03",
    b"\x01\xa0\x03\x00\x01\x00\x00\x00\x02\x00",  # colour space 2, in either byte order
    b"\xa0\x01\x00\x03\x00\x00\x00\x01\x00\x02",
)


@dataclass(frozen=True)
class Conversion:
    """A conversion from an image's colours to sRGB.

    Attributes:
        space: The channels of its input.
    """

    space: Space
    _transform: Any

    def apply(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Convert pixels: H x W of grey, H x W x 3, or H x W x 4 of ink (255: full).

        Returns:
            H x W x 3, sRGB.
        """
        height, width = pixels.shape[:2]
        converted = np.empty((height, width, 3), np.uint8)
        rows = max(1, _STRIP // width)
        for top in range(0, height, rows):
            strip = pixels[top : top + rows]
            converted[top : top + rows] = _transformed(strip, self.space, self._transform)
        return converted


def conversion(profile: bytes, channels: Space) -> Conversion | None:
    """Return the conversion of a profile's colours to sRGB; None if the profile is sRGB.

    Args:
        profile: An ICC profile.
        channels: The image's channels. A grey image may have an RGB profile.

    Raises:
        BrokenProfileError: The profile is unusable, or does not fit the channels.
    """
    if len(profile) > MOST_BYTES:
        raise BrokenProfileError(f"a profile of {len(profile):,} bytes")
    try:
        found = _conversion(profile)
    except Exception as error:  # LittleCMS and Pillow raise anything
        raise BrokenProfileError(str(error)) from error
    space = found.space if isinstance(found, Conversion) else found
    if space != channels and (channels, space) != ("L", "RGB"):
        raise BrokenProfileError(f"a profile of {space} for an image of {channels}")
    return found if isinstance(found, Conversion) else None


def channels_of(mode: str) -> Space:
    """Return the channels of one of Pillow's image modes, without alpha."""
    if mode in {"1", "L", "LA"} or mode.startswith("I;16"):
        return "L"
    return "CMYK" if mode == "CMYK" else "RGB"


def profile_of(image: Image.Image, data: bytes) -> bytes | None:
    """Return the profile that an image file declares; None: sRGB, or none declared.

    The first of these counts: code points of a PNG, AVIF or HEIF (ITU-T H.273: sRGB, Display P3 and
    BT.2020 without high dynamic range), an embedded ICC profile, a PNG's ``sRGB``, its ``gAMA`` and
    ``cHRM``, and Adobe RGB in EXIF.

    Args:
        image: The opened file; loaded, unless it is a JPEG.
        data: The file's bytes.

    Raises:
        BrokenProfileError: The declared colour space is invalid or unknown.
    """
    if image.format == "PNG":
        points = _png_code_points(data)
    elif image.format in {"AVIF", "HEIF"} and "icc_profile" not in image.info:
        points = _nclx(data)
    else:
        points = None
    if points is not None:
        return _of_code_points(*points)
    embedded = image.info.get("icc_profile") or _jp2_profile(image, data)
    if embedded:
        return bytes(embedded)
    if image.format == "PNG" and "srgb" in image.info:
        return None
    if image.format == "PNG" and not image.info.keys().isdisjoint({"gamma", "chromaticity"}):
        return _png_calibrated(image.info)
    return matrix_profile(ADOBE_RGB, ADOBE_GAMMA) if _exif_says_adobe(image) else None


def _of_code_points(primaries: int, transfer: int) -> bytes | None:
    if primaries == _UNSPECIFIED or (primaries in _LIKE_SRGB and transfer in _SRGB_CURVES):
        return None
    space = BY_CODE_POINT.get(primaries)
    if space is None or transfer not in {*_SRGB_CURVES, *_GAMMAS}:
        raise BrokenProfileError(f"code points {primaries} and {transfer}")
    return matrix_profile(space, _GAMMAS.get(transfer))


def _png_code_points(data: bytes) -> tuple[int, int] | None:
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IDAT":
            return None
        if kind == b"cICP" and length == 4:
            return data[at + 8], data[at + 9]
        at += 12 + length
    return None


def _nclx(data: bytes) -> tuple[int, int] | None:
    at = data.find(b"colrnclx", 0, _ISO_HEADER)
    if at < 0 or at + 12 > len(data):
        return None
    primaries, transfer = struct.unpack_from(">HH", data, at + 8)
    return primaries, transfer


def _jp2_profile(image: Image.Image, data: bytes) -> bytes | None:
    """Return the profile in a JPEG 2000 file's colour box (ISO/IEC 15444-1, I.5.3.3)."""
    at = data.find(b"colr\x02", 0, _ISO_HEADER) if image.format == "JPEG2000" else -1
    if at < 4:
        return None
    length = int.from_bytes(data[at - 4 : at], "big")
    return data[at + 7 : at - 4 + length]


def _png_calibrated(info: dict[Any, Any]) -> bytes | None:
    """Return the profile of ``gAMA`` and ``cHRM``; if one is missing, sRGB's value is used."""
    chromaticity = info.get("chromaticity")
    space = SRGB
    if chromaticity is not None:
        pairs = [(float(chromaticity[n]), float(chromaticity[n + 1])) for n in range(0, 8, 2)]
        space = Primaries(pairs[1], pairs[2], pairs[3], pairs[0])
    gamma = float(info.get("gamma", _SRGB_GAMA))
    if gamma <= 0:
        raise BrokenProfileError(f"gamma {gamma}")
    near = np.abs(np.subtract(space, SRGB)).max() < _NEAR_XY
    if near and abs(gamma - _SRGB_GAMA) < _NEAR_GAMA:
        return None  # sRGB, rounded
    return matrix_profile(space, 1 / gamma if "gamma" in info else None)


def _exif_says_adobe(image: Image.Image) -> bool:
    """Return whether EXIF declares Adobe RGB: R03 (DCF 2.0), or colour space 2 (old cameras).

    EXIF is parsed only if the bytes contain such an entry, since parsing takes longer than decoding
    a small image.
    """
    if image.format == "TIFF":
        suspect = _EXIF_IFD in image.tag_v2  # type: ignore[attr-defined]
    else:
        raw = image.info.get("exif", b"")
        suspect = isinstance(raw, bytes) and any(sign in raw for sign in _ADOBE_SIGNS)
    if not suspect:
        return False
    try:
        exif = Image.Image.getexif(image)
        space = exif.get_ifd(_EXIF_IFD).get(_COLOUR_SPACE)
        index = str(exif.get_ifd(_INTEROP_IFD).get(1, "")).strip("\0 ")
    except Exception:  # noqa: BLE001 - broken EXIF raises anything, and declares nothing
        return False
    return space == _OLD_ADOBE or (index == "R03" and space != 1)


def matrix_profile(primaries: Primaries, gamma: float | None) -> bytes:
    """Create the ICC profile of an RGB space (ICC.1:2022, three-component matrix-based).

    Args:
        primaries: Chromaticities of the channels and of white.
        gamma: Exponent of the tone curve; None: the curve of sRGB.

    Raises:
        BrokenProfileError: The primaries or the exponent are impossible.
    """
    try:
        columns = _to_pcs(primaries)
    except (np.linalg.LinAlgError, ZeroDivisionError, FloatingPointError) as error:
        raise BrokenProfileError(f"impossible primaries ({error})") from error
    if gamma is None:
        curve = _para(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    elif 0.1 <= gamma <= 10:
        curve = _para(0, gamma)
    else:
        raise BrokenProfileError(f"a curve of exponent {gamma}")
    tags = {b"wtpt": _xyz(_D50)}
    tags |= {name + b"XYZ": _xyz(column) for name, column in zip(_CHANNELS, columns, strict=True)}
    tags |= {name + b"TRC": curve for name in _CHANNELS}
    return _profile(tags)


_CHANNELS = (b"r", b"g", b"b")
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def _to_pcs(primaries: Primaries) -> NDArray[np.float64]:
    """Return the channels' XYZ under D50, one a row (Bradford's adaptation)."""
    corners = np.array([_xyz_of(*each) for each in primaries])
    white = corners[3]
    channels = corners[:3] * np.linalg.solve(corners[:3].T, white)[:, None]
    gains = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    adapted = np.linalg.inv(_BRADFORD) @ (gains[:, None] * _BRADFORD)
    columns: NDArray[np.float64] = channels @ adapted.T
    if not np.isfinite(columns).all() or np.abs(columns).max() > 100:
        raise FloatingPointError("out of range")
    return columns


def _xyz_of(x: float, y: float) -> tuple[float, float, float]:
    return x / y, 1.0, (1 - x - y) / y


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(values: NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_fixed, values.tolist()))


def _para(kind: int, *values: float) -> bytes:
    return struct.pack(">4s4xHxx", b"para", kind) + b"".join(map(_fixed, values))


def _profile(tags: dict[bytes, bytes]) -> bytes:
    header_size, entries, body = 128, [], b""
    start = header_size + 4 + 12 * len(tags)
    for name, content in tags.items():
        entries.append(struct.pack(">4sII", name, start + len(body), len(content)))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(
        ">I4sI4s4s4s12x4s28x12s", start + len(body), b"", 0x04300000, b"mntr", b"RGB ", b"XYZ ",
        b"acsp", b"".join(map(_fixed, _D50.tolist())),
    )  # fmt: skip
    head = header.ljust(header_size, b"\0") + struct.pack(">I", len(tags))
    return b"".join([head, *entries, body])


@lru_cache(maxsize=32)
def _conversion(profile: bytes) -> Conversion | Space:
    """Return a profile's conversion, or only its channels if it is equivalent to sRGB."""
    from PIL import ImageCms  # noqa: PLC0415 (most files have no profile)

    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = _SPACES.get(opened.profile.xcolor_space)
    if space is None:
        raise BrokenProfileError(f"a profile of {opened.profile.xcolor_space.strip()}")
    transform = ImageCms.buildTransform(
        opened,
        ImageCms.createProfile("sRGB"),
        space,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    _check_ramp(_transformed(_grey_ramp(space), space, transform)[0])
    if space != "CMYK":
        grid = _grid(space)
        same = grid if space == "RGB" else np.repeat(grid[:, :, None], 3, axis=2)
        if np.abs(_transformed(grid, space, transform).astype(int) - same).max() <= _ALIKE:
            return space
    return Conversion(space, transform)


def _check_ramp(ramp: NDArray[np.uint8]) -> None:
    """Reject a profile that does not lead from black through grey to white."""
    levels = ramp.astype(int).mean(axis=1)
    if levels[-1] - levels[0] < _LEAST_RANGE or np.diff(levels).min() < -_ALIKE:
        raise BrokenProfileError("it does not lead from black to white")


def _grey_ramp(space: Space) -> NDArray[np.uint8]:
    if space == "L":
        return _RAMP[None]
    if space == "RGB":
        return np.repeat(_RAMP[None, :, None], 3, axis=2)
    ink = np.zeros((1, len(_RAMP), 4), np.uint8)
    ink[0, :, 3] = 255 - _RAMP
    return ink


def _grid(space: Space) -> NDArray[np.uint8]:
    if space == "L":
        return np.arange(256, dtype=np.uint8)[None]
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    return np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(1, -1, 3)


def _transformed(strip: NDArray[np.uint8], space: Space, transform: Any) -> NDArray[np.uint8]:
    from PIL import ImageCms  # noqa: PLC0415

    height, width = strip.shape[:2]
    content = np.ascontiguousarray(strip)
    image = Image.frombuffer(space, (width, height), content, "raw", space, 0, 1)
    return np.asarray(ImageCms.applyTransform(image, transform))
