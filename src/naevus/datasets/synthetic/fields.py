"""Random fields that textures and structures are made of: noise, lattices, cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Field = NDArray[np.float32]


def noise(rng: np.random.Generator, side: int, cell: float) -> Field:
    """Return smooth noise, about standard normal.

    Args:
        rng: Where the randomness comes from.
        side: Height and width of the field, in pixels.
        cell: Size of the noise's grains, in pixels.

    Returns:
        side x side float32 of mean about 0 and standard deviation about 1.
    """
    count = max(3, round(side / cell))
    grid = rng.standard_normal((count, count), dtype=np.float32)
    field = cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)
    # Interpolation averages: the factor brings the deviation back to 1.
    return np.asarray(field * np.float32(1.25), np.float32)


def fractal(
    rng: np.random.Generator, side: int, cell: float, octaves: int = 3, gain: float = 0.55
) -> Field:
    """Return a sum of noises, each half as coarse as the one before; about standard normal."""
    total = np.zeros((side, side), np.float32)
    weight, power = 1.0, 0.0
    for octave in range(octaves):
        total += np.float32(weight) * noise(rng, side, max(cell / 2**octave, 1.0))
        power += weight**2
        weight *= gain
    return total / np.float32(np.sqrt(power))


def ramp(field: Field, low: float, high: float) -> Field:
    """Return the smooth step from 0 at ``low`` to 1 at ``high`` (which may be the smaller)."""
    t = np.clip((field - np.float32(low)) / np.float32(high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def lattice(
    rng: np.random.Generator, side: int, spacing: float, jitter: float
) -> NDArray[np.int32]:
    """Return the points of a shaken hexagonal lattice that fall into the field.

    Args:
        rng: Where the randomness comes from.
        side: Height and width of the field, in pixels.
        spacing: Distance of neighbours, in pixels.
        jitter: How far a point may leave its place, as a share of the spacing.

    Returns:
        n x 2 int32, x before y.
    """
    step = spacing * np.sqrt(3) / 2
    rows = np.arange(-step, side + step, step)
    columns = np.arange(-spacing, side + spacing, spacing)
    x, y = np.meshgrid(columns, rows)
    x[1::2] += spacing / 2
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    points += rng.uniform(-jitter, jitter, points.shape) * spacing
    points = np.rint(points).astype(np.int32)
    inside = ((points >= 0) & (points < side)).all(axis=1)
    return np.asarray(points[inside], np.int32)


class Cells(NamedTuple):
    """The Voronoi cells of some points.

    Attributes:
        labels: side x side int32, the cell of each pixel, from 1.
        centre: Distance to the cell's own point, in pixels.
        border: Distance to the nearest border between cells, in pixels.
    """

    labels: NDArray[np.int32]
    centre: Field
    border: Field

    def each(self, values: NDArray[np.float64]) -> Field:
        """Return the field that has one of ``values`` in each cell."""
        return values.astype(np.float32)[self.labels % len(values)]


def cells(points: NDArray[np.int32], side: int) -> Cells:
    """Return the Voronoi cells of n x 2 ``points`` (x before y) in a square of ``side`` pixels."""
    seeds = np.ones((side, side), np.uint8)
    seeds[points[:, 1], points[:, 0]] = 0
    centre, labels = cv2.distanceTransformWithLabels(
        seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    inner = np.ones((side, side), np.uint8)
    inner[:, :-1] &= labels[:, :-1] == labels[:, 1:]
    inner[:-1] &= labels[:-1] == labels[1:]
    border = cv2.distanceTransform(inner, cv2.DIST_L2, 5)
    return Cells(
        np.asarray(labels, np.int32), np.asarray(centre, np.float32), np.asarray(border, np.float32)
    )
