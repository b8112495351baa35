"""Operating points and decision curves, compared with scikit-learn and the definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as sklearn_curve

from naevus.errors import DataError
from naevus.evaluation.operating_points import (
    FIXED,
    BinaryTarget,
    OperatingPoints,
    decision_curve,
    malignant,
    melanoma,
    targets_of,
)
from naevus.taxonomy import BINARY, ISIC2018

CODES = ISIC2018.codes


def predictions(images: int = 300) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 7, images)
    logits = rng.normal(size=(images, 7)) + 1.5 * np.eye(7)[truth]
    natural = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return natural, [CODES[c] for c in truth]


def drawn(images: int = 300, digits: int = 2) -> BinaryTarget:
    rng = np.random.default_rng(1)
    truth = rng.random(images) < 0.3
    scores = np.round(1 / (1 + np.exp(-rng.normal(size=images) - truth)), digits)
    return BinaryTarget("drawn", truth, scores, ["MEL" if each else "NV" for each in truth])


def test_targets_sum_the_probabilities_of_their_diagnoses() -> None:
    natural, truth = predictions()
    found = melanoma(natural, truth, ISIC2018)
    np.testing.assert_allclose(found.probability, natural[:, 0])
    assert found.truth.tolist() == [code == "MEL" for code in truth]
    found = malignant(natural, truth, ISIC2018)
    np.testing.assert_allclose(found.probability, natural[:, [0, 2, 3]].sum(axis=1))
    assert found.truth.tolist() == [code in {"MEL", "BCC", "AKIEC"} for code in truth]


def test_targets_need_positive_and_negative_images() -> None:
    natural, truth = predictions()
    names = [target.name for target in targets_of(natural, truth, ISIC2018)]
    assert names == ["melanoma", "malignant"]
    benign = ["NV" if code in {"MEL", "BCC", "AKIEC"} else code for code in truth]
    assert targets_of(natural, benign, ISIC2018) == ()
    without = ["BCC" if code == "MEL" else code for code in truth]
    assert [target.name for target in targets_of(natural, without, ISIC2018)] == ["malignant"]
    only = ["MEL" if code == "NV" else "BCC" for code in truth]
    assert [target.name for target in targets_of(natural, only, ISIC2018)] == ["melanoma"]
    sides = ["BENIGN", "MALIGNANT"]
    (target,) = targets_of([[0.8, 0.2], [0.3, 0.7]], sides, BINARY)
    assert target.probability.tolist() == [0.2, 0.7]


def test_pooled_and_fold_areas_equal_scikit_learn() -> None:
    target, folds = drawn(), np.arange(300) % 3
    groups = [f"g{number // 6}" for number in range(300)]
    scores = OperatingPoints.from_target(target, groups, folds.tolist())
    assert scores.auc.value == pytest.approx(roc_auc_score(target.truth, target.probability))
    by_fold = [
        roc_auc_score(target.truth[folds == fold], target.probability[folds == fold])
        for fold in range(3)
    ]
    assert scores.fold_auc is not None
    assert scores.fold_auc.value == pytest.approx(np.mean(by_fold))
    for interval in (scores.auc, scores.fold_auc):
        assert interval.low < interval.value < interval.high
    assert (scores.images, scores.groups) == (300, 50)
    assert scores.positives == target.truth.sum()


def test_operating_points_equal_the_best_thresholds() -> None:
    target = drawn()
    scores = OperatingPoints.from_target(target, list(range(300)))
    fpr, tpr, _ = sklearn_curve(target.truth, target.probability, drop_intermediate=False)
    for fixed in FIXED:
        sensitivity = scores.sensitivity_at[fixed]
        assert sensitivity.value == pytest.approx(tpr[1 - fpr >= fixed - 1e-9].max())
        assert sensitivity.low < sensitivity.value < sensitivity.high
        specificity = scores.specificity_at[fixed]
        assert specificity.value == pytest.approx((1 - fpr)[tpr >= fixed - 1e-9].max())
        assert specificity.low < specificity.value < specificity.high
    assert scores.fold_auc is None


def test_net_benefit_equals_the_definition() -> None:
    target = drawn()
    table = decision_curve(target, list(range(300)), [0.2, 0.5])
    for _, row in table.iterrows():
        called = target.probability >= row["threshold"]
        found = (called & target.truth).mean()
        false = (called & ~target.truth).mean()
        odds = row["threshold"] / (1 - row["threshold"])
        assert row["net_benefit"] == pytest.approx(found - false * odds)
        assert row["low"] < row["net_benefit"] < row["high"]
        fraction = target.truth.mean()
        assert row["act_on_all"] == pytest.approx(fraction - (1 - fraction) * odds)
    assert len(decision_curve(target, list(range(300)))) == 50


@settings(max_examples=10)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=2, max_size=25),
    st.integers(1, 4),
)
def test_every_figure_lies_in_its_range(images: list[tuple[bool, int]], size: int) -> None:
    truth, scores = (np.array(column) for column in zip(*images, strict=True))
    truth[:2] = True, False
    target = BinaryTarget("any", truth, scores / 4, [str(each) for each in truth])
    groups = [number // size for number in range(len(truth))]
    found = OperatingPoints.from_target(target, groups, [number % 2 for number in groups])
    fixed = [*found.sensitivity_at.values(), *found.specificity_at.values()]
    for interval in (found.auc, *fixed):
        assert 0 <= interval.value <= 1
        assert not interval.low < 0
        assert not interval.high > 1
    for each in (found.sensitivity_at, found.specificity_at):
        assert each[0.8].value >= each[0.9].value >= each[0.95].value


def test_constant_scores_have_no_net_benefit() -> None:
    target = drawn()._replace(probability=np.full(300, 0.3))
    scores = OperatingPoints.from_target(target, list(range(300)))
    assert (scores.auc.value, scores.auc.known) == (0.5, False)  # nothing varies
    assert scores.sensitivity_at[0.8].value == 0
    assert scores.specificity_at[0.8].value == 0
    row = decision_curve(target, list(range(300)), [0.2]).iloc[0]
    assert row["net_benefit"] == pytest.approx(row["act_on_all"])


def test_scores_are_printed_and_converted_to_json() -> None:
    natural, truth = predictions()
    scores = OperatingPoints.from_target(malignant(natural, truth, ISIC2018), list(range(300)))
    assert str(scores).startswith("malignant, ")
    assert "sensitivity at specificity 0.9: " in str(scores)
    output = scores.to_dict()
    assert output["fold_auc"] is None
    assert output["sensitivity_at"]["0.8"]["value"] == scores.sensitivity_at[0.8].value


def test_ground_truth_of_one_class_is_refused() -> None:
    natural, truth = predictions()
    with pytest.raises(DataError, match="melanoma: all images are on one side"):
        melanoma(natural, ["NV"] * 300, ISIC2018)
    with pytest.raises(DataError, match="unknown diagnosis 'naevus'"):
        melanoma(natural, ["naevus"] * 300, ISIC2018)
    with pytest.raises(DataError, match="not a finite number"):
        melanoma(natural * np.nan, truth, ISIC2018)
    with pytest.raises(DataError, match="not between 0 and 1"):
        decision_curve(drawn(), list(range(300)), [0.0])
