"""Augmentation: the same random state gives the same image; masks move with their images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from naevus.images.geometry import resize
from naevus.runs.recipe_tables import AugmentSettings
from naevus.training.augment import Augmentation, rng_for

STILL = AugmentSettings(
    d4=False,
    rotation=0,
    scale=0,
    shift=0,
    stretch=1,
    brightness=0,
    contrast=0,
    saturation=0,
    hue=0,
    blur=0,
    sharpen=0,
    jpeg=0,
    hair=0,
)
WARPED = STILL.model_copy(
    update={"d4": True, "rotation": 180, "scale": 0.2, "shift": 0.05, "stretch": 1.5}
)


def image(side: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)


def disc(side: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Return a bright ellipse off the middle, and its mask."""
    y, x = np.mgrid[:side, :side] / side
    mask = ((x - 0.4) / 0.25) ** 2 + ((y - 0.55) / 0.15) ** 2 < 1
    pixels = np.where(mask[..., None], 230, 20).astype(np.uint8).repeat(3, axis=2)
    return pixels, mask.astype(np.uint8) * 255


def test_without_augmentation_images_are_unchanged() -> None:
    pixels = image()
    mask = pixels[..., 0].copy()
    varied, moved = Augmentation(STILL)(pixels, mask, 64, rng_for(1, 0, "a"))
    np.testing.assert_array_equal(varied, pixels)
    assert moved is not None
    np.testing.assert_array_equal(moved, mask)


def test_depends_on_seed_epoch_and_id_alone() -> None:
    vary = Augmentation(AugmentSettings(hair=1, jpeg=1))
    pixels = image()

    def varied(seed: int, epoch: int, image_id: str) -> bytes:
        return vary(pixels, None, 48, rng_for(seed, epoch, image_id))[0].tobytes()

    first = varied(1, 2, "a")
    varied(9, 9, "z")
    assert varied(1, 2, "a") == first
    others = {varied(2, 2, "a"), varied(1, 3, "a"), varied(1, 2, "b")}
    assert first not in others
    assert len(others) == 3


@given(st.integers(0, 10_000), st.sampled_from([48, 96, 128]))
def test_masks_follow_their_images(epoch: int, size: int) -> None:
    pixels, mask = disc()
    varied, moved = Augmentation(WARPED)(pixels, mask, size, rng_for(0, epoch, "x"))
    assert moved is not None
    assert varied.shape == (size, size, 3)
    assert moved.shape == (size, size)
    bright = varied[..., 0].astype(float) / 210 * 255 - 20 / 210 * 255
    assert np.abs(bright - moved).max() <= 3  # the same warp of the same shape


@given(st.integers(0, 10_000))
def test_masks_of_another_size_land_in_the_same_place(epoch: int) -> None:
    pixels, mask = disc(96)
    _, small_mask = disc(48)
    vary = Augmentation(WARPED)
    moved = vary(pixels, mask, 96, rng_for(0, epoch, "x"))[1]
    other = vary(pixels, small_mask, 96, rng_for(0, epoch, "x"))[1]
    assert moved is not None
    assert other is not None
    differing = np.mean((moved > 127) != (other > 127))
    assert differing < 0.03


@pytest.mark.parametrize(("pixels", "masks"), [(96, 48), (48, 96), (90, 30), (64, 256)])
def test_masks_of_another_size_are_not_half_a_pixel_off(pixels: int, masks: int) -> None:
    """Compare equal horizontal ramps in the image and its mask after augmentation."""
    ramps = [
        np.round((np.arange(side) + 0.5) / side * 255)[None].repeat(side, 0).astype(np.uint8)
        for side in (pixels, masks)
    ]
    image_of_ramp = ramps[0][..., None].repeat(3, 2)
    varied, moved = Augmentation(STILL)(image_of_ramp, ramps[1], 32, rng_for(1, 0, "a"))
    assert moved is not None
    off = moved[:, 2:-2].astype(float) - varied[:, 2:-2, 0]  # beyond the border it is mirrored
    assert abs(off.mean()) < 0.75  # it was off by more than a grey level


def test_quarter_turns_are_exact() -> None:
    recipe = STILL.model_copy(update={"d4": True})
    pixels = image(32)
    transforms = {
        np.rot90(side, turns).tobytes() for side in (pixels, pixels[:, ::-1]) for turns in range(4)
    }
    seen = {
        Augmentation(recipe)(pixels, None, 32, rng_for(0, epoch, "x"))[0].tobytes()
        for epoch in range(60)
    }
    assert seen == transforms


@pytest.mark.parametrize("change", ["brightness", "contrast", "saturation", "hue", "jpeg", "hair"])
def test_every_augmentation_changes_the_image(change: str) -> None:
    recipe = STILL.model_copy(update={change: 30 if change == "hue" else 0.9})
    pixels = image()
    vary = Augmentation(recipe)
    assert any(
        not np.array_equal(vary(pixels, None, 64, rng_for(0, epoch, "x"))[0], pixels)
        for epoch in range(5)
    )


def test_blur_and_sharpening_move_sharpness_both_ways() -> None:
    pixels, _ = disc(64)

    def edges(array: np.ndarray) -> float:
        return float(np.abs(np.diff(array.astype(float), axis=0)).max())

    recipe = STILL.model_copy(update={"blur": 1.5, "sharpen": 1.5})
    values = [
        edges(Augmentation(recipe)(pixels, None, 64, rng_for(0, epoch, "x"))[0])
        for epoch in range(30)
    ]
    assert min(values) < edges(pixels) < max(values)


@pytest.mark.parametrize("side", [256, 224])
def test_stripes_that_are_too_fine_become_grey_without_moire(side: int) -> None:
    """Stripes of three pixels, shrunk to half, have almost no contrast left if averaged."""
    stripes = np.where(np.arange(side) % 3 == 0, 255, 0).astype(np.uint8)
    pixels = np.broadcast_to(stripes[None, :, None], (side, side, 3)).copy()
    warped = STILL.model_copy(update={"rotation": 180, "scale": 0.2})
    contrast = {
        averages: np.mean(
            [
                Augmentation(warped.model_copy(update={"area_average": averages}))(
                    pixels, None, side // 2, rng_for(0, epoch, "x")
                )[0].std()
                for epoch in range(20)
            ]
        )
        for averages in (False, True)
    }
    assert contrast[False] > 50
    assert contrast[True] < 0.55 * contrast[False]


@pytest.mark.parametrize(("side", "size"), [(256, 128), (192, 64), (250, 125)])
def test_shrinking_by_whole_numbers_equals_prediction_s_resizing(side: int, size: int) -> None:
    pixels = image(side)
    mask = disc(side)[1]
    vary = Augmentation(STILL.model_copy(update={"area_average": True}))
    varied, moved = vary(pixels, mask, size, rng_for(1, 0, "a"))
    assert np.abs(varied.astype(int) - resize(pixels, size, size)).max() <= 1
    assert moved is not None
    assert np.abs(moved.astype(int) - resize(mask, size, size)).max() <= 1


@given(st.integers(0, 10_000))
def test_averaging_does_not_shift_the_image(epoch: int) -> None:
    """Compare averaging and sampling of a smooth ramp, with the same rotation and zoom."""
    ramp = np.linspace(0, 255, 200).round().astype(np.uint8)
    pixels = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], ramp[::-1, None]), -1)
    one, other = (
        Augmentation(WARPED.model_copy(update={"area_average": averages}))(
            np.ascontiguousarray(pixels), None, 90, rng_for(0, epoch, "x")
        )[0].astype(int)
        for averages in (False, True)
    )
    assert np.abs((one - other).mean((0, 1))).max() < 0.6  # a third of a pixel would be 0.9
    assert np.quantile(np.abs(one - other), 0.95) <= 2


def test_enlarged_images_are_sampled_as_before() -> None:
    pixels = image(64)
    one, other = (
        Augmentation(STILL.model_copy(update={"area_average": averages, "scale": 0.2}))(
            pixels, None, 96, rng_for(0, 1, "x")
        )[0]
        for averages in (False, True)
    )
    np.testing.assert_array_equal(one, other)
