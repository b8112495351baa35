"""Dark hair over a picture, as a mask."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

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


def thin(grey: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Find dark, thin structures, by the black-hat transform.

    Source: Lee et al., DullRazor, Computers in Biology and Medicine 1997. What of them is
    `straight` is hair, and also rulers and lines drawn on the skin. Widths and lengths are meant
    for pictures of about 256 pixels.

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
