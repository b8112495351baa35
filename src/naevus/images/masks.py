"""Lesion masks: postprocess probabilities into one region, and find its contours and area."""

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
"""Smallest and largest fraction of the image that a plausible mask covers."""


@dataclass(frozen=True)
class Postprocessing:
    """Settings that turn probabilities into a mask.

    Args:
        threshold: Pixels with a higher probability belong to the lesion.
        largest: Keep only the largest region.
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
    """Turn probabilities into a mask: threshold, smooth, keep the largest region, fill holes.

    Both the regions and the background around holes use 4-connectivity. The result is therefore
    one region without holes under 4- and 8-connectivity.

    Args:
        probability: H x W, 0..1.
        postprocessing: The settings.

    Returns:
        H x W; empty if no pixel is above the threshold.

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
    # Nothing outside the foreground's box changes, and the box is usually small.
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
    """Resize probabilities to the image's size, then turn them into a mask.

    Thresholding last keeps the contour smooth: an enlarged mask would have steps.

    Returns:
        height x width.
    """
    return clean(resize(probability, height, width), postprocessing)


def contours(mask: NDArray[np.bool_]) -> list[NDArray[np.int32]]:
    """Return the closed contours of a mask's regions and of their holes.

    Returns:
        One n x 2 array of (x, y) per contour, largest enclosed area first. The points are centres
        of the outermost foreground pixels (for holes: of the foreground around them).
    """
    found, _ = cv2.findContours(
        np.ascontiguousarray(mask).view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    by_area = sorted(found, key=cv2.contourArea, reverse=True)
    return [points.reshape(-1, 2).astype(np.int32) for points in by_area]


TRUTH_COLOUR: Final = (255, 214, 64)
"""RGB colour of the contour of a true mask, wherever it is drawn: yellow."""
PREDICTED_COLOUR: Final = (64, 224, 255)
"""RGB colour of the contour of a predicted mask: cyan, which skin and heatmaps do not have."""


def hexadecimal(colour: tuple[int, int, int]) -> str:
    """Return an RGB colour for a page.

    Examples:
        >>> hexadecimal(TRUTH_COLOUR)
        '#ffd640'
    """
    return "#" + bytes(colour).hex()


def draw_contours(
    pixels: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    colour: tuple[int, int, int] = TRUTH_COLOUR,
    thickness: int = 2,
) -> NDArray[np.uint8]:
    """Return a copy of an image with a mask's contours drawn on it.

    Args:
        pixels: H x W x 3.
        mask: H x W.
        colour: RGB.
        thickness: Line width in pixels.
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
"""RGB colour of each attribute's contour; safe for colour-blind readers (Okabe & Ito 2008)."""
ATTRIBUTE_LEGEND: Final = (
    "orange globules, yellow milia-like cysts, pink negative network, green pigment network, "
    "vermilion streaks"
)
"""These colours in words."""


def draw_attributes(
    pixels: NDArray[np.uint8], masks: Mapping[str, NDArray[np.bool_]], thickness: int = 1
) -> NDArray[np.uint8]:
    """Return a copy of an image with the contours of each attribute in its colour.

    Args:
        pixels: H x W x 3.
        masks: Masks H x W by attribute.
        thickness: Line width in pixels.
    """
    for name, mask in masks.items():
        pixels = draw_contours(pixels, mask, ATTRIBUTE_COLOURS[name], thickness)
    return pixels


def area_fraction(mask: NDArray[np.bool_]) -> float:
    """Return the fraction of pixels in the foreground, 0..1."""
    return float(np.count_nonzero(mask) / mask.size)


def plausible(mask: NDArray[np.bool_]) -> bool:
    """Return whether a mask covers between 0.5 % and 97 % of the image."""
    least, greatest = PLAUSIBLE_FRACTIONS
    return least <= area_fraction(mask) <= greatest


def _smooth(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    # Half the radius as standard deviation: pixels beyond the radius hardly count.
    grey = mask.astype(np.float32)
    return np.asarray(cv2.GaussianBlur(grey, (0, 0), radius / 2) > 0.5)


class _Contours(NamedTuple):
    """The contours of a mask's regions and of their holes.

    Each is n x 1 x 2, the (x, y) of neighbouring pixels. Regions are 8-connected, holes
    4-connected.
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
    """Return the largest region of a mask with foreground, and its contours."""
    # Most masks are one region and maybe specks. Its contours show that it is connected, ten times
    # faster than labels; and with more than half of the pixels it must be the largest.
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
    """Return whether a mask with these contours is one 4-connected region."""
    outer, holes = contours
    return len(outer) == 1 and not any(_cuts_corners(mask, each) for each in (*outer, *holes))


def _cuts_corners(mask: NDArray[np.bool_], contour: NDArray[np.int32]) -> bool:
    """Return whether a contour crosses a pixel's corner with background on both sides."""
    x, y = contour[:, 0].T
    after_x, after_y = np.roll(x, -1), np.roll(y, -1)
    return not (mask[y, after_x] | mask[after_y, x]).all()


def _inside(contours: Sequence[NDArray[np.int32]], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the mask that contours enclose, including the contours themselves."""
    drawn = np.zeros(shape, np.uint8)
    for points in contours:  # one by one: drawn together, overlaps would be left out
        cv2.drawContours(drawn, [points], 0, 1, cv2.FILLED)
    return drawn.view(np.bool_)
