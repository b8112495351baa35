"""What stands between the skin and the sensor: hair, rulers, gel, the dermatoscope's rim."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Light = NDArray[np.float32]

_SUBPIXEL_BITS = 4


def add_artefacts(rng: np.random.Generator, light: Light, unit: float) -> Light:
    """Return the picture with some of a photograph's usual artefacts, each by its own chance.

    Args:
        rng: Where the randomness comes from.
        light: H x W x 3 float32 RGB from 0 to 1.
        unit: How many pixels stand for one pixel of a 256 px photograph.
    """
    if rng.random() < 0.5:
        light = hair(rng, light, unit)
    if rng.random() < 0.18:
        light = ruler(rng, light, unit)
    if rng.random() < 0.3:
        light = gel_bubbles(rng, light, unit)
    return light


def hair(rng: np.random.Generator, light: Light, unit: float) -> Light:
    """Return the picture with hairs: bent strokes of one colour that mostly run one way."""
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
    # A lit edge on one side makes a hair lie on the skin and not in it.
    lit = np.roll(soft, round(1.5 * unit), axis=0) * (1 - soft)
    return np.asarray(light + soft * (tint.astype(np.float32) - light) - 0.12 * lit, np.float32)


def ruler(rng: np.random.Generator, light: Light, unit: float) -> Light:
    """Return the picture with a scale of tick marks along one edge."""
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
    """Return the picture with bubbles in the gel: rings, darker below, with a glint."""
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
    """Return how the lamp lights the frame: a slope, a vignette, a rim (side x side x 3)."""
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
