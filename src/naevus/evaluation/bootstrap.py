"""Resampling of whole groups (lesions), never of single images, and weighted statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, wraps
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

import numpy as np

from naevus.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    P = ParamSpec("P")
    R = TypeVar("R")


DRAWS = 2000
"""The number of resamples per interval."""
SEED = 2018
_CHUNK = 100  # draws made at once: another number gives other draws
_KEPT = 2**25  # counts that are kept for the next interval: 64 MB, 2,000 draws of 16,000 groups
_ROWS = 25  # draws computed at once: 2 MB of weights for 10,000 images, which caches hold

Statistic = Callable[["NDArray[np.float64]"], "NDArray[np.float64]"]
"""Maps D x N weights of N images to D x K values: K figures for each weighting."""


@dataclass(frozen=True)
class Groups:
    """The groups of images, and the strata of groups for resampling.

    Attributes:
        codes: N positions: the group of each image.
        strata: The groups of each stratum; every group is in exactly one.
    """

    codes: NDArray[np.intp]
    strata: tuple[NDArray[np.intp], ...]

    @classmethod
    def of(cls, groups: Sequence[Hashable], strata: Sequence[Any] | None = None) -> Groups:
        """Number the groups of N images.

        Args:
            groups: N group ids.
            strata: N strata; a group with images of several belongs to the one of them that the
                fewest groups have, so that resamples rarely lack it. None: one stratum.

        Raises:
            DataError: There are no images, one has no group or stratum, or the lengths differ.
        """
        codes = _numbered(groups, "group")
        if strata is None:
            return cls(codes, (np.arange(codes.max() + 1),))
        if len(strata) != len(codes):
            raise DataError(
                f"{len(codes)} groups and {len(strata)} strata", "give one of each per image"
            )
        labels = _rarest(codes, _numbered(strata, "stratum"), [str(each) for each in strata])
        return cls(codes, tuple(np.flatnonzero(labels == label) for label in np.unique(labels)))

    def __len__(self) -> int:
        return sum(len(members) for members in self.strata)

    @property
    def sizes(self) -> NDArray[np.intp]:
        """The number of images in each group."""
        return np.bincount(self.codes, minlength=len(self))

    def sums(self, values: ArrayLike) -> NDArray[np.float64]:
        """Sum N x M values of images within each group.

        Raises:
            DataError: A value is not a finite number, or there are not N rows.
        """
        rows = finite(values, len(self.codes))
        order = np.argsort(self.codes, kind="stable")
        starts = np.searchsorted(self.codes[order], np.arange(len(self)))
        total: NDArray[np.float64] = np.add.reduceat(rows[order], starts, axis=0)
        return total

    def drawn(self, draws: int = DRAWS, seed: int = SEED) -> Iterator[NDArray[np.float64]]:
        """Draw groups with replacement, in each stratum as many as it contains.

        Yields:
            D x G counts: how often each group was drawn; ``draws`` rows in all, in chunks.
        """
        if draws * len(self) > _KEPT:
            yield from _drawn(self.strata, draws, seed)
            return
        kept = _kept_draws(tuple(each.tobytes() for each in self.strata), draws, seed)
        for start in range(0, draws, _CHUNK):
            yield kept[start : start + _CHUNK].astype(np.float64)


def _drawn(
    strata: Sequence[NDArray[np.intp]], draws: int, seed: int
) -> Iterator[NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    total = sum(map(len, strata))
    for start in range(0, draws, _CHUNK):
        size = min(_CHUNK, draws - start)
        counts = np.zeros((size, total))
        for members in strata:
            shape = (size, len(members))
            chosen = rng.integers(len(members), size=shape)
            chosen += len(members) * np.arange(size)[:, None]
            counted = np.bincount(chosen.ravel(), minlength=chosen.size)
            counts[:, members] = counted.reshape(shape)
        yield counts


@lru_cache(maxsize=1)
def _kept_draws(strata: tuple[bytes, ...], draws: int, seed: int) -> NDArray[np.uint16]:
    """Return the last draws again: an evaluation has many intervals over the same groups."""
    numbers = [np.frombuffer(each, np.intp) for each in strata]
    return np.concatenate([counts.astype(np.uint16) for counts in _drawn(numbers, draws, seed)])


def bootstrap(
    statistic: Statistic, groups: Groups, *, draws: int = DRAWS, seed: int = SEED
) -> NDArray[np.float64]:
    """Bootstrap any statistic of weighted images by resampling whole groups.

    The weight of an image is the number of times its group was drawn (Davison & Hinkley 1997, 2.4
    and 3.8). No data are copied, and all draws of a chunk are computed at once.

    Args:
        statistic: Maps D x N weights to D x K values; NaN where a draw leaves a value undefined.
        groups: The groups of the N images.
        draws: The number of resamples.
        seed: The random seed; with the same groups and seed, two statistics use the same draws.

    Returns:
        ``draws`` x K values.
    """
    return np.concatenate(
        [
            statistic(np.take(counts[start : start + _ROWS], groups.codes, axis=1))
            for counts in groups.drawn(draws, seed)
            for start in range(0, len(counts), _ROWS)
        ]
    )


def finite(values: ArrayLike, images: int) -> NDArray[np.float64]:
    """Return values of images as float64, one row per image.

    Raises:
        DataError: There are no images, a row count other than ``images``, or a non-finite value.
    """
    rows = np.asarray(values, np.float64)
    if not images:
        raise DataError("there are no images", "give at least one")
    if len(rows) != images:
        raise DataError(f"values of {len(rows)} images for {images}", "give one row per image")
    bad = ~np.isfinite(rows.reshape(images, -1)).all(axis=1)
    if bad.any():
        raise DataError(
            f"{int(bad.sum())} of {images} images have a value that is not a finite number",
            "leave them out or predict them again",
        )
    return rows


def _rarest(
    codes: NDArray[np.intp], strata: NDArray[np.intp], names: Sequence[str]
) -> NDArray[np.intp]:
    """Return the stratum of each group: of its images' strata the one of the fewest groups."""
    pairs = np.unique(np.stack([codes, strata]), axis=1)
    named = np.array(names)[np.unique(strata, return_index=True)[1]][pairs[1]]
    order = np.lexsort((named, np.bincount(pairs[1])[pairs[1]], pairs[0]))
    groups, own = pairs[:, order]
    rarest: NDArray[np.intp] = own[np.unique(groups, return_index=True)[1]]
    return rarest


def _numbered(names: Sequence[Any], what: str) -> NDArray[np.intp]:
    import pandas as pd  # noqa: PLC0415 (slow; prediction sets are used without groups)

    column = pd.Series(names, dtype=object)
    if column.empty:
        raise DataError("there are no images", "give at least one")
    if column.isna().any():
        raise DataError(f"{int(column.isna().sum())} images have no {what}", "give one per image")
    codes: NDArray[np.intp] = pd.factorize(column)[0]
    return codes


# Statistics of weighted images for `bootstrap`, vectorised over weightings.

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


def quantiles_of(values: ArrayLike, fractions: Sequence[float]) -> Statistic:
    """Return the statistic "weighted quantiles" of N values: the inverse of their distribution.

    Each quantile is the smallest value with at least the given fraction of the weight at or below.

    Raises:
        DataError: There are no images, or a value is not a finite number.
    """
    column = np.asarray(values, np.float64)
    column = finite(column, len(column))
    order = np.argsort(column, kind="stable")
    ordered = column[order]

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        below = np.cumsum(weights[:, order], axis=1)
        below /= below[:, -1:].copy()
        found = [np.argmax(below >= fraction - _ROUNDING, axis=1) for fraction in fractions]
        quantiles: NDArray[np.float64] = ordered[np.stack(found, axis=1)]
        return quantiles

    return statistic


def divided(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide, with NaN where the denominator is not positive."""
    quotients: NDArray[np.float64] = top / np.where(bottom > 0, bottom, np.nan)
    return quotients


class _Pairs(NamedTuple):
    """The images of both classes by descending score, and where they lie between each other."""

    positive: NDArray[np.intp]
    negative: NDArray[np.intp]
    edges: NDArray[np.intp]
    """The positions in ``negative`` at which positive images lie, from 0 to its length."""
    first: NDArray[np.intp]
    """For each positive image, the edge after all negative images with a higher score."""
    last: NDArray[np.intp]
    """The same after those with an equal score, too."""


@dataclass(frozen=True)
class Ranking:
    """Images of a binary problem, ordered by a score from the highest.

    Attributes:
        truth: N, true for positive images.
        order: N positions, by descending score.
        ends: The last position in ``order`` of each run of equal scores.
        thresholds: The score of each run, descending.
    """

    truth: NDArray[np.bool_]
    order: NDArray[np.intp]
    ends: NDArray[np.intp]
    thresholds: NDArray[np.float64]

    @classmethod
    def of(cls, truth: ArrayLike, scores: ArrayLike) -> Ranking:
        """Order N images by score.

        Raises:
            DataError: There are no images, a score is not finite, or the lengths differ.
        """
        positive = np.asarray(truth, bool)
        if not positive.size:
            raise DataError("there are no images to rank", "give at least one")
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
            Two D x (T + 1) arrays that start at 0; NaN for weightings without one of the classes.
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
        """Return the area under the ROC curve, D x 1: a statistic for `bootstrap`.

        This is the fraction of pairs of a positive and a negative image in which the positive one
        has the higher score; ties count half (Hanley & McNeil 1982). It takes an eighth of the time
        of the curve. NaN for weightings without one of the classes.
        """
        pairs = self._pairs
        positive, negative = (
            np.take(weights, side, axis=1) for side in (pairs.positive, pairs.negative)
        )
        above = np.zeros((len(weights), len(pairs.edges)))
        between = np.add.reduceat(negative, pairs.edges[:-1], axis=1)
        np.cumsum(between, axis=1, out=above[:, 1:])
        total = above[:, -1:]
        below = total - (above[:, pairs.first] + above[:, pairs.last]) / 2
        won = np.einsum("dp,dp->d", positive, below)[:, None]
        return divided(won, positive.sum(axis=1, keepdims=True) * total)

    @cached_property
    def _pairs(self) -> _Pairs:
        positive = self.truth[self.order]
        runs = np.searchsorted(self.ends, np.arange(len(self.order)))
        higher, equal = (
            np.searchsorted(runs[~positive], runs[positive], side) for side in ("left", "right")
        )
        count = int((~positive).sum())
        edges = np.unique(np.concatenate([[0], higher, equal, [count]]))
        return _Pairs(
            self.order[positive],
            self.order[~positive],
            edges,
            np.searchsorted(edges, higher),
            np.searchsorted(edges, equal),
        )


def area(
    sensitivity: NDArray[np.float64], false_positive_rate: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the area under D curves of `Ranking.curve`, D x 1, by trapezoids: ties count half."""
    steps, heights = np.diff(false_positive_rate), sensitivity[:, 1:] + sensitivity[:, :-1]
    areas: NDArray[np.float64] = np.einsum("dt,dt->d", steps, heights)[:, None] / 2
    return areas


def run_ends(ordered: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the last position of each run of equal values."""
    return np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)


# Results that are bitwise independent of the number of threads in linear algebra.


def repeatable(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function with a single linear-algebra thread, because threads affect summation order.

    Bootstrap sums differed by about 1e-16 between one thread and two.
    """

    @wraps(function)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        from threadpoolctl import threadpool_limits  # noqa: PLC0415 (looks at what is loaded)

        with threadpool_limits(1):
            return function(*args, **kwargs)

    return alone
