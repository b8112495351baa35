"""Weighted statistics are scikit-learn's, for many weightings at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import recall_score, roc_auc_score, roc_curve

from naevus.errors import DataError
from naevus.evaluation.bootstrap import Ranking, means_of, ratios_of
from naevus.evaluation.intervals import weighted_intervals

PICTURES = st.lists(
    st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 3)), min_size=2, max_size=40
)


@given(PICTURES)
def test_the_area_is_scikit_learn_s_with_ties_and_weights(
    pictures: list[tuple[bool, int, int]],
) -> None:
    truth, scores, weights = (np.array(column) for column in zip(*pictures, strict=True))
    both = np.stack([weights.astype(float), np.ones(len(truth))])
    found = Ranking.of(truth, scores).auc(both)[:, 0]
    for weight, value in zip(both, found, strict=True):
        sides = truth[weight > 0]
        if len(set(sides.tolist())) < 2:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(roc_auc_score(truth, scores, sample_weight=weight))


def test_the_curve_is_scikit_learn_s() -> None:
    chance = np.random.default_rng(0)
    truth, scores = chance.random(60) < 0.3, np.round(chance.random(60), 1)
    weights = chance.integers(1, 4, (1, 60)).astype(float)
    ranking = Ranking.of(truth, scores)
    sensitivity, false_positive = ranking.curve(weights)
    theirs = roc_curve(truth, scores, sample_weight=weights[0], drop_intermediate=False)
    np.testing.assert_allclose(false_positive[0], theirs[0])
    np.testing.assert_allclose(sensitivity[0], theirs[1])
    np.testing.assert_allclose(ranking.thresholds, theirs[2][1:])


def test_constant_scores_tell_nothing_apart() -> None:
    ranking = Ranking.of([True, False, False], [0.3, 0.3, 0.3])
    assert ranking.auc(np.ones((1, 3))) == pytest.approx(0.5)


def test_recalls_are_ratios() -> None:
    chance = np.random.default_rng(1)
    truth, answers = chance.integers(0, 3, 50), chance.integers(0, 3, 50)
    weights = chance.integers(0, 3, (4, 50)).astype(float)
    member = truth[:, None] == np.arange(4)  # class 3 is absent
    found = ratios_of(member & (answers == truth)[:, None], member)(weights)
    for row, weight in zip(found, weights, strict=True):
        theirs = recall_score(truth, answers, average=None, sample_weight=weight)
        np.testing.assert_allclose(row[:3], theirs)
        assert np.isnan(row[3])


def test_any_statistic_gets_its_intervals() -> None:
    chance = np.random.default_rng(2)
    truth = np.repeat([True, False], 100)
    scores = truth + chance.normal(size=200)
    groups = np.repeat(np.arange(100), 2).tolist()
    (auc,) = weighted_intervals(Ranking.of(truth, scores).auc, groups, truth.tolist())
    assert auc.value == pytest.approx(roc_auc_score(truth, scores))
    # Hanley & McNeil 1982: about 0.03 here
    assert 0.08 < auc.high - auc.low < 0.18
    assert auc.low < auc.value < auc.high
    mean, undefined = weighted_intervals(
        ratios_of(np.stack([scores, scores], 1), np.stack([np.ones(200), np.zeros(200)], 1)), groups
    )
    assert mean.low < mean.value < mean.high
    assert np.isnan(undefined).all()


def test_what_is_not_a_number_is_refused() -> None:
    with pytest.raises(DataError, match="not a number"):
        Ranking.of([True, False], [0.1, np.nan])
    with pytest.raises(DataError, match="values of 1 pictures for 2"):
        Ranking.of([True, False], [0.1])
    with pytest.raises(DataError, match="no picture"):
        Ranking.of([], [])
    with pytest.raises(DataError, match="not a number"):
        means_of([[np.inf]])
