"""How far a mask's outline is from the lesion's, whatever the lesion's size."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from naevus.errors import DataError
from naevus.images.geometry import box_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


class BoundaryDistance(NamedTuple):
    """How far two outlines are apart, in shares of the picture's diagonal: 0 is best, 1 worst."""

    surface_distance: float
    """Mean distance from the pixels of either outline to the other one (ASSD)."""
    hausdorff_95: float
    """95 % of each outline's pixels are at most so far from the other one."""


def boundary_distance(truth: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> BoundaryDistance:
    """Measure the distance between two masks' outlines.

    An outline is the foreground that has background, or the picture's border, beside it. The mean
    is over the pixels of both outlines (Heimann et al., IEEE Trans. Medical Imaging 2009); the
    percentile is the larger of the two directed ones (Maier-Hein et al., Metrics Reloaded, Nature
    Methods 2024). Shares of the diagonal, as the pixels' sizes on the skin are not known.

    Args:
        truth: H x W, true on the lesion.
        prediction: H x W, of the same size.

    Returns:
        0 where both are empty; 1, the whole diagonal, where one is.

    Raises:
        DataError: The masks differ in size.

    Examples:
        >>> truth = np.zeros((30, 40), bool)
        >>> truth[10:20, 10:20] = True
        >>> boundary_distance(truth, np.roll(truth, 5, axis=1)).hausdorff_95
        0.1
    """
    if truth.shape != prediction.shape:
        raise DataError(f"a mask {prediction.shape} against a truth {truth.shape}")
    box = box_of(truth | prediction)
    if box is None:
        return BoundaryDistance(0.0, 0.0)
    if not truth.any() or not prediction.any():
        return BoundaryDistance(1.0, 1.0)
    inside = slice(box.top, box.bottom), slice(box.left, box.right)
    one, other = (_outline(mask[inside]) for mask in (truth, prediction))
    there, back = _from_to(one, other), _from_to(other, one)
    diagonal = float(np.hypot(*truth.shape))
    mean = (float(there.sum()) + float(back.sum())) / (len(there) + len(back))
    farthest = max(float(np.percentile(each, 95)) for each in (there, back))
    return BoundaryDistance(mean / diagonal, farthest / diagonal)


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    # Cropped to both masks' box, the border is background or the picture's own border.
    inner = cv2.erode(
        np.ascontiguousarray(mask).view(np.uint8),
        _CROSS,
        borderType=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    return np.asarray(mask & (inner == 0))


def _from_to(pixels: NDArray[np.bool_], outline: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the distance of some pixels to the nearest pixel of an outline."""
    elsewhere = (~outline).view(np.uint8)
    distances = cv2.distanceTransform(elsewhere, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[pixels]
    # Their squares are whole numbers: OpenCV's last bits differ from call to call.
    return np.sqrt(np.rint(distances.astype(np.float64) ** 2))
