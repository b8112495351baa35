"""Resizing, boxes and the eight transforms of D4."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from naevus.images.geometry import (
    D4,
    Box,
    box_of,
    centre_box,
    centre_square,
    d4_inverse_batch,
    d4_transform,
    d4_transform_batch,
    resize,
    square_with_margin,
    squash,
)
from naevus.inference.tta import TTA_TRANSFORMS

if TYPE_CHECKING:
    from numpy.typing import NDArray

ARRAYS = hnp.arrays(
    st.sampled_from([np.uint8, np.float32, np.bool_]),
    st.one_of(hnp.array_shapes(min_dims=2, max_dims=2), hnp.array_shapes(min_dims=3, max_dims=3)),
    fill=st.nothing(),
)


@given(ARRAYS, st.sampled_from(D4))
def test_transforms_have_exact_inverses(array: NDArray[np.uint8], k: int) -> None:
    seen = d4_transform(array, k)
    assert seen.flags.c_contiguous
    np.testing.assert_array_equal(d4_inverse_batch(seen[None], k)[0], array)
    np.testing.assert_array_equal(d4_transform(d4_inverse_batch(array[None], k)[0], k), array)


@given(ARRAYS, st.sampled_from(D4))
def test_a_batch_is_transformed_image_by_image(array: NDArray[np.uint8], k: int) -> None:
    batch = np.stack([array, array[::-1]])
    np.testing.assert_array_equal(d4_transform_batch(batch, k)[1], d4_transform(batch[1], k))
    np.testing.assert_array_equal(d4_inverse_batch(d4_transform_batch(batch, k), k), batch)


def test_the_eight_transforms_differ_and_follow_their_numbers() -> None:
    array = np.array([[1, 2], [3, 4]], np.uint8)
    assert [d4_transform(array, k).ravel().tolist() for k in D4] == [
        [1, 2, 3, 4],
        [2, 4, 1, 3],
        [4, 3, 2, 1],
        [3, 1, 4, 2],
        [2, 1, 4, 3],
        [1, 3, 2, 4],
        [3, 4, 1, 2],
        [4, 2, 3, 1],
    ]


def test_each_tta_has_its_transforms() -> None:
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    horizontal, vertical, both = (d4_transform(array, k) for k in TTA_TRANSFORMS["flips"][1:])
    np.testing.assert_array_equal(horizontal, array[:, ::-1])
    np.testing.assert_array_equal(vertical, array[::-1])
    np.testing.assert_array_equal(both, array[::-1, ::-1])
    assert TTA_TRANSFORMS["none"] == (0,)
    upright, upside_down = (d4_transform(array, k) for k in TTA_TRANSFORMS["half-turn"])
    np.testing.assert_array_equal(upright, array)
    np.testing.assert_array_equal(upside_down, np.rot90(array, 2))
    assert sorted(TTA_TRANSFORMS["d4"]) == list(D4)


@pytest.mark.parametrize("size", [(5, 7), (30, 7), (5, 90), (40, 80), (20, 30)])
@pytest.mark.parametrize("kind", ["image", "grey", "surface"])
def test_resizing_keeps_type_channels_and_constants(size: tuple[int, int], kind: str) -> None:
    arrays: dict[str, NDArray[Any]] = {
        "image": np.full((20, 30, 3), 77, np.uint8),
        "grey": np.full((20, 30), 77, np.uint8),
        "surface": np.full((20, 30), 0.77, np.float32),
    }
    array = arrays[kind]
    result = resize(array, *size)
    assert result.shape == size + array.shape[2:]
    assert result.dtype == array.dtype
    np.testing.assert_allclose(result, array.flat[0], rtol=1e-6)
    assert not np.shares_memory(result, array)


def test_shrinking_averages_and_growing_stays_within_range() -> None:
    checks = np.indices((64, 64)).sum(axis=0) % 2
    grey = squash((checks * 255).astype(np.uint8), 8)
    assert np.abs(grey.astype(int) - 127).max() <= 1
    surface = resize(checks.astype(np.float32), 200, 150)
    assert surface.min() >= 0
    assert surface.max() <= 1
    mixed = resize((checks * 255).astype(np.uint8), 8, 128)  # rows shrink while columns grow
    assert np.abs(mixed.astype(int) - 127).max() <= 1


def test_resizing_does_not_shift_the_image() -> None:
    ramp = np.repeat(np.linspace(0, 1, 96, dtype=np.float32)[None], 8, axis=0)
    for width in (24, 48, 192, 300):
        back = resize(resize(ramp, 8, width), 8, 96)
        np.testing.assert_allclose(back[:, 8:-8], ramp[:, 8:-8], atol=2e-3)


@given(
    hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)),
)
def test_the_box_is_the_smallest_round_the_foreground(mask: NDArray[np.bool_]) -> None:
    box = box_of(mask)
    if box is None:
        assert not mask.any()
        return
    inside = mask[box.top : box.bottom, box.left : box.right]
    assert np.count_nonzero(inside) == np.count_nonzero(mask)
    assert inside.shape == (box.height, box.width)
    assert box.area == inside.size
    for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
        assert edge.any()


@pytest.mark.parametrize("shape", [(10, 15), (15, 10), (12, 12), (11, 4)])
def test_the_centre_square_is_as_large_as_can_be_and_centred(shape: tuple[int, int]) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    square = centre_square(array)
    assert square.shape == (min(shape),) * 2
    box = centre_box(*shape)
    for before, after in ((box.left, shape[1] - box.right), (box.top, shape[0] - box.bottom)):
        assert 0 <= after - before <= 1
    assert square[0, 0] == array[box.top, box.left]


@st.composite
def boxes(draw: st.DrawFn) -> tuple[Box, int, int]:
    height, width = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    right, bottom = draw(st.integers(left + 1, width)), draw(st.integers(top + 1, height))
    return Box(left, top, right, bottom), height, width


@given(boxes(), st.floats(0, 2))
def test_the_square_holds_the_box_and_stays_inside_where_it_can(
    case: tuple[Box, int, int], margin: float
) -> None:
    box, height, width = case
    square = square_with_margin(box, margin, height, width)
    assert square.width == square.height
    assert square.left <= box.left
    assert square.top <= box.top
    assert square.right >= box.right
    assert square.bottom >= box.bottom
    inside = (
        0 <= square.left <= square.right <= width and 0 <= square.top <= square.bottom <= height
    )
    assert inside == (max(box.width, box.height) <= min(height, width))


def test_the_margin_is_a_fraction_of_the_longer_side() -> None:
    assert square_with_margin(Box(40, 40, 60, 50), 0.25, 200, 200) == Box(35, 30, 65, 60)
    assert square_with_margin(Box(0, 0, 20, 10), 0.25, 200, 200) == Box(0, 0, 30, 30)
    assert square_with_margin(Box(0, 30, 150, 60), 0.25, 100, 150) == Box(0, -25, 150, 125)
