"""Paired comparisons: as an exact enumeration, SciPy and a plain reading have them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, permutation_test

from naevus.errors import DataError
from naevus.evaluation.comparison import Difference, mcnemar, paired_difference, swap_test
from naevus.evaluation.intervals import Interval, mean_interval


def ones(values: np.ndarray) -> np.ndarray:
    return np.ones_like(values, dtype=float)


def test_a_difference_is_the_mean_of_differences() -> None:
    chance = np.random.default_rng(0)
    a, b = chance.random((2, 80, 1))
    groups = [f"g{number // 2}" for number in range(80)]
    found = paired_difference("Jaccard", a, b, ones(a), groups)
    assert found.a == pytest.approx(a.mean())
    assert found.b == pytest.approx(b.mean())
    assert found.difference == pytest.approx(mean_interval((b - a)[:, 0], groups))
    assert found.groups == 40


def test_what_both_share_does_not_widen_the_interval() -> None:
    chance = np.random.default_rng(1)
    hard = chance.normal(size=(200, 1))
    found = paired_difference("x", hard, hard + 0.1, ones(hard), np.arange(200).tolist())
    assert found.difference == pytest.approx((0.1, 0.1, 0.1))
    assert found.told_apart


def test_swapping_agrees_with_all_arrangements() -> None:
    chance = np.random.default_rng(2)
    differences = chance.normal(0.5, size=20)
    groups = np.repeat(np.arange(10), 2)
    sums = differences.reshape(10, 2).sum(axis=1)
    every = [abs(np.dot(signs, sums)) for signs in product((-1, 1), repeat=10)]
    exact = np.mean(np.array(every) >= abs(sums.sum()) - 1e-9)
    found = swap_test(differences, groups.tolist(), permutations=20_000)
    assert found == pytest.approx(exact, abs=0.01)


def test_swapping_single_pictures_agrees_with_scipy() -> None:
    chance = np.random.default_rng(3)
    a, b = chance.random(60), chance.random(60) + 0.08
    theirs = permutation_test(
        (b, a),
        lambda one, other, axis: np.mean(one - other, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        rng=np.random.default_rng(4),
    ).pvalue
    assert swap_test(b - a, np.arange(60).tolist()) == pytest.approx(theirs, abs=0.02)


def test_the_same_answers_cannot_be_told_apart() -> None:
    values = np.random.default_rng(5).random((30, 1))
    found = paired_difference("x", values, values, ones(values), ["a", "b"] * 15)
    assert found.p == 1
    assert tuple(found.difference) == (0, 0, 0)
    assert not found.told_apart


def test_p_is_even_where_nothing_differs() -> None:
    chance = np.random.default_rng(6)
    groups = np.repeat(np.arange(40), 3).tolist()
    found = [
        swap_test(np.repeat(chance.normal(size=40), 3), groups, permutations=199)
        for _ in range(400)
    ]
    assert 0.02 < np.mean(np.array(found) <= 0.05) < 0.08
    # As if pictures were independent, copies would pass for evidence.
    alone = [
        swap_test(np.repeat(chance.normal(size=40), 3), list(range(120)), permutations=199)
        for _ in range(400)
    ]
    assert np.mean(np.array(alone) <= 0.05) > 0.15


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_a_fair_coin(pictures: list[tuple[bool, bool]]) -> None:
    a, b = (np.array(column) for column in zip(*pictures, strict=True))
    found = mcnemar(a, b, list(range(len(a))))
    assert found.only_a == sum(one and not other for one, other in pictures)
    assert found.only_b == sum(other and not one for one, other in pictures)
    if found.only_a + found.only_b:
        theirs = binomtest(found.only_a, found.only_a + found.only_b).pvalue
        assert found.p == pytest.approx(theirs)
    else:
        assert found.p == 1


def test_mcnemar_takes_one_picture_a_group() -> None:
    a = np.array([True, True, False, True])
    found = mcnemar(a, ~a, ["x", "x", "y", "y"])
    assert found == (2, 1, 1, 1)


def test_sentences_say_what_the_interval_says() -> None:
    better = Difference("accuracy", 0.8, 0.818, Interval(0.018, 0.006, 0.031), 0.01, 7469)
    assert better.sentence() == (
        "accuracy: B is better by 1.8 points, 95 % interval 0.6 to 3.1, 7,469 lesions"
    )
    worse = better._replace(difference=Interval(-0.018, -0.031, -0.006))
    assert worse.sentence("old", "new") == (
        "accuracy: old is better by 1.8 points, 95 % interval 0.6 to 3.1, 7,469 lesions"
    )
    unsure = better._replace(difference=Interval(0.018, -0.002, 0.031), groups=1)
    assert unsure.sentence() == (
        "accuracy: the data cannot tell A and B apart: B - A is 1.8 points, "
        "95 % interval -0.2 to 3.1, 1 lesion"
    )
    assert better.to_dict()["difference"] == {"value": 0.018, "low": 0.006, "high": 0.031}


def test_what_is_not_a_number_is_refused() -> None:
    with pytest.raises(DataError, match="not a number"):
        paired_difference("x", [[np.nan]], [[1.0]], [[1.0]], ["a"])
    with pytest.raises(DataError, match="no group"):
        swap_test([1.0], [None])
