"""Photographs of a synthetic lesion: distance, light, camera, hairs, rulers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from naevus.datasets.synthetic import lesion
from naevus.datasets.synthetic.lesion import KINDS, draw
from naevus.datasets.synthetic.structures import Canvas
from naevus.errors import ConfigError, DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Light = NDArray[np.float32]


# Artefacts between skin and sensor: hair, rulers, gel, the rim of the dermatoscope.

_SUBPIXEL_BITS = 4


def add_artefacts(rng: np.random.Generator, light: Light, unit: float) -> Light:
    """Return the image with random typical artefacts of photographs.

    Args:
        rng: Random number generator.
        light: H x W x 3 float32 RGB from 0 to 1.
        unit: Number of pixels per pixel of a 256 px photograph.
    """
    if rng.random() < 0.5:
        light = hair(rng, light, unit)
    if rng.random() < 0.18:
        light = ruler(rng, light, unit)
    if rng.random() < 0.3:
        light = gel_bubbles(rng, light, unit)
    return light


def hair(rng: np.random.Generator, light: Light, unit: float) -> Light:
    """Return the image with hairs: curved strokes of one colour with a common direction."""
    side = light.shape[0]
    cover = np.zeros((side, side), np.uint8)
    way = rng.uniform(0, np.pi)
    count = int(rng.integers(2, 9)) if rng.random() < 0.75 else int(rng.integers(14, 26))
    t = np.linspace(0, 1, 20)[:, None]
    for _ in range(count):
        angle = way + rng.normal(0, 0.45)
        direction = np.array([np.cos(angle), np.sin(angle)])
        length = rng.uniform(0.25, 1.1) * side
        middle = rng.uniform(0, side, 2)
        bend = rng.normal(0, 0.12) * length * direction[::-1] * (1, -1)
        path = middle + (t - 0.5) * length * direction + 4 * t * (1 - t) * bend
        strength = int(rng.integers(150, 255))
        _stroke(cover, path, rng.uniform(0.9, 2.2) * unit, strength)
    dark = rng.random() < 0.88
    tint = rng.uniform(0.05, 0.22) * np.array([1.1, 0.95, 0.85]) if dark else np.full(3, 0.85)
    soft = cv2.GaussianBlur(cover, (0, 0), 0.6 * unit)[..., None] * np.float32(1 / 255)
    # A bright edge on one side makes a hair appear to lie on the skin.
    lit = np.roll(soft, round(1.5 * unit), axis=0) * (1 - soft)
    return np.asarray(light + soft * (tint.astype(np.float32) - light) - 0.12 * lit, np.float32)


def ruler(rng: np.random.Generator, light: Light, unit: float) -> Light:
    """Return the image with a scale of tick marks along one edge."""
    side = light.shape[0]
    cover = np.zeros((side, side), np.uint8)
    place = side - rng.uniform(8, 16) * unit
    step = rng.uniform(5, 8) * unit
    first, last = side * rng.uniform(0.02, 0.25), side * rng.uniform(0.75, 0.98)
    _stroke(cover, np.array([[first, place], [last, place]]), unit, 230)
    for index, x in enumerate(np.arange(first, last, step)):
        height = (9 if index % 5 == 0 else 5) * unit
        _stroke(cover, np.array([[x, place], [x, place - height]]), unit, 230)
    cover = np.ascontiguousarray(np.rot90(cover, int(rng.integers(4))))
    ink = cover[..., None] * np.float32(0.85 / 255)
    return np.asarray(light * (1 - ink) + np.float32(0.08) * ink, np.float32)


def gel_bubbles(rng: np.random.Generator, light: Light, unit: float) -> Light:
    """Return the image with bubbles in the gel: rings, darker below, with a glint."""
    side = light.shape[0]
    shade = np.zeros((side, side), np.float32)
    for _ in range(int(rng.integers(2, 12))):
        x, y = rng.uniform(0, side, 2)
        radius = rng.uniform(1.5, 7) * unit
        centre = (round(x * 16), round(y * 16))
        thickness = max(1, round(0.9 * unit))
        cv2.circle(shade, centre, round(radius * 16), -0.16, thickness, cv2.LINE_AA, 4)
        cv2.ellipse(
            shade, (round(x), round(y)), (round(radius * 0.7),) * 2, 0, 200, 290, 0.35, thickness
        )
        glint = (round((x + radius * 0.4) * 16), round((y + radius * 0.4) * 16))
        cv2.circle(shade, glint, round(radius * 3), 0.12, cv2.FILLED, cv2.LINE_AA, 4)
    soft = cv2.GaussianBlur(shade, (0, 0), 0.7 * unit)
    return np.asarray(light + soft[..., None], np.float32)


def light_field(rng: np.random.Generator, side: int) -> Light:
    """Return the illumination of the frame: a gradient, a vignette, a rim (side x side x 3)."""
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    x, y = axis[None, :], axis[:, None]
    slope = np.float32(rng.normal(0, 0.05)) * x + np.float32(rng.normal(0, 0.05)) * y
    square = x * x + y * y
    field = (1 + slope) * (1 - np.float32(rng.uniform(0.02, 0.17)) * square)
    if rng.random() < 0.2:
        shift = rng.normal(0, 0.03, 2)
        radius, width = rng.uniform(1.08, 1.3), rng.uniform(0.03, 0.1)
        distance = np.hypot(x - np.float32(shift[0]), y - np.float32(shift[1]))
        rim = np.clip((np.float32(radius) - distance) / np.float32(width), 0.02, 1)
        field *= rim
    return np.asarray(cv2.merge((field, field, field)), np.float32)


def _stroke(cover: NDArray[np.uint8], path: NDArray[np.float64], width: float, value: int) -> None:
    fixed = np.rint(path * 2**_SUBPIXEL_BITS).astype(np.int32)
    cv2.polylines(
        cover, [fixed], isClosed=False, color=value, thickness=max(1, round(width)),
        lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS,
    )  # fmt: skip


_NOMINAL = 256
_SMALLEST_SIZE = 32
# The canvas is larger than the frame, so that a rotated and shifted frame stays mostly on it.
_CANVAS = 1.3
_SMALLEST_FRACTION, _LARGEST_FRACTION = 0.035, 0.66


class _Camera(NamedTuple):
    """A camera position: the 2 x 3 map from canvas to frame, and the contour in the frame."""

    matrix: NDArray[np.float64]
    contour: NDArray[np.float64]


def draw_lesion(
    diagnosis: str, seed: int, size: int = _NOMINAL, photograph: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw one photograph of a lesion, and its mask.

    Args:
        diagnosis: A code of ISIC 2018 Task 3, such as ``"MEL"``.
        seed: Identifies the lesion; the same seed gives the same lesion, bit by bit.
        size: Height and width of the photograph, in pixels, at least 32.
        photograph: Number of the photograph: each has its own zoom, rotation, light and
            hair.

    Returns:
        The photograph, size x size x 3 uint8 RGB, and the lesion's mask, size x size bool, which
        covers 3 % to 70 % of the frame.

    Raises:
        DataError: The diagnosis is not one of the seven.
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
    camera = _camera(rng, canvas, size)
    flat = cv2.merge(list(layers))
    turned = cv2.warpAffine(
        flat, camera.matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    seen = lesion.Layers(*(np.asarray(turned[..., k], np.float32) for k in range(4)))
    return _expose(rng, lesion.colour(seen), size / _NOMINAL), lesion.fill(camera.contour, size)


def _lesion(diagnosis: str, rng: np.random.Generator, size: int) -> tuple[Canvas, lesion.Layers]:
    """Return the canvas of a lesion and its layers; both are independent of the photograph."""
    kind = KINDS[diagnosis]
    side, unit = round(_CANVAS * size), size / _NOMINAL
    fraction = float(np.clip(np.exp(rng.normal(np.log(0.22), 0.45)), 0.07, 0.5))
    radius = float(np.sqrt(fraction / np.pi)) * _NOMINAL
    points = lesion.draw_contour(rng, kind.shape) * radius * unit + side / 2
    depth = lesion.depth(points, side) / np.float32(unit)
    canvas = Canvas(rng, side, unit, points, depth, radius)
    return canvas, draw(canvas, kind, lesion.draw_skin(rng, side, unit))


def _camera(rng: np.random.Generator, canvas: Canvas, size: int) -> _Camera:
    """Return a random camera position, with a zoom that keeps the lesion's area in bounds."""
    fraction = lesion.area(canvas.contour) / size**2
    zoom = float(np.exp(rng.normal(0, 0.12)))
    zoom = float(
        np.clip(zoom, np.sqrt(_SMALLEST_FRACTION / fraction), np.sqrt(_LARGEST_FRACTION / fraction))
    )
    middle = (float(canvas.centre[0]), float(canvas.centre[1]))
    matrix = np.asarray(cv2.getRotationMatrix2D(middle, rng.uniform(0, 360), zoom), np.float64)
    if rng.random() < 0.5:
        matrix[:, 0] *= -1
    turned = canvas.contour @ matrix[:, :2].T
    low, high = turned.min(axis=0), turned.max(axis=0)
    slack = np.maximum(size - (high - low), 0) / 2
    shift = np.clip(rng.normal(0, 0.06 * size, 2), -slack, slack)
    matrix[:, 2] = size / 2 - (low + high) / 2 + shift
    return _Camera(matrix, turned + matrix[:, 2])


def _expose(rng: np.random.Generator, light: NDArray[np.float32], unit: float) -> NDArray[np.uint8]:
    """Photograph a scene: artefacts, light, exposure, colour cast, lens and sensor."""
    # Cameras expose dark skin longer.
    brightness = float(np.median(light[..., 1]))
    scene = light * np.float32((0.66 / max(brightness, 0.12)) ** 0.35)
    scene = add_artefacts(rng, scene, unit)
    scene = _develop(rng, scene * light_field(rng, light.shape[0]))
    scene = np.asarray(cv2.GaussianBlur(scene, (0, 0), rng.uniform(0.45, 0.85) * unit), np.float32)
    # Highlights are compressed and never clipped.
    scene = np.minimum(scene, 1 - 0.2 * np.exp((0.8 - np.maximum(scene, 0.8)) / 0.2))
    grain = rng.standard_normal(light.shape[:2], dtype=np.float32)
    grain *= np.float32(rng.uniform(0.004, 0.014))
    scene = scene + cv2.merge((grain, grain, grain))
    return np.asarray(np.clip(scene * 255 + 0.5, 0, 255), np.uint8)


def _develop(rng: np.random.Generator, light: NDArray[np.float32]) -> NDArray[np.float32]:
    """Apply a camera's exposure, colour cast, saturation and gamma."""
    cast = np.exp(rng.normal(0, (0.035, 0.035, 0.06))) * np.exp(rng.normal(0, 0.08))
    saturation = rng.uniform(0.65, 1.0)
    mixing = saturation * np.eye(3) + (1 - saturation) / 3
    mixed = np.maximum(cv2.transform(light, cast[:, None] * mixing), 0)
    return np.asarray(cv2.pow(mixed, float(np.exp(rng.normal(0, 0.1)))), np.float32)
