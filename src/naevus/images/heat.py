"""Class activation maps laid over the picture they were made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from naevus.images.geometry import resize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from naevus.images.geometry import Box


def heat_over(
    activation: NDArray[np.float32], box: Box, height: int, width: int
) -> NDArray[np.float32]:
    """Lay a class activation map over a picture.

    What speaks against the class counts as nothing, and the strongest place as one, as is usual
    for such maps (Zhou et al., CVPR 2016): they compare places of one picture, not pictures.

    Args:
        activation: h x w, the map over the square that the classifier saw.
        box: Where that square lies in the picture; it may exceed it.
        height: Rows of the picture.
        width: Columns of the picture.

    Returns:
        height x width, 0..1; 0 outside the box.
    """
    heat = np.zeros((height, width), np.float32)
    strength = resize(np.maximum(activation, 0), box.height, box.width)
    top, left = max(box.top, 0), max(box.left, 0)
    bottom, right = min(box.bottom, height), min(box.right, width)
    heat[top:bottom, left:right] = strength[
        top - box.top : bottom - box.top, left - box.left : right - box.left
    ]
    strongest = float(heat.max())
    return heat / np.float32(strongest) if strongest > 0 else heat
