"""Operating points and decision curves for melanoma or malignancy against the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from naevus.errors import DataError
from naevus.evaluation.bootstrap import Ranking, area, divided, means_of
from naevus.evaluation.calibration import checked_probabilities, checked_rows
from naevus.evaluation.intervals import Interval, weighted_intervals

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from naevus.taxonomy import Taxonomy


FIXED = (0.8, 0.9, 0.95)
"""Specificities at which sensitivity is reported, and vice versa."""
THRESHOLDS = tuple(number / 100 for number in range(1, 51))
"""Thresholds of the decision curve: probabilities from which a lesion would be excised."""
_ROUNDING = 1e-9
_COUNTS = ("name", "images", "positives", "groups", "rarer")


class BinaryTarget(NamedTuple):
    """A binary problem: some diagnoses against all others, over N images of known diagnosis."""

    name: str
    truth: NDArray[np.bool_]
    """N, true for images with one of these diagnoses."""
    probability: NDArray[np.float64]
    """N, the natural probability of these diagnoses."""
    diagnoses: list[str]
    """N diagnoses, the strata for resampling."""


def melanoma(natural: ArrayLike, truth: Sequence[str], taxonomy: Taxonomy) -> BinaryTarget:
    """Return melanoma against the rest, from N x C natural probabilities and N diagnoses.

    Raises:
        DataError: As :func:`target_of`.
    """
    return target_of("melanoma", ["MEL"], natural, truth, taxonomy)


def malignant(natural: ArrayLike, truth: Sequence[str], taxonomy: Taxonomy) -> BinaryTarget:
    """Return the taxonomy's malignant diagnoses (ISIC 2018: MEL, BCC, AKIEC) against the benign.

    Raises:
        DataError: As :func:`target_of`.
    """
    return target_of("malignant", _malignant(taxonomy), natural, truth, taxonomy)


def targets_of(
    natural: ArrayLike, truth: Sequence[str], taxonomy: Taxonomy
) -> tuple[BinaryTarget, ...]:
    """Return `melanoma` and `malignant`, as far as the ground truth has both classes.

    Raises:
        DataError: A value is not a probability, or probabilities and ground truth do not match.
    """
    present = {taxonomy.index(code) for code in set(truth)}
    found = []
    for make, codes in ((melanoma, ["MEL"]), (malignant, _malignant(taxonomy))):
        inside = present.intersection(
            taxonomy.index(code) for code in codes if code in taxonomy.codes
        )
        if inside and present - inside:
            found.append(make(natural, truth, taxonomy))
    return tuple(found)


def target_of(
    name: str, codes: Iterable[str], natural: ArrayLike, truth: Sequence[str], taxonomy: Taxonomy
) -> BinaryTarget:
    """Return some diagnoses against the rest; their natural probabilities are summed.

    Raises:
        DataError: A code is unknown, a value is not a probability, probabilities and ground
            truth do not match, or all images are on one side.
    """
    classes = np.array([taxonomy.index(code) for code in truth], np.intp)
    rows, classes = checked_rows(natural, classes, len(truth))
    positive = [taxonomy.index(code) for code in codes]
    inside = np.isin(classes, positive)
    if inside.all() or not inside.any():
        raise DataError(f"{name}: all images are on one side", "give images with it and without it")
    summed = np.minimum(rows[:, positive].sum(axis=1), 1.0)
    return BinaryTarget(name, inside, summed, list(truth))


@dataclass(frozen=True)
class OperatingPoints:
    """The performance of a probability as a binary classifier of a `BinaryTarget`."""

    name: str
    images: int
    positives: int
    groups: int
    rarer: int
    """The number of groups on the side with fewer groups."""
    auc: Interval
    """Area under the ROC curve over all images together."""
    fold_auc: Interval | None
    """Mean of the areas per fold; None if no folds are known or no fold has both classes."""
    sensitivity_at: dict[float, Interval]
    """By specificity: the largest sensitivity at a threshold with at least this specificity."""
    specificity_at: dict[float, Interval]
    """By sensitivity: the largest specificity, likewise."""

    @classmethod
    def from_target(
        cls, target: BinaryTarget, groups: Sequence[Hashable], folds: Sequence[int] | None = None
    ) -> OperatingPoints:
        """Score a target with intervals by group; each resample chooses its own thresholds.

        Args:
            target: Labels and probabilities of N images.
            groups: N group ids.
            folds: N folds that predicted the images. Networks of different folds may output
                probabilities on different scales, which lowers the pooled area.

        Raises:
            DataError: An image has no group, or a value is not a probability.
        """
        scores = checked_probabilities(target.probability, len(groups))
        statistic = _Figures(Ranking.of(target.truth, scores))
        count = _rarer(target, groups)
        auc, *fixed = weighted_intervals(statistic, groups, target.diagnoses, count=count)
        return cls(
            name=target.name,
            images=len(groups),
            positives=int(target.truth.sum()),
            groups=len(set(groups)),
            rarer=count,
            auc=auc,
            fold_auc=_mean_of_folds(target, scores, groups, folds),
            sensitivity_at=dict(zip(FIXED, fixed[: len(FIXED)], strict=True)),
            specificity_at=dict(zip(FIXED, fixed[len(FIXED) :], strict=True)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as a dictionary for JSON."""
        return {
            **{name: getattr(self, name) for name in _COUNTS},
            "auc": self.auc._asdict(),
            "fold_auc": None if self.fold_auc is None else self.fold_auc._asdict(),
            "sensitivity_at": {str(at): i._asdict() for at, i in self.sensitivity_at.items()},
            "specificity_at": {str(at): i._asdict() for at, i in self.specificity_at.items()},
        }

    def __str__(self) -> str:
        lines = [f"{self.name}, {self.positives:,} of {self.images:,} images: AUC {self.auc}"]
        if self.fold_auc is not None:
            lines.append(f"mean AUC of the folds {self.fold_auc}")
        lines += [f"sensitivity at specificity {at}: {i}" for at, i in self.sensitivity_at.items()]
        lines += [f"specificity at sensitivity {at}: {i}" for at, i in self.specificity_at.items()]
        return "\n".join(lines)


def decision_curve(
    target: BinaryTarget, groups: Sequence[Hashable], thresholds: Sequence[float] = THRESHOLDS
) -> pd.DataFrame:
    """Return the net benefit of acting on the probability, at each threshold.

    At threshold t, a false positive costs t / (1 - t) of the benefit of a true positive. The net
    benefit is the number of true positives per image minus that cost (Vickers & Elkin, Medical
    Decision Making 2006); acting on no one has 0. It applies to the case mix of these images.

    Args:
        target: Labels and probabilities of N images.
        groups: N group ids.
        thresholds: Values between 0 and 1.

    Returns:
        ``threshold, net_benefit, low, high, act_on_all``; the interval is by group.

    Raises:
        DataError: A value or threshold is not a probability, or an image has no group.
    """
    cuts = checked_probabilities(thresholds, len(thresholds))
    if not ((cuts > 0) & (cuts < 1)).all():
        raise DataError("a threshold is not between 0 and 1", "give probabilities such as 0.1")
    scores = checked_probabilities(target.probability, len(groups))
    worth = np.where(target.truth[:, None], 1.0, -cuts / (1 - cuts))
    acted = worth * (scores[:, None] >= cuts)
    count = _rarer(target, groups)
    found = weighted_intervals(means_of(acted), groups, target.diagnoses, count=count)
    table = pd.DataFrame(found, columns=["net_benefit", "low", "high"])
    table.insert(0, "threshold", cuts)
    return table.assign(act_on_all=worth.mean(axis=0))


def _rarer(target: BinaryTarget, groups: Sequence[Hashable]) -> int:
    """Return the number of groups on the side with fewer groups."""
    names = np.asarray(groups, object)
    return min(len(set(names[side].tolist())) for side in (target.truth, ~target.truth))


def _malignant(taxonomy: Taxonomy) -> list[str]:
    if any(diagnosis.malignant is None for diagnosis in taxonomy.diagnoses):
        return []  # classes of the data set itself: malignancy is unknown
    return [diagnosis.code for diagnosis in taxonomy.diagnoses if diagnosis.malignant]


class _Figures:
    """The statistic: AUC, sensitivities at fixed specificities, and vice versa."""

    def __init__(self, ranking: Ranking) -> None:
        self._ranking = ranking

    def __call__(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        sensitivity, false_positive = self._ranking.curve(weights)
        rows = np.arange(len(weights))
        columns = [area(sensitivity, false_positive)[:, 0]]
        for fixed in FIXED:
            last = (false_positive <= 1 - fixed + _ROUNDING).sum(axis=1) - 1
            columns.append(sensitivity[rows, last])
        for fixed in FIXED:
            first = np.argmax(sensitivity >= fixed - _ROUNDING, axis=1)
            columns.append(1 - false_positive[rows, first])
        return np.stack(columns, axis=1)


def _mean_of_folds(
    target: BinaryTarget,
    scores: NDArray[np.float64],
    groups: Sequence[Hashable],
    folds: Sequence[int] | None,
) -> Interval | None:
    if folds is None:
        return None
    numbers = np.asarray(folds)
    inside = [np.flatnonzero(numbers == fold) for fold in np.unique(numbers)]
    inside = [rows for rows in inside if len(np.unique(target.truth[rows])) == 2]
    if not inside:
        return None
    rankings = [Ranking.of(target.truth[rows], scores[rows]) for rows in inside]

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        areas = [
            ranking.auc(weights[:, rows]) for ranking, rows in zip(rankings, inside, strict=True)
        ]
        together = np.concatenate(areas, axis=1)
        known = ~np.isnan(together)
        return divided(np.nansum(together, axis=1), known.sum(axis=1))[:, None]

    count = _rarer(target, groups)
    (interval,) = weighted_intervals(statistic, groups, target.diagnoses, count=count)
    return interval
