"""Intervals by resampling whole groups (lesions), never single pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

_CHUNK = 100  # draws whose group counts are held at once


class Interval(NamedTuple):
    """A value and its 95 % interval, given the trained networks."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def grouped_ratios(
    numerators: ArrayLike,
    denominators: ArrayLike,
    groups: Sequence[str],
    strata: Sequence[str] | None = None,
    *,
    draws: int = 2000,
    seed: int = 2018,
) -> NDArray[np.float64]:
    """Bootstrap the mean of some ratios of sums, drawing whole groups with replacement.

    Balanced accuracy is the mean over classes of (right answers) / (pictures); a plain mean is one
    ratio of (scores) / (pictures). Groups are drawn within their stratum (the diagnosis of a
    group's first picture), as many as there are (Davison & Hinkley 1997, 2.4 and 3.8).

    Args:
        numerators: N x M, what each picture adds to each ratio's numerator.
        denominators: N x M, likewise to the denominator.
        groups: N group ids.
        strata: N strata; None: one for all.
        draws: How many resamples.
        seed: Of the draws.

    Returns:
        One value a draw; a ratio whose denominator vanishes in a draw is left out of its mean.
    """
    codes, _ = pd.factorize(pd.Series(groups))
    count = int(codes.max()) + 1
    sums = []
    for values in (numerators, denominators):
        total = np.zeros((count, np.shape(values)[1]))
        np.add.at(total, codes, np.asarray(values, np.float64))
        sums.append(total)
    first = np.unique(codes, return_index=True)[1]
    labels = np.zeros(count) if strata is None else pd.factorize(pd.Series(strata))[0][first]
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    random = np.random.default_rng(seed)
    found = []
    for start in range(0, draws, _CHUNK):
        size = min(_CHUNK, draws - start)
        drawn = np.zeros((size, count))
        for stratum in members:
            even = np.full(len(stratum), 1 / len(stratum))
            drawn[:, stratum] = random.multinomial(len(stratum), even, size=size)
        top, bottom = drawn @ sums[0], drawn @ sums[1]
        ratios = np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)
        found.append(np.nanmean(ratios, axis=1))
    return np.concatenate(found)


def mean_interval(
    values: ArrayLike, groups: Sequence[str], strata: Sequence[str] | None = None
) -> Interval:
    """Return a mean over pictures with its percentile interval by group."""
    column = np.asarray(values, np.float64)[:, None]
    draws = grouped_ratios(column, np.ones_like(column), groups, strata)
    low, high = np.quantile(draws, (0.025, 0.975))
    return Interval(float(column.mean()), float(low), float(high))


def balanced_accuracy_interval(
    truth: Sequence[str], answers: Sequence[str], groups: Sequence[str]
) -> Interval:
    """Return the balanced accuracy over the classes present, with its interval by group."""
    names = np.asarray(truth, object)
    right = names == np.asarray(answers, object)
    member = names[:, None] == np.unique(names.astype(str))[None, :]
    draws = grouped_ratios(member & right[:, None], member, groups, truth)
    low, high = np.quantile(draws, (0.025, 0.975))
    value = float(((member & right[:, None]).sum(0) / member.sum(0)).mean())
    return Interval(value, float(low), float(high))
