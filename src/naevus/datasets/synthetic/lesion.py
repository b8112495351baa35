"""The typical appearance of each diagnosis: its contour and its structures.

Colour alone must not reveal the diagnosis: the amounts of pigment and blood are drawn from
strongly overlapping ranges, and the structures only redistribute them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from naevus.datasets.synthetic import structures

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from naevus.datasets.synthetic.structures import Canvas

    Field = NDArray[np.float32]


# The contour of a lesion: a closed curve with lobes, notches and a long axis.

_POINTS = 360
_SUBPIXEL_BITS = 8


@dataclass(frozen=True)
class Shape:
    """The form of the contours of a diagnosis.

    Attributes:
        lobes: Strength of the coarse lobes, as a fraction of the radius.
        notches: Strength of the fine notches.
        stretch: The largest ratio of the long axis to the short one.
    """

    lobes: float
    notches: float
    stretch: float


def draw_contour(rng: np.random.Generator, shape: Shape) -> NDArray[np.float64]:
    """Return a contour around the origin that encloses an area of π.

    Args:
        rng: Random number generator.
        shape: Deviation of the curve from a circle.

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
    """Return the area enclosed by a closed curve of n x 2 points."""
    x, y = points[:, 0], points[:, 1]
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def fill(points: NDArray[np.float64], side: int) -> NDArray[np.bool_]:
    """Return the mask, side x side, of the pixels in a closed curve of n x 2 points, in pixels."""
    mask = np.zeros((side, side), np.uint8)
    fixed = np.rint(points * 2**_SUBPIXEL_BITS).astype(np.int32)
    cv2.fillPoly(mask, [fixed], (1,), shift=_SUBPIXEL_BITS)
    return mask.astype(np.bool_)


def depth(points: NDArray[np.float64], side: int) -> NDArray[np.float32]:
    """Return the distance of each pixel inside the curve (outside: below 0), in pixels."""
    mask = fill(points, side).astype(np.uint8)
    inner = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    outer = cv2.distanceTransform(1 - mask, cv2.DIST_L2, 5)
    return np.asarray(inner - outer, np.float32)


# Optical model of the skin: layers of absorbers and scatterers, and the resulting colour.

# Optical density of one unit of absorber for red, green and blue, in gamma-encoded values:
# melanin absorbs most in blue, haemoglobin in green.
_MELANIN = np.array([0.56, 0.88, 1.10], np.float32)
_BLOOD = np.array([0.13, 0.98, 0.78], np.float32)
_DERMIS = np.array([0.95, 0.87, 0.84], np.float32)
# Melanin deep in the skin looks blue (Tyndall effect); keratin and scars scatter all light.
_VEIL = np.array([0.34, 0.38, 0.48], np.float32)
_WHITE = np.array([0.96, 0.90, 0.86], np.float32)

# Melanin of skin types I to VI on Fitzpatrick's scale, and their frequencies.
_TYPES = (0.04, 0.10, 0.20, 0.36, 0.60, 0.90)
_TYPE_FRACTIONS = (0.16, 0.27, 0.25, 0.15, 0.10, 0.07)


class Layers(NamedTuple):
    """The layers of the skin, each field side x side float32.

    Attributes:
        melanin: Brown absorber near the surface, in optical densities of green light.
        blood: Red absorber, likewise.
        veil: Fraction of the light that comes from pigment deep below, 0 to 1.
        white: Fraction of the light that keratin or a scar scatters, 0 to 1.
    """

    melanin: Field
    blood: Field
    veil: Field
    white: Field


def draw_skin(rng: np.random.Generator, side: int, unit: float) -> Layers:
    """Return healthy skin: a skin type, mottled redness, skin lines, sometimes freckles.

    Args:
        rng: Random number generator.
        side: Height and width, in pixels.
        unit: Number of pixels per pixel of a 256 px photograph.
    """
    tone = float(rng.choice(_TYPES, p=_TYPE_FRACTIONS)) * rng.uniform(0.8, 1.25)
    redness = rng.uniform(0.05, 0.24)
    mottle = structures.fractal_field(rng, side, 26 * unit, 4)
    uneven = structures.fractal_field(rng, side, 40 * unit, 3)
    furrows = _skin_lines(rng, side, unit)
    melanin = tone * (1 + 0.10 * uneven + 0.25 * furrows) + 0.05 * furrows
    blood = redness * (1 + 0.22 * mottle)
    if rng.random() < 0.4:
        spots = structures.ramp(structures.fractal_field(rng, side, 14 * unit, 2), 1.0, 2.4)
        melanin = melanin + rng.uniform(0.06, 0.22) * spots
    nothing = np.zeros((side, side), np.float32)
    return Layers(
        np.maximum(melanin, 0).astype(np.float32),
        np.maximum(blood, 0).astype(np.float32),
        nothing,
        np.asarray(0.05 * structures.ramp(mottle, 0.4, 1.8), np.float32),
    )


def _skin_lines(rng: np.random.Generator, side: int, unit: float) -> Field:
    """Return the faint furrows that divide the skin into small, elongated rhombs."""
    points = structures.lattice(rng, side, rng.uniform(7, 11) * unit, 0.4)
    border = structures.cells(points, side).border / np.float32(unit)
    lines = np.exp(-((border / np.float32(1.0)) ** 2)).astype(np.float32)
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(0, 180), 1.1)
    turn *= np.array([1.6, 1.0, 1.0])
    turned = cv2.warpAffine(lines, turn, (side, side), borderMode=cv2.BORDER_REFLECT)
    return np.asarray(turned * np.float32(rng.uniform(0.2, 0.7)), np.float32)


def colour(layers: Layers) -> NDArray[np.float32]:
    """Return the colour of the layers in white light: side x side x 3 float32 RGB from 0 to 1."""
    channels = []
    for k in range(3):
        density = _MELANIN[k] * layers.melanin + _BLOOD[k] * layers.blood
        light = _DERMIS[k] * np.exp(-density)
        light += layers.veil * (_VEIL[k] - light)
        light += layers.white * (_WHITE[k] - light)
        channels.append(light)
    return np.asarray(cv2.merge(channels), np.float32)


class Painting(NamedTuple):
    """The structures of a lesion, each field side x side float32.

    Attributes:
        melanin: Pigment, as a multiple of the lesion's mean.
        blood: Blood, likewise.
        veil: Blue-white veil and other deep pigment, 0 to 1.
        white: Keratin, fibrosis and pale gaps, 0 to 1.
        beyond: Where the lesion extends beyond its contour (streaks), 0 to 1.
    """

    melanin: Field
    blood: Field
    veil: Field
    white: Field
    beyond: Field


class Kind(NamedTuple):
    """Drawing parameters of the lesions of one diagnosis.

    Attributes:
        shape: Their contours.
        edge: Smallest and largest width of the fading edge, in pixels of a 256 px photograph.
        redness: Mean fraction of blood among the absorbers.
        paint: Draws the structures; pigment and blood as multiples of their mean.
    """

    shape: Shape
    edge: tuple[float, float]
    redness: float
    paint: Callable[[Canvas], Painting]


def draw(canvas: Canvas, kind: Kind, skin: Layers) -> Layers:
    """Return skin with a lesion drawn on it.

    Args:
        canvas: Position and contour of the lesion.
        kind: The diagnosis to draw.
        skin: The surrounding skin, of the canvas's size.
    """
    rng = canvas.rng
    painted = kind.paint(canvas)
    amount = float(np.clip(np.exp(rng.normal(0, 0.35)), 0.5, 2.0))
    redness = float(np.clip(rng.normal(kind.redness, 0.15), 0.06, 0.8))
    width = rng.uniform(*kind.edge)
    ragged = canvas.depth + (0.6 + 0.07 * width) * canvas.fractal(10)
    alpha = structures.ramp(ragged, -0.7 * width, 0.7 * width)
    grain = 1 + 0.10 * canvas.fractal(5, 2)
    melanin = amount * (1 - redness) * grain * _about_one(painted.melanin, canvas)
    blood = amount * redness * _about_one(painted.blood, canvas)
    reach = structures.ramp(canvas.depth, -18, 2)
    return Layers(
        skin.melanin * (1 - 0.3 * alpha) + melanin * np.maximum(alpha, painted.beyond),
        skin.blood + blood * alpha + rng.uniform(0, 0.12) * reach,
        np.clip(painted.veil * alpha, 0, 0.9),
        np.maximum(skin.white * (1 - alpha), np.clip(painted.white * alpha, 0, 0.92)),
    )


def _about_one(field: Field, canvas: Canvas) -> Field:
    """Return the field as multiples of its mean in the lesion, with limited extremes."""
    mean = float(field.ravel()[canvas.inside].mean())
    return np.asarray(np.clip(field / np.float32(max(mean, 1e-3)), 0, 2.8), np.float32)


def _plain(canvas: Canvas, strength: float = 0.12) -> Field:
    return 1 + np.float32(strength) * canvas.fractal(30)


def _nothing(canvas: Canvas) -> Field:
    return np.zeros((canvas.side, canvas.side), np.float32)


def _naevus(canvas: Canvas) -> Painting:
    """Regular: an even network that thins out to the edge, or even cobblestone globules."""
    rng = canvas.rng
    base = _plain(canvas, 0.10)
    fading = structures.ramp(canvas.depth, -6, 0.45 * canvas.radius)
    if rng.random() < 0.65:
        lines = structures.pigment_network(canvas, rng.uniform(11, 14), 2.1, 0.27)
        melanin = base * (0.38 + 0.25 * fading) + lines * (0.55 + 0.45 * fading)
    else:
        melanin = base * 0.45 + structures.cobblestones(canvas, rng.uniform(11, 15)) * 0.95
    return Painting(melanin, base, _nothing(canvas), _nothing(canvas), _nothing(canvas))


def _melanoma(canvas: Canvas) -> Painting:
    """Disorder: several tones, broken network in a part, streaks, dots, a blue-white veil."""
    rng = canvas.rng
    tones = 0.30 + 0.75 * canvas.patch(0.55, 42) + 0.75 * canvas.patch(0.3, 34)
    lines = structures.pigment_network(canvas, rng.uniform(13, 18), 2.6, 0.5)
    broken = canvas.patch(0.4, 38)
    rim = structures.ramp(canvas.depth, 0.5 * canvas.radius, 0)
    dots = canvas.spots(int(rng.integers(14, 30)), 1.8, 4.2, canvas.patch(0.4, 36) * rim)
    melanin = tones * (1 - 0.35 * broken + 0.9 * broken * lines) + 1.5 * dots
    beyond = _nothing(canvas)
    if rng.random() < 0.75:
        beyond = structures.streaks(canvas, int(rng.integers(9, 20)), 15)
        melanin = melanin + 1.3 * beyond
    core = structures.ramp(canvas.depth, 2, 12)
    veil = canvas.patch(rng.uniform(0.2, 0.35), 40) * (0.85 + 0.15 * canvas.fractal(9))
    veil = canvas.blur(veil, 1.5) * core * rng.uniform(0.5, 0.72)
    hazy = 0.22 * veil * structures.ramp(canvas.fractal(12), -0.5, 1.2)
    regression = canvas.patch(0.12, 30) * core * 0.35
    return Painting(melanin, _plain(canvas, 0.25), veil, np.maximum(hazy, regression), beyond)


def _basal_cell_carcinoma(canvas: Canvas) -> Painting:
    """Pearly ground, arborising vessels, blue-grey ovoid nests, at times an ulcer."""
    rng = canvas.rng
    base = _plain(canvas, 0.15)
    vessels = structures.arborising_vessels(canvas, int(rng.integers(3, 6)))
    nests = canvas.spots(int(rng.integers(4, 11)), 4.0, 8.5, canvas.patch(0.5, 40))
    nests = structures.ramp(canvas.blur(nests, 2.0) + 0.14 * canvas.fractal(7, 2), 0.2, 0.85)
    blood = base * 0.40 + 2.6 * vessels
    melanin = base * 0.55 + 0.9 * nests
    if rng.random() < 0.4:
        ulcer = canvas.spots(1, 6, 10, structures.ramp(canvas.depth, 6, 20))
        ulcer = structures.ramp(canvas.blur(ulcer, 1.5) + 0.15 * canvas.noise(6), 0.3, 0.6)
        blood, melanin = blood + 1.6 * ulcer, melanin + 0.9 * ulcer
    pearly = 0.26 * structures.ramp(canvas.fractal(18), -0.5, 2.0) * (1 - vessels)
    return Painting(melanin, blood, nests * 0.55 * (1 - vessels), pearly, _nothing(canvas))


def _actinic_keratosis(canvas: Canvas) -> Painting:
    """Strawberry pattern: red between pale, plugged follicles; white scale, dotted vessels."""
    rng = canvas.rng
    base = _plain(canvas, 0.18)
    halo, plug = structures.follicles(canvas, rng.uniform(13, 17))
    scale = structures.scales(canvas, rng.uniform(0.25, 0.5))
    dots = structures.dotted_vessels(canvas, int(rng.integers(20, 60)))
    blood = base * (1 - 0.75 * halo) + 1.3 * dots
    melanin = base * (1 - 0.5 * halo) + 1.2 * plug
    white = np.maximum(0.36 * halo * (1 - plug), 0.65 * scale)
    return Painting(melanin, blood, _nothing(canvas), white, _nothing(canvas))


def _benign_keratosis(canvas: Canvas) -> Painting:
    """Stuck on: milia-like cysts, comedo-like openings, furrows between ridges, sharp edge."""
    rng = canvas.rng
    base = _plain(canvas, 0.20)
    furrows = structures.fissures(canvas, rng.uniform(13, 19)) * canvas.patch(0.75, 45)
    core = structures.ramp(canvas.depth, 3, 9)
    cysts = canvas.spots(int(rng.integers(10, 24)), 1.8, 3.6, core)
    cysts = canvas.blur(cysts, 0.9)
    openings = canvas.spots(int(rng.integers(6, 14)), 2.2, 4.4, core)
    openings = structures.ramp(openings + 0.10 * canvas.noise(5), 0.3, 0.6) * (1 - cysts)
    melanin = base * 0.68 + 0.55 * furrows + 1.3 * openings
    return Painting(melanin, _plain(canvas), _nothing(canvas), 0.9 * cysts, _nothing(canvas))


def _dermatofibroma(canvas: Canvas) -> Painting:
    """A white, scar-like centre in a faint, fine network that fades outwards."""
    rng = canvas.rng
    base = _plain(canvas, 0.12)
    scar = structures.scar(canvas, rng.uniform(0.34, 0.52))
    lines = structures.pigment_network(canvas, rng.uniform(9, 11), 1.5, 0.25)
    rim = structures.ramp(canvas.depth, -4, 0.3 * canvas.radius)
    melanin = (base * 0.65 + 0.5 * lines) * (0.45 + 0.55 * rim) * (1 - 0.75 * scar)
    blood = base * (1 - 0.55 * scar)
    return Painting(melanin, blood, _nothing(canvas), 0.66 * scar, _nothing(canvas))


def _vascular_lesion(canvas: Canvas) -> Painting:
    """Lacunae: packed red to purple clods between pale septa, some thrombosed and dark."""
    rng = canvas.rng
    clods = structures.lacunae(canvas, rng.uniform(15, 24))
    clotted = canvas.patch(rng.uniform(0.05, 0.3), 36) if rng.random() < 0.6 else _nothing(canvas)
    purple = canvas.patch(0.4, 50) * rng.uniform(0, 0.35)
    melanin = (0.25 + clods) * (1 + 1.2 * clotted)
    blood = 0.2 + clods
    septa = 0.28 * (1 - structures.ramp(clods, 0.1, 0.5))
    return Painting(melanin, blood, clods * purple, septa, _nothing(canvas))


KINDS: Mapping[str, Kind] = {
    "MEL": Kind(Shape(0.13, 0.055, 1.7), (4, 9), 0.20, _melanoma),
    "NV": Kind(Shape(0.035, 0.012, 1.5), (7, 14), 0.22, _naevus),
    "BCC": Kind(Shape(0.08, 0.03, 1.5), (9, 16), 0.34, _basal_cell_carcinoma),
    "AKIEC": Kind(Shape(0.10, 0.035, 1.5), (9, 17), 0.34, _actinic_keratosis),
    "BKL": Kind(Shape(0.08, 0.05, 1.6), (2, 5), 0.22, _benign_keratosis),
    "DF": Kind(Shape(0.03, 0.012, 1.25), (14, 24), 0.30, _dermatofibroma),
    "VASC": Kind(Shape(0.06, 0.035, 1.4), (2, 5), 0.44, _vascular_lesion),
}
"""The seven diagnoses of ISIC 2018 Task 3, by code."""
