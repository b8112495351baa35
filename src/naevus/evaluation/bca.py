"""Intervals for few groups: bias-corrected and accelerated, by group."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from naevus.evaluation.intervals import Interval
from naevus.evaluation.resampling import DRAWS, SEED, Groups, bootstrap

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from numpy.typing import NDArray

    from naevus.evaluation.resampling import Statistic

_CHUNK = 100  # groups that are left out at once
_LEVELS = (0.025, 0.975)
_NORMAL = NormalDist()


def bca_interval(
    statistic: Statistic,
    groups: Sequence[Hashable],
    strata: Sequence[Hashable] | None = None,
    *,
    draws: int = DRAWS,
    seed: int = SEED,
) -> Interval:
    """Return a figure with its bias-corrected and accelerated interval (Efron, JASA 1987).

    Percentiles of the draws that were moved by how far the draws lie to one side of the value, and
    by how its spread changes with it (Davison & Hinkley 1997, 5.3; in strata, 5.3.2): for figures
    that few groups decide on and whose distribution leans, such as the AUC of a rare class.

    Args:
        statistic: From D x N weights to D x 1 values.
        groups: N group ids.
        strata: N strata within which groups are drawn; None: one for all.
        draws: How many resamples.
        seed: Of the draws.

    Returns:
        The value with NaN limits where no draw defines the figure.

    Raises:
        DataError: There is no picture, or one has no group.
    """
    numbered = Groups.of(groups, strata)
    value = float(statistic(np.ones((1, len(numbered.codes))))[0, 0])
    found = bootstrap(statistic, numbered, draws=draws, seed=seed)[:, 0]
    found = found[~np.isnan(found)]
    if not len(found) or np.isnan(value):
        return Interval(value, np.nan, np.nan)
    # Ties count half, so that a figure that never changes has no bias.
    below = float((found < value).mean() + (found == value).mean() / 2)
    edge = 1 / (2 * len(found))
    bias = _NORMAL.inv_cdf(min(max(below, edge), 1 - edge))
    acceleration = _acceleration(statistic, numbered)
    low, high = (float(np.quantile(found, _moved(level, bias, acceleration))) for level in _LEVELS)
    return Interval(value, low, high)


def _moved(level: float, bias: float, acceleration: float) -> float:
    sum_ = bias + _NORMAL.inv_cdf(level)
    return _NORMAL.cdf(bias + sum_ / (1 - acceleration * sum_))


def _acceleration(statistic: Statistic, groups: Groups) -> float:
    """Return a sixth of the skewness of the groups' influence, by leaving each out in turn."""
    values = np.concatenate([statistic(weights)[:, 0] for weights in _left_out(groups)])
    pulls = []
    for members in groups.strata:
        own = values[members]
        own = own[~np.isnan(own)]  # without the only group of a side there is no figure
        if len(own) > 1:
            pulls.append((own.mean() - own) * (len(own) - 1) / len(own))
    together = np.concatenate(pulls) if pulls else np.zeros(1)
    spread = float((together**2).sum())
    return float((together**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0


def _left_out(groups: Groups) -> Iterator[NDArray[np.float64]]:
    """Yield weights of pictures, a row a group that is left out, some at a time."""
    count = len(groups)
    for start in range(0, count, _CHUNK):
        out = np.arange(start, min(start + _CHUNK, count))
        yield (groups.codes[None, :] != out[:, None]).astype(np.float64)
