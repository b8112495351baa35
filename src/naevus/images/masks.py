"""Lesion masks: from probabilities to one clean region, its contour and its area."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import cv2
import numpy as np

from naevus.images.geometry import box_of, resize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

PLAUSIBLE_FRACTIONS = (0.005, 0.97)
"""Least and greatest fraction of the image that a lesion's mask is believed to cover."""


@dataclass(frozen=True)
class Postprocessing:
    """How a mask is made from probabilities.

    Args:
        threshold: A pixel above it is lesion.
        largest: Keep the largest region alone.
        holes: Fill holes.
        smooth: Radius over which the contour is smoothed, as a fraction of the shorter side.
    """

    threshold: float = 0.5
    largest: bool = True
    holes: bool = True
    smooth: float = 0.0


_DEFAULT_POSTPROCESSING = Postprocessing()


def clean(
    probability: NDArray[np.float32], postprocessing: Postprocessing = _DEFAULT_POSTPROCESSING
) -> NDArray[np.bool_]:
    """Turn probabilities into a mask: threshold, smooth, largest region, holes, in this order.

    Regions are connected over pixels' edges and so is the background in search of holes: the
    result is one region without holes whichever way the reader counts diagonals.

    Args:
        probability: H x W, 0..1.
        postprocessing: What is done.

    Returns:
        H x W; empty when no pixel is above the threshold.

    Examples:
        >>> probability = np.zeros((6, 8), np.float32)
        >>> probability[1:5, 1:5] = 0.9
        >>> probability[2:4, 2:4] = 0.1  # a hole
        >>> probability[0, 7] = 0.8  # a speck
        >>> clean(probability).astype(int)
        array([[0, 0, 0, 0, 0, 0, 0, 0],
               [0, 1, 1, 1, 1, 0, 0, 0],
               [0, 1, 1, 1, 1, 0, 0, 0],
               [0, 1, 1, 1, 1, 0, 0, 0],
               [0, 1, 1, 1, 1, 0, 0, 0],
               [0, 0, 0, 0, 0, 0, 0, 0]])
    """
    mask = probability > postprocessing.threshold
    if postprocessing.smooth > 0:
        mask = _smooth(mask, postprocessing.smooth * min(mask.shape))
    box = box_of(mask)
    if box is None or not (postprocessing.largest or postprocessing.holes):
        return mask
    # Nothing outside the foreground's box changes, and in it is most often a small part of a photo.
    window = np.s_[box.top : box.bottom, box.left : box.right]
    region = mask[window]
    contours = _contours(region)
    if postprocessing.largest:
        region, contours = _largest(region, contours)
    if postprocessing.holes and contours.holes:
        region = _inside(contours.outer, region.shape)
    mask[window] = region
    return mask


def at_size(
    probability: NDArray[np.float32],
    height: int,
    width: int,
    postprocessing: Postprocessing = _DEFAULT_POSTPROCESSING,
) -> NDArray[np.bool_]:
    """Resize probabilities to an image's size first, then clean them.

    Thresholding last keeps the contour smooth: an enlarged mask would have steps.

    Returns:
        height x width.
    """
    return clean(resize(probability, height, width), postprocessing)


def contours(mask: NDArray[np.bool_]) -> list[NDArray[np.int32]]:
    """Return the closed contours of a mask's regions and of their holes.

    Returns:
        One array n x 2 of (x, y) a contour, pixel centres of the outermost foreground (for
        holes: of the foreground round them), largest enclosed area first.
    """
    found, _ = cv2.findContours(
        np.ascontiguousarray(mask).view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    by_area = sorted(found, key=cv2.contourArea, reverse=True)
    return [points.reshape(-1, 2).astype(np.int32) for points in by_area]


def draw_contours(
    pixels: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    colour: tuple[int, int, int] = (255, 255, 0),
    thickness: int = 2,
) -> NDArray[np.uint8]:
    """Return a copy of an image with a mask's contour drawn on it.

    Args:
        pixels: H x W x 3.
        mask: H x W.
        colour: RGB.
        thickness: Of the line, in pixels.
    """
    drawn = np.array(pixels, order="C")
    cv2.polylines(drawn, contours(mask), True, colour, thickness, cv2.LINE_AA)
    return drawn


ATTRIBUTE_COLOURS: Final[dict[str, tuple[int, int, int]]] = {
    "globules": (230, 159, 0),
    "milia_like_cyst": (240, 228, 66),
    "negative_network": (204, 121, 167),
    "pigment_network": (0, 158, 115),
    "streaks": (213, 94, 0),
}
"""RGB of each attribute where it is drawn, apart for the colour-blind (Okabe & Ito 2008)."""


def draw_attributes(
    pixels: NDArray[np.uint8], masks: Mapping[str, NDArray[np.bool_]], thickness: int = 1
) -> NDArray[np.uint8]:
    """Return a copy of an image with the contour of each attribute in its colour.

    Args:
        pixels: H x W x 3.
        masks: H x W by attribute.
        thickness: Of the lines, in pixels.
    """
    for name, mask in masks.items():
        pixels = draw_contours(pixels, mask, ATTRIBUTE_COLOURS[name], thickness)
    return pixels


def area_fraction(mask: NDArray[np.bool_]) -> float:
    """Return the foreground's fraction of the mask's pixels, 0..1."""
    return float(np.count_nonzero(mask) / mask.size)


def plausible(mask: NDArray[np.bool_]) -> bool:
    """Tell whether a mask covers between 0.5 % and 97 % of the image."""
    least, greatest = PLAUSIBLE_FRACTIONS
    return least <= area_fraction(mask) <= greatest


def _smooth(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    # Half the radius as standard deviation: nothing farther away than the radius has a say.
    grey = mask.astype(np.float32)
    return np.asarray(cv2.GaussianBlur(grey, (0, 0), radius / 2) > 0.5)


class _Contours(NamedTuple):
    """The contours of a mask's regions, and those of the holes in them.

    Each is n x 1 x 2, (x, y) of neighbouring pixels. Regions hang together over pixels' corners
    too, holes over their edges alone.
    """

    outer: list[NDArray[np.int32]]
    holes: list[NDArray[np.int32]]


def _contours(mask: NDArray[np.bool_]) -> _Contours:
    surface = np.ascontiguousarray(mask).view(np.uint8)
    found, nesting = cv2.findContours(surface, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    contours = _Contours([], [])
    for points, parent in zip(found, nesting[0, :, 3], strict=True):
        (contours.outer if parent < 0 else contours.holes).append(np.asarray(points, np.int32))
    return contours


def _largest(mask: NDArray[np.bool_], contours: _Contours) -> tuple[NDArray[np.bool_], _Contours]:
    """Return the largest region of a mask that has some, and its contours."""
    # One region, and maybe specks, is the rule. Its contours tell in a tenth of the time that
    # labels take that it hangs together, and by more than half of the pixels that it is largest.
    if _in_one_piece(mask, contours):
        return mask, contours
    region = mask & _inside([max(contours.outer, key=cv2.contourArea)], mask.shape)
    if 2 * np.count_nonzero(region) > np.count_nonzero(mask):
        contours = _contours(region)
        if _in_one_piece(region, contours):
            return region, contours
    # Not connectedComponentsWithStats: its statistics take seven times as long as the labels.
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    region = np.asarray(labels == 1 + int(np.argmax(np.bincount(labels[mask])[1:])))
    return region, _contours(region)


def _in_one_piece(mask: NDArray[np.bool_], contours: _Contours) -> bool:
    """Tell whether a mask with these contours is one region, connected over pixels' edges."""
    outer, holes = contours
    return len(outer) == 1 and not any(_cuts_corners(mask, each) for each in (*outer, *holes))


def _cuts_corners(mask: NDArray[np.bool_], contour: NDArray[np.int32]) -> bool:
    """Tell whether a contour passes a pixel's corner with background on both sides."""
    x, y = contour[:, 0].T
    after_x, after_y = np.roll(x, -1), np.roll(y, -1)
    return not (mask[y, after_x] | mask[after_y, x]).all()


def _inside(contours: Sequence[NDArray[np.int32]], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return what contours enclose, they themselves included."""
    drawn = np.zeros(shape, np.uint8)
    for points in contours:  # together, what lies in two of them would be left out
        cv2.drawContours(drawn, [points], 0, 1, cv2.FILLED)
    return drawn.view(np.bool_)
