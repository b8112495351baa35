"""Flags on images that are spoilt, and none on the same image as it was."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.color import rgb2lab

from naevus.images.geometry import resize
from naevus.images.quality import (
    Line,
    Quality,
    flags,
    flags_of,
    open_by_lines,
    quality_of,
    size_flags,
    straight,
    thin_hair,
    typology_angle,
)
from naevus.images.read import read
from naevus.types import FLAGS, explained

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

SKIN = (208, 160, 136)


def disc(side: int, x: float, y: float, radius: float) -> Mask:
    rows, columns = np.mgrid[0:side, 0:side]
    return np.asarray((rows - y) ** 2 + (columns - x) ** 2 <= radius**2)


def image(side: int = 512, x: float = 0.5, radius: float = 0.25) -> tuple[Pixels, Mask]:
    """Skin with a brown lesion, and texture on both at all scales, as images have."""
    rng = np.random.default_rng(0)
    mask = disc(side, x * side, side / 2, radius * side)
    texture = np.zeros((side, side))
    for power in range(3, 9):
        noise = cv2.resize(rng.normal(0, 1, (2**power, 2**power)), (side, side))
        texture += 25 * np.asarray(noise, np.float64) / 2 ** (power / 2 + 1)
    pixels = np.where(mask[..., None], (110, 70, 55), SKIN) + texture[..., None]
    return np.clip(pixels, 0, 255).astype(np.uint8), mask


def blurred(pixels: Pixels) -> Pixels:
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), min(pixels.shape[:2]) / 80), np.uint8)


def with_hair(pixels: Pixels, hairs: int) -> Pixels:
    synthetic, side = pixels.copy(), len(pixels)
    for start, end in np.random.default_rng(1).integers(0, side, (hairs, 2)).tolist():
        cv2.line(synthetic, (start, 0), (end, side - 1), (40, 30, 25), side // 128, cv2.LINE_AA)
    return synthetic


def test_a_good_image_has_no_flag() -> None:
    pixels, mask = image()
    assert flags(quality_of(pixels, mask)) == ()
    assert flags(quality_of(pixels)) == ()
    assert quality_of(pixels).cut is None


@pytest.mark.parametrize("side", [256, 800])
def test_each_fault_has_its_flag_at_every_size(side: int) -> None:
    pixels, mask = image(side)
    assert flags(quality_of(blurred(pixels), mask)) == ("blurred",)
    dark = quality_of((pixels * 0.3).astype(np.uint8), mask)
    assert "dark" in flags(dark)  # and perhaps blurred: eight bits do not hold its details
    assert "bright" not in flags(dark)
    washed = np.clip(pixels * 1.6, 0, 255).astype(np.uint8)
    assert flags(quality_of(washed, mask)) == ("bright",)
    assert flags(quality_of(with_hair(pixels, 40), mask)) == ("hair",)
    assert flags(quality_of(*image(side, x=0.05))) == ("cut_by_border",)


def test_size_and_contrast_change_little_in_the_measures() -> None:
    pixels, mask = image(768)
    large = quality_of(with_hair(pixels, 10), mask)
    small = quality_of(resize(with_hair(pixels, 10), 300, 300), disc(300, 150, 150, 75))
    assert small._asdict() == pytest.approx(large._asdict(), rel=0.2, abs=0.01)
    faint = (pixels * 0.5 + 80).astype(np.uint8)
    assert quality_of(faint).sharpness == pytest.approx(quality_of(pixels).sharpness, rel=0.05)


def test_the_cut_fraction_is_that_of_the_contour() -> None:
    side = 256
    rows, columns = np.mgrid[0:side, 0:side]
    square = (rows >= 78) & (rows < 178) & (columns < 100)  # one of four sides on the border
    blank = np.full((side, side, 3), 128, np.uint8)
    assert quality_of(blank, square).cut == pytest.approx(0.25, abs=0.02)
    assert quality_of(blank, ~np.zeros_like(square)).cut == 1
    assert quality_of(blank, np.zeros_like(square)).cut == 0
    assert quality_of(blank).sharpness == 0


def test_dark_corners_are_not_the_images_darkness() -> None:
    pixels, mask = image()
    round_field = np.where(disc(512, 256, 256, 256)[..., None], pixels, 0).astype(np.uint8)
    dark = quality_of(pixels, mask).dark
    assert quality_of(round_field, mask).dark == pytest.approx(dark, abs=0.01)


@pytest.mark.parametrize("hairs", [0, 10, 40])
def test_flags_do_not_depend_on_the_measures_taken(hairs: int) -> None:
    pixels, mask = image(256)
    pixels = with_hair(pixels, hairs)
    for lesion in (mask, None):
        assert flags_of(pixels, lesion) == flags(quality_of(pixels, lesion))


@pytest.mark.parametrize("side", [64, 300, 700])
def test_a_grey_image_is_flagged_in_any_channels(side: int) -> None:
    pixels, mask = image(side)
    assert "grey" not in flags_of(pixels, mask)
    grey = np.repeat(pixels[:, :, :1], 3, axis=2)
    noise = np.random.default_rng(4).integers(0, 3, grey.shape, np.uint8)
    for variant in (grey, np.clip(grey, 0, 250) + noise):
        assert "grey" in flags_of(variant.astype(np.uint8), mask)
    faint = (0.9 * grey + 0.1 * pixels).round().astype(np.uint8)
    assert "grey" not in flags_of(faint, mask)


def test_small_images_are_flagged() -> None:
    assert size_flags(99, 4000) == size_flags(4000, 99) == size_flags(1, 1) == ("small",)
    assert size_flags(100, 100) == ()


def test_every_flag_has_its_sentence() -> None:
    worst = Quality(sharpness=0, dark=1, bright=1, cut=1, hair=1, chroma=0)
    assert len(flags(worst)) == len(worst)
    assert list(explained(flags(worst))) == list(flags(worst))
    assert all(sentence.endswith(".") for sentence in FLAGS.values())


@pytest.mark.parametrize(
    "line", [Line(0, 1, 21), Line(1, 2, 9), Line(3, 1, 7), Line(1, -3, 7), Line(1, 1, 1)]
)
def test_opening_by_a_line_agrees_with_opencv(line: Line) -> None:
    rows, columns, count = line.rows, abs(line.columns), line.points
    mask = np.random.default_rng(2).random((60, 70)) < 0.9
    kernel = np.zeros(((count - 1) * rows + 1, (count - 1) * columns + 1), np.uint8)
    for number in range(count):
        kernel[number * rows, number * columns] = 1
    kernel = kernel[:, ::-1] if line.columns < 0 else kernel
    frame = 30  # OpenCV takes what is outside for foreground when it erodes
    padded = np.pad(mask.astype(np.uint8), frame)
    theirs = cv2.morphologyEx(padded, cv2.MORPH_OPEN, kernel)[frame:-frame, frame:-frame]
    np.testing.assert_array_equal(open_by_lines(mask, [line]), theirs > 0)
    assert not open_by_lines(mask, [Line(1, 1, 65)]).any()
    both = open_by_lines(mask, [line, Line(1, 0, 12)])
    np.testing.assert_array_equal(both, (theirs > 0) | open_by_lines(mask, [Line(1, 0, 12)]))


def test_hair_is_found_in_every_direction_and_blots_are_not() -> None:
    for angle in range(0, 180, 7):
        grey = np.full((256, 256), 180, np.uint8)
        across, down = np.cos(np.radians(angle)) * 60, np.sin(np.radians(angle)) * 60
        ends = [(round(128 + sign * across), round(128 + sign * down)) for sign in (-1, 1)]
        cv2.line(grey, ends[0], ends[1], 60, 3)
        synthetic = grey < 180
        found = straight(thin_hair(grey))
        assert found[synthetic].mean() > 0.8
        assert not found[~synthetic].any()
    grey = np.full((256, 256), 180, np.uint8)
    for row in range(20, 250, 20):
        for column in range(20, 250, 20):
            cv2.circle(grey, (column, row), 4, 60, cv2.FILLED)
    assert not straight(thin_hair(grey)).any()


def test_the_typology_angle_is_that_of_the_skin_alone() -> None:
    mask = disc(256, 128, 128, 60)
    pixels = np.where(mask[..., None], (60, 30, 30), SKIN).astype(np.uint8)
    lightness, _, yellow = rgb2lab(np.array(SKIN, np.uint8)[None, None])[0, 0]
    expected = np.degrees(np.arctan((lightness - 50) / yellow))
    assert typology_angle(pixels, mask) == pytest.approx(expected, abs=0.3)
    darker = typology_angle((pixels * 0.6).astype(np.uint8), mask)
    assert darker is not None
    assert darker < expected - 20


def test_where_there_is_no_skin_there_is_no_angle() -> None:
    pixels = np.full((256, 256, 3), SKIN, np.uint8)
    assert typology_angle(pixels, np.ones((256, 256), bool)) is None
    blue = np.full((256, 256, 3), (120, 130, 200), np.uint8)
    assert typology_angle(blue, disc(256, 128, 128, 60)) is None


def test_real_photographs_have_no_flag_and_blurred_ones_have(shared_data: Path) -> None:
    paths = sorted((shared_data / "originals").glob("*.jpg"))[:5]
    assert paths
    for path in paths:
        pixels = read(path)
        assert flags(quality_of(pixels)) == ()
        rows, columns = (round(512 * side / min(pixels.shape[:2])) for side in pixels.shape[:2])
        small = resize(pixels, rows, columns)
        assert flags(quality_of(small)) == ()
        assert "blurred" in flags(quality_of(blurred(small)))
