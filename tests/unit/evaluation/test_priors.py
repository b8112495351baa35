"""Natural and balanced probabilities, on a toy whose posteriors are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from naevus.errors import ConfigError
from naevus.evaluation.priors import (
    balanced_log_probabilities,
    natural_log_probabilities,
    rebalance,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Toy = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]

SHARES = np.array([0.70, 0.25, 0.05])
WEIGHTS = SHARES**-0.5
MEANS = np.array([[0.0, 0.0], [2.0, 0.5], [0.5, 2.0]])


def log_likelihood(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """log p(x|c) of unit Gaussians in the plane, up to a constant: N x C."""
    distance: NDArray[np.float64] = ((x[:, None, :] - MEANS) ** 2).sum(axis=2)
    return -distance / 2


def posterior(x: NDArray[np.float64], prior: NDArray[np.float64]) -> NDArray[np.float64]:
    joint = prior * np.exp(log_likelihood(x))
    normalised: NDArray[np.float64] = joint / joint.sum(axis=1, keepdims=True)
    return normalised


@pytest.fixture(scope="module")
def toy() -> Toy:
    """Points drawn with the shares, their classes, and what weighted training would learn."""
    rng = np.random.default_rng(2018)
    classes = rng.choice(3, size=40_000, p=SHARES)
    x = MEANS[classes] + rng.normal(size=(len(classes), 2))
    # A network's logits are free up to a number a row.
    logits = log_likelihood(x) + np.log(SHARES * WEIGHTS) + rng.normal(size=(len(x), 1))
    return x, classes, logits


def balanced_accuracy(classes: NDArray[np.int64], answers: NDArray[np.int64]) -> float:
    return float(np.mean([(answers[classes == c] == c).mean() for c in range(3)]))


def test_the_natural_posterior_is_recovered(toy: Toy) -> None:
    x, _, logits = toy
    natural = np.exp(natural_log_probabilities(logits, WEIGHTS))
    np.testing.assert_allclose(natural, posterior(x, SHARES), atol=1e-12)


def test_the_balanced_posterior_is_recovered(toy: Toy) -> None:
    x, _, logits = toy
    balanced = np.exp(balanced_log_probabilities(logits, WEIGHTS, SHARES))
    np.testing.assert_allclose(balanced, posterior(x, np.full(3, 1 / 3)), atol=1e-12)


def test_each_decision_is_best_at_its_own_score(toy: Toy) -> None:
    _, classes, logits = toy
    probable = natural_log_probabilities(logits, WEIGHTS).argmax(axis=1)
    balanced = balanced_log_probabilities(logits, WEIGHTS, SHARES).argmax(axis=1)
    too_far = (logits - np.log(SHARES)).argmax(axis=1)  # as if there had been no weights
    raw = logits.argmax(axis=1)
    accuracies = [(answers == classes).mean() for answers in (probable, balanced, too_far, raw)]
    assert accuracies[0] == max(accuracies)
    assert balanced_accuracy(classes, balanced) > max(
        balanced_accuracy(classes, answers) + 0.005 for answers in (probable, too_far, raw)
    )


def test_natural_probabilities_are_calibrated(toy: Toy) -> None:
    _, classes, logits = toy
    natural = np.exp(natural_log_probabilities(logits, WEIGHTS))
    for c in range(3):
        assert natural[:, c].mean() == pytest.approx((classes == c).mean(), abs=0.01)


def test_temperature_belongs_to_the_natural_probabilities(toy: Toy) -> None:
    _, _, logits = toy
    natural = np.exp(natural_log_probabilities(logits, WEIGHTS, 1.7))
    balanced = np.exp(balanced_log_probabilities(logits, WEIGHTS, SHARES, 1.7))
    np.testing.assert_allclose(balanced, rebalance(natural, SHARES), atol=1e-12)
    assert (
        natural.max(axis=1).mean()
        < np.exp(natural_log_probabilities(logits, WEIGHTS)).max(axis=1).mean()
    )


@settings(deadline=None, max_examples=50)
@given(
    arrays(np.float32, (4, 3), elements=st.floats(-80, 80, width=32)),
    arrays(np.float64, 3, elements=st.floats(0.01, 100)),
    arrays(np.float64, 3, elements=st.floats(0.001, 1)),
)
def test_both_kinds_are_probabilities(
    logits: NDArray[np.float32], weights: ArrayLike, shares: ArrayLike
) -> None:
    natural = np.exp(natural_log_probabilities(logits, weights))
    balanced = np.exp(balanced_log_probabilities(logits, weights, shares))
    np.testing.assert_allclose(natural.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(balanced.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(rebalance(natural, shares), balanced, atol=1e-9)


def test_equal_shares_change_nothing() -> None:
    probabilities = np.array([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(rebalance(probabilities, np.full(3, 1 / 3)), probabilities)


def test_one_picture_may_come_without_its_row_axis() -> None:
    logits = np.array([0.1, -2.0, 3.0])
    np.testing.assert_array_equal(
        natural_log_probabilities(logits, WEIGHTS),
        natural_log_probabilities(logits[None], WEIGHTS)[0],
    )


def test_a_class_never_trained_is_never_the_balanced_answer() -> None:
    balanced = np.exp(balanced_log_probabilities(np.zeros((1, 3)), [1, 1, 1], [0.5, 0.5, 0.0]))
    np.testing.assert_allclose(balanced, [[0.5, 0.5, 0.0]])


@pytest.mark.parametrize(
    ("weights", "shares", "temperature"),
    [
        ([1, 1, 0], SHARES, 1.0),
        ([1, 1], SHARES, 1.0),
        ([1, 1, np.nan], SHARES, 1.0),
        (WEIGHTS, [0.5, 0.6, -0.1], 1.0),
        (WEIGHTS, [0.0, 0.0, 0.0], 1.0),
        (WEIGHTS, [0.5, 0.5], 1.0),
        (WEIGHTS, SHARES, 0.0),
        (WEIGHTS, SHARES, np.nan),
    ],
)
def test_impossible_settings_are_refused(
    weights: ArrayLike, shares: ArrayLike, temperature: float
) -> None:
    with pytest.raises(ConfigError):
        balanced_log_probabilities(np.zeros((1, 3)), weights, shares, temperature)
