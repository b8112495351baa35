"""Calibration metrics, compared with scikit-learn and torchmetrics, and their coverage."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from naevus.errors import DataError
from naevus.evaluation.calibration import (
    Binning,
    CalibrationScores,
    calibration_error,
    gaps_by_bin,
    reliability_curve,
)


def honest(
    rng: np.random.Generator, groups: int, sharpness: float = 1.0
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Return probabilities, calibrated at sharpness 1 and overconfident above."""
    logits = 1.5 * rng.normal(size=(groups, 4))
    right = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (right.cumsum(axis=1) > rng.random((groups, 1))).argmax(axis=1)
    stated = right**sharpness
    numbers = np.repeat(np.arange(groups), rng.integers(1, 3, groups))
    stated /= stated.sum(axis=1, keepdims=True)
    return stated[numbers], truth[numbers], numbers.tolist()


def test_losses_agree_with_scikit_learn() -> None:
    rows, truth, groups = honest(np.random.default_rng(0), 300, sharpness=2)
    scores = CalibrationScores.from_probabilities(rows, truth, groups, draws=50)
    assert scores.nll.value == pytest.approx(log_loss(truth, rows, labels=range(4)))
    theirs = brier_score_loss(truth, rows, labels=range(4), scale_by_half=False)
    assert scores.brier.value == pytest.approx(theirs)
    assert scores.images == len(truth)
    assert scores.groups == 300


def plain_error(stated: np.ndarray, true: np.ndarray, edges: np.ndarray) -> float:
    total = 0.0
    for low, high in pairwise(edges):
        inside = (stated > low) & (stated <= high)
        if inside.any():
            total += inside.mean() * abs(stated[inside].mean() - true[inside].mean())
    return total


def test_calibration_errors_equal_the_definition() -> None:
    rows, truth, groups = honest(np.random.default_rng(1), 200, sharpness=2)
    scores = CalibrationScores.from_probabilities(rows, truth, groups, draws=50)
    stated, right = rows.max(axis=1), rows.argmax(axis=1) == truth
    edges = np.quantile(stated, np.linspace(0, 1, 16))
    edges[0] = -1
    assert scores.ece_equal_mass.value == pytest.approx(plain_error(stated, right, edges))
    even = np.linspace(0, 1, 16)
    assert scores.ece.value == pytest.approx(plain_error(stated, right, even))
    by_class = [plain_error(rows[:, c], truth == c, even) for c in range(4)]
    assert scores.classwise_ece.value == pytest.approx(np.mean(by_class))


@pytest.mark.parametrize("groups", [60, 200])
def test_one_error_alone_equals_that_of_all_scores(groups: int) -> None:
    given = honest(np.random.default_rng(3), groups, sharpness=1.5)
    alone, scores = calibration_error(*given), CalibrationScores.from_probabilities(*given)
    assert alone == pytest.approx(scores.ece, abs=1e-12, nan_ok=True)
    assert np.isnan(alone.low) == (groups < 100)


def test_the_error_expected_by_chance_is_reported() -> None:
    rng = np.random.default_rng(2)
    found = [CalibrationScores.from_probabilities(*honest(rng, 200), draws=50) for _ in range(25)]
    for name in ("ece", "ece_equal_mass", "classwise_ece"):
        errors = [getattr(scores, name) for scores in found]
        values, chances = (np.mean([error[n] for error in errors]) for n in (0, 3))
        assert chances == pytest.approx(values, rel=0.15)
        assert np.mean([error.low == 0 for error in errors]) >= 0.8


def test_overconfidence_is_detected() -> None:
    rows, truth, groups = honest(np.random.default_rng(3), 600, sharpness=3)
    scores = CalibrationScores.from_probabilities(rows, truth, groups)
    for error in (scores.ece, scores.ece_equal_mass, scores.classwise_ece):
        assert 0 < error.low < error.value <= error.high
        assert error.value > 2 * error.chance
    assert "by chance" in str(scores)


def test_intervals_of_losses_have_nominal_coverage() -> None:
    rng = np.random.default_rng(4)
    true = CalibrationScores.from_probabilities(*honest(rng, 30_000), draws=1)
    found = [
        CalibrationScores.from_probabilities(*honest(rng, 100), draws=100, seed=seed)
        for seed in range(100)
    ]
    for name in ("nll", "brier"):
        truth = getattr(true, name).value
        intervals = [getattr(scores, name) for scores in found]
        inside = [interval.low <= truth <= interval.high for interval in intervals]
        assert 0.9 <= np.mean(inside) <= 0.99


def test_constant_probabilities_one_lesion_and_absent_classes() -> None:
    rows, truth = np.tile([0.5, 0.3, 0.2], (4, 1)), np.array([0, 0, 1, 1])
    scores = CalibrationScores.from_probabilities(rows, truth, ["a"] * 4)
    assert scores.ece.value == pytest.approx(0)
    assert np.isnan([scores.ece.low, scores.nll.low, scores.brier.high]).all()
    certain = CalibrationScores.from_probabilities(np.eye(2)[[0, 1]], [1, 1], ["a", "b"])
    assert np.isfinite(certain.nll.value)
    assert certain.ece.value == pytest.approx(0.5)
    assert certain.to_dict()["brier"]["value"] == pytest.approx(1)
    assert set(certain.to_dict()) == {field.name for field in fields(CalibrationScores)}


def test_gaps_sum_to_the_overconfidence() -> None:
    stated, true = np.array([0.2, 0.2, 0.9]), np.array([False, True, True])
    for binning in ("width", "mass"):
        gaps = gaps_by_bin(stated, true, binning)
        assert gaps.shape == (3, 15)
        np.testing.assert_allclose(gaps.sum(axis=1), stated - true)


@pytest.mark.parametrize(
    ("rows", "truth", "output"),
    [
        ([[np.nan, 1.0]], [0], "not a finite number"),
        ([[2.0, -1.0]], [0], "below 0 or above 1"),
        ([[0.5, 0.1]], [0], "do not sum to 1"),
        ([[0.5, 0.5]], [2], "not one of 2"),
        ([[0.5, 0.5]], [-1], "not one of 2"),
        ([[0.5, 0.5]], [0.0], "not one of 2"),
        ([[0.5, 0.5]], [0, 1], "differ"),
        ([0.5], [0], "differ"),
    ],
)
def test_values_other_than_probabilities_are_refused(rows: Any, truth: Any, output: str) -> None:
    with pytest.raises(DataError, match=output):
        CalibrationScores.from_probabilities(rows, truth, ["a"])


@pytest.mark.parametrize(("binning", "theirs"), [("width", "uniform"), ("mass", "quantile")])
def test_curves_agree_with_scikit_learn(binning: Binning, theirs: str) -> None:
    rng = np.random.default_rng(0)
    stated = rng.beta(0.5, 0.5, 400)
    true = rng.random(400) < stated
    curve = reliability_curve(stated, true, list(range(400)), bins=8, binning=binning)
    found, output = calibration_curve(true, stated, n_bins=8, strategy=theirs)
    assert [each.found.value for each in curve] == pytest.approx(found.tolist())
    assert [each.stated for each in curve] == pytest.approx(output.tolist())
    assert sum(each.found.low <= each.stated <= each.found.high for each in curve) >= 6


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
def test_every_image_is_in_one_bin(images: list[tuple[float, bool]]) -> None:
    stated, true = zip(*images, strict=True)
    groups = [number // 2 for number in range(len(stated))]
    ways: tuple[Binning, ...] = ("width", "mass")
    for binning in ways:
        curve = reliability_curve(stated, true, groups, binning=binning)
        assert sum(each.images for each in curve) == len(stated)
        for each in curve:
            assert each.low - 1e-12 <= each.stated <= each.high + 1e-12
            assert each.found.low <= each.found.value <= each.found.high


def test_equal_probabilities_are_in_the_same_bin() -> None:
    (only,) = reliability_curve([0.4] * 5, [1, 0, 0, 0, 0], list("aabcd"))
    assert only.images == 5
    assert only.found.groups == 4
    assert only.to_dict()["found"]["value"] == pytest.approx(0.2)


def test_curves_need_probabilities() -> None:
    with pytest.raises(DataError, match="above 1"):
        reliability_curve([1.2], [1], ["a"])
    with pytest.raises(DataError, match="not a finite number"):
        reliability_curve([np.nan], [1], ["a"])
    with pytest.raises(DataError, match="values of 2 images for 1"):
        reliability_curve([0.1], [1, 0], ["a"])
