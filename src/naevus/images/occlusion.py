"""Pictures without their lesion: what is left to guess by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from naevus.images.geometry import box_of, resize

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

GROWTH: Final = 0.1
"""How far a mask is grown before it hides a lesion, as a share of the lesion's longer side."""
RING: Final = 0.125
"""Width of the border ring, as a share of the picture's side."""
HELD: Final = 0.9
"""The share of all lesions' pixels that the common hole holds."""
HOLE_SIDE: Final = 128
"""Side of the map that the common hole is drawn on, in pixels."""


def grown(mask: NDArray[np.bool_], share: float = GROWTH) -> NDArray[np.bool_]:
    """Return a mask grown on all sides by a share of its longer side; an empty one stays so."""
    box = box_of(mask)
    if box is None:
        return mask.copy()
    side = 2 * round(share * max(box.width, box.height)) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return np.asarray(cv2.dilate(np.ascontiguousarray(mask).view(np.uint8), disc) > 0)


def ring_hole(side: int, share: float = RING) -> NDArray[np.bool_]:
    """Return what hides all but a ring along the border of a square picture, side x side."""
    width = max(round(share * side), 1)
    hole = np.zeros((side, side), bool)
    hole[width:-width, width:-width] = True
    return hole


def mean_hole(masks: Iterable[NDArray[np.bool_]], held: float = HELD) -> NDArray[np.bool_]:
    """Return one hole for all square pictures: a level set of the mean of their masks.

    Its shape is that of the mean lesion; it is as large as it must be to hold ``held`` of all
    masks' pixels. The same in every picture, it says nothing of the lesion that it hides.

    Args:
        masks: Square, of any sizes.
        held: Between 0 and 1.

    Returns:
        `HOLE_SIDE` x `HOLE_SIDE`; empty where all masks are.
    """
    total = np.zeros((HOLE_SIDE, HOLE_SIDE), np.float64)
    for mask in masks:
        surface = np.ascontiguousarray(mask).view(np.uint8) * np.uint8(255)
        total += resize(surface, HOLE_SIDE, HOLE_SIDE)
    if not total.any():
        return np.zeros(total.shape, bool)
    falling = np.sort(total, axis=None)[::-1]
    enough = np.searchsorted(np.cumsum(falling), held * total.sum())
    return np.asarray(total >= falling[min(int(enough), falling.size - 1)])


def filled(pixels: NDArray[np.uint8], hidden: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return a picture with a part of it filled by the mean colour of the rest.

    Args:
        pixels: H x W x 3.
        hidden: H x W. Where nothing would be left, all becomes mid-grey.
    """
    result = pixels.copy()
    shown = pixels[~hidden]
    result[hidden] = np.round(shown.mean(axis=0)).astype(np.uint8) if len(shown) else 128
    return result
