"""Sizes of shapes whose size is known, and the ABCD measures of hand-made examples."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.measure import regionprops

from naevus.images.geometry import Box, resize
from naevus.images.measurements import (
    COLUMNS,
    MILLIMETRE_COLUMNS,
    Measurements,
    asymmetry,
    colour_variegation,
    in_millimetres,
    measure,
    size_columns,
    sizes_in,
    touches_border,
)

Mask = NDArray[np.bool_]
ANGLES = (0, 7, 22.5, 30, 45, 77, 120)


def turned(side: int, degrees: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the coordinates of each pixel along two axes through the middle, at an angle."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    angle = math.radians(degrees)
    return (
        x * math.cos(angle) + y * math.sin(angle),
        y * math.cos(angle) - x * math.sin(angle),
    )


def ellipse(a: float, b: float, degrees: float = 0, side: int = 400) -> Mask:
    along, across = turned(side, degrees)
    return np.asarray((along / a) ** 2 + (across / b) ** 2 <= 1)


def rectangle(a: float, b: float, degrees: float = 0, side: int = 400) -> Mask:
    along, across = turned(side, degrees)
    return np.asarray((np.abs(along) < a / 2) & (np.abs(across) < b / 2))


def polar(radius: NDArray[np.float64] | float, side: int = 400) -> Mask:
    """Return the shape with a radius for each of 3,600 angles."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    bins = (np.arctan2(y, x) / (2 * np.pi) * 3600).astype(int) % 3600
    return np.asarray(np.hypot(x, y) <= np.broadcast_to(radius, 3600)[bins])


def wavy(waves: int, depth: float, side: int = 400) -> Mask:
    angles = np.arange(3600) / 3600 * 2 * np.pi
    return polar(side * 0.3 * (1 + depth * np.sin(waves * angles)), side)


def sizes(mask: Mask) -> Measurements:
    found = measure(mask, np.full((*mask.shape, 3), 90, np.uint8))
    assert found is not None
    return found


def perimeter_of_ellipse(a: float, b: float) -> float:
    """Return the perimeter of an ellipse by a polygon of 100,000 points."""
    angles = np.linspace(0, 2 * np.pi, 100_001)
    return float(np.hypot(np.diff(a * np.cos(angles)), np.diff(b * np.sin(angles))).sum())


@pytest.mark.parametrize("radius", [20, 50, 180])
def test_discs(radius: int) -> None:
    found = sizes(ellipse(radius, radius))
    assert found.area == pytest.approx(math.pi * radius**2, rel=0.01)
    for diameter in (
        found.equivalent_diameter, found.longest_diameter, found.perpendicular_diameter
    ):  # fmt: skip
        assert diameter == pytest.approx(2 * radius, abs=1)
    assert found.perimeter == pytest.approx(2 * math.pi * radius, rel=0.01)
    assert found.border_irregularity == pytest.approx(1, abs=0.02)
    assert found.asymmetry == pytest.approx(0, abs=0.005)


@pytest.mark.parametrize("degrees", ANGLES)
@pytest.mark.parametrize(("a", "b"), [(150, 60), (120, 100)])
def test_ellipses_at_any_angle(a: float, b: float, degrees: float) -> None:
    found = sizes(ellipse(a, b, degrees))
    perimeter = perimeter_of_ellipse(a, b)
    assert found.area == pytest.approx(math.pi * a * b, rel=0.005)
    assert found.longest_diameter == pytest.approx(2 * a, abs=1)
    assert found.perpendicular_diameter == pytest.approx(2 * b, abs=1.5)
    assert found.perimeter == pytest.approx(perimeter, rel=0.01)
    irregularity = perimeter**2 / (4 * math.pi**2 * a * b)
    assert found.border_irregularity == pytest.approx(irregularity, rel=0.02)
    assert found.asymmetry < 0.01


@pytest.mark.parametrize("degrees", ANGLES)
def test_rectangles_at_any_angle(degrees: float) -> None:
    found = sizes(rectangle(240, 100, degrees))
    assert found.area == pytest.approx(24_000, rel=0.01)
    assert found.longest_diameter == pytest.approx(260, abs=1.5)
    assert found.perpendicular_diameter == pytest.approx(2 * 240 * 100 / 260, abs=2)
    assert found.perimeter == pytest.approx(680, rel=0.01)
    assert found.asymmetry < 0.01


def test_sizes_follow_the_edges_of_pixels() -> None:
    mask = np.zeros((60, 80), bool)
    mask[10:40, 20:60] = True
    found = sizes(mask)
    assert found.area == 1200
    assert found.longest_diameter == pytest.approx(50, abs=1)
    assert found.perimeter == pytest.approx(140, abs=4)  # each corner is rounded
    assert found.equivalent_diameter == pytest.approx(2 * math.sqrt(1200 / math.pi))


@pytest.mark.parametrize("seed", range(12))
def test_diameters_and_areas_are_those_of_other_implementations(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.integers(20, 180, (int(rng.integers(3, 9)), 1, 2)).astype(np.int32)
    drawn = np.zeros((200, 200), np.uint8)
    cv2.fillPoly(drawn, [cv2.convexHull(points)], 1)
    mask = drawn > 0
    found = measure(mask, np.zeros((200, 200, 3), np.uint8))
    assert found is not None
    (region,) = regionprops(drawn)  # type: ignore[no-untyped-call]
    assert found.area == region.area
    assert found.equivalent_diameter == pytest.approx(region.equivalent_diameter_area)
    # scikit-image measures from the outermost corners of its contours.
    assert found.longest_diameter == pytest.approx(region.feret_diameter_max, abs=1.5)
    # The narrowest strip around a shape is no wider than that at right angles to its diameter.
    angles = np.linspace(0, np.pi, 721)
    extents = np.argwhere(mask) @ np.stack([np.cos(angles), np.sin(angles)])
    narrowest = np.ptp(extents, axis=0).min()
    assert narrowest <= found.perpendicular_diameter <= found.longest_diameter + 1e-6


@pytest.mark.parametrize("factor", [2, 5])
def test_twice_the_resolution_doubles_lengths_and_keeps_shapes(factor: int) -> None:
    mask = wavy(5, 0.2)
    colours = np.random.default_rng(0).integers(0, 255, (400, 400, 3)).astype(np.uint8)
    colours = np.asarray(cv2.GaussianBlur(colours, (0, 0), 6), np.uint8)
    small = measure(mask, colours)
    large = measure(np.kron(mask, np.ones((factor, factor), bool)), colours)
    assert small is not None
    assert large is not None
    assert large.area == factor**2 * small.area
    for name in ("equivalent_diameter", "longest_diameter", "perpendicular_diameter"):
        assert getattr(large, name) == pytest.approx(factor * getattr(small, name), rel=0.005)
    # Enlarged pixels are stairs: a mask is smooth at its own resolution.
    smooth = sizes(wavy(5, 0.2, 400 * factor))
    assert smooth.perimeter == pytest.approx(factor * small.perimeter, rel=0.01)
    assert smooth.border_irregularity == pytest.approx(small.border_irregularity, rel=0.01)
    assert large.asymmetry == pytest.approx(small.asymmetry, abs=0.01)
    assert large.colour_variegation == pytest.approx(small.colour_variegation, rel=0.02)


def test_a_lopsided_shape_is_less_symmetric_than_a_regular_one() -> None:
    half = np.zeros((400, 400), bool)
    half[100:300, 100:200] = True
    lopsided = half.copy()
    lopsided[100:160, 200:320] = True  # an L
    egg = ellipse(120, 90) & (turned(400, 0)[0] < 0) | ellipse(60, 90)
    assert asymmetry(half) < 0.005
    assert 0.02 < asymmetry(egg) < asymmetry(lopsided)
    assert asymmetry(lopsided) > 0.15


def test_asymmetry_is_the_fraction_without_a_mirror_image() -> None:
    # A right-angled triangle with legs a and 3a, by brute force over 180 angles.
    mask = np.zeros((240, 240), np.uint8)
    cv2.fillPoly(mask, [np.array([(60, 30), (60, 210), (120, 210)], np.int32)], 1)
    y, x = np.nonzero(mask)
    centre = np.array([x.mean(), y.mean()])
    found = []
    for degrees in np.arange(0, 90, 0.5):
        axis = np.array([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])
        outside = 0.0
        for normal in (axis, np.array([-axis[1], axis[0]])):
            points = np.stack([x, y], axis=1) - centre
            mirrored = points - 2 * (points @ normal)[:, None] * normal + centre
            columns, rows = np.rint(mirrored).astype(int).T
            outside += np.count_nonzero(mask[rows.clip(0, 239), columns.clip(0, 239)] == 0)
        found.append(outside / 2 / len(x))
    assert asymmetry(mask > 0) == pytest.approx(min(found), abs=0.015)


@pytest.mark.parametrize("degrees", ANGLES)
def test_asymmetry_does_not_depend_on_the_angle(degrees: float) -> None:
    y, x = turned(400, degrees)
    shape = ((x / 120) ** 2 + (y / 60) ** 2 <= 1) & ~((x > 20) & (y > 0))
    straight_y, straight_x = turned(400, 0)
    straight = ((straight_x / 120) ** 2 + (straight_y / 60) ** 2 <= 1) & ~(
        (straight_x > 20) & (straight_y > 0)
    )
    assert asymmetry(shape) == pytest.approx(asymmetry(straight), abs=0.01)


def test_a_jagged_border_is_more_irregular_than_a_smooth_one() -> None:
    smooth, wave, jagged = sizes(polar(120)), sizes(wavy(8, 0.1)), sizes(wavy(24, 0.1))
    assert 1 <= smooth.border_irregularity < 1.02
    assert 1.15 < wave.border_irregularity < jagged.border_irregularity
    # By the length of the curve r(φ) = 120 (1 + 0.1 sin 24φ).
    angles = np.linspace(0, 2 * np.pi, 100_001)
    radius = 120 * (1 + 0.1 * np.sin(24 * angles))
    x, y = radius * np.cos(angles), radius * np.sin(angles)
    length = float(np.hypot(np.diff(x), np.diff(y)).sum())
    expected = length**2 / (4 * math.pi * math.pi * 120**2 * (1 + 0.1**2 / 2))
    assert jagged.border_irregularity == pytest.approx(expected, rel=0.03)


def test_six_colours_are_more_variegated_than_one() -> None:
    six = np.array(
        [(240, 235, 230), (190, 50, 60), (190, 130, 80), (90, 50, 30), (90, 110, 130), (20, 15, 15)]
    )  # white, red, light brown, dark brown, blue-grey, black
    mask = ellipse(120, 100)
    wedges = (np.arctan2(*turned(400, 0)) / (2 * np.pi) * 6).astype(int) % 6
    found = []
    for colours in (six[[3] * 6], six[[2, 3] * 3], six):
        one = measure(mask, colours[wedges].astype(np.uint8))
        assert one is not None
        found.append(one.colour_variegation)
    assert found[0] == pytest.approx(0, abs=0.01)
    assert found[0] < found[1] < found[2]
    assert found[2] > 30


def test_colour_variegation_is_a_colour_difference() -> None:
    # Half L* = 0, half L* = 100: every pixel is 50 from the mean. The skin does not count.
    pixels = np.zeros((60, 60, 3), np.uint8)
    pixels[:30] = 255
    assert colour_variegation(pixels, np.ones((60, 60), bool)) == pytest.approx(50, abs=0.01)
    assert colour_variegation(pixels, np.arange(60)[:, None] * np.ones(60) > 29) == 0


def test_colours_outside_the_lesion_do_not_count() -> None:
    mask = ellipse(100, 80)
    pixels = np.where(mask[..., None], np.uint8(90), np.uint8(210)).repeat(3, axis=2)
    spread = measure(mask, pixels)
    assert spread is not None
    assert spread.colour_variegation < 4  # of the edge alone
    small = measure(mask, resize(pixels, 100, 100))
    assert small is not None
    assert small.colour_variegation < 8


def border(mask: Mask, side: int) -> Mask:
    """Move a shape to one side of the image, until it touches it."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    moves = (-rows[0], len(mask) - 1 - rows[-1], -columns[0], len(mask) - 1 - columns[-1])
    return np.roll(mask, moves[side], axis=side // 2)


@pytest.mark.parametrize("side", range(4))
def test_a_lesion_cut_by_the_border_has_no_sizes(side: int) -> None:
    mask = ellipse(80, 60)
    cut = border(mask, side)
    assert not touches_border(mask)
    assert touches_border(cut)
    assert measure(cut, np.zeros((400, 400, 3), np.uint8)) is None


@pytest.mark.parametrize("mask", [ellipse(0.1, 0.1), ellipse(5, 5), np.ones((400, 400), bool)])
def test_empty_and_implausible_masks_have_no_sizes(mask: Mask) -> None:
    assert measure(mask, np.zeros((400, 400, 3), np.uint8)) is None


def test_holes_add_to_the_perimeter_and_not_to_the_area() -> None:
    ring = ellipse(150, 150) & ~ellipse(100, 100)
    found = sizes(ring)
    assert found.area == pytest.approx(math.pi * (150**2 - 100**2), rel=0.01)
    assert found.perimeter == pytest.approx(2 * math.pi * 250, rel=0.01)


def test_millimetres() -> None:
    found = sizes(ellipse(100, 100))
    scaled = in_millimetres(found, 0.05)
    assert scaled.area == pytest.approx(math.pi * 25, rel=0.01)
    assert scaled.longest_diameter == pytest.approx(10, abs=0.05)
    assert scaled.perimeter == pytest.approx(math.pi * 10, rel=0.01)


@pytest.mark.parametrize("scale", [None, 0.02])
def test_columns_hold_what_they_were_made_of(scale: float | None) -> None:
    box, found = Box(1, 2, 30, 40), sizes(ellipse(100, 80))
    row = size_columns(box, False, found, scale)
    expected = {
        "box": box, "touches_border": False, "measurements": found, "mm_per_pixel": scale
    }  # fmt: skip
    assert sizes_in(row) == expected
    assert (MILLIMETRE_COLUMNS["area"] in row) == (scale is not None)
    row = size_columns(None, None, None, scale)
    assert sizes_in(row) == {**dict.fromkeys(expected), "mm_per_pixel": scale}
    assert len(set(COLUMNS.values()) | set(MILLIMETRE_COLUMNS.values())) == 13
