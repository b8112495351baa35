"""Classification metrics: accuracy, recall, AUC and average precision, with intervals."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from naevus.errors import DataError, NaevusError
from naevus.evaluation.bootstrap import Ranking, repeatable
from naevus.evaluation.intervals import (
    FEW,
    LEAST,
    Interval,
    Proportion,
    balanced_accuracy_interval,
    mean_interval,
    weighted_intervals,
)
from naevus.io.extras import how_to_install

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import ModuleType

    from numpy.typing import ArrayLike, NDArray

    from naevus.evaluation.labelled import LabelledPredictions
    from naevus.taxonomy import Taxonomy
    from naevus.types import Decision


def auc_intervals(
    natural: NDArray[np.float64],
    truth: Sequence[str],
    groups: Sequence[str],
    taxonomy: Taxonomy,
) -> tuple[Interval | None, dict[str, Proportion]]:
    """Return the mean AUC over classes and the AUC of each class, with intervals by group.

    Args:
        natural: N x C natural probabilities; images of all folds are ranked together.
        truth: N diagnoses.
        groups: N group ids.
        taxonomy: The C classes.

    Returns:
        The mean, None if no class has both positive and negative images; and the AUCs by code,
        with the class's number of groups. The kind of interval depends on the number of groups on
        the rarer side (`weighted_intervals`); the mean has an interval if each class has one.
    """
    names, ids = np.asarray(truth, object), np.asarray(groups, object)
    rankings = {
        code: Ranking.of(names == code, natural[:, place])
        for place, code in enumerate(taxonomy.codes)
        if (names == code).any() and (names != code).any()
    }
    if not rankings:
        return None, {}

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        areas = np.concatenate([ranking.auc(weights) for ranking in rankings.values()], axis=1)
        return np.concatenate([areas.mean(axis=1, keepdims=True), areas], axis=1)

    counts = {code: len(set(ids[names == code].tolist())) for code in rankings}
    rarer = {code: min(n, len(set(ids[names != code].tolist()))) for code, n in counts.items()}
    mean, *found = weighted_intervals(statistic, groups, truth)
    if min(rarer.values()) < LEAST:
        mean = Interval(mean.value, np.nan, np.nan)
    aucs = {}
    for (code, ranking), interval in zip(rankings.items(), found, strict=True):
        few = rarer[code] < FEW
        shown = (
            weighted_intervals(ranking.auc, groups, truth, count=rarer[code])[0]
            if few
            else interval
        )
        aucs[code] = Proportion(*shown, groups=counts[code])
    return mean, aucs


@repeatable
def headline_intervals(labelled: LabelledPredictions) -> dict[str, Interval]:
    """Return accuracy and balanced accuracy of both decisions, with intervals by group.

    Returns:
        ``balanced_accuracy`` of the balanced decision, ``accuracy`` of the natural one,
        ``balanced_accuracy_natural`` and ``accuracy_balanced``.
    """
    truth, groups = labelled.truth, labelled.groups
    by_balanced, by_natural = labelled.balanced_codes, labelled.natural_codes
    names = np.array(truth, object)
    return {
        "balanced_accuracy": balanced_accuracy_interval(truth, by_balanced, groups),
        "accuracy": mean_interval(np.array(by_natural, object) == names, groups, truth),
        "balanced_accuracy_natural": balanced_accuracy_interval(truth, by_natural, groups),
        "accuracy_balanced": mean_interval(np.array(by_balanced, object) == names, groups, truth),
    }


class RankingCurve(NamedTuple):
    """Sensitivity, false-positive rate and precision at every threshold of a probability."""

    sensitivity: NDArray[np.float64]
    """T + 1, from 0 to 1; also called recall."""
    false_positive_rate: NDArray[np.float64]
    """T + 1, one minus the specificity."""
    precision: NDArray[np.float64]
    """T + 1, the fraction of positives among images at or above the threshold; NaN without any."""
    thresholds: NDArray[np.float64]
    """T + 1, descending; images at or above one count as positive; the first is infinite."""

    @classmethod
    def of(cls, truth: ArrayLike, probability: ArrayLike) -> RankingCurve:
        """Return the curve of N probabilities and N labels.

        Raises:
            DataError: There are no images, a probability is not finite, or the lengths differ.
        """
        ranking = Ranking.of(truth, probability)
        weights = np.ones((1, len(ranking.truth)))
        (sensitivity,), (false_positive_rate,) = ranking.curve(weights)
        found = sensitivity[1:] * ranking.truth.sum()
        precision = found / (found + false_positive_rate[1:] * (~ranking.truth).sum())
        return cls(
            sensitivity,
            false_positive_rate,
            np.append(np.nan, precision),
            np.append(np.inf, ranking.thresholds),
        )


# Ranking metrics of one class against the others.


def auc_of(
    truth: NDArray[np.bool_],
    probabilities: NDArray[np.floating[Any]],
    weights: NDArray[np.float64] | None = None,
) -> float | None:
    """Return the area under the ROC curve, or None if there are no positives or no negatives.

    Args:
        truth: N, true for images of the class.
        probabilities: N probabilities of the class.
        weights: N weights of the images; None: all 1.

    Raises:
        NaevusError: scikit-learn is not installed.
    """
    if not both_sides(truth, weights):
        return None
    return float(_metrics().roc_auc_score(truth, probabilities, sample_weight=weights))


def auc_above_sensitivity(
    truth: NDArray[np.bool_],
    probabilities: NDArray[np.floating[Any]],
    sensitivity: float,
    weights: NDArray[np.float64] | None = None,
) -> float | None:
    """Return the area under the part of the ROC curve with a high enough sensitivity.

    The curve is cut, with linear interpolation, where it first reaches ``sensitivity``. The area
    extends down to the axis and is not rescaled, so a perfect ranking has 1 (ISIC challenges,
    "AUC, Sens > 80%").

    Args:
        truth: N, true for images of the class.
        probabilities: N probabilities of the class.
        sensitivity: The sensitivity at the cut, above 0 and at most 1.
        weights: N weights of the images; None: all 1.

    Raises:
        NaevusError: scikit-learn is not installed.
    """
    if not both_sides(truth, weights):
        return None
    metrics = _metrics()
    fpr, tpr, _ = metrics.roc_curve(
        truth, probabilities, sample_weight=weights, drop_intermediate=False
    )
    first = int(np.argmax(tpr >= sensitivity))
    rise = tpr[first] - tpr[first - 1]
    along = (sensitivity - tpr[first - 1]) / rise
    cut = fpr[first - 1] + along * (fpr[first] - fpr[first - 1])
    return float(metrics.auc(np.append(cut, fpr[first:]), np.append(sensitivity, tpr[first:])))


def average_precision_of(
    truth: NDArray[np.bool_],
    probabilities: NDArray[np.floating[Any]],
    weights: NDArray[np.float64] | None = None,
) -> float | None:
    """Return the average precision, or None if there are no positives or no negatives.

    Args:
        truth: N, true for images of the class.
        probabilities: N probabilities of the class.
        weights: N weights of the images; None: all 1.

    Raises:
        NaevusError: scikit-learn is not installed.
    """
    if not both_sides(truth, weights):
        return None
    return float(_metrics().average_precision_score(truth, probabilities, sample_weight=weights))


def both_sides(truth: NDArray[np.bool_], weights: NDArray[np.float64] | None = None) -> bool:
    """Return whether positive and negative images with non-zero weight are present."""
    counted = truth if weights is None else truth[weights > 0]
    return bool(counted.any() and not counted.all())


def _metrics() -> ModuleType:
    try:
        import sklearn.metrics  # noqa: PLC0415
    except ImportError:
        raise NaevusError(
            "ranking metrics need scikit-learn, which is not installed",
            how_to_install("evaluate"),
        ) from None
    module: ModuleType = sklearn.metrics
    return module


@dataclass(frozen=True)
class ClassScores:
    """One class against the others, by one decision; None if a denominator is 0."""

    code: str
    images: int
    precision: float | None
    recall: float | None
    specificity: float | None


@dataclass(frozen=True)
class DecisionScores:
    """Scores of one decision rule: predict the class with the largest probability.

    Exact ties go to the first class in the taxonomy's order; the challenge's own scorer counts
    such images as wrong.
    """

    balanced_accuracy: float
    """The mean recall of the classes present in the ground truth."""
    accuracy: float
    classes: tuple[ClassScores, ...]
    confusion: NDArray[np.int64]
    """C x C counts: rows are the ground truth, columns the predictions."""

    @classmethod
    def from_predictions(
        cls, truth: NDArray[np.int64], predicted: NDArray[np.int64], codes: Sequence[str]
    ) -> DecisionScores:
        """Score N predictions against N true classes, both as positions in ``codes``.

        Examples:
            >>> truth, predicted = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
            >>> scores = DecisionScores.from_predictions(truth, predicted, ["NV", "MEL"])
            >>> scores.accuracy, round(scores.balanced_accuracy, 3)
            (0.75, 0.833)
            >>> scores.confusion.tolist()
            [[2, 1], [0, 1]]
        """
        size = len(codes)
        confusion = np.bincount(truth * size + predicted, minlength=size * size).reshape(size, size)
        hits, actual, answered = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
        total = len(truth)
        negatives = total - actual
        rejected = negatives - (answered - hits)
        classes = tuple(
            ClassScores(
                code=code,
                images=int(actual[c]),
                precision=_ratio(hits[c], answered[c]),
                recall=_ratio(hits[c], actual[c]),
                specificity=_ratio(rejected[c], negatives[c]),
            )
            for c, code in enumerate(codes)
        )
        recalls = [scores.recall for scores in classes if scores.recall is not None]
        return cls(
            balanced_accuracy=float(np.mean(recalls)),
            accuracy=float(hits.sum() / total),
            classes=classes,
            confusion=confusion,
        )

    def normalised_confusion(self) -> NDArray[np.float64]:
        """Return the confusion matrix with each row divided by its sum; absent classes are 0."""
        sums = self.confusion.sum(axis=1, keepdims=True)
        normalised: NDArray[np.float64] = self.confusion / np.maximum(sums, 1)
        return normalised

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as a dictionary for JSON."""
        return {
            "balanced_accuracy": self.balanced_accuracy,
            "accuracy": self.accuracy,
            "classes": {scores.code: _without_code(scores) for scores in self.classes},
            "confusion": self.confusion.tolist(),
        }


@dataclass(frozen=True)
class Mistake:
    """An image that the balanced decision misclassifies."""

    image_id: str
    truth: str
    answer: str
    probability: float
    """The balanced probability of the wrong class: the confidence of the error."""


@dataclass(frozen=True)
class ClassificationScores:
    """Task 3 metrics of many images, for both decisions."""

    images: int
    codes: tuple[str, ...]
    absent: tuple[str, ...]
    """Classes without images in the ground truth; all means leave them out."""
    balanced: DecisionScores
    natural: DecisionScores
    auc: dict[str, float | None]
    """Area under the ROC curve of each class's natural probability; None for absent classes."""
    average_precision: dict[str, float | None]
    mistakes: tuple[Mistake, ...]
    """The most confident errors first."""

    @classmethod
    def from_probabilities(
        cls,
        ids: Sequence[str],
        truth_codes: Sequence[str],
        natural: NDArray[np.floating[Any]],
        balanced: NDArray[np.floating[Any]],
        taxonomy: Taxonomy,
        *,
        mistakes: int = 20,
    ) -> ClassificationScores:
        """Score natural and balanced probabilities of the same N images.

        Args:
            ids: N unique image ids.
            truth_codes: N codes of the taxonomy.
            natural: N x C natural probabilities, in the taxonomy's order.
            balanced: N x C balanced probabilities.
            taxonomy: The C classes.
            mistakes: The number of most confident errors to list.

        Raises:
            DataError: There are no images, lengths differ, an id occurs twice, a code is unknown,
                or a probability is not finite.
            NaevusError: scikit-learn is not installed.
        """
        codes = taxonomy.codes
        _check(ids, truth_codes, natural, balanced, len(codes))
        truth = np.array([taxonomy.index(code) for code in truth_codes], dtype=np.int64)
        predicted = balanced.argmax(axis=1)
        members = {code: truth == c for c, code in enumerate(codes)}
        return cls(
            images=len(ids),
            codes=codes,
            absent=tuple(code for code, member in members.items() if not member.any()),
            balanced=DecisionScores.from_predictions(truth, predicted, codes),
            natural=DecisionScores.from_predictions(truth, natural.argmax(axis=1), codes),
            auc={code: auc_of(members[code], natural[:, c]) for c, code in enumerate(codes)},
            average_precision={
                code: average_precision_of(members[code], natural[:, c])
                for c, code in enumerate(codes)
            },
            mistakes=_surest_mistakes(ids, truth, balanced, codes)[:mistakes],
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for readers of the numbers."""
        if not self.absent:
            return ()
        absent = ", ".join(self.absent)
        return (f"{absent}: no image in the ground truth; means are over the other classes",)

    @property
    def mean_auc(self) -> float | None:
        """The mean AUC over the classes that have one."""
        return _mean(self.auc.values())

    @property
    def mean_average_precision(self) -> float | None:
        """The mean average precision over the classes that have one."""
        return _mean(self.average_precision.values())

    def by(self, decision: Decision) -> DecisionScores:
        """Return the scores of one decision."""
        return self.balanced if decision == "balanced" else self.natural

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as a dictionary for JSON; undefined values are None."""
        return {
            "images": self.images,
            "codes": list(self.codes),
            "absent": list(self.absent),
            "balanced": self.balanced.to_dict(),
            "natural": self.natural.to_dict(),
            "auc": dict(self.auc),
            "mean_auc": self.mean_auc,
            "average_precision": dict(self.average_precision),
            "mean_average_precision": self.mean_average_precision,
            "mistakes": [asdict(mistake) for mistake in self.mistakes],
            "notes": list(self.notes),
        }


def _check(
    ids: Sequence[str],
    truth_codes: Sequence[str],
    natural: NDArray[np.floating[Any]],
    balanced: NDArray[np.floating[Any]],
    classes: int,
) -> None:
    if not len(ids):
        raise DataError("there are no images to score", "give images that have a diagnosis")
    expected = (len(ids), classes)
    if len(truth_codes) != len(ids) or natural.shape != expected or balanced.shape != expected:
        raise DataError(
            f"{len(ids)} ids, {len(truth_codes)} diagnoses, natural probabilities "
            f"{natural.shape} and balanced ones {balanced.shape} do not match",
            f"give one diagnosis and {classes} probabilities for each id",
        )
    twice = [image_id for image_id, count in Counter(ids).items() if count > 1]
    if twice:
        raise DataError(f"{twice[0]} occurs {ids.count(twice[0])} times", "keep one row per image")
    for name, values in (("natural", natural), ("balanced", balanced)):
        bad = ~np.isfinite(values).all(axis=1)
        if bad.any():
            raise DataError(f"{ids[int(bad.argmax())]}: its {name} probabilities are not finite")


def _surest_mistakes(
    ids: Sequence[str],
    truth: NDArray[np.int64],
    balanced: NDArray[np.floating[Any]],
    codes: Sequence[str],
) -> tuple[Mistake, ...]:
    predicted = balanced.argmax(axis=1)
    found = [
        Mistake(ids[n], codes[truth[n]], codes[predicted[n]], float(balanced[n, predicted[n]]))
        for n in np.flatnonzero(predicted != truth).tolist()
    ]
    return tuple(sorted(found, key=lambda mistake: (-mistake.probability, mistake.image_id)))


def _without_code(scores: ClassScores) -> dict[str, Any]:
    values = asdict(scores)
    del values["code"]
    return values


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _ratio(part: np.int64, whole: np.int64) -> float | None:
    return float(part / whole) if whole else None
