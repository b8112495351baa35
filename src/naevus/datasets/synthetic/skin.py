"""Skin as light sees it: layers of absorbers and scatterers, and the colour they give."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from naevus.datasets.synthetic import fields

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Field = NDArray[np.float32]

# Optical densities a unit of absorber has for red, green and blue, in gamma-encoded values:
# melanin absorbs ever more towards blue, haemoglobin mostly green.
_MELANIN = np.array([0.56, 0.88, 1.10], np.float32)
_BLOOD = np.array([0.13, 0.98, 0.78], np.float32)
_DERMIS = np.array([0.95, 0.87, 0.84], np.float32)
# Melanin deep in the skin looks blue (Tyndall effect); keratin and scars scatter all light.
_VEIL = np.array([0.34, 0.38, 0.48], np.float32)
_WHITE = np.array([0.96, 0.90, 0.86], np.float32)

# Melanin of skin types I to VI on Fitzpatrick's scale, and how often they are drawn.
_TYPES = (0.04, 0.10, 0.20, 0.36, 0.60, 0.90)
_TYPE_SHARES = (0.16, 0.27, 0.25, 0.15, 0.10, 0.07)


class Layers(NamedTuple):
    """What the skin holds, each field side x side float32.

    Attributes:
        melanin: Brown absorber near the surface, in optical densities of green light.
        blood: Red absorber, likewise.
        veil: Share of the light that comes from pigment deep below, 0 to 1.
        white: Share of the light that keratin or a scar scatters, 0 to 1.
    """

    melanin: Field
    blood: Field
    veil: Field
    white: Field


def draw_skin(rng: np.random.Generator, side: int, unit: float) -> Layers:
    """Return healthy skin: a skin type, mottled redness, skin lines, now and then freckles.

    Args:
        rng: Where the randomness comes from.
        side: Height and width, in pixels.
        unit: How many pixels stand for one pixel of a 256 px photograph.
    """
    tone = float(rng.choice(_TYPES, p=_TYPE_SHARES)) * rng.uniform(0.8, 1.25)
    redness = rng.uniform(0.05, 0.24)
    mottle = fields.fractal(rng, side, 26 * unit, 4)
    uneven = fields.fractal(rng, side, 40 * unit, 3)
    furrows = _skin_lines(rng, side, unit)
    melanin = tone * (1 + 0.10 * uneven + 0.25 * furrows) + 0.05 * furrows
    blood = redness * (1 + 0.22 * mottle)
    if rng.random() < 0.4:
        spots = fields.ramp(fields.fractal(rng, side, 14 * unit, 2), 1.0, 2.4)
        melanin = melanin + rng.uniform(0.06, 0.22) * spots
    nothing = np.zeros((side, side), np.float32)
    return Layers(
        np.maximum(melanin, 0).astype(np.float32),
        np.maximum(blood, 0).astype(np.float32),
        nothing,
        np.asarray(0.05 * fields.ramp(mottle, 0.4, 1.8), np.float32),
    )


def _skin_lines(rng: np.random.Generator, side: int, unit: float) -> Field:
    """Return the faint furrows that part the skin into small rhombs, stretched one way."""
    points = fields.lattice(rng, side, rng.uniform(7, 11) * unit, 0.4)
    border = fields.cells(points, side).border / np.float32(unit)
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
