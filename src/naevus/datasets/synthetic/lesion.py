"""What makes each diagnosis look like itself: its outline and its structures.

Colour alone must not give the diagnosis away: how much pigment and blood a lesion holds is drawn
from ranges that overlap widely, and the structures only move it from place to place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from naevus.datasets.synthetic import fields, structures
from naevus.datasets.synthetic.outline import Shape
from naevus.datasets.synthetic.skin import Layers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from naevus.datasets.synthetic.structures import Canvas, Field


class Painting(NamedTuple):
    """The structures of a lesion, each field side x side float32.

    Attributes:
        melanin: Pigment, as a multiple of the lesion's mean.
        blood: Blood, likewise.
        veil: Blue-white veil and other deep pigment, 0 to 1.
        white: Keratin, fibrosis and pale gaps, 0 to 1.
        beyond: Where the lesion reaches over its outline (streaks), 0 to 1.
    """

    melanin: Field
    blood: Field
    veil: Field
    white: Field
    beyond: Field


class Kind(NamedTuple):
    """How the lesions of one diagnosis are drawn.

    Attributes:
        shape: Their outlines.
        edge: Width over which the edge fades, from and to, in pixels of a 256 px photograph.
        redness: Mean share of blood among the absorbers.
        paint: Draws the structures; pigment and blood as multiples of their mean.
    """

    shape: Shape
    edge: tuple[float, float]
    redness: float
    paint: Callable[[Canvas], Painting]


def draw(canvas: Canvas, kind: Kind, skin: Layers) -> Layers:
    """Return the skin with a lesion on it.

    Args:
        canvas: The place and outline of the lesion.
        kind: What to draw.
        skin: The skin round it, of the canvas's size.
    """
    rng = canvas.rng
    painted = kind.paint(canvas)
    amount = float(np.clip(np.exp(rng.normal(0, 0.35)), 0.5, 2.0))
    redness = float(np.clip(rng.normal(kind.redness, 0.15), 0.06, 0.8))
    width = rng.uniform(*kind.edge)
    ragged = canvas.depth + (0.6 + 0.07 * width) * canvas.fractal(10)
    alpha = fields.ramp(ragged, -0.7 * width, 0.7 * width)
    grain = 1 + 0.10 * canvas.fractal(5, 2)
    melanin = amount * (1 - redness) * grain * _about_one(painted.melanin, canvas)
    blood = amount * redness * _about_one(painted.blood, canvas)
    reach = fields.ramp(canvas.depth, -18, 2)
    return Layers(
        skin.melanin * (1 - 0.3 * alpha) + melanin * np.maximum(alpha, painted.beyond),
        skin.blood + blood * alpha + rng.uniform(0, 0.12) * reach,
        np.clip(painted.veil * alpha, 0, 0.9),
        np.maximum(skin.white * (1 - alpha), np.clip(painted.white * alpha, 0, 0.92)),
    )


def _about_one(field: Field, canvas: Canvas) -> Field:
    """Return the field as multiples of its mean in the lesion, extremes held back."""
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
    fading = fields.ramp(canvas.depth, -6, 0.45 * canvas.radius)
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
    rim = fields.ramp(canvas.depth, 0.5 * canvas.radius, 0)
    dots = canvas.spots(int(rng.integers(14, 30)), 1.8, 4.2, canvas.patch(0.4, 36) * rim)
    melanin = tones * (1 - 0.35 * broken + 0.9 * broken * lines) + 1.5 * dots
    beyond = _nothing(canvas)
    if rng.random() < 0.75:
        beyond = structures.streaks(canvas, int(rng.integers(9, 20)), 15)
        melanin = melanin + 1.3 * beyond
    core = fields.ramp(canvas.depth, 2, 12)
    veil = canvas.patch(rng.uniform(0.2, 0.35), 40) * (0.85 + 0.15 * canvas.fractal(9))
    veil = canvas.blur(veil, 1.5) * core * rng.uniform(0.5, 0.72)
    hazy = 0.22 * veil * fields.ramp(canvas.fractal(12), -0.5, 1.2)
    regression = canvas.patch(0.12, 30) * core * 0.35
    return Painting(melanin, _plain(canvas, 0.25), veil, np.maximum(hazy, regression), beyond)


def _basal_cell_carcinoma(canvas: Canvas) -> Painting:
    """Pearly ground, arborising vessels, blue-grey ovoid nests, at times an ulcer."""
    rng = canvas.rng
    base = _plain(canvas, 0.15)
    vessels = structures.arborising_vessels(canvas, int(rng.integers(3, 6)))
    nests = canvas.spots(int(rng.integers(4, 11)), 4.0, 8.5, canvas.patch(0.5, 40))
    nests = fields.ramp(canvas.blur(nests, 2.0) + 0.14 * canvas.fractal(7, 2), 0.2, 0.85)
    blood = base * 0.40 + 2.6 * vessels
    melanin = base * 0.55 + 0.9 * nests
    if rng.random() < 0.4:
        ulcer = canvas.spots(1, 6, 10, fields.ramp(canvas.depth, 6, 20))
        ulcer = fields.ramp(canvas.blur(ulcer, 1.5) + 0.15 * canvas.noise(6), 0.3, 0.6)
        blood, melanin = blood + 1.6 * ulcer, melanin + 0.9 * ulcer
    pearly = 0.26 * fields.ramp(canvas.fractal(18), -0.5, 2.0) * (1 - vessels)
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
    core = fields.ramp(canvas.depth, 3, 9)
    cysts = canvas.spots(int(rng.integers(10, 24)), 1.8, 3.6, core)
    cysts = canvas.blur(cysts, 0.9)
    openings = canvas.spots(int(rng.integers(6, 14)), 2.2, 4.4, core)
    openings = fields.ramp(openings + 0.10 * canvas.noise(5), 0.3, 0.6) * (1 - cysts)
    melanin = base * 0.68 + 0.55 * furrows + 1.3 * openings
    return Painting(melanin, _plain(canvas), _nothing(canvas), 0.9 * cysts, _nothing(canvas))


def _dermatofibroma(canvas: Canvas) -> Painting:
    """A white, scar-like centre in a faint, fine network that fades outwards."""
    rng = canvas.rng
    base = _plain(canvas, 0.12)
    scar = structures.scar(canvas, rng.uniform(0.34, 0.52))
    lines = structures.pigment_network(canvas, rng.uniform(9, 11), 1.5, 0.25)
    rim = fields.ramp(canvas.depth, -4, 0.3 * canvas.radius)
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
    septa = 0.28 * (1 - fields.ramp(clods, 0.1, 0.5))
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
