"""Statistics of weighted pictures, for many weightings at once: what `bootstrap` takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from naevus.errors import DataError
from naevus.evaluation.resampling import finite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from naevus.evaluation.resampling import Statistic

_ROUNDING = 1e-12


def means_of(values: ArrayLike) -> Statistic:
    """Return the statistic "weighted mean of each column" of N x K values."""
    columns = np.asarray(values, np.float64)
    return ratios_of(columns, np.ones_like(columns))


def ratios_of(numerators: ArrayLike, denominators: ArrayLike) -> Statistic:
    """Return the statistic "ratio of weighted sums" of N x K columns, such as recalls.

    A ratio whose denominator vanishes in a weighting is NaN.
    """
    top = np.asarray(numerators, np.float64)
    bottom = finite(denominators, len(top))
    top = finite(top, len(top))

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return divided(weights @ top, weights @ bottom)

    return statistic


def quantiles_of(values: ArrayLike, shares: Sequence[float]) -> Statistic:
    """Return the statistic "weighted quantiles" of N values: the inverse of their distribution.

    Each is the smallest value that at least the share of the weight does not exceed.

    Raises:
        DataError: There is no picture, or a value is not a number.
    """
    column = np.asarray(values, np.float64)
    column = finite(column, len(column))
    order = np.argsort(column, kind="stable")
    ordered = column[order]

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        below = np.cumsum(weights[:, order], axis=1)
        below /= below[:, -1:].copy()
        found = [np.argmax(below >= share - _ROUNDING, axis=1) for share in shares]
        quantiles: NDArray[np.float64] = ordered[np.stack(found, axis=1)]
        return quantiles

    return statistic


def divided(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide, with NaN where the denominator is not above 0."""
    quotients: NDArray[np.float64] = top / np.where(bottom > 0, bottom, np.nan)
    return quotients


@dataclass(frozen=True)
class Ranking:
    """Pictures of two sides in the order of a score, the highest first.

    Attributes:
        truth: N, true on the positive side.
        order: N positions, by falling score.
        ends: The last position in ``order`` of each run of equal scores.
        thresholds: The score of each run, falling.
    """

    truth: NDArray[np.bool_]
    order: NDArray[np.intp]
    ends: NDArray[np.intp]
    thresholds: NDArray[np.float64]

    @classmethod
    def of(cls, truth: ArrayLike, scores: ArrayLike) -> Ranking:
        """Order N pictures.

        Raises:
            DataError: There is no picture, a score is not a number, or the lengths differ.
        """
        positive = np.asarray(truth, bool)
        if not positive.size:
            raise DataError("there is no picture to rank", "give at least one")
        values = finite(scores, len(positive))
        order = np.argsort(-values, kind="stable")
        ends = run_ends(values[order])
        return cls(positive, order, ends, values[order][ends])

    def curve(
        self, weights: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return sensitivities and false-positive rates at every threshold.

        Args:
            weights: D x N.

        Returns:
            Two D x (T + 1) arrays that begin at 0; NaN in weightings that empty a side.
        """
        ordered = weights[:, self.order]
        positive = ordered * self.truth[self.order]
        ordered -= positive
        rates = []
        for side in (positive, ordered):
            sums = np.zeros((len(weights), len(self.ends) + 1))
            sums[:, 1:] = np.cumsum(side, axis=1, out=side)[:, self.ends]
            rates.append(divided(sums, sums[:, -1:]))
        return rates[0], rates[1]

    def auc(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the area under the ROC curve, D x 1: a statistic for `bootstrap`."""
        return area(*self.curve(weights))


def area(
    sensitivity: NDArray[np.float64], false_positive_rate: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the area under D curves of `Ranking.curve`, D x 1 (trapezoids: ties count half)."""
    steps, heights = np.diff(false_positive_rate), sensitivity[:, 1:] + sensitivity[:, :-1]
    areas: NDArray[np.float64] = np.einsum("dt,dt->d", steps, heights)[:, None] / 2
    return areas


def run_ends(ordered: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the last position of each run of equal values."""
    return np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
