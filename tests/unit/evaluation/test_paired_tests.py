"""Paired differences: intervals and p values, compared with exact tests and SciPy."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, permutation_test, ttest_1samp

from naevus.errors import DataError
from naevus.evaluation.comparison import compare
from naevus.evaluation.intervals import Interval
from naevus.evaluation.paired_tests import Difference, mcnemar, paired_difference, swap_test
from tests.helpers.tables import diagnoses, masks


def ones(values: np.ndarray) -> np.ndarray:
    return np.ones_like(values, dtype=float)


def test_a_difference_is_the_mean_of_differences() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 80, 1))
    groups = [f"g{number // 2}" for number in range(80)]
    found = paired_difference("Jaccard", a, b, ones(a), groups)
    assert found.a == pytest.approx(a.mean())
    assert found.b == pytest.approx(b.mean())
    assert found.difference.value == pytest.approx((b - a).mean())
    # The means of 40 lesions are about normal.
    means = (b - a)[:, 0].reshape(40, 2).mean(axis=1)
    theirs = ttest_1samp(means, 0).confidence_interval()
    width = theirs.high - theirs.low
    assert found.difference.low == pytest.approx(theirs.low, abs=0.05 * width)
    assert found.difference.high == pytest.approx(theirs.high, abs=0.05 * width)
    assert found.groups == 40


def test_shared_variation_does_not_widen_the_interval() -> None:
    rng = np.random.default_rng(1)
    hard, groups = rng.normal(size=(200, 1)), np.arange(200).tolist()
    own = 0.1 + 0.01 * rng.normal(size=(200, 1))
    found = paired_difference("x", hard, hard + own, ones(hard), groups)
    assert found.difference.low == pytest.approx(0.1, abs=0.005)
    assert found.difference.high == pytest.approx(0.1, abs=0.005)
    assert found.distinguishable
    same = paired_difference("x", hard, hard + 0.1, ones(hard), groups)
    assert (same.difference.known, same.distinguishable) == (False, True)


@given(st.integers(0, 500), st.integers(2, 14), st.integers(1, 12), st.floats(-0.6, 0.6))
@settings(deadline=None, max_examples=60)
def test_interval_and_p_never_contradict_each_other(
    seed: int, lesions: int, tests: int, shift: float
) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, 2 * lesions, 1))
    b = b + shift
    groups = (np.arange(2 * lesions) // 2).tolist()
    found = paired_difference("x", a, b, ones(a), groups, tests=tests)
    assert found.p <= 1
    if found.difference.known:
        inside = found.difference.low <= 0 <= found.difference.high
        assert inside != found.distinguishable
    else:
        assert not found.distinguishable  # fewer arrangements than the correction needs
    sentence = found.sentence()
    assert ("is better by" in sentence) == found.distinguishable
    assert ("interval" in sentence) == found.difference.known


def test_few_differing_lesions_decide_nothing() -> None:
    a, b = np.zeros((12, 1)), np.zeros((12, 1))
    b[:4] = 1  # four of four for B: one of sixteen arrangements, and as much on the other side
    found = paired_difference("x", a, b, ones(a), list(range(12)))
    assert found.p == pytest.approx(2 / 16, abs=0.02)
    assert not found.distinguishable
    alone = paired_difference("x", a[:4], b[:4], ones(a[:4]), list(range(4)))
    assert not alone.difference.known


def test_differences_are_covered_as_often_as_promised() -> None:
    rng = np.random.default_rng(9)
    covered = []
    for _ in range(200):
        ours, theirs = (rng.random((2, 40)) < [[0.6], [0.75]]).astype(float)
        found = paired_difference(
            "x", ours[:, None], theirs[:, None], np.ones((40, 1)), list(range(40))
        )
        covered.append(found.difference.low <= 0.15 <= found.difference.high)
    assert 0.91 <= np.mean(covered) <= 0.99


def test_more_tests_make_wider_intervals_and_larger_p() -> None:
    a, b = masks(), masks(-0.03)
    b["jaccard"] += np.random.default_rng(0).normal(0, 0.05, 100)
    one, other = (compare(a, b, corrected=corrected).differences[1] for corrected in (False, True))
    assert (one.tests, other.tests) == (1, 2)
    assert other.p == pytest.approx(min(1, 2 * one.p))
    assert other.difference.low < one.difference.low < one.difference.high
    assert one.difference.high < other.difference.high
    found = compare(diagnoses(), diagnoses(seed=3))
    assert {each.tests for each in (*found.differences, *found.recalls)} == {3 + 3}


def test_the_swap_test_equals_the_exact_test() -> None:
    rng = np.random.default_rng(2)
    differences = rng.normal(0.5, size=20)
    groups = np.repeat(np.arange(10), 2)
    sums = differences.reshape(10, 2).sum(axis=1)
    every = [abs(np.dot(signs, sums)) for signs in product((-1, 1), repeat=10)]
    exact = np.mean(np.array(every) >= abs(sums.sum()) - 1e-9)
    found = swap_test(differences, groups.tolist(), permutations=20_000)
    assert found == pytest.approx(exact, abs=0.01)


def test_the_swap_test_of_single_images_equals_scipy() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random(60), rng.random(60) + 0.08
    theirs = permutation_test(
        (b, a),
        lambda one, other, axis: np.mean(one - other, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        rng=np.random.default_rng(4),
    ).pvalue
    assert swap_test(b - a, np.arange(60).tolist()) == pytest.approx(theirs, abs=0.02)


def test_equal_predictions_do_not_differ() -> None:
    values = np.random.default_rng(5).random((30, 1))
    found = paired_difference("x", values, values, ones(values), ["a", "b"] * 15)
    assert found.p == 1
    assert (found.difference.value, found.difference.known) == (0, False)
    assert not found.distinguishable


def test_p_is_uniform_under_the_null_hypothesis() -> None:
    rng = np.random.default_rng(6)
    groups = np.repeat(np.arange(40), 3).tolist()
    found = [
        swap_test(np.repeat(rng.normal(size=40), 3), groups, permutations=199) for _ in range(400)
    ]
    assert 0.02 < np.mean(np.array(found) <= 0.05) < 0.08
    # If images were treated as independent, copies would count as evidence.
    alone = [
        swap_test(np.repeat(rng.normal(size=40), 3), list(range(120)), permutations=199)
        for _ in range(400)
    ]
    assert np.mean(np.array(alone) <= 0.05) > 0.15


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_equals_a_binomial_test(images: list[tuple[bool, bool]]) -> None:
    a, b = (np.array(column) for column in zip(*images, strict=True))
    found = mcnemar(a, b, list(range(len(a))))
    assert found.only_a == sum(one and not other for one, other in images)
    assert found.only_b == sum(other and not one for one, other in images)
    if found.only_a + found.only_b:
        theirs = binomtest(found.only_a, found.only_a + found.only_b).pvalue
        assert found.p == pytest.approx(theirs)
    else:
        assert found.p == 1


def test_mcnemar_uses_one_image_per_group() -> None:
    a = np.array([True, True, False, True])
    found = mcnemar(a, ~a, ["x", "x", "y", "y"])
    assert found == (2, 1, 1, 1)


def test_sentences_agree_with_p() -> None:
    better = Difference("accuracy", 0.8, 0.818, Interval(0.018, 0.006, 0.031), 0.01, 7469)
    assert better.sentence() == (
        "accuracy: B is better by 1.8 points, 95 % interval 0.6 to 3.1, 7,469 lesions"
    )
    worse = better._replace(difference=Interval(-0.018, -0.031, -0.006))
    assert worse.sentence("old", "new") == (
        "accuracy: old is better by 1.8 points, 95 % interval 0.6 to 3.1, 7,469 lesions"
    )
    unsure = better._replace(difference=Interval(0.018, -0.002, 0.031), p=0.07, groups=1)
    assert unsure.sentence() == (
        "accuracy: no clear difference between A and B: B - A is 1.8 points, "
        "95 % interval -0.2 to 3.1, 1 lesion"
    )
    small = worse._replace(difference=Interval(-0.0003, -0.0005, -0.0001))
    assert "A is better by 0.03 points, 95 % interval 0.01 to 0.05" in small.sentence()
    none = unsure._replace(difference=Interval(0.0003, -0.0002, 0.0005))
    assert "B - A is 0.0 points, 95 % interval 0.0 to 0.1" in none.sentence()
    blank = unsure._replace(difference=Interval(0.018, np.nan, np.nan))
    assert blank.sentence().endswith("B - A is 1.8 points, 1 lesion")
    assert better.to_dict()["difference"] == {"value": 0.018, "low": 0.006, "high": 0.031}


def test_non_finite_values_are_refused() -> None:
    with pytest.raises(DataError, match="not a finite number"):
        paired_difference("x", [[np.nan]], [[1.0]], [[1.0]], ["a"])
    with pytest.raises(DataError, match="no group"):
        swap_test([1.0], [None])
