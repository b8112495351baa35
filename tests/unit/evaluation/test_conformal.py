"""Prediction sets: nominal coverage in every class."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from naevus.errors import ConfigError, DataError
from naevus.evaluation.conformal import Conformal, SetScores, cross_fitted_sets, one_a_group
from naevus.evaluation.scaling import fit_scaling, scaled

CODES = ("MEL", "NV", "BCC")
Sample = tuple[NDArray[np.float64], NDArray[np.intp], list[str]]


def lesions(count: int, seed: int, images: int = 1) -> Sample:
    """Return lesions of three classes, the first rare, with several similar images each."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, count, p=[0.15, 0.6, 0.25])
    centre = rng.normal(0, 1, (count, 3)) + 1.5 * np.eye(3)[kind]
    logits = np.repeat(centre, images, axis=0)
    logits += rng.normal(0, 0.3, logits.shape)
    class_priors = np.exp(logits)
    natural = class_priors / class_priors.sum(axis=1, keepdims=True)
    groups = [f"lesion {number}" for number in np.repeat(np.arange(count), images)]
    return natural, np.repeat(kind, images), groups


def test_every_class_has_nominal_coverage() -> None:
    """The mean over calibrations is nominal, or higher if the most probable class is."""
    promised, held, right = 0.8, [], []
    for seed in range(300):
        conformal = Conformal.fit(*lesions(150, seed, images=2), CODES, coverage=promised)
        natural, truth, _ = lesions(400, 10_000 + seed)
        covered = conformal.sets(natural)[np.arange(400), truth]
        held.append([covered[truth == c].mean() for c in range(3)])
        answered = natural.argmax(axis=1) == truth
        right.append([answered[truth == c].mean() for c in range(3)])
    coverage, recall = np.mean(held, axis=0), np.mean(right, axis=0)
    assert (coverage >= promised - 0.01).all()  # three standard errors of the rare class
    most = np.maximum(promised, recall) + np.array([0.055, 0.03, 0.04])
    assert (coverage <= most).all()


@given(st.integers(0, 1000), st.floats(0.05, 0.98))
@settings(max_examples=40)
def test_the_most_probable_class_is_in_every_set(seed: int, coverage: float) -> None:
    conformal = Conformal.fit(*lesions(60, seed), CODES, coverage=coverage)
    unseen = lesions(50, seed + 1)[0]
    sets = conformal.sets(unseen)
    assert sets[np.arange(50), unseen.argmax(axis=1)].all()
    others = np.arange(3) != unseen.argmax(axis=1)[:, None]
    reached = unseen >= np.array(conformal.thresholds)
    assert np.array_equal(sets & others, reached & others)


@given(st.integers(1, 60), st.sampled_from([0.5, 0.8, 0.9, 0.95]), st.integers(0, 9))
def test_the_threshold_is_the_rank_th_largest_probability(
    n: int, coverage: float, seed: int
) -> None:
    """Compare with the definition: the rank is (n + 1) * coverage, rounded up."""
    own = np.random.default_rng(seed).random(n) / 2  # never the most probable class
    natural, groups = np.stack([own, 1 - own], axis=1), [str(number) for number in range(n)]
    conformal = Conformal.fit(natural, np.zeros(n, np.intp), groups, CODES[:2], coverage=coverage)
    enough = [s for s in 1 - own if (1 - own <= s).sum() >= (n + 1) * coverage - 1e-9]
    expected = 1 - min(enough) if enough else 0.0
    assert conformal.thresholds[0] == pytest.approx(expected)
    assert conformal.always == ((*CODES[:1], *CODES[1:2]) if not enough else CODES[1:2])


@settings(max_examples=40)
@given(
    st.integers(0, 1000),
    st.floats(0.05, 0.98),
    st.floats(0.05, 0.98),
)
def test_a_higher_coverage_never_removes_a_class(seed: int, one: float, other: float) -> None:
    sample, unseen = lesions(60, seed, images=2), lesions(50, seed + 1)[0]
    less, more = (
        Conformal.fit(*sample, CODES, coverage=coverage).sets(unseen)
        for coverage in sorted((one, other))
    )
    assert not (less & ~more).any()


def test_a_class_with_too_few_lesions_is_in_every_set_and_noted() -> None:
    natural = np.array([[0.9, 0.1]] * 9 + [[0.2, 0.8]] * 8)
    truth, groups = [0] * 9 + [1] * 8, [str(number) for number in range(17)]
    conformal = Conformal.fit(natural, truth, groups, ("MEL", "NV"))
    assert conformal.thresholds == (1.0, 0.0)  # MEL is always the most probable where it is true
    assert conformal.groups == (9, 8)
    assert conformal.notes == (
        "NV: in every set, because a threshold needs 9 lesions of the class",
    )
    assert conformal.sets(np.array([1.0, 0.0])).tolist() == [True, True]
    assert conformal.sets(np.array([0.49, 0.51])).tolist() == [False, True]
    eighteenth = Conformal.fit(
        np.append(natural, [[0.3, 0.7]], axis=0), [*truth, 1], [*groups, "18"], ("MEL", "NV")
    )
    assert eighteenth.notes == ()
    assert eighteenth.sets(np.array([0.5, 0.5])).tolist() == [True, False]


def test_images_of_one_lesion_count_once() -> None:
    natural, truth, groups = lesions(80, 3, images=4)
    conformal = Conformal.fit(natural, truth, groups, CODES)
    assert sum(conformal.groups) == 80
    drawn = one_a_group(groups)
    assert sorted(groups[n] for n in drawn) == sorted(set(groups))
    assert np.array_equal(drawn, one_a_group(groups))
    assert not np.array_equal(drawn, one_a_group(groups, seed=1))
    assert set(drawn % 4) == {0, 1, 2, 3}  # any of its images
    alone = Conformal.fit(natural[drawn], truth[drawn], [groups[n] for n in drawn], CODES)
    assert alone == conformal


def test_thresholds_survive_json() -> None:
    conformal = Conformal.fit(*lesions(40, 0), CODES, coverage=0.95)
    assert conformal.always == ("MEL", "BCC")
    assert Conformal.from_dict(json.loads(json.dumps(conformal.to_dict()))) == conformal


def test_impossible_settings_are_refused() -> None:
    natural, truth, groups = lesions(10, 0)
    with pytest.raises(ConfigError, match="not between 0 and 1"):
        Conformal.fit(natural, truth, groups, CODES, coverage=1.0)
    with pytest.raises(DataError, match="3 probabilities per image for 2 classes"):
        Conformal.fit(natural, truth, groups, CODES[:2])
    with pytest.raises(ConfigError, match="do not match"):
        Conformal(CODES, 0.9, (0.1, 0.2), (30, 30))
    with pytest.raises(ConfigError, match="not probabilities"):
        Conformal(CODES, 0.9, (0.1, 0.2, 1.1), (30, 30, 30))
    with pytest.raises(DataError, match="do not match 3 classes"):
        Conformal.fit(natural, truth, groups, CODES).sets(np.ones((5, 2)))
    with pytest.raises(DataError, match="do not match"):
        SetScores.from_sets(np.ones((10, 2), bool), truth, groups, CODES)


def test_thresholds_of_a_part_come_from_the_other_parts() -> None:
    natural, truth, groups = lesions(200, 5, images=2)
    parts = np.repeat(np.arange(200) % 2, 2)
    sets = cross_fitted_sets(natural, truth, groups, CODES, parts)
    rest, names = parts == 0, np.array(groups)
    warm = scaled(natural, fit_scaling(natural[rest], truth[rest]))
    conformal = Conformal.fit(warm[rest], truth[rest], names[rest].tolist(), CODES)
    np.testing.assert_array_equal(sets[~rest], conformal.sets(warm[~rest]))


def test_coverage_is_reported_by_lesion_and_by_image() -> None:
    # The three images of lesion a are not covered, the single images of b to d are.
    sets = np.array([[0, 1], [0, 1], [0, 0], [1, 1], [1, 0], [1, 1]], bool)
    truth, groups = [0, 0, 0, 0, 0, 1], ["a", "a", "a", "b", "c", "d"]
    scores = SetScores.from_sets(sets, truth, groups, ("MEL", "NV"))
    assert (scores.overall.lesions.value, scores.overall.lesions.groups) == (0.75, 4)
    assert scores.overall.images.value == 0.5
    assert scores.overall.size == pytest.approx(7 / 6)
    assert scores.single == 0.5
    assert scores.classes["MEL"].lesions.value == pytest.approx(2 / 3)
    assert scores.classes["NV"].images.value == 1
    assert json.loads(json.dumps(scores.to_dict()))["classes"]["NV"]["size"]["value"] == 2
    assert "sets at 90%: one class in 50.0%" in str(scores)
    only = SetScores.from_sets(sets[:5], truth[:5], groups[:5], ("MEL", "NV"))
    assert list(only.classes) == ["MEL"]
