"""Image quality: size, sharpness, exposure, colour, artefacts, border contact and skin tone.

Everything is measured on a copy with a shorter side of 256 pixels, about the networks' resolution,
so that an image and its reduced copy get the same flags. Smaller images are measured as they are.
Exposure and hair are measured in the central circle, which excludes a dermatoscope's dark corners.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from naevus.images.artefacts import artefacts_of
from naevus.images.geometry import reduced
from naevus.types import FLAGS

if TYPE_CHECKING:
    from numpy.typing import NDArray


SIDE = 256
"""Shorter side of the measured copy, in pixels."""

# Set on 1,200 ISIC 2018 images, but hair and rulers on labelled ones (`naevus.images.artefacts`).
# Blur, exposure and colour apply to at most 4 % each; cut_by_border to more, as many of these
# images are centre squares.
_LEAST_SHARPNESS = 0.7
_DARK, _MOST_DARK = 75, 0.9  # low enough that dark skin is not flagged
_BRIGHT, _MOST_BRIGHT = 240, 0.2
_MOST_CUT = 0.25  # a round lesion with an eighth of its area outside
_MOST_HAIR = 0.06  # ten strands across the image
_MOST_REGULAR = 0.6
_LEAST_CHROMA = 3  # colour images have at least 7; a grey image saved in colour has 0 to 1
_LEAST_SIDE = 100
"""Shorter sides below it are too small. Set with the built-in bundle on sharp training images of
224 px that were reduced. At 96 px 2.7 % of decisions change, and balanced accuracy stays the same;
at 64 px it loses 4 points. On new images the loss may be larger."""
_LEAST_SKIN = 0.05  # fraction of the circle that is needed to measure skin
_TILES = 8
_FLAT = 0.05  # squared levels: smaller contrasts come from rounding


class Quality(NamedTuple):
    """An image's quality measurements."""

    sharpness: float
    """Contrast of fine details over that of details twice as large.

    Fine details measure 0.4 to 0.8 % of the shorter side. The ratio is independent of the image's
    contrast and size. It is the upper quartile over 8 x 8 tiles, because a lesion may be smooth.
    Sharp images have about 0.9, blurred ones less than 0.7.
    """
    dark: float
    """Fraction of pixels too dark to show structures, 0..1."""
    bright: float
    """Fraction of pixels that are nearly white, 0..1."""
    cut: float | None
    """Fraction of the lesion's contour on the image's border, 0..1; None: no mask."""
    hair: float
    """Fraction of the central circle under dark hair, 0..1."""
    ruler: float
    """How regular the most regular row of marks is, 0..1 (`naevus.images.artefacts`)."""
    chroma: float
    """Mean difference between a pixel's largest and smallest channel, 0..255."""


def quality_of(pixels: NDArray[np.uint8], mask: NDArray[np.bool_] | None = None) -> Quality:
    """Measure an image.

    Args:
        pixels: H x W x 3 RGB.
        mask: H x W, the lesion, if it is known.
    """
    # Convert to grey before reducing: one channel instead of three.
    grey, lesion = _reduced(np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8), mask)
    circle = _circle(grey.shape)
    artefacts = artefacts_of(grey, circle)
    return Quality(
        sharpness=_sharpness(grey),
        dark=_fraction(grey < _DARK, circle),
        bright=_fraction(grey > _BRIGHT, circle),
        cut=None if lesion is None else _cut(lesion),
        hair=artefacts.hair,
        chroma=_chroma(pixels),
        ruler=artefacts.ruler,
    )


def flags_of(pixels: NDArray[np.uint8], mask: NDArray[np.bool_] | None = None) -> tuple[str, ...]:
    """Return the quality `flags` of an image."""
    return flags(quality_of(pixels, mask))


def size_flags(height: int, width: int) -> tuple[str, ...]:
    """Return the flag ``small`` if the original image has too few pixels."""
    return ("small",) if min(height, width) < _LEAST_SIDE else ()


def _chroma(pixels: NDArray[np.uint8]) -> float:
    step = max(1, min(pixels.shape[:2]) // (SIDE // 2))
    red, green, blue = cv2.split(np.ascontiguousarray(pixels[::step, ::step]))
    largest, least = cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue)
    return float((largest - least).mean())


def flags(quality: Quality) -> tuple[str, ...]:
    """Return the flags of an image: keys of `FLAGS`, in their order."""
    wrong = {
        "blurred": quality.sharpness < _LEAST_SHARPNESS,
        "dark": quality.dark > _MOST_DARK,
        "bright": quality.bright > _MOST_BRIGHT,
        "cut_by_border": quality.cut is not None and quality.cut > _MOST_CUT,
        "hair": quality.hair > _MOST_HAIR,
        "ruler": quality.ruler > _MOST_REGULAR,
        "grey": quality.chroma < _LEAST_CHROMA,
    }
    return tuple(code for code in FLAGS if wrong.get(code, False))


def typology_angle(pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> float | None:
    """Return the individual typology angle of the skin around a lesion, in degrees.

    ``arctan((L* - 50) / b*)`` of the median colour (Chardon, Cretois & Hourseau, International
    Journal of Cosmetic Science 1991): above 55 very light, 41 light, 28 intermediate, 10 tan, -30
    brown, below that dark. This is a proxy of skin tone, not a measurement: camera, lamp and white
    balance shift it, and it does not replace self-reported skin type.

    Args:
        pixels: H x W x 3, sRGB.
        mask: H x W, the lesion; a margin of 5 % of the shorter side around it is excluded too.

    Returns:
        None if there is too little skin, or its colour is too blue to be skin.
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
    """Return the colour difference between a lesion and the skin next to it (CIELAB, ΔE*ab 1976).

    Compares two median colours: of the lesion, and of the ring from 2 to 10 % of the shorter side
    around it. The eye distinguishes differences of about 2; typical lesions have 18 to 36.

    Args:
        pixels: H x W x 3, sRGB.
        mask: H x W, the lesion.

    Returns:
        None if there is no lesion, or no skin next to it in the image.
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
    # Nearest neighbour: averaging a large mask takes longer than all measurements here.
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
    # Gaussians of 1, 2 and 4 pixels, each computed from the last; their differences are octaves.
    # After the second blur every other pixel suffices, so the third runs at half size.
    fine = cv2.GaussianBlur(grey.astype(np.float32), (7, 7), 1)
    middle = cv2.GaussianBlur(fine, (11, 11), 3**0.5)
    halved = np.ascontiguousarray(middle[::2, ::2])
    coarse = cv2.GaussianBlur(halved, (11, 11), 3**0.5)
    detail, larger = _power(fine - middle), _power(halved - coarse)
    ratios = np.sqrt(detail / (larger + _FLAT))[_circle(detail.shape)]
    return float(np.quantile(ratios, 0.75))


def _power(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean square of 8 x 8 tiles, dropping the remaining rows and columns.

    OpenCV averages tiles of whole pixels in a fifth of the time.
    """
    rows, columns = (side // _TILES * _TILES or side for side in values.shape)
    power = cv2.resize(values[:rows, :columns] ** 2, (_TILES, _TILES), interpolation=cv2.INTER_AREA)
    return np.asarray(power)


def _cut(lesion: NDArray[np.bool_]) -> float:
    """Return the fraction of the contour within 1 % of the border; 0 for an empty mask."""
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
