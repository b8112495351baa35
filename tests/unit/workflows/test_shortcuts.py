"""Pictures without their lesion."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage

from naevus.workflows.shortcuts import HOLE_SIDE, filled, grown, mean_hole, ring_hole

Mask = NDArray[np.bool_]


def square(low: int, high: int, side: int = 64) -> Mask:
    mask = np.zeros((side, side), bool)
    mask[low:high, low:high] = True
    return mask


def test_a_mask_grows_by_a_share_of_its_longer_side() -> None:
    mask = np.zeros((100, 100), bool)
    mask[40:60, 30:70] = True
    found = grown(mask, 0.1)
    distance = ndimage.distance_transform_edt(~mask)
    assert found[distance < 3.5].all()
    assert not found[distance > 4.5].any()
    assert not grown(np.zeros((9, 9), bool)).any()


@given(arrays(np.bool_, (16, 16)))
def test_a_lesion_is_in_its_grown_mask(mask: Mask) -> None:
    assert (grown(mask) | ~mask).all()


def test_what_is_hidden_has_the_colour_of_what_is_not() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    hidden = square(10, 40)
    shown = filled(pixels, hidden)
    assert (shown[~hidden] == pixels[~hidden]).all()
    assert len(np.unique(shown[hidden].reshape(-1, 3), axis=0)) == 1
    assert shown[hidden][0] == pytest.approx(pixels[~hidden].mean(axis=0), abs=0.5)
    assert (filled(pixels, np.ones_like(hidden)) == 128).all()
    # What was under the mask has no say in what is left.
    other = pixels.copy()
    other[hidden] = 0
    assert (filled(other, hidden) == shown).all()


def test_a_ring_is_as_wide_as_asked() -> None:
    hole = ring_hole(64, 0.125)
    assert not hole[:8].any()
    assert not hole[:, -8:].any()
    assert hole[8:-8, 8:-8].all()


def test_the_common_hole_is_a_level_set_that_holds_what_was_asked() -> None:
    masks = [square(low, 128 - low, 128) for low in range(20, 60)]
    hole = mean_hole(masks, 0.9)
    assert hole.shape == (HOLE_SIDE, HOLE_SIDE)
    total = np.sum(masks, axis=0)
    assert total[hole].sum() >= 0.9 * total.sum()
    assert total[hole].min() > total[~hole].max()
    smaller = mean_hole(masks, 0.5)
    assert (hole | ~smaller).all()
    assert smaller.sum() < hole.sum()


def test_masks_of_all_sizes_count_the_same() -> None:
    sizes = (64, 128, 256)
    one = [square(side // 4, 3 * side // 4, side) for side in sizes]
    assert (mean_hole(one, 0.9) != square(32, 96, 128)).mean() < 0.02  # a blurred edge
    assert not mean_hole([np.zeros((9, 9), bool)]).any()
    assert not mean_hole([]).any()
