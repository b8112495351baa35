"""What the classifier sees: the one place where a crop is cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import cv2
import numpy as np

from naevus.images.geometry import Box, box_of, centre_box, resize, square_with_margin
from naevus.images.masks import plausible

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from naevus.types import CropMode


MARGIN: Final = 0.15
"""Skin shown on each side of the lesion, as a share of the lesion's longer side."""


class Crop(NamedTuple):
    """A square ready for the classifier.

    ``pixels`` is size x size x 3; ``mode`` is the one really used; ``box`` is where the square
    lies in the picture it was cut from (it may exceed it, see `geometry.square_with_margin`).
    """

    pixels: NDArray[np.uint8]
    mode: CropMode
    box: Box


def cut(
    pixels: NDArray[np.uint8],
    mask: NDArray[np.bool_] | None,
    *,
    mode: CropMode,
    size: int,
    margin: float = MARGIN,
) -> Crop:
    """Cut the square that the classifier sees.

    Args:
        pixels: H x W x 3.
        mask: The lesion; of any size, taken as covering the same frame as ``pixels``.
        mode: ``full``: the largest centred square; ``crop``: a square round the lesion with a
            margin; ``blank``: the same, black outside the mask, its edge antialiased.
        size: Side of the result.
        margin: Added on each side, as a share of the lesion's longer side.

    Returns:
        The crop. Without a mask, or with one that is empty or not plausible, it is the ``full``
        one and says so in its ``mode``. What lies outside the picture is its reflection (``crop``)
        or black (``blank``).

    Examples:
        >>> pixels = np.full((100, 120, 3), 200, np.uint8)
        >>> mask = np.zeros((100, 120), bool)
        >>> mask[40:60, 50:90] = True
        >>> crop = cut(pixels, mask, mode="crop", size=64)
        >>> crop.pixels.shape, crop.mode, crop.box
        ((64, 64, 3), 'crop', Box(left=44, top=24, right=96, bottom=76))
        >>> cut(pixels, np.zeros_like(mask), mode="crop", size=64).mode  # there is no lesion
        'full'
    """
    height, width = pixels.shape[:2]
    found = box_of(mask) if mask is not None else None
    if mode == "full" or mask is None or found is None or not plausible(mask):
        box = centre_box(height, width)
        return Crop(resize(_window(pixels, box, cv2.BORDER_REFLECT_101), size, size), "full", box)
    box = square_with_margin(_scaled(found, mask, height, width), margin, height, width)
    square = resize(_window(pixels, box, cv2.BORDER_REFLECT_101), size, size)
    if mode == "blank":
        square = _blanked(square, mask, box, height, width)
    return Crop(square, mode, box)


def _scaled(box: Box, mask: NDArray[np.bool_], height: int, width: int) -> Box:
    """Return a mask's box in a picture of another size, grown to whole pixels."""
    rows, columns = mask.shape
    return Box(
        box.left * width // columns,
        box.top * height // rows,
        -(-box.right * width // columns),
        -(-box.bottom * height // rows),
    )


def _window(pixels: NDArray[np.uint8], box: Box, border: int) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    above, left = max(-box.top, 0), max(-box.left, 0)
    below, right = max(box.bottom - height, 0), max(box.right - width, 0)
    inside = pixels[max(box.top, 0) : box.bottom, max(box.left, 0) : box.right]
    if not any((above, left, below, right)):
        return inside
    padded = cv2.copyMakeBorder(inside, above, below, left, right, border)
    return np.asarray(padded, np.uint8)


def _blanked(
    square: NDArray[np.uint8], mask: NDArray[np.bool_], box: Box, height: int, width: int
) -> NDArray[np.uint8]:
    size = len(square)
    surface = resize(mask.astype(np.uint8) * 255, height, width)
    shown = resize(_window(surface, box, cv2.BORDER_CONSTANT), size, size)
    product = square.astype(np.uint16) * shown[:, :, None]
    return ((product + 127) // 255).astype(np.uint8)
