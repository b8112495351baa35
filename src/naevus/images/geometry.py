"""Resizing, boxes and D4 transforms; all code that resizes or flips an image uses this module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Scalar = TypeVar("Scalar", bound=np.generic)


D4: Final = range(8)
"""The eight symmetries of the square, by number; see `d4_transform`."""


def resize(pixels: NDArray[Scalar], height: int, width: int) -> NDArray[Scalar]:
    """Resize an image or a probability map.

    Shrinking averages over areas, without aliasing. Enlarging interpolates: images bicubically,
    single-channel maps linearly, so that probabilities stay in 0..1. One side may shrink while the
    other grows.

    Args:
        pixels: H x W x 3 or H x W, uint8 or float32.
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        height x width (x 3), of the same type; always a copy.
    """
    rows, columns = pixels.shape[:2]
    result = np.ascontiguousarray(pixels)
    small = min(rows, height), min(columns, width)
    if small != (rows, columns):
        result = cv2.resize(result, (small[1], small[0]), interpolation=cv2.INTER_AREA)
    if small != (height, width):
        enlarge = cv2.INTER_CUBIC if pixels.ndim == 3 else cv2.INTER_LINEAR
        result = cv2.resize(result, (width, height), interpolation=enlarge)
    return result if result is not pixels else pixels.copy()


def reduced(pixels: NDArray[Scalar], shorter: int) -> NDArray[Scalar]:
    """Reduce an image until its shorter side has at most ``shorter`` pixels; never enlarge."""
    rows, columns = pixels.shape[:2]
    scale = shorter / min(rows, columns)
    if scale >= 1:
        return pixels
    return resize(pixels, max(1, round(rows * scale)), max(1, round(columns * scale)))


def squash(pixels: NDArray[Scalar], size: int) -> NDArray[Scalar]:
    """Resize the whole frame to size x size, whatever its aspect ratio."""
    return resize(pixels, size, size)


class Box(NamedTuple):
    """A rectangle of pixels; right and bottom are the first column and row outside it."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Columns inside."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Rows inside."""
        return self.bottom - self.top

    @property
    def area(self) -> int:
        """Pixels inside."""
        return self.width * self.height


def centre_box(height: int, width: int) -> Box:
    """Return the largest square in the middle of an image."""
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    return Box(left, top, left + side, top + side)


def centre_square(pixels: NDArray[Scalar]) -> NDArray[Scalar]:
    """Return the largest square in the middle of an image, as a view of it."""
    left, top, right, bottom = centre_box(*pixels.shape[:2])
    return pixels[top:bottom, left:right]


def box_of(mask: NDArray[np.bool_]) -> Box | None:
    """Return the smallest box around a mask's foreground; None if the mask is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return None
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def square_with_margin(box: Box, margin: float, height: int, width: int) -> Box:
    """Return a square around a box, inside the image if possible.

    The margin shrinks first: the square is never larger than the image's shorter side, unless the
    box itself is longer. The square is moved inside the image along every axis on which it fits. If
    the box is longer than the image's shorter side, the square exceeds the image equally on both
    ends of that axis; `preprocess.cut` fills the rest by reflection.

    Args:
        box: A box inside the image.
        margin: Added on each side, as a fraction of the box's longer side.
        height: Rows of the image.
        width: Columns of the image.

    Examples:
        >>> square_with_margin(Box(40, 50, 60, 60), 0.1, height=100, width=200)
        Box(left=38, top=43, right=62, bottom=67)
    """
    longer = max(box.width, box.height)
    side = max(longer, min(round(longer * (1 + 2 * margin)), height, width))
    left = _inside((box.left + box.right - side) // 2, side, width)
    top = _inside((box.top + box.bottom - side) // 2, side, height)
    return Box(left, top, left + side, top + side)


def widened(box: Box, factor: float) -> Box:
    """Enlarge a square box by a factor, by the same whole number of pixels on every side."""
    beyond = round(box.width * (factor - 1) / 2)
    return Box(box.left - beyond, box.top - beyond, box.right + beyond, box.bottom + beyond)


def _inside(start: int, length: int, limit: int) -> int:
    if length > limit:
        return (limit - length) // 2
    return min(max(start, 0), limit - length)


def d4_transform(array: NDArray[Scalar], k: int) -> NDArray[Scalar]:
    """Apply one of the eight D4 transforms to an array.

    Args:
        array: H x W or H x W x C.
        k: 0..7: ``k & 4`` mirrors left to right first, then ``k & 3`` quarter turns anticlockwise
            follow. An odd number of turns swaps H and W.

    Returns:
        A contiguous copy.

    Examples:
        >>> array = np.array([[1, 2], [3, 4]])
        >>> d4_transform(array, 1).tolist()  # a quarter turn
        [[2, 4], [1, 3]]
        >>> d4_transform(array, 4).tolist()  # mirrored
        [[2, 1], [4, 3]]
    """
    single: NDArray[Scalar] = d4_transform_batch(array[None], k)[0]
    return single


def d4_transform_batch(batch: NDArray[Scalar], k: int) -> NDArray[Scalar]:
    """Apply D4 transform ``k`` to a batch N x H x W (x C); see `d4_transform`."""
    mirrored = batch[:, :, ::-1] if k & 4 else batch
    return _copy(np.rot90(mirrored, k & 3, axes=(1, 2)))


def d4_inverse_batch(batch: NDArray[Scalar], k: int) -> NDArray[Scalar]:
    """Undo `d4_transform_batch`.

    Examples:
        >>> batch = np.array([[[1, 2], [3, 4]]])
        >>> bool((d4_inverse_batch(d4_transform_batch(batch, 5), 5) == batch).all())
        True
    """
    turned = np.rot90(batch, -(k & 3), axes=(1, 2))
    return _copy(turned[:, :, ::-1] if k & 4 else turned)


def _copy(array: NDArray[Any]) -> NDArray[Any]:
    return np.array(array, order="C")
