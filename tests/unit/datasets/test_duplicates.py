"""Perceptual hashes: what they ignore and what they distinguish."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from naevus.datasets.duplicates import d4_hashes, grey_of, hamming
from naevus.images.geometry import D4, d4_transform, resize

if TYPE_CHECKING:
    from numpy.typing import NDArray


def apart(a: NDArray[np.uint64] | np.uint64, b: NDArray[np.uint64] | np.uint64) -> int:
    """Return the smallest distance between two sets of hashes."""
    distances = hamming(np.atleast_1d(a)[:, None], np.atleast_1d(b)[None, :])
    nearest: int = int(np.min(distances).item())
    return nearest


def blobs(seed: int, size: int = 96) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).normal(size=(size, size, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), size / 12)
    low, high = smooth.min(), smooth.max()
    return np.asarray((smooth - low) / (high - low) * 255).astype(np.uint8)


@pytest.mark.parametrize("k", D4)
def test_the_hashes_of_transforms_are_those_of_transformed_images(k: int) -> None:
    for seed in range(5):
        pixels = blobs(seed)
        turned = d4_hashes(d4_transform(pixels, k))[0]
        assert apart(turned, d4_hashes(pixels)[k]) <= 2, "but for ties and rounding"


def test_the_transforms_of_one_image_have_eight_hashes() -> None:
    assert len(set(d4_hashes(blobs(3)).tolist())) == 8


def test_scaled_and_reencoded_copies_are_near_and_others_far() -> None:
    own, others = [], []
    for seed in range(20):
        pixels = blobs(seed)
        first = d4_hashes(pixels)
        copy = resize(pixels, 60, 60)
        _, packed = cv2.imencode(".jpg", copy, [cv2.IMWRITE_JPEG_QUALITY, 50])
        copy = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
        own.append(apart(first[0], d4_hashes(copy)[0]))
        others.append(apart(first[0], d4_hashes(blobs(seed + 100))))
    assert max(own) <= 6
    assert min(others) > 10


def test_a_gradient_of_light_changes_nothing() -> None:
    grey = grey_of(blobs(1)) // 2
    lit = (grey + np.linspace(0, 100, 96)[None, :]).astype(np.uint8)
    assert apart(d4_hashes(grey)[0], d4_hashes(lit)[0]) <= 3
    assert apart(np.uint64(0), np.uint64(2**64 - 1)) == 64
