"""Colour constancy."""

from __future__ import annotations

import numpy as np
import pytest

from naevus.images.preprocess import shades_of_grey


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
