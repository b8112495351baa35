"""Selective prediction: risk against coverage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from naevus.errors import DataError
from naevus.evaluation.bootstrap import finite, run_ends
from naevus.evaluation.intervals import Interval, mean_interval, weighted_intervals

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import ArrayLike, NDArray

COVERAGES = (0.8, 0.9, 0.95)
"""Coverages for which accuracy is reported."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class SelectiveScores:
    """How well a confidence separates correct from wrong predictions."""

    images: int
    groups: int
    risk: Interval
    """The fraction of wrong predictions at full coverage."""
    aurc: Interval
    """The area under the risk-coverage curve, the mean risk over all coverages; 0 is best."""
    excess_aurc: Interval
    """The area minus that of a perfect ranking with the same number of errors."""
    accuracy_at: dict[float, Interval]
    """Accuracy of the most confident images, by coverage."""
    curve: pd.DataFrame
    """``coverage`` and ``risk``, one row per image, the most confident first."""

    @classmethod
    def from_predictions(
        cls,
        right: ArrayLike,
        confidence: ArrayLike,
        groups: Sequence[Hashable],
        strata: Sequence[Hashable] | None = None,
    ) -> SelectiveScores:
        """Score N predictions.

        Geifman & El-Yaniv, NIPS 2017; excess area: Geifman et al., ICLR 2019. Predictions of equal
        confidence have no order: each counts as their mean.

        Args:
            right: N, whether the prediction is correct.
            confidence: N, any number that increases with the confidence.
            groups: N group ids.
            strata: N strata for resampling, such as diagnoses; None: one stratum.

        Raises:
            DataError: There are no images, one has no group, a value is not a finite number, or
                ``right`` is neither 0 nor 1.
        """
        count = len(groups)
        wrong = 1 - finite(right, count)
        if not np.isin(wrong, (0, 1)).all():
            raise DataError("correctness must be 0 or 1", "give one value per image")
        sure = finite(confidence, count)
        by_confidence, mistakes = _Order(wrong, sure), np.flatnonzero(wrong)

        def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
            coverage, risk = by_confidence.curve(weights)
            area = np.einsum("dn,dn->d", np.diff(coverage, axis=1, prepend=0), risk)
            best = _best_area(weights.sum(axis=1), weights[:, mistakes])
            accuracies = [1 - _at(coverage, risk, wanted) for wanted in COVERAGES]
            return np.stack([area, area - best, *accuracies], axis=1)

        aurc, excess, *accuracies = weighted_intervals(statistic, groups, strata)
        coverage, risks = by_confidence.curve(np.ones((1, count)))
        return cls(
            images=count,
            groups=len(set(groups)),
            risk=mean_interval(wrong > 0, groups, strata),
            aurc=aurc,
            excess_aurc=excess,
            accuracy_at=dict(zip(COVERAGES, accuracies, strict=True)),
            curve=pd.DataFrame({"coverage": coverage[0], "risk": risks[0]}),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the scores, without the curve, as a dictionary for JSON."""
        return {
            "images": self.images,
            "groups": self.groups,
            "risk": self.risk._asdict(),
            "aurc": self.aurc._asdict(),
            "excess_aurc": self.excess_aurc._asdict(),
            "accuracy_at": {str(at): value._asdict() for at, value in self.accuracy_at.items()},
        }

    def __str__(self) -> str:
        lines = [f"risk: {self.risk}", f"AURC: {self.aurc}, excess {self.excess_aurc}"]
        lines += [f"accuracy at {at:.0%}: {value}" for at, value in self.accuracy_at.items()]
        return "\n".join(lines)


class _Order:
    """Images by descending confidence."""

    def __init__(self, wrong: NDArray[np.float64], confidence: NDArray[np.float64]) -> None:
        self._order = np.argsort(-confidence, kind="stable")
        ends = run_ends(confidence[self._order])
        self._starts = np.append(0, ends[:-1] + 1)
        self._run = np.repeat(np.arange(len(ends)), ends - self._starts + 1)
        self._wrong = wrong[self._order]

    def curve(
        self, weights: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return coverage and risk after each image, D x N each, for D x N weights."""
        ordered = weights[:, self._order]
        wrong = ordered * self._wrong
        if len(self._starts) < ordered.shape[1]:
            in_run, all_in_run = (
                np.add.reduceat(each, self._starts, axis=1) for each in (wrong, ordered)
            )
            wrong = ordered * _fraction(in_run, all_in_run)[:, self._run]
        covered = np.cumsum(ordered, axis=1)
        risk = _fraction(np.cumsum(wrong, axis=1), covered)
        covered /= covered[:, -1:].copy()
        return covered, risk


def _best_area(total: NDArray[np.float64], wrong: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the area if every error (D x E weights) has lower confidence than all others."""
    added = np.cumsum(wrong, axis=1)
    right = total - wrong.sum(axis=1)
    area: NDArray[np.float64] = (wrong * _fraction(added, right[:, None] + added)).sum(
        axis=1
    ) / total
    return area


def _fraction(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide, with 0 where the denominator is 0: images without weight have no risk."""
    fraction: NDArray[np.float64] = part / np.maximum(whole, np.finfo(np.float64).tiny)
    return fraction


def _at(
    coverage: NDArray[np.float64], risk: NDArray[np.float64], wanted: float
) -> NDArray[np.float64]:
    """Return the risk where the coverage first reaches a value."""
    first = np.argmax(coverage >= wanted - _ROUNDING, axis=1)
    there: NDArray[np.float64] = risk[np.arange(len(risk)), first]
    return there
