"""What the classifier sees, and what it falls back to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from naevus.errors import ConfigError
from naevus.images.geometry import Box, centre_square, squash
from naevus.images.masks import plausible
from naevus.images.preprocess import InputMode, InputSpec, cut, shades_of_grey
from naevus.types import CropMode

HEIGHT, WIDTH = 120, 180


def scene(
    height: int = HEIGHT, width: int = WIDTH
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    y, x = np.mgrid[0:height, 0:width]
    waves = 128 + 60 * np.sin(x / 11) + 60 * np.cos(y / 13)
    return np.stack([waves, 255 - waves, np.full_like(waves, 200)], axis=-1).astype(np.uint8)


def lesion(
    box: Box, height: int = HEIGHT, width: int = WIDTH
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    mask = np.zeros((height, width), np.bool_)
    mask[box.top : box.bottom, box.left : box.right] = True
    return mask


def test_full_is_the_centre_square_whatever_the_mask() -> None:
    crop = cut(scene(), lesion(Box(5, 5, 40, 40)), mode="full", size=64)
    assert crop.mode == "full"
    assert crop.box == Box(30, 0, 150, 120)
    np.testing.assert_array_equal(crop.pixels, squash(centre_square(scene()), 64))


def test_crop_is_the_square_round_the_lesion() -> None:
    crop = cut(scene(), lesion(Box(100, 50, 140, 70)), mode="crop", size=52, margin=0.15)
    assert crop.mode == "crop"
    assert crop.box == Box(94, 34, 146, 86)
    np.testing.assert_array_equal(crop.pixels, scene()[34:86, 94:146])


def test_a_wider_crop_reflects_only_what_the_frame_lacks() -> None:
    mask = lesion(Box(100, 50, 140, 70))
    crop = cut(scene(), mask, mode="crop", size=104, margin=0.15, context=2)
    assert crop.box == Box(68, 8, 172, 112)
    np.testing.assert_array_equal(crop.pixels, scene()[8:112, 68:172])
    near_edge = cut(scene(), lesion(Box(0, 0, 40, 20)), mode="crop", size=104, context=2)
    assert near_edge.box == Box(-26, -26, 78, 78)
    np.testing.assert_array_equal(near_edge.pixels[26:, 26:], scene()[:78, :78])
    np.testing.assert_array_equal(near_edge.pixels[25, 26:], scene()[1, :78])
    full = cut(scene(), None, mode="full", size=180, context=1.5)
    np.testing.assert_array_equal(full.pixels[30:150], scene())


@pytest.mark.parametrize("mode", ["squash", "mask"])
def test_only_crops_have_more_around_them(mode: InputMode) -> None:
    with pytest.raises(ConfigError, match=r"context of 1\.5 is invalid"):
        InputSpec(mode, 64).wider(1.5)
    assert InputSpec(mode, 64).wider(1) == InputSpec(mode, 64)
    assert "context" not in InputSpec("crop", 64).settings()  # caches of before stay as they are
    assert InputSpec(**InputSpec("crop", 64).wider(1.5).settings()) == InputSpec(
        "crop", 96, context=1.5
    )


def test_blank_shows_the_lesion_alone() -> None:
    mask = lesion(Box(100, 50, 140, 70))
    crop = cut(scene(), mask, mode="blank", size=52, margin=0.15)
    assert crop.mode == "blank"
    shown = mask[34:86, 94:146]
    np.testing.assert_array_equal(crop.pixels[shown], scene()[34:86, 94:146][shown])
    assert not crop.pixels[~shown].any()


def test_the_blanked_edge_is_antialiased() -> None:
    white = np.full((400, 400, 3), 255, np.uint8)
    y, x = np.mgrid[0:400, 0:400]
    mask = (x - 200) ** 2 + (y - 200) ** 2 < 120**2
    levels = np.unique(cut(white, mask, mode="blank", size=64).pixels)
    assert len(levels) > 20
    assert {0, 255} <= set(levels.tolist())


@pytest.mark.parametrize("mode", ["crop", "blank"])
@pytest.mark.parametrize("mask", ["none", "empty", "speck", "everything"])
def test_without_a_believable_mask_the_fallback_is_recorded(mode: CropMode, mask: str) -> None:
    masks = {
        "none": None,
        "empty": np.zeros((HEIGHT, WIDTH), np.bool_),
        "speck": lesion(Box(10, 10, 15, 15)),
        "everything": np.ones((HEIGHT, WIDTH), np.bool_),
    }
    crop = cut(scene(), masks[mask], mode=mode, size=48)
    assert crop.mode == "full"
    full = cut(scene(), None, mode="full", size=48)
    np.testing.assert_array_equal(crop.pixels, full.pixels)
    assert crop.box == full.box


@pytest.mark.parametrize("mode", ["crop", "blank"])
def test_a_mask_of_another_size_means_the_same_place(mode: CropMode) -> None:
    small = lesion(Box(25, 10, 35, 20), 30, 45)
    large = lesion(Box(100, 40, 140, 80))
    squashed = lesion(Box(25, 20, 35, 40), 60, 45)  # another aspect ratio: a squashed frame
    expected = cut(scene(), large, mode=mode, size=40)
    for mask in (small, squashed):
        crop = cut(scene(), mask, mode=mode, size=40)
        assert crop.box == expected.box
        # The enlarged mask's edge is soft over one of its own pixels.
        assert np.abs(crop.pixels.astype(int) - expected.pixels).mean() < 6


def test_a_lesion_longer_than_the_shorter_side_is_shown_whole() -> None:
    mask = lesion(Box(10, 50, 170, 80))
    crop = cut(scene(), mask, mode="crop", size=160)
    assert crop.box == Box(10, -20, 170, 140)
    np.testing.assert_array_equal(crop.pixels[20:140], scene()[:, 10:170])
    np.testing.assert_array_equal(crop.pixels[19], scene()[1, 10:170])  # reflected
    blank = cut(scene(), mask, mode="blank", size=160)
    assert not blank.pixels[:20].any()
    assert not blank.pixels[140:].any()
    assert blank.pixels[20 + 65, 80].any()


@given(st.data())
def test_every_crop_is_a_square_of_the_asked_size(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(2, 50)), data.draw(st.integers(2, 50))
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    right, bottom = (
        data.draw(st.integers(left + 1, width)),
        data.draw(st.integers(top + 1, height)),
    )
    mask = lesion(Box(left, top, right, bottom), height, width)
    modes: tuple[CropMode, ...] = ("full", "crop", "blank")
    mode = data.draw(st.sampled_from(modes))
    crop = cut(scene(height, width), mask, mode=mode, size=16, margin=data.draw(st.floats(0, 1)))
    assert crop.pixels.shape == (16, 16, 3)
    assert crop.pixels.dtype == np.uint8
    assert crop.pixels.flags.c_contiguous
    assert crop.mode == (mode if plausible(mask) else "full")
    if crop.mode != "full":
        assert crop.box.left <= left
        assert crop.box.bottom >= bottom


def test_the_colour_of_the_lamp_goes() -> None:
    rng = np.random.default_rng(3)
    scene = rng.integers(20, 200, (40, 50, 1)) * np.ones(3)
    lit = (scene * np.array([1.2, 0.9, 0.6])).astype(np.uint8)
    corrected = shades_of_grey(lit).astype(float)
    assert np.ptp(lit.mean(axis=(0, 1))) > 60
    assert np.ptp(corrected.mean(axis=(0, 1))) < 1


@pytest.mark.parametrize("power", [1, 6])
def test_it_is_the_papers_formula(power: int) -> None:
    pixels = np.random.default_rng(5).integers(0, 160, (30, 20, 3)).astype(np.uint8)
    values = pixels.astype(float)
    light = (values**power).mean(axis=(0, 1)) ** (1 / power)
    expected = values / (light / np.linalg.norm(light) * np.sqrt(3))
    np.testing.assert_allclose(
        shades_of_grey(pixels, power), np.clip(np.rint(expected), 0, 255), atol=1e-9
    )


def test_grey_stays_and_black_is_left_alone() -> None:
    grey = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    np.testing.assert_array_equal(shades_of_grey(grey), grey)
    dark = np.zeros((4, 4, 3), np.uint8)
    dark[:, :, 0] = 9
    result = shades_of_grey(dark)
    np.testing.assert_array_equal(result, dark)
    assert result is not dark
