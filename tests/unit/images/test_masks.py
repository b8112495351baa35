"""Cleaning, segmenting and sizing masks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from skimage.measure import label

from naevus.images.geometry import resize, squash
from naevus.images.masks import (
    Postprocessing,
    area_fraction,
    at_size,
    clean,
    contours,
    draw_contours,
    plausible,
)

Mask = NDArray[np.bool_]


def disc(height: int, width: int, x: float, y: float, radius: float) -> Mask:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.asarray((rows - y) ** 2 + (columns - x) ** 2 <= radius**2)


def regions(mask: Mask, connectivity: int) -> int:
    count: int = cv2.connectedComponents(mask.astype(np.uint8), connectivity=connectivity)[0]
    return count - 1


@settings(max_examples=200)
@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14),
        elements=st.sampled_from(np.array([0, 0.4, 0.6, 1], np.float32).tolist()),
        fill=st.nothing(),
    ),
    st.sampled_from([0.0, 0.1]),
)
def test_a_clean_mask_is_one_region_without_holes(
    probability: NDArray[np.float32], smooth: float
) -> None:
    mask = clean(probability, Postprocessing(smooth=smooth))
    assert mask.dtype == np.bool_
    assert mask.shape == probability.shape
    if smooth == 0:
        assert mask.any() == (probability > 0.5).any()
    background = np.pad(~mask, 1, constant_values=True)
    for connectivity in (4, 8):
        assert regions(mask, connectivity) <= 1
        assert regions(background, connectivity) == 1


@settings(max_examples=200)
@given(
    hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)),
    st.integers(0, 3),
)
def test_the_largest_region_is_kept_and_filled_anywhere(mask: Mask, edge: int) -> None:
    mask = np.pad(mask, ((edge, 0), (0, edge)))
    labels = label(mask, connectivity=1)  # type: ignore[no-untyped-call]
    largest = labels == 1 + np.argmax(np.bincount(labels[mask], minlength=2)[1:])
    outside = label(np.pad(~largest, 1, constant_values=True), connectivity=1)  # type: ignore[no-untyped-call]
    filled = (outside != outside[0, 0])[1:-1, 1:-1] if mask.any() else mask
    np.testing.assert_array_equal(clean(mask.astype(np.float32)), filled)
    kept = clean(mask.astype(np.float32), Postprocessing(holes=False))
    np.testing.assert_array_equal(kept, largest & mask)


def test_each_step_can_be_left_out() -> None:
    ring = disc(60, 60, 20, 30, 15) & ~disc(60, 60, 20, 30, 5)
    speck = disc(60, 60, 50, 10, 4)
    probability = (0.8 * ring + 0.6 * speck).astype(np.float32)
    np.testing.assert_array_equal(
        clean(probability, Postprocessing(largest=False, holes=False)), ring | speck
    )
    np.testing.assert_array_equal(clean(probability, Postprocessing(holes=False)), ring)
    np.testing.assert_array_equal(clean(probability), disc(60, 60, 20, 30, 15))
    np.testing.assert_array_equal(
        clean(probability, Postprocessing(largest=False)), disc(60, 60, 20, 30, 15) | speck
    )
    assert not clean(probability, Postprocessing(threshold=0.9)).any()


def test_a_dark_corner_cut_off_by_the_lesion_is_no_hole() -> None:
    rows, columns = np.mgrid[0:40, 0:40]
    band = np.abs(rows + columns - 20) <= 3
    np.testing.assert_array_equal(clean(band.astype(np.float32)), band)


def test_smoothing_removes_thin_spikes_and_keeps_the_body() -> None:
    body = disc(100, 100, 50, 50, 25)
    spiky = body.copy()
    spiky[49:51, 75:98] = True
    smoothed = clean(spiky.astype(np.float32), Postprocessing(smooth=0.05))
    assert not smoothed[:, 80:].any()
    assert np.count_nonzero(smoothed & body) / np.count_nonzero(smoothed | body) > 0.97


@given(st.integers(2, 40), st.integers(2, 40), st.integers(2, 90), st.integers(2, 90))
def test_at_size_covers_every_corner(rows: int, columns: int, height: int, width: int) -> None:
    assert at_size(np.ones((rows, columns), np.float32), height, width).all()


@pytest.mark.parametrize("corner", [(0, 0), (0, -1), (-1, 0), (-1, -1)])
def test_a_lesion_in_a_corner_reaches_the_corner_of_a_3_to_2_image(
    corner: tuple[int, int],
) -> None:
    probability = np.zeros((64, 64), np.float32)
    probability[corner] = 1
    mask = at_size(probability, 200, 300)
    assert mask[corner]
    assert not mask[100, 150]


def stretched(mask: Mask) -> Mask:
    """The same lesion in an image 1.5 times as wide."""
    height, width = mask.shape
    surface = resize(mask.astype(np.float32), height, width * 3 // 2)
    return np.asarray(surface > 0.5)


def padded(mask: Mask) -> Mask:
    """The same lesion in an image with a quarter of its width added on both sides."""
    return np.pad(mask, ((0, 0), (mask.shape[1] // 4,) * 2))


@pytest.mark.parametrize("to_three_to_two", [stretched, padded])
@pytest.mark.parametrize("centre", [(190, 200), (70, 300), (330, 60)])
@pytest.mark.parametrize("radius", [30, 120])
def test_squash_and_at_size_are_each_others_inverse_on_3_to_2_images(
    to_three_to_two: object, centre: tuple[int, int], radius: int
) -> None:
    assert callable(to_three_to_two)
    truth: Mask = to_three_to_two(disc(384, 384, *centre, radius))
    assert truth.shape == (384, 576)
    # What a segmenter without error would say: the squashed truth.
    back = at_size(squash(truth.astype(np.float32), 256), *truth.shape)
    jaccard = np.count_nonzero(back & truth) / np.count_nonzero(back | truth)
    assert jaccard > (0.96 if radius == 30 else 0.985)
    for axis in (0, 1):  # no shift: the centre stays within a quarter of a pixel
        assert abs(centroid(back, axis) - centroid(truth, axis)) < 0.25


def centroid(mask: Mask, axis: int) -> float:
    return float(np.nonzero(mask)[axis].mean())


def test_the_contour_is_the_outermost_foreground() -> None:
    mask = np.zeros((9, 12), np.bool_)
    mask[2:6, 3:10] = True
    (points,) = contours(mask)
    assert points.dtype == np.int32
    assert {tuple(point) for point in points.tolist()} == {(3, 2), (9, 2), (9, 5), (3, 5)}
    assert contours(np.zeros((4, 4), np.bool_)) == []


def test_contours_come_largest_first_with_holes() -> None:
    mask = disc(80, 80, 30, 40, 25) & ~disc(80, 80, 30, 40, 6) | disc(80, 80, 70, 10, 4)
    areas = [cv2.contourArea(points) for points in contours(mask)]
    assert len(areas) == 3
    assert areas == sorted(areas, reverse=True)


def test_drawing_changes_the_contour_alone() -> None:
    pixels = np.full((60, 60, 3), 90, np.uint8)
    mask = disc(60, 60, 30, 30, 15)
    synthetic = draw_contours(pixels, mask, colour=(255, 0, 10), thickness=1)
    assert (pixels == 90).all()
    assert np.abs(synthetic[30, 45].astype(int) - [255, 0, 10]).max() < 20
    changed = (synthetic != 90).any(axis=2)
    assert not changed[disc(60, 60, 30, 30, 12)].any()
    assert not changed[~disc(60, 60, 30, 30, 18)].any()
    np.testing.assert_array_equal(draw_contours(pixels, mask & False), pixels)


@pytest.mark.parametrize(
    ("foreground", "believed"),
    [(0, False), (49, False), (50, True), (5000, True), (9700, True), (9701, False)],
)
def test_implausible_areas_are_rejected(foreground: int, believed: bool) -> None:
    mask = (np.arange(10_000) < foreground).reshape(100, 100)
    assert area_fraction(mask) == foreground / 10_000
    assert plausible(mask) is believed
