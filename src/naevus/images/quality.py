"""How good an image is for judging: size, sharpness, light, colour, hair, border, skin tone.

All is measured on a copy whose shorter side is 256 pixels, about what the networks see, so that a
image and its reduced copy get the same verdict; smaller images are taken as they are. Light and
hair are measured in the circle in the image's middle, which leaves out the dark corners that a
dermatoscope makes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from naevus.images.geometry import reduced
from naevus.types import FLAGS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


# Dark hair over an image, as a mask.

_WIDEST = 9  # pixels: what is broader is no hair
_DARKER = 14  # levels of 255 below what surrounds it
_LENGTH = 20.0  # pixels that go straight on: more than a mesh of the pigment network
_STEPS = ((0, 1), (1, 3), (1, 2), (1, 1), (2, 1), (3, 1), (1, 0))  # rows and columns, 0 to 90°


class Line(NamedTuple):
    """Points on a line: how many, and rows (not below 0) and columns from each to the next."""

    rows: int
    columns: int
    points: int


def _lines() -> tuple[Line, ...]:
    counts = [round(_LENGTH / float(np.hypot(*step))) for step in _STEPS]
    rising = [Line(*step, count) for step, count in zip(_STEPS, counts, strict=True)]
    falling = [
        line._replace(columns=-line.columns) for line in rising if line.rows and line.columns
    ]
    return (*rising, *falling)


_LINES = _lines()


def thin_hair(grey: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Find dark, thin structures, by the black-hat transform.

    Source: Lee et al., DullRazor, Computers in Biology and Medicine 1997. What of them is
    `straight` is hair, and also rulers and lines drawn on the skin. Widths and lengths are meant
    for images of about 256 pixels.

    Args:
        grey: H x W luminance.

    Returns:
        H x W.
    """
    square = np.ones((_WIDEST, _WIDEST), np.uint8)
    return np.asarray(cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, square) >= _DARKER)


def straight(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return what of a mask holds a line of 20 pixels in one of twelve directions, H x W."""
    return open_by_lines(mask, _LINES)


def open_by_lines(mask: NDArray[np.bool_], lines: Iterable[Line]) -> NDArray[np.bool_]:
    """Open a mask by each of some lines; return what any of them leaves.

    The mask is one long integer, row after row, and moving it by some rows and columns is one
    shift: many times faster than OpenCV's opening by a kernel that is no rectangle.

    Args:
        mask: H x W.
        lines: The lines, none of them wider than the mask.

    Returns:
        H x W: the pixels on a line whose points are all in the mask.
    """
    lines = tuple(lines)
    height, width = mask.shape
    # Empty columns on the right: what leaves a row on either side must not enter the next one.
    empty = max((abs(line.columns) * (line.points - 1) for line in lines), default=0)
    stride = width + empty
    padded = np.pad(mask, ((0, 0), (0, empty)))
    bits = int.from_bytes(np.packbits(padded, bitorder="little").tobytes(), "little")
    found = 0
    for line in lines:
        found |= _opened(bits, line.rows * stride + line.columns, line.points)
    size = height * stride
    packed = np.frombuffer(found.to_bytes(-(-size // 8), "little"), np.uint8)
    unpacked = np.unpackbits(packed, count=size, bitorder="little")
    return unpacked.reshape(height, stride)[:, :width].astype(np.bool_)


def _opened(bits: int, step: int, count: int) -> int:
    """Open by ``count`` points ``step`` bits apart; the line is doubled until it is long enough."""
    moves = [step * points for points in _doublings(count)]
    starts = bits
    for move in moves:
        starts &= starts >> move
        if not starts:
            return 0
    for move in moves:
        starts |= starts << move
    return starts


def _doublings(count: int) -> list[int]:
    """Return by how many points a line is moved each time to grow from one point to ``count``."""
    steps, done = [], 1
    while done < count:
        steps.append(min(done, count - done))
        done += steps[-1]
    return steps


SIDE = 256
"""The shorter side of the copy that is measured, in pixels."""

# Set on 1,200 ISIC 2018 images: each flag is on 0 to 4 % of them, cut_by_border on 9 % because
# they are centre squares.
_LEAST_SHARPNESS = 0.7
_DARK, _MOST_DARK = 75, 0.9  # so low that dark skin is not taken for a dark image
_BRIGHT, _MOST_BRIGHT = 240, 0.2
_MOST_CUT = 0.25  # a round lesion with an eighth of its area outside
_MOST_HAIR = 0.12
_LEAST_CHROMA = 3  # the least of 874 images is 7; a grey image saved in colour has 0 to 1
_LEAST_SIDE = 100
"""Shorter sides below it are too small. Set with the built-in bundle on 224 sharp images (32 of
each diagnosis) of 224 px, reduced: of the decisions, 2.7 % are others at 96 px, 4 % at 80 px, 8 %
at 64 px and 12 % at 48 px, and balanced accuracy loses 0, 0, 4 and 7 points. The networks know
these images: of new ones they may lose more."""
_LEAST_SKIN = 0.05  # of the circle, to measure skin at all
_TILES = 8
_FLAT = 0.05  # squared levels: contrast below it is the rounding of pixels


class Quality(NamedTuple):
    """What was measured of an image."""

    sharpness: float
    """Contrast of details of 0.4 to 0.8 % of the shorter side, over that of details twice as large.

    A ratio, so that contrast and size of the image do not count; the upper quartile of 8 x 8
    parts of it, because a lesion may be smooth. About 0.9, and below 0.7 where nothing is sharp.
    """
    dark: float
    """The fraction of pixels too dark to tell structures, 0..1."""
    bright: float
    """The fraction of pixels nearly white, 0..1."""
    cut: float | None
    """The fraction of the lesion's contour that lies on the image's border, 0..1; None: no mask."""
    hair: float
    """The fraction of the skin (without a mask: of the image) under dark hair, 0..1."""
    chroma: float
    """How far the channels of a pixel lie apart on average, 0..255."""


def quality_of(
    pixels: NDArray[np.uint8], mask: NDArray[np.bool_] | None = None, *, least_hair: float = 0
) -> Quality:
    """Measure an image.

    Args:
        pixels: H x W x 3 RGB.
        mask: H x W, the lesion, where it is known.
        least_hair: No larger fraction of hair than this need be told: it may be told as none.
    """
    # Grey before it is reduced: one channel in place of three.
    grey, lesion = _reduced(np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8), mask)
    circle = _circle(grey.shape)
    skin = circle if lesion is None else circle & ~lesion
    if np.count_nonzero(skin) < _LEAST_SKIN * np.count_nonzero(circle):
        skin = circle
    return Quality(
        sharpness=_sharpness(grey),
        dark=_fraction(grey < _DARK, circle),
        bright=_fraction(grey > _BRIGHT, circle),
        cut=None if lesion is None else _cut(lesion),
        hair=_hair(grey, skin, least_hair),
        chroma=_chroma(pixels),
    )


def flags_of(pixels: NDArray[np.uint8], mask: NDArray[np.bool_] | None = None) -> tuple[str, ...]:
    """Return `flags` of an image's quality, measuring no more of it than that takes."""
    return flags(quality_of(pixels, mask, least_hair=_MOST_HAIR))


def size_flags(height: int, width: int) -> tuple[str, ...]:
    """Return ``small`` where an image has too few pixels to judge, as it lies in its file."""
    return ("small",) if min(height, width) < _LEAST_SIDE else ()


def _chroma(pixels: NDArray[np.uint8]) -> float:
    step = max(1, min(pixels.shape[:2]) // (SIDE // 2))
    red, green, blue = cv2.split(np.ascontiguousarray(pixels[::step, ::step]))
    largest, least = cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue)
    return float((largest - least).mean())


def _hair(grey: NDArray[np.uint8], skin: NDArray[np.bool_], least: float) -> float:
    thin = thin_hair(grey)
    # The lines in it take most of the time, and are no more than it.
    return _fraction(straight(thin), skin) if _fraction(thin, skin) > least else 0.0


def flags(quality: Quality) -> tuple[str, ...]:
    """Return what is wrong with an image: keys of `FLAGS`, in their order."""
    wrong = {
        "blurred": quality.sharpness < _LEAST_SHARPNESS,
        "dark": quality.dark > _MOST_DARK,
        "bright": quality.bright > _MOST_BRIGHT,
        "cut_by_border": quality.cut is not None and quality.cut > _MOST_CUT,
        "hair": quality.hair > _MOST_HAIR,
        "grey": quality.chroma < _LEAST_CHROMA,
    }
    return tuple(code for code in FLAGS if wrong.get(code, False))


def typology_angle(pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> float | None:
    """Return the individual typology angle of the skin round a lesion, in degrees.

    ``arctan((L* - 50) / b*)`` of the median colour (Chardon, Cretois & Hourseau, International
    Journal of Cosmetic Science 1991): above 55 very light, 41 light, 28 intermediate, 10 tan, -30
    brown, below that dark. A proxy of skin tone, not a measurement: the camera, the lamp and
    the white balance shift it, and it is blind to what a person would say.

    Args:
        pixels: H x W x 3, sRGB.
        mask: H x W, the lesion; a margin of 5 % of the shorter side round it is left out too.

    Returns:
        None where there is too little skin, or its colour is bluer than any skin's.
    """
    small, lesion = _reduced(pixels, mask)
    assert lesion is not None
    margin = 2 * round(0.05 * min(lesion.shape)) + 1
    near = cv2.dilate(lesion.view(np.uint8), np.ones((margin, margin), np.uint8)) > 0
    circle = _circle(lesion.shape)
    skin = small[circle & ~near]
    if len(skin) < _LEAST_SKIN * circle.sum():
        return None
    colour = np.median(skin, axis=0).astype(np.float32)[None, None] / np.float32(255)
    lightness, _, yellow = cv2.cvtColor(colour, cv2.COLOR_RGB2LAB)[0, 0].tolist()
    if yellow <= 0:
        return None
    return float(np.degrees(np.arctan2(lightness - 50, yellow)))


def lesion_contrast(pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> float | None:
    """Return how far a lesion's colour is from that of the skin next to it, in CIELAB (ΔE*ab 1976).

    The distance of two median colours: of the lesion, and of the ring from 2 to 10 % of the shorter
    side round it. About 2 is the least an eye tells apart; half of 183 ISIC 2018 lesions
    lie between 18 and 36.

    Args:
        pixels: H x W x 3, sRGB.
        mask: H x W, the lesion.

    Returns:
        None where there is no lesion, or no skin next to it in the image.
    """
    small, lesion = _reduced(pixels, mask)
    assert lesion is not None
    near, far = (_grown(lesion, fraction * min(lesion.shape)) for fraction in (0.02, 0.1))
    ring = far & ~near
    if not lesion.any() or not ring.any():
        return None
    colours = [np.median(small[inside], axis=0) for inside in (lesion, ring)]
    pair = np.stack(colours).astype(np.float32)[None] / np.float32(255)
    one, other = cv2.cvtColor(pair, cv2.COLOR_RGB2LAB)[0]
    return float(np.linalg.norm(one - other))


def _grown(lesion: NDArray[np.bool_], pixels: float) -> NDArray[np.bool_]:
    side = 2 * max(round(pixels), 1) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return np.asarray(cv2.dilate(lesion.view(np.uint8), disc) > 0)


def _reduced(
    pixels: NDArray[np.uint8], mask: NDArray[np.bool_] | None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    small = reduced(pixels, SIDE)
    if mask is None:
        return small, None
    height, width = small.shape[:2]
    # Every n-th pixel of it: averaging a photo's mask takes longer than all that is measured here.
    there = np.ascontiguousarray(mask).view(np.uint8)
    return small, cv2.resize(there, (width, height), interpolation=cv2.INTER_NEAREST) > 0


def _fraction(found: NDArray[np.bool_], among: NDArray[np.bool_]) -> float:
    return np.count_nonzero(found & among) / np.count_nonzero(among)


def _circle(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    drawn = np.zeros(shape, np.uint8)
    centre = (shape[1] - 1) // 2, (shape[0] - 1) // 2
    cv2.circle(drawn, centre, max(min(shape) // 2, 1), 1, cv2.FILLED)
    return drawn > 0


def _sharpness(grey: NDArray[np.uint8]) -> float:
    # Gaussians of 1, 2 and 4 pixels, each made from the last; their differences are octaves. Every
    # other pixel shows all that two pixels have left, and the next step is the same on those.
    fine = cv2.GaussianBlur(grey.astype(np.float32), (7, 7), 1)
    middle = cv2.GaussianBlur(fine, (11, 11), 3**0.5)
    halved = np.ascontiguousarray(middle[::2, ::2])
    coarse = cv2.GaussianBlur(halved, (11, 11), 3**0.5)
    detail, larger = _power(fine - middle), _power(halved - coarse)
    ratios = np.sqrt(detail / (larger + _FLAT))[_circle(detail.shape)]
    return float(np.quantile(ratios, 0.75))


def _power(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean square of 8 x 8 parts, without the rows and columns left over at the end.

    OpenCV averages parts of whole pixels in a fifth of the time.
    """
    rows, columns = (side // _TILES * _TILES or side for side in values.shape)
    power = cv2.resize(values[:rows, :columns] ** 2, (_TILES, _TILES), interpolation=cv2.INTER_AREA)
    return np.asarray(power)


def _cut(lesion: NDArray[np.bool_]) -> float:
    """Return the contour's share within 1 % of the border; 0 for an empty mask."""
    inner = cv2.erode(
        lesion.view(np.uint8),
        np.ones((3, 3), np.uint8),
        borderType=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    contour = lesion & (inner == 0)
    total = int(contour.sum())
    band = max(1, round(0.01 * min(lesion.shape)))
    contour[band:-band, band:-band] = False
    return float(contour.sum() / total) if total else 0.0
