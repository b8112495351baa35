"""Shortcut baselines: information is found where present, and only there."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score

from naevus.errors import DataError
from naevus.evaluation.shortcuts import (
    ShortcutScores,
    by_embeddings,
    by_metadata,
    colour_histogram,
    guess_by_colour,
)
from naevus.taxonomy import ISIC2018

CODES = ISIC2018.codes


def lesions(count: int = 240, seed: int = 0) -> tuple[list[str], list[str], np.ndarray]:
    """Return diagnoses, groups and class positions of three classes, two images per lesion."""
    classes = np.repeat(np.random.default_rng(seed).choice(3, count, p=(0.2, 0.6, 0.2)), 2)
    return [CODES[c] for c in classes], [f"g{n // 2}" for n in range(2 * count)], classes


def test_information_in_embeddings_is_found() -> None:
    truth, groups, classes = lesions()
    informative = np.random.default_rng(1).normal(size=(len(truth), 20))
    informative[np.arange(len(truth)), classes] += 2
    guessed = by_embeddings(informative, truth, groups, CODES)
    assert guessed.sum(axis=1) == pytest.approx(1)
    assert not guessed[:, 3:].any()
    predictions = np.array(CODES)[guessed.argmax(1)]
    assert balanced_accuracy_score(truth, predictions) > 0.7


def test_other_images_of_a_lesion_do_not_leak() -> None:
    # Both images of a lesion have the same random embedding, which is otherwise uninformative.
    truth, groups, _ = lesions()
    marks = np.repeat(np.random.default_rng(2).normal(size=(len(truth) // 2, 200)), 2, axis=0)
    by_lesion = by_embeddings(marks, truth, groups, CODES)
    alone = [f"p{n}" for n in range(len(truth))]
    by_image = by_embeddings(marks, truth, alone, CODES)
    found = [
        balanced_accuracy_score(truth, np.array(CODES)[guessed.argmax(1)])
        for guessed in (by_lesion, by_image)
    ]
    assert found[0] < 0.42
    assert found[1] > 0.6


def test_information_in_metadata_is_found_and_missing_values_are_allowed() -> None:
    truth, groups, classes = lesions()
    rng = np.random.default_rng(3)
    site = np.where(rng.random(len(truth)) < 0.8, classes, rng.integers(0, 3, len(truth)))
    records = pd.DataFrame(
        {
            "age": pd.Series(rng.integers(20, 80, len(truth)), dtype="Float64"),
            "sex": pd.Series(["male", None] * (len(truth) // 2), dtype="string"),
            "site": pd.Series(np.array(["back", "face", "foot"])[site], dtype="string"),
        }
    )
    records.loc[::7, "age"] = pd.NA
    parts = np.array([int(name[1:]) % 4 for name in groups])
    guessed = by_metadata(records, truth, parts, CODES)
    assert balanced_accuracy_score(truth, np.array(CODES)[guessed.argmax(1)]) > 0.6
    blind = by_metadata(records.assign(site=None), truth, parts, CODES)
    assert balanced_accuracy_score(truth, np.array(CODES)[blind.argmax(1)]) < 0.45


def test_baselines_are_scored_against_chance() -> None:
    truth, groups, classes = lesions()
    sure, blind = np.eye(7)[classes], np.full((len(truth), 7), 1 / 7)
    few = np.zeros(len(truth), bool)
    few[:50] = True
    scores = ShortcutScores.of(
        {"sure": sure, "blind": blind, "few": sure},
        truth,
        groups,
        ISIC2018,
        {"few": few},
    )
    one, other, part = scores.guesses
    assert scores.chance == pytest.approx(1 / 3)
    assert one.balanced_accuracy.value == 1
    assert other.balanced_accuracy.value == pytest.approx(scores.chance)
    assert other.mean_auc.value == 0.5
    assert other.melanoma is not None
    assert other.melanoma.groups == len(
        {g for g, t in zip(groups, truth, strict=True) if t == "MEL"}
    )
    assert (scores.groups, part.groups) == (240, 25)
    json.dumps(scores.to_dict(), allow_nan=False)


def test_a_subset_of_one_class_is_left_out() -> None:
    truth, groups, classes = lesions()
    found = ShortcutScores.of(
        {"all": np.eye(7)[classes], "naevi": np.eye(7)[classes]},
        truth,
        groups,
        ISIC2018,
        {"naevi": classes == 1},
    )
    assert [guess.source for guess in found.guesses] == ["all"]


def test_inputs_without_information_are_refused() -> None:
    truth, groups, classes = lesions(40)
    values = np.zeros((80, 4))
    values[3, 1] = np.nan
    with pytest.raises(DataError, match="not a finite number"):
        by_embeddings(values, truth, groups, CODES)
    with pytest.raises(DataError, match="9 lesions are too few"):
        by_embeddings(np.zeros((18, 4)), truth[:18], groups[:18], CODES)
    with pytest.raises(DataError, match="no age, sex or site"):
        by_metadata(pd.DataFrame({"age": [1]}), ["MEL"], np.array([0]), CODES)
    unknown = pd.DataFrame({"age": [np.nan] * 80, "sex": None, "site": None})
    with pytest.raises(DataError, match="no age, sex or site"):
        by_metadata(unknown, truth, np.arange(80) % 2, CODES)
    known = unknown.assign(age=50.0)
    with pytest.raises(DataError, match="two parts"):
        by_metadata(known, truth, np.zeros(80, int), CODES)
    with pytest.raises(DataError, match="the same diagnosis"):
        ShortcutScores.of({"a": np.eye(7)[classes]}, ["MEL"] * 80, groups, ISIC2018)


Images = list[NDArray[np.uint8]]


def images(colour: tuple[int, int, int], count: int, seed: int) -> Images:
    rng = np.random.default_rng(seed)
    return [
        np.clip(rng.normal(colour, 12, (20, 30, 3)), 0, 255).astype(np.uint8) for _ in range(count)
    ]


def test_fractions_of_each_channel_sum_to_one() -> None:
    image = images((30, 128, 250), 1, 0)[0]
    class_priors = colour_histogram(image).reshape(3, 8)
    np.testing.assert_allclose(class_priors.sum(1), 1)
    assert class_priors.argmax(1).tolist() == [0, 4, 7] or class_priors.argmax(1).tolist() == [
        1,
        4,
        7,
    ]


def test_bins_are_thirty_two_levels_wide() -> None:
    image = np.zeros((1, 4, 3), np.uint8)
    image[0, :, 0] = [31, 32, 255, 255]
    class_priors = colour_histogram(image).reshape(3, 8)
    assert class_priors[0].tolist() == [0.25, 0.25, 0, 0, 0, 0, 0, 0.5]
    assert class_priors[1].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]


def test_the_colour_baseline_ignores_position() -> None:
    image = images((90, 60, 200), 1, 1)[0]
    pixels = image.reshape(-1, 3)
    mixed = np.random.default_rng(2).permutation(pixels).reshape(30, 20, 3)
    np.testing.assert_array_equal(colour_histogram(image), colour_histogram(mixed))


def test_different_colours_are_distinguished() -> None:
    red, blue = (200, 60, 60), (60, 60, 200)
    training = images(red, 20, 3) + images(blue, 4, 4)
    unseen = images(blue, 5, 5) + images(red, 5, 6)
    guesses = guess_by_colour(training, ["VASC"] * 20 + ["MEL"] * 4, unseen)
    assert guesses == ["MEL"] * 5 + ["VASC"] * 5


def test_rare_classes_are_weighted() -> None:
    """The rare class, a fifth of the images, is predicted often although the colours are equal."""
    training = images((120, 90, 90), 100, 7)
    diagnoses = ["NV"] * 80 + ["MEL"] * 20
    guesses = guess_by_colour(training, diagnoses, images((120, 90, 90), 100, 8))
    assert guesses.count("MEL") > 20


@pytest.mark.parametrize("side", [1, 7])
def test_the_colour_baseline_ignores_image_size(side: int) -> None:
    image = np.full((side, side, 3), 77, np.uint8)
    np.testing.assert_array_equal(
        colour_histogram(image), colour_histogram(np.full((9, 4, 3), 77, np.uint8))
    )
