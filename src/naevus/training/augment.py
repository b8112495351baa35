"""How images and masks are varied in training.

One warp does all geometry (views, rotation, zoom, shift, stretch and the change to the network's
size), so an image is interpolated once; one 3 x 4 matrix does all colour. What happens to a
image depends on (seed, epoch, image id, how often it came before in the epoch) alone, never on
the order or on who prepares it.
"""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING

import cv2
import numpy as np
import simplejpeg

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from naevus.runs.recipe import AugmentSettings

_LUMA = np.array([0.299, 0.587, 0.114])


def rng_for(seed: int, epoch: int, image_id: str, time: int = 0) -> np.random.Generator:
    """Return the source of chance for one image, seen for the ``time``-th time in an epoch.

    An image that is drawn often must not come the same each time: it would be learnt by heart.
    """
    return np.random.default_rng([seed, epoch, zlib.crc32(image_id.encode()), time])


class Augmentation:
    """Varies images, and their masks alike.

    Args:
        recipe: How far each change goes.
    """

    def __init__(self, recipe: AugmentSettings) -> None:
        self.recipe = recipe

    def __call__(
        self,
        pixels: NDArray[np.uint8],
        mask: NDArray[np.uint8] | None,
        size: int,
        rng: np.random.Generator,
        context: float = 1.0,
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """Vary one image.

        Args:
            pixels: H x W x 3 RGB.
            mask: H x W or H x W x K, 0..255 (255 is lesion), or None.
            size: Side of what is returned, pixels.
            rng: Where the change is drawn from.
            context: How much wider than what the network sees ``pixels`` are.

        Returns:
            The image, size x size x 3, and its mask, size x size (x K, where K is above 1).
        """
        warp = self.warp(pixels.shape[0], pixels.shape[1], size, rng, context)
        apply = _averaged if self.recipe.area_average else _apply
        varied = apply(warp, pixels, size)
        varied = self._colour(varied, rng)
        varied = self._hair(varied, rng)
        varied = self._sharpness(varied, rng)
        varied = self._jpeg(varied, rng)
        if mask is None:
            return varied, None
        ratio = np.array([mask.shape[1] / pixels.shape[1], mask.shape[0] / pixels.shape[0]])
        to_mask = np.diag(ratio) @ warp
        to_mask[:, 2] += (ratio - 1) / 2  # pixel centres lie at whole numbers, in both of them
        return varied, apply(to_mask, mask, size)

    def warp(
        self,
        height: int,
        width: int,
        size: int,
        rng: np.random.Generator,
        context: float = 1.0,
    ) -> NDArray[np.float64]:
        """Return the 2 x 3 matrix from the new image's pixels to the old one's."""
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
        # Pixel centres lie at whole numbers, so the middle of n pixels is at (n - 1) / 2.
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
        """Blur, sharpen or leave, a third each."""
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


def _apply(warp: NDArray[np.float64], pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Sample ``pixels`` along the warp; beyond the border the image is mirrored."""
    warped = cv2.warpAffine(
        pixels,
        warp,
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return np.asarray(warped, np.uint8)


def _averaged(warp: NDArray[np.float64], pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """As `_apply`, but where the warp shrinks each pixel is the mean of samples closer together.

    Single samples of what shrinks skip pixels: fine stripes become coarse ones, which the network
    never sees in prediction (`geometry.resize` averages).
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
