"""How alike two pictures are once one is laid over the other."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

from naevus.images.geometry import centre_square, squash
from naevus.images.hashing import grey_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 64

_SCALE = 24  # of the int8 detail: +-127 is five standard deviations
_NOISE = 1.0  # grey levels: what varies less is not texture
_LARGEST_SHIFT = SIDE / 4
_ZOOM = (0.75, 1.33)
_LEAST_OVERLAP = 0.55
_WORTH_REGISTERING = 0.5
_CRITERIA = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-3)


def detail_of(pixels: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Return what tells a picture from others: its texture, at the same contrast everywhere.

    The centre square at 64 px, less its surroundings and divided by their deviation. Without that
    any two dark spots on plain skin correlate above .95.

    Args:
        pixels: H x W x 3 or H x W.

    Returns:
        64 x 64, signed, zero where there is no texture.
    """
    grey = squash(grey_of(centre_square(pixels)), SIDE).astype(np.float32)
    grey = cv2.GaussianBlur(grey, (0, 0), 0.7).astype(np.float32)
    texture = grey - cv2.GaussianBlur(grey, (0, 0), 3)
    deviation = np.sqrt(cv2.GaussianBlur(texture * texture, (0, 0), 6) + _NOISE**2)
    detail = np.rint(texture / deviation * _SCALE)
    return np.asarray(np.clip(detail, -127, 127), np.int8)


def correlation(first: NDArray[np.int8], second: NDArray[np.int8]) -> float:
    """Return the correlation of two details (64 x 64) after registration, -1 to 1.

    The shift comes from phase correlation; where that shows a likeness, an affine registration
    refines it. Only where the pictures overlap is compared, and by at least 55 % they must.

    G. D. Evangelidis, E. Z. Psarakis: Parametric image alignment using enhanced correlation
    coefficient maximization, IEEE TPAMI 30 (2008) 1858-1865.
    """
    a, b = first.astype(np.float32), second.astype(np.float32)
    (across, down), _ = cv2.phaseCorrelate(a, b, _window())
    motion = np.eye(2, 3, dtype=np.float32)
    if np.hypot(across, down) <= _LARGEST_SHIFT:
        motion[:, 2] = across, down
    found = max(_overlap_correlation(a, b, motion), _overlap_correlation(a, b, np.eye(2, 3)))
    if found < _WORTH_REGISTERING:
        return found
    everywhere = np.ones((SIDE, SIDE), np.uint8)
    try:
        _, affine = cv2.findTransformECC(a, b, motion, cv2.MOTION_AFFINE, _CRITERIA, everywhere, 3)
    except cv2.error:  # it did not converge
        return found
    motion = np.asarray(affine, np.float32)
    zooms = np.linalg.svd(motion[:, :2], compute_uv=False)
    if zooms.min() < _ZOOM[0] or zooms.max() > _ZOOM[1]:
        return found
    return max(found, _overlap_correlation(a, b, motion))


def _overlap_correlation(
    a: NDArray[np.float32], b: NDArray[np.float32], motion: NDArray[np.floating]
) -> float:
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(b, motion, (SIDE, SIDE), flags=flags)
    inside = cv2.warpAffine(np.ones_like(b), motion, (SIDE, SIDE), flags=flags) > 0.99
    if inside.mean() < _LEAST_OVERLAP:
        return -1.0
    x, y = a[inside], np.asarray(moved)[inside]
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm > 0 else 0.0


@cache
def _window() -> NDArray[np.float32]:
    return np.asarray(cv2.createHanningWindow((SIDE, SIDE), cv2.CV_32F), np.float32)
