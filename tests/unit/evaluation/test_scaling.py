"""Temperature and offsets, fitted and cross-fitted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from naevus.errors import ConfigError, DataError
from naevus.evaluation.scaling import (
    BOUNDS,
    SPREAD,
    Scaling,
    cross_fitted,
    fit_scaling,
    parts_of,
    scaled,
)

Rows = NDArray[np.float64]


def softmax(logits: Rows) -> Rows:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def stated(temperature: float, images: int, seed: int = 0) -> tuple[Rows, NDArray[np.intp]]:
    """Return probabilities that are calibrated at a temperature, and true classes."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (images, 4))
    right = softmax(logits).cumsum(axis=1)
    truth = (rng.random((images, 1)) > right[:, :-1]).sum(axis=1)
    return softmax(logits * temperature), truth


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_true_temperature_is_recovered(temperature: float) -> None:
    natural, truth = stated(temperature, 20_000)
    found = fit_scaling(natural, truth)
    assert found.temperature == pytest.approx(temperature, rel=0.04)
    assert found.offsets == pytest.approx([0] * 4, abs=0.06)


def test_the_true_offsets_are_recovered() -> None:
    natural, truth = stated(1.0, 40_000)
    hidden = np.array([0.8, -0.1, -0.2, -0.5])
    doctored = softmax(np.log(natural) - hidden)
    found = fit_scaling(doctored, truth)
    assert found.offsets == pytest.approx(hidden, abs=0.06)
    assert scaled(doctored, found).mean(axis=0) == pytest.approx(
        np.bincount(truth) / len(truth), abs=1e-3
    )


def test_no_other_scaling_gives_a_smaller_loss() -> None:
    natural, truth = stated(1.7, 500)
    found = fit_scaling(natural, truth)

    def loss(scaling: Scaling) -> float:
        prior = np.square(scaling.offsets).sum() / (2 * SPREAD**2 * len(truth))
        return float(log_loss(truth, scaled(natural, scaling)) + prior)

    least = loss(found)
    rng = np.random.default_rng(0)
    for _ in range(60):
        offsets = np.array(found.offsets) + rng.normal(0, 0.05, 4)
        other = Scaling(found.temperature * np.exp(rng.normal(0, 0.05)), tuple(offsets))
        assert least <= loss(other) + 1e-9


def test_scaling_equals_scikit_learn_without_a_prior() -> None:
    natural, truth = stated(1.5, 4_000)
    found = fit_scaling(natural, truth)
    # One slope for all classes: two-class images, each class against the first.
    two = natural[:, :2] / natural[:, :2].sum(axis=1, keepdims=True)
    kept = truth < 2
    pair = fit_scaling(two[kept], truth[kept])
    odds = np.log(two[kept, 1:] / two[kept, :1])
    reference = LogisticRegression(C=np.inf).fit(odds, truth[kept])
    assert 1 / pair.temperature == pytest.approx(reference.coef_[0, 0], rel=0.01)
    assert pair.offsets[1] - pair.offsets[0] == pytest.approx(reference.intercept_[0], abs=0.01)
    assert found.temperature == pytest.approx(pair.temperature, rel=0.15)


def test_the_offset_of_an_absent_class_stays_near_its_prior() -> None:
    natural, truth = stated(1.0, 60)
    seen = truth != 3
    found = fit_scaling(natural[seen], truth[seen])
    assert -1.5 < found.offsets[3] < 0


def test_perfect_and_wrong_predictions_reach_the_bounds() -> None:
    natural = np.array([[0.7, 0.3], [0.4, 0.6]])
    assert fit_scaling(natural, [0, 1]).temperature == pytest.approx(BOUNDS[0], rel=1e-3)
    assert fit_scaling(natural, [1, 0]).temperature == pytest.approx(BOUNDS[1], rel=1e-3)


@given(
    st.lists(st.floats(-30, 30), min_size=3, max_size=3),
    st.lists(st.floats(-3, 3), min_size=3, max_size=3),
    st.floats(0.2, 5),
)
def test_scaling_applies_to_logits(
    logits: list[float], offsets: list[float], temperature: float
) -> None:
    row = np.array(logits)
    np.testing.assert_allclose(
        scaled(softmax(row), Scaling(temperature, tuple(offsets))),
        softmax(row / temperature + np.array(offsets)),
        atol=1e-12,
    )


def test_a_probability_of_zero_stays_finite() -> None:
    warm = scaled(np.array([[1.0, 0.0]]), Scaling(2.0, (0.0, 0.0)))
    assert np.isfinite(warm).all()
    np.testing.assert_allclose(warm, [[1, 0]], atol=1e-100)
    assert np.isfinite(fit_scaling(np.array([[1.0, 0.0]]), [1]).temperature)


def test_each_part_gets_the_scaling_of_the_others() -> None:
    natural, truth = stated(1.5, 900)
    parts = np.arange(900) % 3
    fitted, scalings = cross_fitted(natural, truth, parts)
    assert len(scalings) == 3
    for part, scaling in enumerate(scalings):
        inside = parts == part
        assert scaling == fit_scaling(natural[~inside], truth[~inside])
        np.testing.assert_array_equal(fitted[inside], scaled(natural[inside], scaling))
    # The diagnoses of a part do not affect its own scaling.
    changed = np.where(parts == 0, (truth + 1) % 4, truth)
    again = cross_fitted(natural, changed, parts)
    assert again.scalings[0] == scalings[0]
    assert again.scalings[1].temperature > scalings[1].temperature


def test_data_that_cannot_be_fitted_are_refused() -> None:
    natural, truth = stated(1.0, 10)
    with pytest.raises(DataError, match="there are no images"):
        fit_scaling(np.empty((0, 4)), [])
    with pytest.raises(DataError, match="not one of 4"):
        fit_scaling(natural, np.full(10, 4))
    with pytest.raises(DataError, match="sum to 1"):
        fit_scaling(natural / 2, truth)
    with pytest.raises(DataError, match="two parts or more"):
        cross_fitted(natural, truth, np.zeros(10, np.intp))
    with pytest.raises(ConfigError, match="not above 0"):
        scaled(natural, Scaling(0.0, (0.0,) * 4))


def table(groups: list[int], truth: list[str], folds: list[int] | None = None) -> pd.DataFrame:
    columns = {"group_id": [f"g{group}" for group in groups], "diagnosis": truth}
    return pd.DataFrame(columns if folds is None else {**columns, "fold": folds})


def test_several_folds_are_the_parts() -> None:
    parts = parts_of(table([1, 1, 2, 3], ["MEL", "MEL", "NV", "NV"], [4, 4, 0, 2]))
    assert parts.tolist() == [2, 2, 0, 1]
    with pytest.raises(DataError, match="in two folds"):
        parts_of(table([1, 1, 2], ["MEL", "MEL", "NV"], [0, 1, 1]))


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=40),
    st.integers(0, 5),
)
def test_halves_keep_groups_together_and_are_stratified(
    lesions: list[tuple[int, bool]], seed: int
) -> None:
    diagnosis = {group: "MEL" if melanoma else "NV" for group, melanoma in lesions}
    groups = [group for group, _ in lesions]
    parts = parts_of(table(groups, [diagnosis[group] for group in groups], [0] * len(groups)))
    half = dict(zip(groups, parts.tolist(), strict=True))
    assert [half[group] for group in groups] == parts.tolist()
    for code in ("MEL", "NV", "both"):
        halves = [half[group] for group in half if code in {diagnosis[group], "both"}]
        assert abs(halves.count(0) - halves.count(1)) <= 1
