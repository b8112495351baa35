"""Resampling of whole groups within strata, with weights instead of copies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import recall_score, roc_auc_score, roc_curve
from threadpoolctl import threadpool_info

from naevus.errors import DataError
from naevus.evaluation import bootstrap as bootstrap_module
from naevus.evaluation.bootstrap import (
    Groups,
    Ranking,
    bootstrap,
    means_of,
    ratios_of,
    repeatable,
)
from naevus.evaluation.classification import headline_intervals
from naevus.evaluation.comparison import compare
from naevus.evaluation.ensemble_selection import ensemble_scores
from naevus.evaluation.evaluate import ClassificationEvaluation
from naevus.evaluation.intervals import weighted_intervals
from naevus.evaluation.ood import OODStatistics
from naevus.evaluation.segmentation import SegmentationEvaluation
from naevus.evaluation.shortcuts import ShortcutScores, by_embeddings, by_metadata
from naevus.runs.evidence import classification

if TYPE_CHECKING:
    from collections.abc import Callable


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(1, 120))
def test_draws_keep_the_number_of_groups_per_stratum(names: list[int], draws: int) -> None:
    strata = [name % 2 for name in names]
    groups = Groups.of(names, strata)
    counts = np.concatenate(list(groups.drawn(draws, seed=1)))
    assert counts.shape == (draws, len(set(names))) == (draws, len(groups))
    for members in groups.strata:
        assert (counts[:, members].sum(axis=1) == len(members)).all()


@given(st.permutations(range(9)))
def test_a_group_of_several_strata_is_in_the_rarest_whatever_the_order(order: list[int]) -> None:
    names = ["a", "a", "a", "b", "b", "c", "d", "e", "e"]
    labels = ["NV", "NV", "MEL", "MEL", "NV", "NV", "NV", "DF", "BCC"]  # of e both are as rare
    names, labels = [names[place] for place in order], [labels[place] for place in order]
    groups = Groups.of(names, labels)
    of_group = dict(zip(groups.codes.tolist(), names, strict=True))
    found = {frozenset(of_group[int(each)] for each in members) for members in groups.strata}
    assert found == {frozenset("ab"), frozenset("cd"), frozenset("e")}


@given(st.permutations(["BCC", "DF"]))
def test_ties_between_strata_are_broken_by_their_names(labels: list[str]) -> None:
    alone = Groups.of(["a", "a", "b", "c"], [*labels, "BCC", "DF"])
    assert sorted(map(len, alone.strata)) == [1, 2]
    both = next(members for members in alone.strata if len(members) == 2)
    assert both.tolist() == [0, 1]  # a joins b, of BCC


def test_groups_are_drawn_with_equal_frequency() -> None:
    groups = Groups.of(["a", "b", "b", "c", "d"])
    counts = np.concatenate(list(groups.drawn(4000)))
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.05)
    np.testing.assert_allclose(counts.var(axis=0), 3 / 4, atol=0.05)  # multinomial: 4 * 1/4 * 3/4


def test_weights_equal_copies_of_images() -> None:
    rng = np.random.default_rng(0)
    values, names = rng.normal(size=(20, 2)), rng.integers(0, 7, 20).tolist()
    groups = Groups.of(names)
    found = bootstrap(means_of(values), groups, draws=30, seed=3)
    counts = np.concatenate(list(groups.drawn(30, seed=3)))
    copied = [values[np.repeat(np.arange(20), row[groups.codes].astype(int))] for row in counts]
    np.testing.assert_allclose(found, [pile.mean(axis=0) for pile in copied])


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-10, 10)), min_size=1, max_size=25))
def test_sums_over_groups_equal_sums_over_images(rows: list[tuple[int, float]]) -> None:
    names, values = zip(*rows, strict=True)
    groups = Groups.of(names)
    sums = groups.sums(values)
    for group, name in enumerate(dict.fromkeys(names)):
        inside = [value for other, value in rows if other == name]
        assert sums[group] == pytest.approx(sum(inside), abs=1e-9)
        assert groups.sizes[group] == len(inside)


@pytest.mark.parametrize("draws", [1, 100, 250])
def test_draws_too_many_to_keep_are_the_same(monkeypatch: pytest.MonkeyPatch, draws: int) -> None:
    groups = Groups.of(range(30), [n % 3 for n in range(30)])
    kept = list(groups.drawn(draws, 3))
    monkeypatch.setattr(bootstrap_module, "_KEPT", 0)
    again = list(groups.drawn(draws, 3))
    assert [each.shape for each in kept] == [each.shape for each in again]
    np.testing.assert_array_equal(np.concatenate(kept), np.concatenate(again))


def test_kept_draws_do_not_change_with_their_use() -> None:
    groups = Groups.of(range(30))
    first = next(groups.drawn(20))
    first[:] = -1
    assert next(groups.drawn(20)).min() >= 0
    assert not np.array_equal(next(groups.drawn(20)), next(Groups.of(range(31)).drawn(20))[:, :30])


def test_equal_seeds_give_equal_draws() -> None:
    groups = Groups.of(range(10))
    one, same, other = (next(groups.drawn(5, seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_input_that_cannot_be_resampled_is_refused() -> None:
    with pytest.raises(DataError, match="there are no images"):
        Groups.of([])
    with pytest.raises(DataError, match="1 images have no group"):
        Groups.of(["a", None])
    with pytest.raises(DataError, match="have no stratum"):
        Groups.of(["a", "b"], ["x", np.nan])
    with pytest.raises(DataError, match="2 groups and 1 strata"):
        Groups.of(["a", "b"], ["x"])
    with pytest.raises(DataError, match="1 of 2 images have a value that is not a finite number"):
        Groups.of(["a", "b"]).sums([1.0, np.nan])
    with pytest.raises(DataError, match="values of 3 images for 2"):
        Groups.of(["a", "b"]).sums([1.0, 2.0, 3.0])


IMAGES = st.lists(
    st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 3)), min_size=2, max_size=40
)


@given(IMAGES)
def test_the_area_equals_scikit_learn_with_ties_and_weights(
    images: list[tuple[bool, int, int]],
) -> None:
    truth, scores, weights = (np.array(column) for column in zip(*images, strict=True))
    both = np.stack([weights.astype(float), np.ones(len(truth))])
    found = Ranking.of(truth, scores).auc(both)[:, 0]
    for weight, value in zip(both, found, strict=True):
        sides = truth[weight > 0]
        if len(set(sides.tolist())) < 2:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(roc_auc_score(truth, scores, sample_weight=weight))


def test_the_curve_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth, scores = rng.random(60) < 0.3, np.round(rng.random(60), 1)
    weights = rng.integers(1, 4, (1, 60)).astype(float)
    ranking = Ranking.of(truth, scores)
    sensitivity, false_positive = ranking.curve(weights)
    theirs = roc_curve(truth, scores, sample_weight=weights[0], drop_intermediate=False)
    np.testing.assert_allclose(false_positive[0], theirs[0])
    np.testing.assert_allclose(sensitivity[0], theirs[1])
    np.testing.assert_allclose(ranking.thresholds, theirs[2][1:])


def test_constant_scores_have_an_area_of_one_half() -> None:
    ranking = Ranking.of([True, False, False], [0.3, 0.3, 0.3])
    assert ranking.auc(np.ones((1, 3))) == pytest.approx(0.5)


def test_recalls_are_ratios() -> None:
    rng = np.random.default_rng(1)
    truth, predictions = rng.integers(0, 3, 50), rng.integers(0, 3, 50)
    weights = rng.integers(0, 3, (4, 50)).astype(float)
    member = truth[:, None] == np.arange(4)  # class 3 is absent
    found = ratios_of(member & (predictions == truth)[:, None], member)(weights)
    for row, weight in zip(found, weights, strict=True):
        theirs = recall_score(truth, predictions, average=None, sample_weight=weight)
        np.testing.assert_allclose(row[:3], theirs)
        assert np.isnan(row[3])


def test_intervals_work_for_any_statistic() -> None:
    rng = np.random.default_rng(2)
    truth = np.repeat([True, False], 100)
    scores = truth + rng.normal(size=200)
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


def test_non_finite_values_are_refused() -> None:
    with pytest.raises(DataError, match="not a finite number"):
        Ranking.of([True, False], [0.1, np.nan])
    with pytest.raises(DataError, match="values of 1 images for 2"):
        Ranking.of([True, False], [0.1])
    with pytest.raises(DataError, match="no images"):
        Ranking.of([], [])
    with pytest.raises(DataError, match="not a finite number"):
        means_of([[np.inf]])


def threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info()}


def test_the_threads_are_given_back_also_after_an_error() -> None:
    before = threads()
    assert np.ones((3, 3)) @ np.ones(3) is not None
    assert repeatable(threads)() == {1}
    assert threads() == before

    @repeatable
    def fails() -> None:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 (its own)
        fails()
    assert threads() == before


@pytest.mark.parametrize(
    "function",
    [
        ClassificationEvaluation.of,
        SegmentationEvaluation.of,
        OODStatistics.fit,
        ShortcutScores.of,
        by_embeddings,
        by_metadata,
        compare,
        classification,
        ensemble_scores,
        headline_intervals,
    ],
)
def test_written_results_are_computed_by_one_thread(function: Callable[..., Any]) -> None:
    assert hasattr(getattr(function, "__func__", function), "__wrapped__")
