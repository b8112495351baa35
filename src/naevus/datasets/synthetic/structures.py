"""Dermoscopic structures, each drawn as a field of strengths from 0 to 1.

The terms are those of the International Dermoscopy Society's consensus (Kittler et al.,
J Am Acad Dermatol 2016;74:1093-1106).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Field = NDArray[np.float32]


# Random fields for textures and structures: noise, lattices, cells.


def noise_field(rng: np.random.Generator, side: int, cell: float) -> Field:
    """Return smooth noise, about standard normal.

    Args:
        rng: Random number generator.
        side: Height and width of the field, in pixels.
        cell: Size of the noise's grains, in pixels.

    Returns:
        side x side float32 of mean about 0 and standard deviation about 1.
    """
    count = max(3, round(side / cell))
    grid = rng.standard_normal((count, count), dtype=np.float32)
    field = cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)
    # Interpolation averages; the factor restores the standard deviation of 1.
    return np.asarray(field * np.float32(1.25), np.float32)


def fractal_field(
    rng: np.random.Generator, side: int, cell: float, octaves: int = 3, gain: float = 0.55
) -> Field:
    """Return a sum of noise fields, each with half the grain size; about standard normal."""
    total = np.zeros((side, side), np.float32)
    weight, power = 1.0, 0.0
    for octave in range(octaves):
        total += np.float32(weight) * noise_field(rng, side, max(cell / 2**octave, 1.0))
        power += weight**2
        weight *= gain
    return total / np.float32(np.sqrt(power))


def ramp(field: Field, low: float, high: float) -> Field:
    """Return the smooth step from 0 at ``low`` to 1 at ``high`` (which may be smaller)."""
    t = np.clip((field - np.float32(low)) / np.float32(high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def lattice(
    rng: np.random.Generator, side: int, spacing: float, jitter: float
) -> NDArray[np.int32]:
    """Return the points of a jittered hexagonal lattice within the field.

    Args:
        rng: Random number generator.
        side: Height and width of the field, in pixels.
        spacing: Distance of neighbours, in pixels.
        jitter: Largest displacement of a point, as a fraction of the spacing.

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
        """Return the field with one of ``values`` in each cell."""
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


_SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class Canvas:
    """The square of skin that a lesion is drawn on.

    Attributes:
        rng: Random number generator.
        side: Height and width, in pixels.
        unit: Number of pixels per pixel of a 256 px photograph; all sizes below are in these
            units.
        contour: n x 2 float64, the lesion's contour in pixels.
        depth: side x side float32, distance inside the contour, in units.
        radius: Mean radius of the lesion, in units.
    """

    rng: np.random.Generator
    side: int
    unit: float
    contour: NDArray[np.float64]
    depth: Field
    radius: float

    @cached_property
    def inside(self) -> NDArray[np.intp]:
        """The flat indices of the lesion's pixels."""
        return np.flatnonzero(self.depth > 0)

    @cached_property
    def centre(self) -> NDArray[np.float64]:
        """The middle of the contour, x before y, in pixels."""
        return np.asarray(self.contour.mean(axis=0))

    def noise(self, cell: float) -> Field:
        """Return smooth noise with grains of ``cell`` units."""
        return noise_field(self.rng, self.side, cell * self.unit)

    def fractal(self, cell: float, octaves: int = 3) -> Field:
        """Return noise of several scales, the coarsest with grains of ``cell`` units."""
        return fractal_field(self.rng, self.side, cell * self.unit, octaves)

    def mesh(self, spacing: float, jitter: float) -> Cells:
        """Return the cells of a jittered lattice with ``spacing`` units between neighbours."""
        points = lattice(self.rng, self.side, spacing * self.unit, jitter)
        return cells(points, self.side)

    def blur(self, field: Field, sigma: float) -> Field:
        """Return the field blurred by a Gaussian of ``sigma`` units."""
        return np.asarray(cv2.GaussianBlur(field, (0, 0), sigma * self.unit), np.float32)

    def patch(self, fraction: float, cell: float) -> Field:
        """Return an irregular region that covers about ``fraction`` of the lesion."""
        field = self.fractal(cell)
        edge = float(np.quantile(field.ravel()[self.inside], 1 - fraction))
        return ramp(field, edge - 0.45, edge + 0.45)

    def spots(self, count: int, smallest: float, largest: float, where: Field) -> Field:
        """Return ``count`` round spots with radii in units, most frequent where ``where`` is high.

        Spots differ in strength; overlapping spots do not add up.
        """
        weight = np.maximum(where.ravel()[self.inside], 0).astype(np.float64)
        total = weight.sum()
        drawn = np.zeros((self.side, self.side), np.uint8)
        if total <= 0:
            return drawn.astype(np.float32)
        places = self.rng.choice(self.inside, size=count, p=weight / total)
        radii = self.rng.uniform(smallest, largest, count) * self.unit
        strengths = self.rng.integers(150, 256, count)
        for place, radius, strength in zip(places, radii, strengths, strict=True):
            y, x = divmod(int(place), self.side)
            centre = (x << _SUBPIXEL_BITS, y << _SUBPIXEL_BITS)
            fixed = max(round(radius * 2**_SUBPIXEL_BITS), 8)
            cv2.circle(drawn, centre, fixed, int(strength), cv2.FILLED, cv2.LINE_AA, _SUBPIXEL_BITS)
        return drawn.astype(np.float32) / np.float32(255)


def pigment_network(canvas: Canvas, spacing: float, width: float, jitter: float) -> Field:
    """Return the lines of a pigment network: a honeycomb of ``spacing``, lines ``width`` wide."""
    border = canvas.mesh(spacing, jitter).border / np.float32(canvas.unit)
    wide = width * (1 + 0.35 * np.clip(canvas.noise(spacing * 2.5), -1, 1))
    lines = canvas.blur(np.exp(-((border / wide) ** 2)).astype(np.float32), 0.8)
    return lines * (0.8 + 0.25 * canvas.fractal(spacing * 2, 2))


def cobblestones(canvas: Canvas, spacing: float) -> Field:
    """Return large globules side by side, each of its own strength."""
    mesh = canvas.mesh(spacing, 0.22)
    own = mesh.each(canvas.rng.uniform(0.55, 1, 997))
    centre = mesh.centre / np.float32(canvas.unit) + 0.06 * spacing * canvas.noise(5)
    return canvas.blur(own * ramp(centre, spacing * 0.5, spacing * 0.25), 0.8)


def streaks(canvas: Canvas, count: int, length: float) -> Field:
    """Return radial streaks (pseudopods) beyond the edge, in one or two sectors."""
    drawn = np.zeros((canvas.side, canvas.side), np.uint8)
    points = canvas.contour
    starts = (canvas.rng.integers(len(points)) + canvas.rng.normal(0, 22, count)).astype(np.intp)
    for start in starts % len(points):
        outward = points[start] - canvas.centre
        outward /= np.linalg.norm(outward) + 1e-9
        first = points[start] - 6 * canvas.unit * outward
        tangent = outward[::-1] * (1, -1) * canvas.rng.normal(0, 0.25)
        reach = canvas.rng.uniform(0.25, 1) ** 1.5 * length * canvas.unit
        last = points[start] + reach * (outward + tangent)
        _line(drawn, np.stack([first, last]), canvas.rng.uniform(1.5, 3.2) * canvas.unit, 255)
        tip = tuple(int(v) for v in np.rint(last))
        cv2.circle(drawn, tip, max(1, round(1.8 * canvas.unit)), 255, cv2.FILLED, cv2.LINE_AA)
    return canvas.blur(drawn.astype(np.float32) / np.float32(255), 1.1)


def arborising_vessels(canvas: Canvas, trees: int) -> Field:
    """Return sharp vessels that branch like trees, thick stems and thin twigs."""
    drawn = np.zeros((canvas.side, canvas.side), np.uint8)
    points = canvas.contour
    for _ in range(trees):
        start = points[canvas.rng.integers(len(points))]
        target = canvas.centre + canvas.rng.normal(0, 0.3 * canvas.radius * canvas.unit, 2)
        heading = float(np.arctan2(*(target - start)[::-1]))
        _branch(canvas, drawn, start, heading, canvas.rng.uniform(2.6, 3.6))
    return canvas.blur(drawn.astype(np.float32) / np.float32(255), 0.45)


def _branch(
    canvas: Canvas,
    drawn: NDArray[np.uint8],
    start: NDArray[np.float64],
    heading: float,
    width: float,
) -> None:
    """Draw one vessel and, where it forks, its thinner branches."""
    steps = int(canvas.rng.integers(4, 8))
    stride = canvas.radius * canvas.unit * 0.115
    path = [start]
    for _ in range(steps):
        heading += canvas.rng.normal(0, 0.3)
        path.append(path[-1] + stride * np.array([np.cos(heading), np.sin(heading)]))
    _line(drawn, np.stack(path), width * canvas.unit, 255)
    if width < 1.1:
        return
    for side in (-1, 1):
        turned = heading + side * canvas.rng.uniform(0.35, 0.8)
        _branch(canvas, drawn, path[-1], turned, width * canvas.rng.uniform(0.55, 0.75))
    middle = path[len(path) // 2]
    turned = heading + canvas.rng.choice((-1, 1)) * canvas.rng.uniform(0.7, 1.2)
    _branch(canvas, drawn, middle, turned, width * 0.5)


def dotted_vessels(canvas: Canvas, count: int) -> Field:
    """Return clusters of dotted (glomerular) vessels."""
    return canvas.spots(count, 1.1, 2.0, canvas.patch(0.35, 30))


def lacunae(canvas: Canvas, spacing: float) -> Field:
    """Return lacunae: packed, sharply bounded clods, separated by pale septa."""
    mesh = canvas.mesh(spacing, 0.3)
    own = mesh.each(canvas.rng.uniform(0.55, 1, 997))
    border = mesh.border / np.float32(canvas.unit)
    shade = 0.75 + 0.25 * ramp(border, 0, spacing * 0.4)
    # Blurring and thresholding again rounds the corners of the cells.
    clods = canvas.blur(ramp(border + 0.5 * canvas.noise(5), 0.6, 2.4), 0.11 * spacing)
    return np.asarray(own * shade * ramp(clods, 0.42, 0.80), np.float32)


def fissures(canvas: Canvas, spacing: float) -> Field:
    """Return the winding furrows between the ridges of a cerebriform surface."""
    fine = canvas.noise(spacing)
    return np.asarray(np.exp(-((fine / 0.24) ** 2)), np.float32)


def follicles(canvas: Canvas, spacing: float) -> tuple[Field, Field]:
    """Return the strawberry pattern: pale follicles and the dark plugs in their centres."""
    mesh = canvas.mesh(spacing, 0.24)
    centre = mesh.centre / np.float32(canvas.unit)
    own = mesh.each(canvas.rng.uniform(0.5, 1, 997))
    halo = own * ramp(centre, spacing * 0.42, spacing * 0.2)
    plug = mesh.each((canvas.rng.random(997) < 0.55).astype(np.float64))
    return halo, np.asarray(plug * ramp(centre, spacing * 0.15, spacing * 0.06), np.float32)


def scales(canvas: Canvas, fraction: float) -> Field:
    """Return white surface scale: ragged flakes that cover a ``fraction`` of the lesion."""
    flakes = canvas.blur(ramp(canvas.fractal(6, 2), 0.3, 1.1), 0.6)
    return np.asarray(flakes * canvas.patch(fraction, 34), np.float32)


def scar(canvas: Canvas, size: float) -> Field:
    """Return the white, scar-like centre, ``size`` times the lesion's radius, with white lines."""
    rows, columns = np.mgrid[: canvas.side, : canvas.side].astype(np.float32)
    shift = canvas.rng.normal(0, 0.08, 2) * canvas.radius * canvas.unit
    x, y = canvas.centre + shift
    distance = np.hypot(columns - np.float32(x), rows - np.float32(y))
    distance /= np.float32(canvas.radius * canvas.unit)
    distance += np.float32(0.09) * canvas.fractal(28, 2)
    lines = pigment_network(canvas, 11, 1.3, 0.45)
    body = ramp(distance, size * 1.5, size * 0.45)
    return np.asarray(body * (0.72 + 0.28 * lines), np.float32)


def _line(drawn: NDArray[np.uint8], path: NDArray[np.float64], width: float, strength: int) -> None:
    fixed = np.rint(path * 2**_SUBPIXEL_BITS).astype(np.int32)
    thickness = max(1, round(width))
    # OpenCV draws no line thinner than a pixel; a paler line replaces it.
    paler = round(strength * min(1.0, max(width, 0.35)))
    cv2.polylines(
        drawn, [fixed], isClosed=False, color=paler, thickness=thickness,
        lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS,
    )  # fmt: skip
