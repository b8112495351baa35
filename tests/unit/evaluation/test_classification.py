"""Classification metrics of both decisions, compared with other libraries."""

from __future__ import annotations

import builtins
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from naevus.errors import DataError, NaevusError
from naevus.evaluation.classification import ClassificationScores, auc_above_sensitivity
from naevus.taxonomy import ISIC2018

CODES = ISIC2018.codes
Values = NDArray[np.float64]


def drawn(seed: int, n: int = 120, classes: int = 7) -> tuple[list[str], list[str], Values, Values]:
    """Return ids, true codes and both kinds of probability, slightly better than chance."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=n)
    logits = rng.normal(size=(n, 7))
    logits[np.arange(n), truth] += 1.0
    natural = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    balanced = natural * rng.uniform(0.5, 2, size=7)
    balanced /= balanced.sum(1, keepdims=True)
    return [f"p{i}" for i in range(n)], [CODES[c] for c in truth], natural, balanced


def score(
    ids: list[str], codes: list[str], natural: Values, balanced: Values
) -> ClassificationScores:
    return ClassificationScores.from_probabilities(ids, codes, natural, balanced, ISIC2018)


@pytest.mark.parametrize("seed", range(4))
def test_metrics_equal_scikit_learn(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    ids, codes, natural, balanced = drawn(seed)
    truth = np.array([CODES.index(code) for code in codes])
    scores = score(ids, codes, natural, balanced)
    for decision, values in ((scores.balanced, balanced), (scores.natural, natural)):
        predictions = values.argmax(1)
        assert decision.accuracy == pytest.approx(metrics.accuracy_score(truth, predictions))
        if set(truth) == set(range(7)):
            assert decision.balanced_accuracy == pytest.approx(
                metrics.balanced_accuracy_score(truth, predictions)
            )
        matrix = metrics.confusion_matrix(truth, predictions, labels=range(7))
        np.testing.assert_array_equal(decision.confusion, matrix)
        for c, of_class in enumerate(decision.classes):
            is_true, manifest = truth == c, predictions == c
            if manifest.any():
                assert of_class.precision == pytest.approx(
                    metrics.precision_score(is_true, manifest)
                )
            if is_true.any():
                assert of_class.recall == pytest.approx(metrics.recall_score(is_true, manifest))
                assert of_class.specificity == pytest.approx(
                    metrics.recall_score(~is_true, ~manifest)
                )
                assert scores.auc[CODES[c]] == pytest.approx(
                    metrics.roc_auc_score(is_true, natural[:, c])
                )
                assert scores.average_precision[CODES[c]] == pytest.approx(
                    metrics.average_precision_score(is_true, natural[:, c])
                )


@pytest.mark.slow
def test_metrics_equal_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchmetrics.functional.classification")
    ids, codes, natural, balanced = drawn(3)
    y = torch.tensor([CODES.index(code) for code in codes])
    p = torch.from_numpy(natural)
    scores = score(ids, codes, natural, balanced)
    recall = functional.multiclass_recall(p, y, num_classes=7, average="macro")
    assert scores.natural.balanced_accuracy == pytest.approx(float(recall))
    mean_auc = functional.multiclass_auroc(p, y, num_classes=7, average="macro")
    assert scores.mean_auc == pytest.approx(float(mean_auc), abs=1e-5)


def test_absent_classes_are_noted_and_not_counted() -> None:
    ids, codes, natural, balanced = drawn(1, classes=3)
    scores = score(ids, codes, natural, balanced)
    assert scores.absent == CODES[3:]
    assert scores.auc["DF"] is None
    assert scores.natural.classes[5].recall is None
    recalls = [scores.natural.classes[c].recall for c in range(3)]
    assert scores.natural.balanced_accuracy == pytest.approx(
        float(np.mean([0.0 if r is None else r for r in recalls]))
    )
    (note,) = scores.notes
    assert "DF" in note
    as_json = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert as_json["balanced"]["classes"]["DF"]["recall"] is None
    assert as_json["notes"] == [note]


def test_a_single_image_is_scored() -> None:
    scores = score(["a"], ["NV"], np.eye(7)[[1]], np.eye(7)[[1]])
    assert scores.balanced.balanced_accuracy == 1
    assert scores.mean_auc is None
    assert scores.balanced.classes[1].specificity is None


def test_normalised_confusion_and_most_confident_errors() -> None:
    values = np.full((3, 7), 0.02)
    values[[0, 1, 2], [0, 1, 1]] = 0.88
    values[1, 1], values[1, 0] = 0.60, 0.30
    scores = score(["right", "unsure", "sure"], ["MEL", "MEL", "BCC"], values, values)
    assert [m.image_id for m in scores.mistakes] == ["sure", "unsure"]
    assert (scores.mistakes[0].truth, scores.mistakes[0].answer) == ("BCC", "NV")
    normalised = scores.by("balanced").normalised_confusion()
    np.testing.assert_allclose(normalised[0, :2], [0.5, 0.5])
    np.testing.assert_allclose(normalised.sum(1), [1, 0, 1, 0, 0, 0, 0])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.floats(0.05, 1.0))
def test_partial_areas_equal_the_definition(seed: int, sensitivity: float) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    truth = np.array([True, False, *rng.integers(2, size=30).astype(bool)])
    values = rng.integers(6, size=32) / 5
    fpr, tpr, _ = metrics.roc_curve(truth, values, drop_intermediate=False)
    corners = np.arange(len(fpr))
    along = np.linspace(0, corners[-1], 20_001)
    x, y = np.interp(along, corners, fpr), np.interp(along, corners, tpr)
    area = (np.diff(x) * y[1:])[y[1:] >= sensitivity].sum()
    assert auc_above_sensitivity(truth, values, sensitivity) == pytest.approx(area, abs=2e-3)


def test_partial_area_is_one_for_a_perfect_ranking_and_none_for_one_class() -> None:
    truth = np.array([True, True, False])
    assert auc_above_sensitivity(truth, np.array([0.9, 0.8, 0.1]), 0.8) == 1
    assert auc_above_sensitivity(np.ones(3, bool), np.array([0.9, 0.8, 0.1]), 0.8) is None


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(NaevusError, match=r"pip install .*\[evaluate\]"):
        score(*drawn(0))


def test_inputs_of_different_lengths_are_refused() -> None:
    ids, codes, natural, balanced = drawn(0, n=3)
    with pytest.raises(DataError, match="do not match"):
        score(ids[:2], codes, natural, balanced)
    with pytest.raises(DataError, match="p0 occurs 2 times"):
        score(["p0", "p1", "p0"], codes, natural, balanced)
    with pytest.raises(DataError, match="XYZ"):
        score(ids, ["XYZ", *codes[1:]], natural, balanced)
    with pytest.raises(DataError, match="p1"):
        score(ids, codes, np.where([[0], [1], [0]], np.nan, natural), balanced)
    with pytest.raises(DataError, match="no images"):
        score([], [], natural[:0], balanced[:0])
