"""Task 3's scores: balanced multi-class accuracy and the tables beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from naevus.errors import SubmissionError
from naevus.evaluation.challenge.csvfiles import read_prediction, read_truth
from naevus.evaluation.scoring.ranking import auc, auc_above_sensitivity, average_precision

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from naevus.evaluation.challenge.csvfiles import Truth, Weights

UNDECIDED = -1
"""The answer of a row whose largest value stands there more than once; it is never right."""

_THRESHOLD = 0.5
_SENSITIVITY = 0.80


def score_classification(truth_csv: Path, prediction_csv: Path) -> dict[str, Any]:
    """Score a Task 3 submission as the challenge does.

    Args:
        truth_csv: The GroundTruth.csv; optional columns ``score_weight`` and
            ``validation_weight``, 1 where they are absent.
        prediction_csv: The submission.

    Returns:
        ``overall`` (the balanced accuracy), ``validation``, ``per_category`` (by score, then by
        class), ``macro_average``, ``aggregate``. Where a class is absent from the truth, what it
        leaves undefined is None, averages are over the other classes, and ``notes`` says so.

    Raises:
        SubmissionError: The official tool refuses the submission, or the truth is unusable.
        NaevusError: scikit-learn is not installed.
    """
    truth = read_truth(truth_csv)
    prediction = read_prediction(prediction_csv, truth)
    actual, answers = decided(truth.values), decided(prediction)
    overall = _balanced_accuracy(actual, answers, truth.score)
    if overall is None:
        raise SubmissionError(f"{truth_csv}: no picture counts", "give a truth with classes")
    scores = {
        code: _category(truth.values[:, c], prediction[:, c], truth.score)
        for c, code in enumerate(truth.codes)
    }
    names = list(next(iter(scores.values())))
    per_category = {name: {code: scores[code][name] for code in truth.codes} for name in names}
    result: dict[str, Any] = {
        "overall": overall,
        "validation": _balanced_accuracy(actual, answers, truth.validation),
        "per_category": per_category,
        "macro_average": {name: _mean(values) for name, values in per_category.items()},
        "aggregate": {"balanced_accuracy": overall},
    }
    notes = _notes(truth, [code for code in truth.codes if scores[code]["sensitivity"] is None])
    return result | ({"notes": notes} if notes else {})


def _notes(truth: Truth, absent: list[str]) -> list[str]:
    notes = []
    if absent:
        names = ", ".join(absent)
        notes.append(
            f"{names}: no picture in the truth counts; averages are over the other classes "
            "(the official tool ends with an error here)"
        )
    if truth.misplaced:
        notes.append(
            "the truth is not sorted by image id, so that weights fall on other pictures than "
            "they are written beside, as in the official tool; sort it"
        )
    return notes


def decided(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return each row's class, or ``UNDECIDED`` where the largest value is there twice.

    Args:
        values: N x C.
    """
    largest = values == values.max(axis=1, keepdims=True)
    return np.where(largest.sum(axis=1) == 1, largest.argmax(axis=1), UNDECIDED)


def _balanced_accuracy(
    truth: NDArray[np.int64], answers: NDArray[np.int64], weights: Weights
) -> float | None:
    """Return the mean weighted recall of the classes that have weight, None if none has."""
    recalls = []
    for category in np.unique(truth[truth != UNDECIDED]):
        of_class = truth == category
        total = weights.by_id[of_class].sum()
        if total > 0:
            recalls.append(weights.applied[of_class & (answers == category)].sum() / total)
    return float(np.mean(recalls)) if recalls else None


def _category(
    truth: NDArray[np.float64], prediction: NDArray[np.float64], score: Weights
) -> dict[str, float | None]:
    """Score one class against the others; values above 0.5 answer yes."""
    weights = score.applied
    is_true, says_true = truth > _THRESHOLD, prediction > _THRESHOLD
    tp = float(weights[is_true & says_true].sum())
    fn = float(weights[is_true & ~says_true].sum())
    fp = float(weights[~is_true & says_true].sum())
    tn = float(weights[~is_true & ~says_true].sum())
    return {
        "accuracy": _ratio(tp + tn, tp + tn + fp + fn),
        "sensitivity": _ratio(tp, tp + fn) if tp + fn else None,
        "specificity": _ratio(tn, tn + fp) if tn + fp else None,
        "dice": _ratio(2 * tp, 2 * tp + fp + fn),
        "ppv": _ratio(tp, tp + fp),
        "npv": _ratio(tn, tn + fn),
        "auc": auc(is_true, prediction, weights),
        "auc_sens_80": auc_above_sensitivity(is_true, prediction, _SENSITIVITY, score.by_id),
        "ap": average_precision(is_true, prediction, weights),
    }


def _ratio(part: float, whole: float) -> float:
    """Return ``part / whole``; where nothing was there to be wrong, the challenge gives 1."""
    return part / whole if whole else 1.0


def _mean(values: dict[str, float | None]) -> float | None:
    known = [value for value in values.values() if value is not None]
    return float(np.mean(known)) if known else None
