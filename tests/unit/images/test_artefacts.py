"""Hair and rulers that are drawn are found; meshes, blots and plain skin are not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from naevus.images.artefacts import Artefacts, artefacts_of, thin_structures

Grey = NDArray[np.uint8]

SIDE = 256
EVERYWHERE = np.ones((SIDE, SIDE), np.bool_)


def skin(seed: int = 0, side: int = SIDE) -> Grey:
    """Uneven skin, with structures of all sizes and noise."""
    rng = np.random.default_rng(seed)
    grey = np.full((side, side), 170.0)
    for power in range(2, 8):
        noise = rng.normal(0, 1, (2**power, 2**power))
        grey += 20 * np.asarray(cv2.resize(noise, (side, side)), np.float64) / 2 ** (power / 2)
    return np.asarray(np.clip(grey, 0, 255), np.uint8)


def line(grey: Grey, one: NDArray[np.float64], other: NDArray[np.float64], width: int) -> None:
    ends = [[round(16 * float(value)) for value in point] for point in (one, other)]
    cv2.line(grey, ends[0], ends[1], 90, width, cv2.LINE_AA, shift=4)


def ruler(
    grey: Grey, angle: float, distance: float, *, base: bool = True, width: int = 1, marks: int = 12
) -> Grey:
    """Draw marks at equal distances around the middle of the image, every other one longer."""
    drawn = grey.copy()
    along = np.array([np.cos(angle), np.sin(angle)])
    up, middle = np.array([-along[1], along[0]]), np.full(2, grey.shape[0] / 2)
    first = -(marks - 1) / 2 * distance
    for number in range(marks):
        foot = middle + (first + number * distance) * along
        line(drawn, foot, foot + (5 if base and number % 2 else 9) * up, width)
    if base:
        line(drawn, middle + first * along, middle - first * along, width)
    return drawn


def hairs(grey: Grey, count: int, seed: int = 1) -> Grey:
    drawn = grey.copy()
    rng = np.random.default_rng(seed)
    for points in rng.integers(-60, SIDE + 60, (count, 3, 2)):
        start, bend, end = points.astype(float)
        steps = np.linspace(0, 1, 40)[:, None]
        curve = (1 - steps) ** 2 * start + 2 * steps * (1 - steps) * bend + steps**2 * end
        cv2.polylines(drawn, [curve.round().astype(np.int32)], False, 70, 1, cv2.LINE_AA)
    return drawn


def found(grey: Grey) -> Artefacts:
    return artefacts_of(grey, np.ones(grey.shape, np.bool_))


def test_plain_skin_has_neither() -> None:
    for seed in range(8):
        hair, ruler = found(skin(seed))
        assert hair < 0.03
        assert ruler < 0.5


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("angle", np.arange(0, np.pi, np.pi / 9).tolist())
def test_the_fraction_under_hair_is_that_of_the_lines_drawn(width: int, angle: float) -> None:
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    across = columns * np.cos(angle) + rows * np.sin(angle)
    distance = np.abs((across + 12.3) % 24 - 12)  # from the nearest of parallel lines
    darkness = np.clip(width / 2 + 0.5 - distance, 0, 1)
    grey = (170 - 90 * darkness).astype(np.uint8)
    drawn = (grey < 165).mean()
    assert found(grey).hair == pytest.approx(drawn, rel=0.2)


def test_more_hairs_give_a_larger_fraction_in_any_light() -> None:
    for seed in range(3):
        few, some, many = (found(hairs(skin(), count, seed)).hair for count in (3, 15, 45))
        assert few < 0.06 < some < many
        darker = (hairs(skin(), 45, seed) * 0.6).astype(np.uint8)
        assert found(darker).hair > 0.5 * many


@pytest.mark.parametrize("distance", [6, 8, 10])
def test_meshes_and_blots_are_not_hair(distance: int) -> None:
    mesh = np.full((SIDE, SIDE), 170, np.uint8)
    lines = np.full((SIDE, SIDE), 170, np.uint8)
    for place in range(0, SIDE, distance):
        mesh[place : place + 2], mesh[:, place : place + 2] = 110, 110
        lines[place : place + 2] = 110
    assert found(mesh).hair < 0.1 * found(lines).hair
    blots = np.full((SIDE, SIDE), 170, np.uint8)
    for row in range(10, SIDE, 2 * distance):
        for column in range(10, SIDE, 2 * distance):
            cv2.circle(blots, (column, row), 3, 60, cv2.FILLED)
    assert found(blots).hair < 0.03


def test_hair_is_measured_in_the_field_alone() -> None:
    grey = np.full((SIDE, SIDE), 170, np.uint8)
    for row in range(0, SIDE, 16):
        grey[row : row + 2, : SIDE // 2] = 60
    left = EVERYWHERE.copy()
    left[:, SIDE // 2 :] = False
    assert artefacts_of(grey, ~left).hair == 0
    assert artefacts_of(grey, left).hair == pytest.approx(0.125, abs=0.02)


@pytest.mark.parametrize("angle", np.linspace(0, np.pi, 7, endpoint=False).tolist())
@pytest.mark.parametrize("distance", [8, 10, 13, 16.5])
def test_scales_with_a_base_line_are_found_at_every_angle(angle: float, distance: float) -> None:
    assert found(ruler(skin(), angle, distance)).ruler > 0.5


@pytest.mark.parametrize("angle", [0, 0.4, 1.2, np.pi / 2, 2.5])
@pytest.mark.parametrize(("distance", "width"), [(12, 2), (18, 2), (24, 4)])
def test_marks_without_a_base_line_are_found(angle: float, distance: float, width: int) -> None:
    drawn = ruler(skin(), angle, distance, base=False, width=width, marks=9)
    assert found(drawn).ruler > 0.5


@pytest.mark.parametrize("contrast", [0.2, 0.5, 1])
def test_a_scale_is_found_in_faint_print_too(contrast: float) -> None:
    for seed in range(3):
        faint = contrast * ruler(skin(seed), 0.1, 10) + (1 - contrast) * skin(seed)
        assert found(faint.astype(np.uint8)).ruler > 0.5


def test_hair_is_hardly_ever_a_ruler() -> None:
    values = [found(hairs(skin(seed), 4 + 3 * seed, seed)).ruler for seed in range(12)]
    assert max(values) < 0.6
    assert np.mean(np.array(values) > 0.5) < 0.1


def test_marks_at_unequal_distances_are_no_ruler() -> None:
    rng = np.random.default_rng(3)
    equal = found(ruler(skin(), 0, 16, marks=14)).ruler
    for _ in range(12):
        grey = skin()
        for column in np.cumsum(rng.uniform(6, 26, 15)):
            line(grey, np.array([column, 128.0]), np.array([column, 137.0]), 1)
        line(grey, np.array([6.0, 128.0]), np.array([250.0, 128.0]), 1)
        assert found(grey).ruler < 0.7 * equal


def test_one_line_or_two_marks_are_no_ruler() -> None:
    for marks in (1, 2):
        assert found(ruler(skin(), 0.3, 16, base=False, marks=marks)).ruler < 0.5
    grey = skin()
    line(grey, np.array([20.0, 60.0]), np.array([240.0, 90.0]), 2)
    assert found(grey).ruler < 0.5


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (7, 7), (8, 300), (13, 40), (700, 30)])
def test_any_size_is_measured(shape: tuple[int, int]) -> None:
    grey = np.random.default_rng(5).integers(0, 256, shape, np.uint8)
    for pixels in (grey, np.zeros(shape, np.uint8), np.tile(grey[:, :1], (1, shape[1]))):
        values = artefacts_of(pixels, np.ones(shape, np.bool_))
        assert all(0 <= value <= 1 for value in values)


def test_wide_structures_and_edges_are_not_thin() -> None:
    grey = np.full((SIDE, SIDE), 170, np.uint8)
    grey[:, 100:] = 60  # an edge
    grey[200:220, :] = 30  # a band
    assert not thin_structures(grey).any()
