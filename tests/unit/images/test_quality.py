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
    Quality,
    flags,
    flags_of,
    quality_of,
    size_flags,
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


def with_scale(pixels: Pixels) -> Pixels:
    drawn, side = pixels.copy(), len(pixels)
    base, width, dark = round(0.8 * side), max(side // 256, 1), (60, 60, 60)
    marks = [round(side * (0.2 + 0.04 * number)) for number in range(16)]
    cv2.line(drawn, (marks[0], base), (marks[-1], base), dark, width)
    for number, mark in enumerate(marks):
        end = base - side // (40 if number % 2 else 25)
        cv2.line(drawn, (mark, base), (mark, end), dark, width)
    return drawn


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
    # Hairs drawn with a ruler may look like one; real ones bend.
    hairy = flags(quality_of(with_hair(pixels, 40), mask))
    assert [flag for flag in hairy if flag != "ruler"] == ["hair"]
    assert flags(quality_of(with_scale(pixels), mask)) == ("ruler",)
    assert flags(quality_of(*image(side, x=0.05))) == ("cut_by_border",)


def test_size_and_contrast_change_little_in_the_measures() -> None:
    pixels, mask = image(768)
    large = quality_of(with_hair(pixels, 10), mask)
    small = quality_of(resize(with_hair(pixels, 10), 300, 300), disc(300, 150, 150, 75))
    for name in set(small._fields) - {"ruler"}:  # a ruler's may be any, where there is none
        assert getattr(small, name) == pytest.approx(getattr(large, name), rel=0.2, abs=0.01)
    assert quality_of(with_scale(pixels), mask).ruler > 0.6
    assert quality_of(resize(with_scale(pixels), 300, 300)).ruler > 0.6
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
    worst = Quality(sharpness=0, dark=1, bright=1, cut=1, hair=1, ruler=1, chroma=0)
    assert len(flags(worst)) == len(worst)
    assert list(explained(flags(worst))) == list(flags(worst))
    assert all(sentence.endswith(".") for sentence in FLAGS.values())


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


def test_real_photographs_have_the_flags_they_should(shared_data: Path) -> None:
    paths = sorted((shared_data / "originals").glob("*.jpg"))
    expected = {"ISIC_0000019": ("hair",), "ISIC_0000042": ("hair",), "ISIC_0000459": ("ruler",)}
    for path in [path for path in paths[:5] if path.stem not in expected]:
        pixels = read(path)
        assert flags(quality_of(pixels)) == ()
        rows, columns = (round(512 * side / min(pixels.shape[:2])) for side in pixels.shape[:2])
        small = resize(pixels, rows, columns)
        assert flags(quality_of(small)) == ()
        assert "blurred" in flags(quality_of(blurred(small)))
    for name, found in expected.items():
        assert flags(quality_of(read(shared_data / "originals" / f"{name}.jpg"))) == found
