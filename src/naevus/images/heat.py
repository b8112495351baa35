"""Class activation maps laid over the picture they were made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from naevus.images.geometry import Box, resize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_GREY = 0.65  # of what is left of the picture's own colours where there is no heat
_STRONGEST = 0.75


class Activation(NamedTuple):
    """A class activation map, and where the square that it was made of lies.

    Attributes:
        map: h x w.
        box: The square, in pixels of a frame that shows the whole picture; it may exceed it.
        frame: Rows and columns of that frame.
        offset: How far below and to the right of its place on the map what it shows is to be
            drawn, in cells of the map.
    """

    map: NDArray[np.float32]
    box: Box
    frame: tuple[int, int]
    offset: tuple[float, float] = (0.0, 0.0)


def heat_over(activations: Sequence[Activation], height: int, width: int) -> NDArray[np.float32]:
    """Lay the mean of class activation maps over a picture.

    What speaks against the class counts as nothing, and the strongest place as one, as is usual
    for such maps (Zhou et al., CVPR 2016): they compare places of one picture, not pictures.

    Args:
        activations: One or more maps of one class; their mean is taken before anything else.
        height: Rows of the picture.
        width: Columns of the picture.

    Returns:
        height x width, 0..1; 0 outside the squares.

    Examples:
        >>> activation = np.array([[0, 0], [0, 2]], np.float32)
        >>> middle = Activation(activation, Box(1, 0, 3, 2), frame=(2, 4))
        >>> heat_over([middle], 2, 4)
        array([[0., 0., 0., 0.],
               [0., 0., 1., 0.]], dtype=float32)
    """
    heat = np.zeros((height, width), np.float32)
    for activation in activations:
        _add(heat, activation)
    np.maximum(heat, 0, out=heat)
    strongest = float(heat.max())
    return heat / np.float32(strongest) if strongest > 0 else heat


def glowing(pixels: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return a picture, paled to grey, in which its heat map glows.

    The colours are viridis, which the colour-blind tell apart and which skin does not have.

    Args:
        pixels: H x W x 3.
        heat: H x W, 0..1.
    """
    grey = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    pale = _GREY * grey + (1 - _GREY) * pixels
    levels = np.rint(heat * np.float32(255)).astype(np.uint8)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS)[..., ::-1]
    share = (_STRONGEST * heat)[..., None]
    mixed: NDArray[np.float32] = pale * (1 - share) + colours * share
    return np.asarray(np.rint(mixed), np.uint8)


def _add(heat: NDArray[np.float32], activation: Activation) -> None:
    height, width = heat.shape
    box = _scaled(activation, height, width)
    strength = resize(activation.map, box.height, box.width)
    top, left = max(box.top, 0), max(box.left, 0)
    bottom, right = min(box.bottom, height), min(box.right, width)
    (rows, columns), (down, across) = activation.map.shape, activation.offset
    # What the move uncovers takes the map's edge.
    y = np.arange(top, bottom) - box.top - round(down * box.height / rows)
    x = np.arange(left, right) - box.left - round(across * box.width / columns)
    inside = np.ix_(y.clip(0, box.height - 1), x.clip(0, box.width - 1))
    heat[top:bottom, left:right] += strength[inside]


def _scaled(activation: Activation, height: int, width: int) -> Box:
    """Return the square in a picture of another size, at least a pixel large."""
    rows, columns = activation.frame
    box = activation.box
    left, right = (round(x * width / columns) for x in (box.left, box.right))
    top, bottom = (round(y * height / rows) for y in (box.top, box.bottom))
    return Box(left, top, max(right, left + 1), max(bottom, top + 1))
