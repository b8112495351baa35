"""Bias-corrected and accelerated intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import bootstrap
from sklearn.metrics import roc_auc_score

from naevus.errors import DataError
from naevus.evaluation.bootstrap import Ranking, means_of, quantiles_of
from naevus.evaluation.intervals import bca_interval


def test_scipy_finds_the_same_interval_of_a_leaning_mean() -> None:
    values = np.random.default_rng(0).lognormal(sigma=1.2, size=40)
    groups = [f"g{n}" for n in range(40)]
    ours = bca_interval(means_of(values[:, None]), groups, draws=20_000)
    theirs = bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", random_state=np.random.default_rng(1)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.value == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.05 * width)
    assert ours.high - ours.value > ours.value - ours.low


def test_copies_in_a_group_change_nothing() -> None:
    values = np.random.default_rng(2).lognormal(size=30)
    single = bca_interval(means_of(values[:, None]), [f"g{n}" for n in range(30)])
    copied = bca_interval(
        means_of(np.repeat(values, 3)[:, None]), [f"g{n // 3}" for n in range(90)]
    )
    assert copied == pytest.approx(single)


def test_strata_are_drawn_apart() -> None:
    truth = np.array([1] * 12 + [0] * 200, bool)
    chance = np.random.default_rng(3)
    scores = np.where(truth, 1.5, 0) + chance.normal(size=len(truth))
    groups = [f"g{n}" for n in range(len(truth))]
    ranking = Ranking.of(truth, scores)
    found = bca_interval(ranking.auc, groups, truth.tolist())
    assert found.value == pytest.approx(roc_auc_score(truth, scores))
    assert 0 < found.low < found.value < found.high <= 1
    # The AUC leans to 0: its lower half is the longer one.
    assert found.value - found.low > found.high - found.value


def test_a_perfect_rare_class_and_one_group_have_no_width() -> None:
    truth = np.array([1, 1, 1, 0, 0, 0, 0], bool)
    groups = [f"g{n}" for n in range(7)]
    perfect = bca_interval(Ranking.of(truth, truth.astype(float)).auc, groups, truth.tolist())
    assert tuple(perfect) == (1, 1, 1)
    assert bca_interval(means_of([[0.2], [0.6]]), ["a", "a"]) == pytest.approx((0.4,) * 3)


def test_a_figure_without_its_only_group_is_left_out() -> None:
    truth = np.array([1, 0, 0, 0], bool)
    ranking = Ranking.of(truth, [0.5, 0.1, 0.7, 0.2])
    together = bca_interval(ranking.auc, ["a", "b", "c", "d"])
    assert together.value == pytest.approx(2 / 3)
    assert together.low <= together.value <= together.high
    one_sided = bca_interval(Ranking.of(~np.zeros(3, bool), [1, 2, 3]).auc, ["a", "b", "c"])
    assert np.isnan(one_sided).all()
    with pytest.raises(DataError, match="no group"):
        bca_interval(ranking.auc, ["a", "b", None, "d"])


def test_medians_are_covered_as_often_as_promised() -> None:
    # Percentiles of the draws alone would do too; a wrong sign anywhere would not.
    chance = np.random.default_rng(4)
    covered = []
    for seed in range(300):
        values = ndtr(chance.normal(size=60) + 1)
        found = bca_interval(
            quantiles_of(values, (0.5,)), [f"g{n}" for n in range(60)], draws=400, seed=seed
        )
        covered.append(found.low <= ndtr(1) <= found.high)
    assert 0.9 <= np.mean(covered) <= 0.985
