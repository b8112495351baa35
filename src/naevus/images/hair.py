"""Dark hair over a picture, as a mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WIDEST = 9  # pixels: what is broader is no hair
_DARKER = 14  # levels of 255 below what surrounds it
_LENGTH = 20.0  # pixels that go straight on: more than a mesh of the pigment network
_STEPS = ((0, 1), (1, 3), (1, 2), (1, 1), (2, 1), (3, 1), (1, 0))  # rows and columns, 0 to 90°


def hair_mask(grey: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Find dark, thin, straight structures: hair, and also rulers and lines drawn on the skin.

    The black-hat transform finds what is thin and dark (Lee et al., DullRazor, Computers in Biology
    and Medicine 1997); of that stays what holds a straight line of 20 pixels in one of twelve
    directions. Lengths and widths are meant for pictures of about 256 pixels.

    Args:
        grey: H x W luminance.

    Returns:
        H x W.
    """
    square = np.ones((_WIDEST, _WIDEST), np.uint8)
    thin = cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, square) >= _DARKER
    mirrored = _mirrored(thin)
    found, mirrored_found = np.zeros_like(thin), np.zeros_like(thin)
    for rows, columns in _STEPS:
        count = round(_LENGTH / float(np.hypot(rows, columns)))
        found |= open_by_line(thin, rows, columns, count)
        if rows and columns:
            mirrored_found |= open_by_line(mirrored, rows, columns, count)
    return found | _mirrored(mirrored_found)


def _mirrored(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    # A copy: NumPy walks a view backwards many times more slowly.
    return np.asarray(cv2.flip(mask.view(np.uint8), 1)).view(np.bool_)


def open_by_line(mask: NDArray[np.bool_], rows: int, columns: int, count: int) -> NDArray[np.bool_]:
    """Open a mask by ``count`` points in a line, each ``rows`` and ``columns`` from the last.

    The line is doubled until it is long enough, which is many times faster than OpenCV's opening by
    a kernel that is no rectangle.

    Args:
        mask: H x W.
        rows: Rows from point to point, not below 0.
        columns: Columns from point to point, not below 0.
        count: Points in the line.

    Returns:
        H x W: the pixels on a line whose points are all in the mask.
    """
    height, width = mask.shape
    if (count - 1) * rows >= height or (count - 1) * columns >= width:
        return np.zeros_like(mask)
    starts = mask
    for step in _doublings(count):
        down, right = step * rows, step * columns
        starts = starts[: len(starts) - down, : starts.shape[1] - right] & starts[down:, right:]
        if not starts.any():  # most pictures have no hair in most directions
            return np.zeros_like(mask)
    opened = np.zeros_like(mask)
    opened[: len(starts), : starts.shape[1]] = starts
    for step in _doublings(count):
        down, right = step * rows, step * columns
        before = opened[: height - down, : width - right].copy()
        opened[down:, right:] |= before
    return opened


def _doublings(count: int) -> list[int]:
    """Return by how many points a line is moved each time to grow from one point to ``count``."""
    steps, done = [], 1
    while done < count:
        steps.append(min(done, count - done))
        done += steps[-1]
    return steps
