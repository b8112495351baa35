"""The colour baseline: it sees colours, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from naevus.evaluation.shortcuts import colour_histogram, guess_by_colour

Pictures = list[NDArray[np.uint8]]


def pictures(colour: tuple[int, int, int], count: int, seed: int) -> Pictures:
    chance = np.random.default_rng(seed)
    return [
        np.clip(chance.normal(colour, 12, (20, 30, 3)), 0, 255).astype(np.uint8)
        for _ in range(count)
    ]


def test_shares_of_each_channel_sum_to_one() -> None:
    picture = pictures((30, 128, 250), 1, 0)[0]
    shares = colour_histogram(picture).reshape(3, 8)
    np.testing.assert_allclose(shares.sum(1), 1)
    assert shares.argmax(1).tolist() == [0, 4, 7] or shares.argmax(1).tolist() == [1, 4, 7]


def test_bins_are_thirty_two_levels_wide() -> None:
    picture = np.zeros((1, 4, 3), np.uint8)
    picture[0, :, 0] = [31, 32, 255, 255]
    shares = colour_histogram(picture).reshape(3, 8)
    assert shares[0].tolist() == [0.25, 0.25, 0, 0, 0, 0, 0, 0.5]
    assert shares[1].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]


def test_places_do_not_count() -> None:
    picture = pictures((90, 60, 200), 1, 1)[0]
    pixels = picture.reshape(-1, 3)
    mixed = np.random.default_rng(2).permutation(pixels).reshape(30, 20, 3)
    np.testing.assert_array_equal(colour_histogram(picture), colour_histogram(mixed))


def test_colours_that_differ_are_told_apart() -> None:
    red, blue = (200, 60, 60), (60, 60, 200)
    training = pictures(red, 20, 3) + pictures(blue, 4, 4)
    unseen = pictures(blue, 5, 5) + pictures(red, 5, 6)
    guesses = guess_by_colour(training, ["VASC"] * 20 + ["MEL"] * 4, unseen)
    assert guesses == ["MEL"] * 5 + ["VASC"] * 5


def test_rare_diagnoses_are_not_drowned() -> None:
    """Of colours alike in both, a fifth are of the rare class, which is still guessed often."""
    training = pictures((120, 90, 90), 100, 7)
    diagnoses = ["NV"] * 80 + ["MEL"] * 20
    guesses = guess_by_colour(training, diagnoses, pictures((120, 90, 90), 100, 8))
    assert guesses.count("MEL") > 20


@pytest.mark.parametrize("side", [1, 7])
def test_size_does_not_count(side: int) -> None:
    picture = np.full((side, side, 3), 77, np.uint8)
    np.testing.assert_array_equal(
        colour_histogram(picture), colour_histogram(np.full((9, 4, 3), 77, np.uint8))
    )
