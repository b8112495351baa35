"""Confidence intervals by group (lesion): percentile, Wilson, BCa, or none for few groups."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from naevus.errors import DataError
from naevus.evaluation.bootstrap import DRAWS, SEED, Groups, bootstrap, divided, finite, means_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from naevus.evaluation.bootstrap import Statistic


_Z = NormalDist().inv_cdf(0.975)
FEW: Final = 100
"""With fewer groups, fractions have Wilson's interval and other figures a BCa interval."""
_ROUNDING = 1e-12
RARE: Final = 30
"""With fewer groups in a class, a mean of recalls has an interval from Wilson's intervals."""
LEAST: Final = 10
"""With fewer groups, only fractions have an interval."""


class Interval(NamedTuple):
    """A value and its 95 % interval, conditional on the trained networks.

    The limits are NaN if there are too few groups, or all values are equal.

    Examples:
        >>> print(Interval(0.84, 0.826, 0.853))
        0.840 (0.826 to 0.853)
        >>> print(Interval(0.84, np.nan, np.nan))
        0.840
    """

    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return bool(np.isfinite([self.low, self.high]).all())

    def __str__(self) -> str:
        limits = f" ({self.low:z.3f} to {self.high:z.3f})" if self.known else ""
        return f"{self.value:z.3f}{limits}"


class Proportion(NamedTuple):
    """A fraction of images, its 95 % interval by group, and the number of groups."""

    value: float
    low: float
    high: float
    groups: int

    def __str__(self) -> str:
        return f"{Interval(*self[:3])}, n = {self.groups:,}"


def grouped_ratios(
    numerators: ArrayLike,
    denominators: ArrayLike,
    groups: Sequence[Hashable],
    strata: Sequence[Hashable] | None = None,
    *,
    draws: int = DRAWS,
    seed: int = SEED,
) -> NDArray[np.float64]:
    """Bootstrap the mean of ratios of sums, resampling whole groups with replacement.

    Balanced accuracy is the mean over classes of (correct predictions) / (images); a plain mean is
    one ratio of (scores) / (images). Resampling is stratified (by the diagnosis of a group,
    `Groups`) and keeps the number of groups (Davison & Hinkley 1997, 2.4 and 3.8).

    Args:
        numerators: N x M, the contribution of each image to each ratio's numerator.
        denominators: N x M, the same for the denominator.
        groups: N group ids.
        strata: N strata; None: one stratum.
        draws: The number of resamples.
        seed: The random seed.

    Returns:
        One value per draw; ratios with a denominator of 0 in a draw are left out of its mean.

    Raises:
        DataError: There are no images, one has no group, or a value is not a finite number.
    """
    numbered = Groups.of(groups, strata)
    top, bottom = numbered.sums(numerators), numbered.sums(denominators)
    return np.concatenate(
        [
            np.nanmean(divided(counts @ top, counts @ bottom), axis=1)
            for counts in numbered.drawn(draws, seed)
        ]
    )


def percentile_interval(value: float, draws: NDArray[np.float64]) -> Interval:
    """Return a value with the central 95 % of its draws; undefined draws (NaN) are left out.

    There are no limits if no draw is defined, or if both limits are equal, which is uninformative.
    """
    if np.isnan(draws).all():
        return Interval(value, np.nan, np.nan)
    low, high = np.nanquantile(draws, (0.025, 0.975))
    return _wide(float(value), float(low), float(high))


def _wide(value: float, low: float, high: float) -> Interval:
    return Interval(value, low, high) if high - low > _ROUNDING else Interval(value, np.nan, np.nan)


def weighted_intervals(
    statistic: Statistic,
    groups: Sequence[Hashable],
    strata: Sequence[Hashable] | None = None,
    *,
    count: int | Sequence[int] | None = None,
    draws: int = DRAWS,
    seed: int = SEED,
) -> list[Interval]:
    """Return K figures of a statistic of weighted images, with intervals by group.

    The intervals are percentiles of the draws. Figures based on fewer than `FEW` groups have BCa
    intervals (`bca_interval`), those based on fewer than `LEAST` have none.

    Args:
        statistic: Maps D x N weights to D x K values.
        groups: N group ids.
        strata: N strata; None: one stratum.
        count: The number of groups that the figures depend on, such as those of the rarer side,
            for all of them or for each; None: all groups.
        draws: The number of resamples.
        seed: The random seed.

    Raises:
        DataError: There are no images, or one has no group.
    """
    numbered = Groups.of(groups, strata)
    values = statistic(np.ones((1, len(numbered.codes))))[0]
    counts = np.broadcast_to(len(numbered) if count is None else np.asarray(count), values.shape)
    if (counts < LEAST).all():
        return [Interval(float(value), np.nan, np.nan) for value in values]
    found = bootstrap(statistic, numbered, draws=draws, seed=seed)
    intervals = [
        percentile_interval(float(value), column)
        for value, column in zip(values, found.T, strict=True)
    ]
    if (few := (counts >= LEAST) & (counts < FEW)).any():
        moved = _bca(statistic, numbered, values, found)
        intervals = [moved[k] if few[k] else one for k, one in enumerate(intervals)]
    return [
        one._replace(low=np.nan, high=np.nan) if each < LEAST else one
        for one, each in zip(intervals, counts.tolist(), strict=True)
    ]


def mean_interval(
    values: ArrayLike, groups: Sequence[Hashable], strata: Sequence[Hashable] | None = None
) -> Interval:
    """Return the mean over images with its interval by group.

    A fraction (a mean of booleans) has Wilson's interval if there are fewer than `FEW` groups or
    all values are equal; any other mean has the interval of `weighted_intervals`.

    Examples:
        Images of the same lesion carry less information than images of different lesions.

        >>> scores = [1, 1, 1, 0, 0, 0] * 20
        >>> apart = mean_interval(scores, [f"lesion-{n}" for n in range(120)])
        >>> together = mean_interval(scores, [f"lesion-{n // 3}" for n in range(120)])
        >>> together.high - together.low > apart.high - apart.low
        True
    """
    is_fraction = np.asarray(values).dtype == bool
    column = np.asarray(values, np.float64)[:, None]
    if not is_fraction or len(set(groups)) >= FEW:
        (found,) = weighted_intervals(means_of(column), groups, strata)
        if found.known or not is_fraction:
            return found
    return Interval(*wilson_interval(column[:, 0], groups)[:3])


def balanced_accuracy_interval(
    truth: Sequence[str], predicted: Sequence[str], groups: Sequence[Hashable]
) -> Interval:
    """Return the balanced accuracy over the classes present, with its interval by group."""
    names = np.asarray(truth, object)
    right = names == np.asarray(predicted, object)
    member = names[:, None] == np.unique(names.astype(str))[None, :]
    return mean_ratio_interval(member & right[:, None], member, groups, truth)


def mean_ratio_interval(
    numerators: ArrayLike,
    denominators: ArrayLike,
    groups: Sequence[Hashable],
    strata: Sequence[Hashable] | None = None,
    *,
    draws: int = DRAWS,
) -> Interval:
    """Return the mean of some fractions, such as recalls, with its interval by group.

    It is the percentile interval of `grouped_ratios`. Where a fraction stands on fewer than `RARE`
    groups, it is recovered from the Wilson intervals of all fractions, as of independent ones (Zou
    & Donner, Statistics in Medicine 2008): the mean is as far from its limits as the root of
    their summed squared distances, over their number.

    Args:
        numerators: N x M, the images of each fraction's denominator that count, or counts of them.
        denominators: N x M, the images of each fraction, or counts of them.
        groups: N group ids.
        strata: N strata; None: one for all.
        draws: How many resamples.

    Raises:
        DataError: There is no image, one has no group, or a value is not a number.
    """
    numbered = Groups.of(groups)
    top, bottom = numbered.sums(numerators), numbered.sums(denominators)
    value = float(divided(top.sum(0), bottom.sum(0)).mean())
    if (bottom > 0).sum(axis=0).min() >= RARE:
        found = grouped_ratios(numerators, denominators, groups, strata, draws=draws)
        return percentile_interval(value, found)
    return recovered_interval(numerators, denominators, groups)


def recovered_interval(
    numerators: ArrayLike, denominators: ArrayLike, groups: Sequence[Hashable]
) -> Interval:
    """Return the mean of some fractions with the interval of `mean_ratio_interval` for few groups.

    A single fraction has Wilson's interval. Both arguments may be weighted, as long as a group's
    weights in a denominator sum to a number of images.
    """
    numbered = Groups.of(groups)
    top, bottom = numbered.sums(numerators), numbered.sums(denominators)
    value = float(divided(top.sum(0), bottom.sum(0)).mean())
    parts = [
        _wilson(one[each > 0], each[each > 0]) for one, each in zip(top.T, bottom.T, strict=True)
    ]
    below, above = (
        float(np.sqrt(np.square(distances).sum())) / len(parts)
        for distances in (
            [each.value - each.low for each in parts],
            [each.high - each.value for each in parts],
        )
    )
    return Interval(value, max(value - below, 0.0), min(value + above, 1.0))


def wilson_interval(right: ArrayLike, groups: Sequence[Hashable]) -> Proportion:
    """Return a fraction of images with Wilson's interval at the effective sample size.

    The effective number of images is N divided by the design effect, the ratio of the variance
    of the fraction between groups to that of independent images (Kish 1965; Rao & Scott,
    Biometrics 1992), and at most N. If all values are equal, this variance is uninformative, and
    images of a group count as copies: (sum of sizes)² / (sum of squared sizes). Wilson, JASA 1927.

    Args:
        right: N, true or 1 for images that count as successes.
        groups: N group ids.

    Raises:
        DataError: There are no images, one has no group, or a value is neither 0 nor 1.
    """
    numbered = Groups.of(groups)
    values = finite(right, len(numbered.codes))
    if not np.isin(values, (0, 1)).all():
        raise DataError("a fraction needs values that are 0 or 1", "give one per image")
    return _wilson(numbered.sums(values), numbered.sizes)


def _wilson(counts: NDArray[np.float64], sizes: NDArray[Any]) -> Proportion:
    """Return Wilson's interval from each group's size and number of successes."""
    images = float(sizes.sum())
    fraction = float(counts.sum()) / images
    effective = _effective(counts - fraction * sizes, sizes, fraction)
    squared = _Z**2 / min(effective, images)
    middle = (fraction + squared / 2) / (1 + squared)
    half = np.sqrt(squared * fraction * (1 - fraction) + squared**2 / 4) / (1 + squared)
    # Rounding must not put the fraction outside its interval.
    low, high = min(max(middle - half, 0.0), fraction), max(min(middle + half, 1.0), fraction)
    return Proportion(fraction, float(low), float(high), len(sizes))


def recall_intervals(
    truth: Sequence[str], predicted: Sequence[str], groups: Sequence[Hashable]
) -> dict[str, Proportion]:
    """Return the recall of every class present, with Wilson's interval by group.

    For rare classes (fewer than a hundred lesions), bootstrap intervals would be too narrow.
    """
    names, given = np.asarray(truth, object), np.asarray(predicted, object)
    ids = np.asarray(groups, object)
    return {
        code: wilson_interval(given[names == code] == code, ids[names == code].tolist())
        for code in sorted(set(names.tolist()))
    }


def _effective(residuals: NDArray[np.float64], sizes: NDArray[Any], fraction: float) -> float:
    """Return the effective number of images from each group's sum of (value - fraction)."""
    images, groups = float(sizes.sum()), len(sizes)
    independent = fraction * (1 - fraction) / max(images - 1, 1)
    between = groups / max(groups - 1, 1) * float((residuals**2).sum()) / images**2
    if groups == 1 or independent == 0:
        return images**2 / float((sizes.astype(np.float64) ** 2).sum())
    return images * independent / between if between > 0 else images


# Intervals for few groups: bias-corrected and accelerated, by group.

_CHUNK = 100  # leave-one-out weightings per batch
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

    The percentiles are shifted according to the median bias of the draws and to the skewness of
    the groups' influence (Davison & Hinkley 1997, 5.3; in strata, 5.3.2). This suits figures with
    a skewed distribution that depend on few groups, such as the AUC of a rare class.

    Args:
        statistic: Maps D x N weights to D x 1 values.
        groups: N group ids.
        strata: N strata for resampling; None: one stratum.
        draws: The number of resamples.
        seed: The random seed.

    Returns:
        The value, with NaN limits if the figure is undefined in every draw.

    Raises:
        DataError: There are no images, or one has no group.
    """
    numbered = Groups.of(groups, strata)
    values = statistic(np.ones((1, len(numbered.codes))))[0]
    found = bootstrap(statistic, numbered, draws=draws, seed=seed)
    return _bca(statistic, numbered, values, found)[0]


def _bca(
    statistic: Statistic,
    groups: Groups,
    values: NDArray[np.float64],
    found: NDArray[np.float64],
) -> list[Interval]:
    """Return the BCa intervals of K values from D x K draws."""
    left_out = np.concatenate([statistic(weights) for weights in _left_out(groups)])
    return [
        _moved_interval(float(value), column, _acceleration(jackknife, groups))
        for value, column, jackknife in zip(values, found.T, left_out.T, strict=True)
    ]


def _moved_interval(value: float, found: NDArray[np.float64], acceleration: float) -> Interval:
    found = found[~np.isnan(found)]
    if not len(found) or np.isnan(value):
        return Interval(value, np.nan, np.nan)
    # Ties count half, so a constant figure has no bias.
    below = float((found < value).mean() + (found == value).mean() / 2)
    edge = 1 / (2 * len(found))
    bias = _NORMAL.inv_cdf(min(max(below, edge), 1 - edge))
    low, high = (float(np.quantile(found, _moved(level, bias, acceleration))) for level in _LEVELS)
    return _wide(value, low, high)


def _moved(level: float, bias: float, acceleration: float) -> float:
    sum_ = bias + _NORMAL.inv_cdf(level)
    return _NORMAL.cdf(bias + sum_ / (1 - acceleration * sum_))


def _acceleration(values: NDArray[np.float64], groups: Groups) -> float:
    """Return a sixth of the skewness of the groups' influence, from the leave-one-out values."""
    pulls = []
    for members in groups.strata:
        own = values[members]
        own = own[~np.isnan(own)]  # undefined without the only group of a class
        if len(own) > 1:
            pulls.append((own.mean() - own) * (len(own) - 1) / len(own))
    together = np.concatenate(pulls) if pulls else np.zeros(1)
    spread = float((together**2).sum())
    return float((together**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0


def _left_out(groups: Groups) -> Iterator[NDArray[np.float64]]:
    """Yield weights of images in batches, one row per group left out."""
    count = len(groups)
    for start in range(0, count, _CHUNK):
        out = np.arange(start, min(start + _CHUNK, count))
        yield (groups.codes[None, :] != out[:, None]).astype(np.float64)
