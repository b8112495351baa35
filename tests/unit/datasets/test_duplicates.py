"""Perceptual hashes: what they must not see, and what they must."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from naevus.datasets.duplicates import grey_of, hamming, hashes_of_views
from naevus.images.geometry import VIEWS, resize, view

if TYPE_CHECKING:
    from numpy.typing import NDArray


def apart(a: NDArray[np.uint64] | np.uint64, b: NDArray[np.uint64] | np.uint64) -> int:
    """Smallest distance of two sets of hashes."""
    distances = hamming(np.atleast_1d(a)[:, None], np.atleast_1d(b)[None, :])
    nearest: int = int(np.min(distances).item())
    return nearest


def blobs(seed: int, size: int = 96) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).normal(size=(size, size, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), size / 12)
    low, high = smooth.min(), smooth.max()
    return np.asarray((smooth - low) / (high - low) * 255).astype(np.uint8)


@pytest.mark.parametrize("k", VIEWS)
def test_the_hashes_of_views_are_those_of_turned_pictures(k: int) -> None:
    for seed in range(5):
        pixels = blobs(seed)
        turned = hashes_of_views(view(pixels, k))[0]
        assert apart(turned, hashes_of_views(pixels)[k]) <= 2, "but for ties and rounding"


def test_the_views_of_one_picture_have_eight_hashes() -> None:
    assert len(set(hashes_of_views(blobs(3)).tolist())) == 8


def test_scaled_and_reencoded_copies_are_near_and_others_far() -> None:
    own, others = [], []
    for seed in range(20):
        pixels = blobs(seed)
        first = hashes_of_views(pixels)
        copy = resize(pixels, 60, 60)
        _, packed = cv2.imencode(".jpg", copy, [cv2.IMWRITE_JPEG_QUALITY, 50])
        copy = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
        own.append(apart(first[0], hashes_of_views(copy)[0]))
        others.append(apart(first[0], hashes_of_views(blobs(seed + 100))))
    assert max(own) <= 6
    assert min(others) > 10


def test_a_gradient_of_light_changes_nothing() -> None:
    grey = grey_of(blobs(1)) // 2
    lit = (grey + np.linspace(0, 100, 96)[None, :]).astype(np.uint8)
    assert apart(hashes_of_views(grey)[0], hashes_of_views(lit)[0]) <= 3
    assert apart(np.uint64(0), np.uint64(2**64 - 1)) == 64
