"""Photographs of a drawn lesion: the same skin from another distance, turned, in other light."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from naevus.datasets.synthetic import artefacts, outline, skin
from naevus.datasets.synthetic.lesion import KINDS, draw
from naevus.datasets.synthetic.structures import Canvas
from naevus.errors import ConfigError, DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NOMINAL = 256
_SMALLEST_SIZE = 32
# The canvas is wider than the frame, so that a turned and shifted frame stays mostly on it.
_CANVAS = 1.3
_SMALLEST_SHARE, _LARGEST_SHARE = 0.035, 0.66


class _View(NamedTuple):
    """Where a camera stands: the 2 x 3 map from canvas to frame, and the outline in the frame."""

    matrix: NDArray[np.float64]
    outline: NDArray[np.float64]


def draw_lesion(
    diagnosis: str, seed: int, size: int = _NOMINAL, photograph: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw one photograph of a lesion, and its mask.

    Args:
        diagnosis: A code of ISIC 2018 Task 3, such as ``"MEL"``.
        seed: Names the lesion; the same seed is the same lesion, to the bit.
        size: Height and width of the photograph, in pixels, at least 32.
        photograph: Which photograph of the lesion: another number, another zoom, turn, light
            and hair.

    Returns:
        The photograph, size x size x 3 uint8 RGB, and the lesion's mask, size x size bool, which
        covers 3 % to 70 % of the frame.

    Raises:
        DataError: The diagnosis is none of the seven.
        ConfigError: The size is too small, or a number is negative.
    """
    if diagnosis not in KINDS:
        raise DataError(f"unknown diagnosis {diagnosis!r}", f"use one of {', '.join(KINDS)}")
    if size < _SMALLEST_SIZE or seed < 0 or photograph < 0:
        raise ConfigError(
            f"cannot draw photograph {photograph} of lesion {seed} at {size} px",
            f"use a size of at least {_SMALLEST_SIZE} and numbers from 0",
        )
    kind_number = list(KINDS).index(diagnosis)
    canvas, layers = _lesion(diagnosis, np.random.default_rng([kind_number, seed]), size)
    rng = np.random.default_rng([kind_number, seed, photograph + 1])
    view = _view(rng, canvas, size)
    flat = cv2.merge(list(layers))
    turned = cv2.warpAffine(
        flat, view.matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    seen = skin.Layers(*(np.asarray(turned[..., k], np.float32) for k in range(4)))
    return _expose(rng, skin.colour(seen), size / _NOMINAL), outline.fill(view.outline, size)


def _lesion(diagnosis: str, rng: np.random.Generator, size: int) -> tuple[Canvas, skin.Layers]:
    """Return the canvas of a lesion and its layers; nothing here depends on the photograph."""
    kind = KINDS[diagnosis]
    side, unit = round(_CANVAS * size), size / _NOMINAL
    share = float(np.clip(np.exp(rng.normal(np.log(0.22), 0.45)), 0.07, 0.5))
    radius = float(np.sqrt(share / np.pi)) * _NOMINAL
    points = outline.draw_outline(rng, kind.shape) * radius * unit + side / 2
    depth = outline.depth(points, side) / np.float32(unit)
    canvas = Canvas(rng, side, unit, points, depth, radius)
    return canvas, draw(canvas, kind, skin.draw_skin(rng, side, unit))


def _view(rng: np.random.Generator, canvas: Canvas, size: int) -> _View:
    """Return one camera's place: turned at will, zoomed so that the lesion's share is in bounds."""
    share = outline.area(canvas.outline) / size**2
    zoom = float(np.exp(rng.normal(0, 0.12)))
    zoom = float(np.clip(zoom, np.sqrt(_SMALLEST_SHARE / share), np.sqrt(_LARGEST_SHARE / share)))
    middle = (float(canvas.centre[0]), float(canvas.centre[1]))
    matrix = np.asarray(cv2.getRotationMatrix2D(middle, rng.uniform(0, 360), zoom), np.float64)
    if rng.random() < 0.5:
        matrix[:, 0] *= -1
    turned = canvas.outline @ matrix[:, :2].T
    low, high = turned.min(axis=0), turned.max(axis=0)
    slack = np.maximum(size - (high - low), 0) / 2
    shift = np.clip(rng.normal(0, 0.06 * size, 2), -slack, slack)
    matrix[:, 2] = size / 2 - (low + high) / 2 + shift
    return _View(matrix, turned + matrix[:, 2])


def _expose(rng: np.random.Generator, light: NDArray[np.float32], unit: float) -> NDArray[np.uint8]:
    """Return the photograph of a scene: artefacts, lamp, exposure, colour cast, lens and sensor."""
    # Cameras expose dark skin longer.
    brightness = float(np.median(light[..., 1]))
    scene = light * np.float32((0.66 / max(brightness, 0.12)) ** 0.35)
    scene = artefacts.add_artefacts(rng, scene, unit)
    scene = _develop(rng, scene * artefacts.light_field(rng, light.shape[0]))
    scene = np.asarray(cv2.GaussianBlur(scene, (0, 0), rng.uniform(0.45, 0.85) * unit), np.float32)
    # Highlights roll off and never clip hard.
    scene = np.minimum(scene, 1 - 0.2 * np.exp((0.8 - np.maximum(scene, 0.8)) / 0.2))
    grain = rng.standard_normal(light.shape[:2], dtype=np.float32)
    grain *= np.float32(rng.uniform(0.004, 0.014))
    scene = scene + cv2.merge((grain, grain, grain))
    return np.asarray(np.clip(scene * 255 + 0.5, 0, 255), np.uint8)


def _develop(rng: np.random.Generator, light: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the light with a camera's exposure, colour cast, saturation and gamma."""
    cast = np.exp(rng.normal(0, (0.035, 0.035, 0.06))) * np.exp(rng.normal(0, 0.08))
    saturation = rng.uniform(0.65, 1.0)
    mixing = saturation * np.eye(3) + (1 - saturation) / 3
    mixed = np.maximum(cv2.transform(light, cast[:, None] * mixing), 0)
    return np.asarray(cv2.pow(mixed, float(np.exp(rng.normal(0, 0.1)))), np.float32)
