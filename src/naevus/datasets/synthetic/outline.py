"""The outline of a lesion: a closed curve with lobes, notches and a long axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_POINTS = 360
_SUBPIXEL_BITS = 8


@dataclass(frozen=True)
class Shape:
    """How the outlines of a kind of lesion look.

    Attributes:
        lobes: Strength of the coarse lobes, as a share of the radius.
        notches: Strength of the fine ones.
        stretch: The largest ratio of the long axis to the short one.
    """

    lobes: float
    notches: float
    stretch: float


def draw_outline(rng: np.random.Generator, shape: Shape) -> NDArray[np.float64]:
    """Return an outline round the origin that encloses an area of π.

    Args:
        rng: Where the randomness comes from.
        shape: How strongly the curve departs from a circle.

    Returns:
        n x 2 float64, x before y, in units of the mean radius.
    """
    angle = np.linspace(0, 2 * np.pi, _POINTS, endpoint=False)
    radius = np.ones(_POINTS)
    for order in range(2, 7):
        strength = shape.lobes * rng.normal() / (order - 1) ** 0.8
        radius += strength * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    for order in range(8, 26):
        strength = shape.notches * rng.normal() / order**0.5
        radius += strength * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    radius = np.clip(radius, 0.45, 1.6)
    points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    ratio = np.sqrt(rng.uniform(1, shape.stretch))
    points *= (ratio, 1 / ratio)
    turn = rng.uniform(0, np.pi)
    points = points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    points -= points.mean(axis=0)
    return np.asarray(points * np.sqrt(np.pi / area(points)), np.float64)


def area(points: NDArray[np.float64]) -> float:
    """Return the area that a closed curve of n x 2 points encloses."""
    x, y = points[:, 0], points[:, 1]
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def fill(points: NDArray[np.float64], side: int) -> NDArray[np.bool_]:
    """Return the mask, side x side, of the pixels in a closed curve of n x 2 points, in pixels."""
    mask = np.zeros((side, side), np.uint8)
    fixed = np.rint(points * 2**_SUBPIXEL_BITS).astype(np.int32)
    cv2.fillPoly(mask, [fixed], (1,), shift=_SUBPIXEL_BITS)
    return mask.astype(np.bool_)


def depth(points: NDArray[np.float64], side: int) -> NDArray[np.float32]:
    """Return how far each pixel lies inside the curve (outside: below 0), in pixels."""
    mask = fill(points, side).astype(np.uint8)
    inner = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    outer = cv2.distanceTransform(1 - mask, cv2.DIST_L2, 5)
    return np.asarray(inner - outer, np.float32)
