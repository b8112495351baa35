"""Augmentation of images and masks in training.

A single warp does all geometry (D4 transforms, rotation, zoom, shift, stretch and resizing), so
an image is interpolated only once. A single 3 x 4 matrix does all colour. The result depends only
on seed, epoch, image id and occurrence within the epoch, never on order or process.
"""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING

import cv2
import numpy as np
import simplejpeg

from naevus.errors import ConfigError
from naevus.training.parts import make_part

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from naevus.runs.recipe_tables import AugmentSettings

_LUMA = np.array([0.299, 0.587, 0.114])


def rng_for(seed: int, epoch: int, image_id: str, time: int = 0) -> np.random.Generator:
    """Return the random generator for the ``time``-th occurrence of an image in an epoch.

    Repeated samples of one image must differ; otherwise the network memorises them.
    """
    return np.random.default_rng([seed, epoch, zlib.crc32(image_id.encode()), time])


class Augmentation:
    """Augments images and their masks.

    Args:
        recipe: The range of each change.
    """

    def __init__(self, recipe: AugmentSettings) -> None:
        self.recipe = recipe
        self._own = {name: make_part(name) for name in recipe.own}

    def __call__(
        self,
        pixels: NDArray[np.uint8],
        mask: NDArray[np.uint8] | None,
        size: int,
        rng: np.random.Generator,
        context: float = 1.0,
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """Augment one image.

        Args:
            pixels: H x W x 3 RGB.
            mask: H x W or H x W x K, 0..255 (255 is lesion), or None.
            size: Side of the result, in pixels.
            rng: The random generator.
            context: Side of ``pixels`` as a multiple of the network's field of view.

        Returns:
            The image, size x size x 3, and its mask, size x size (x K, if K is above 1).
        """
        warp = self.warp(pixels.shape[0], pixels.shape[1], size, rng, context)
        apply = _averaged if self.recipe.area_average else _apply
        varied = apply(warp, pixels, size)
        varied = self._colour(varied, rng)
        varied = self._hair(varied, rng)
        varied = self._sharpness(varied, rng)
        varied = self._jpeg(varied, rng)
        if mask is None:
            return self._with_own(varied, None, rng)
        ratio = np.array([mask.shape[1] / pixels.shape[1], mask.shape[0] / pixels.shape[0]])
        to_mask = np.diag(ratio) @ warp
        to_mask[:, 2] += (ratio - 1) / 2  # pixel centres lie at integers in both
        return self._with_own(varied, apply(to_mask, mask, size), rng)

    def _with_own(
        self, pixels: NDArray[np.uint8], mask: NDArray[np.uint8] | None, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """Apply the own augmentations.

        Raises:
            ConfigError: One changes a shape or type.
        """
        for name, apply in self._own.items():
            given = (pixels, mask)
            pixels, mask = apply(pixels, mask, rng)
            for before, after in zip(given, (pixels, mask), strict=True):
                if _form(before) != _form(after):
                    raise ConfigError(
                        f"{name} returned {_form(after)}, not {_form(before)}",
                        "return image and mask with the shape and type they came in",
                    )
        return pixels, mask

    def warp(
        self,
        height: int,
        width: int,
        size: int,
        rng: np.random.Generator,
        context: float = 1.0,
    ) -> NDArray[np.float64]:
        """Return the 2 x 3 matrix from pixels of the result to pixels of the input."""
        recipe = self.recipe
        angle = np.deg2rad(rng.uniform(-recipe.rotation, recipe.rotation))
        zoom = rng.uniform(1 - recipe.scale, 1 + recipe.scale)
        stretch = recipe.stretch ** rng.uniform(-0.5, 0.5)
        shift = rng.uniform(-recipe.shift, recipe.shift, 2)
        quarter, flipped = int(rng.integers(4)), bool(rng.integers(2))
        linear = _rotation(angle) @ np.diag([zoom * stretch, zoom / stretch])
        if recipe.d4:
            linear = linear @ _rotation(quarter * np.pi / 2) @ np.diag([-1 if flipped else 1, 1])
        seen = np.array([width, height]) / context
        scaled = np.diag(seen / size) @ linear
        # Pixel centres lie at integers, so the middle of n pixels is at (n - 1) / 2.
        middle = np.array([(width - 1) / 2, (height - 1) / 2])
        offset = middle + shift * seen - scaled @ np.full(2, (size - 1) / 2)
        return np.column_stack([scaled, offset])

    def _colour(self, pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        recipe = self.recipe
        brightness, contrast, saturation = (
            1 + rng.uniform(-limit, limit)
            for limit in (recipe.brightness, recipe.contrast, recipe.saturation)
        )
        turn = _hue_rotation(np.deg2rad(rng.uniform(-recipe.hue, recipe.hue)))
        grey = np.tile(_LUMA, (3, 1))
        matrix = (saturation * np.eye(3) + (1 - saturation) * grey) @ turn
        mean = np.asarray(cv2.mean(pixels)[:3])
        gain = brightness * contrast
        offset = brightness * (1 - contrast) * (_LUMA @ mean)
        affine = np.column_stack([gain * matrix, np.full(3, offset)])
        return np.asarray(cv2.transform(pixels, affine), np.uint8)

    def _hair(self, pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        if rng.random() >= self.recipe.hair:
            return pixels
        side = pixels.shape[0]
        hairy = pixels.copy()
        steps = np.linspace(0, 1, 12)[:, None]
        for _ in range(int(rng.integers(2, 12))):
            start, bend, end = rng.uniform(-0.1, 1.1, (3, 2)) * side
            curve = (1 - steps) ** 2 * start + 2 * steps * (1 - steps) * bend + steps**2 * end
            colour = (rng.uniform(0.2, 1) * np.array([70.0, 50.0, 40.0])).tolist()
            points = np.round(curve * 16).astype(np.int32)
            cv2.polylines(hairy, [points], False, colour, 1, cv2.LINE_AA, shift=4)
        return hairy

    def _sharpness(self, pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Blur, sharpen or keep the image, each with probability 1/3."""
        kind, much = int(rng.integers(3)), rng.random()
        if kind == 0 and self.recipe.blur > 0:
            sigma = max(0.05, much * self.recipe.blur)
            return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma), np.uint8)
        if kind == 1 and self.recipe.sharpen > 0:
            amount = much * self.recipe.sharpen
            soft = cv2.GaussianBlur(pixels, (0, 0), 1.0)
            return np.asarray(cv2.addWeighted(pixels, 1 + amount, soft, -amount, 0), np.uint8)
        return pixels

    def _jpeg(self, pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        if rng.random() >= self.recipe.jpeg:
            return pixels
        quality = int(rng.integers(50, 96))
        coded = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=quality)
        return np.asarray(simplejpeg.decode_jpeg(coded))


def _form(array: object) -> str:
    return f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else f"{array}"


def _apply(warp: NDArray[np.float64], pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Sample ``pixels`` by a warp; the image is mirrored beyond its border."""
    warped = cv2.warpAffine(
        pixels,
        warp,
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return np.asarray(warped, np.uint8)


def _averaged(warp: NDArray[np.float64], pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Like `_apply`, but average several samples per pixel if the warp shrinks the image.

    Single samples would skip pixels and cause aliasing, which never occurs in prediction, where
    `geometry.resize` averages.
    """
    shrinks = float(np.linalg.norm(warp[:, :2], 2))
    times = max(1, math.ceil(shrinks - 0.25))
    if times == 1:
        return _apply(warp, pixels, size)
    finer = np.column_stack([warp[:, :2] / times, warp[:, 2]])
    finer[:, 2] -= warp[:, :2] @ np.full(2, (times - 1) / (2 * times))
    sampled = _apply(finer, pixels, times * size)
    return np.asarray(cv2.resize(sampled, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def _rotation(angle: float) -> NDArray[np.float64]:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _hue_rotation(angle: float) -> NDArray[np.float64]:
    """Return the rotation of RGB about the grey axis (Rodrigues)."""
    axis = np.full(3, 1 / np.sqrt(3))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.asarray(
        np.cos(angle) * np.eye(3)
        + np.sin(angle) * cross
        + (1 - np.cos(angle)) * np.outer(axis, axis)
    )
