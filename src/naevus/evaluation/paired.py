"""Two answers to the same pictures: how much better one is, and whether chance explains it."""

from __future__ import annotations

from math import comb
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from naevus.evaluation.intervals import Interval, grouped_ratios, percentile_interval
from naevus.evaluation.resampling import SEED, Groups, finite
from naevus.evaluation.weighted import divided

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import ArrayLike, NDArray

PERMUTATIONS = 10_000
_CHUNK = 500
_ROUNDING = 1e-12


class Difference(NamedTuple):
    """One score of A and of B on the same pictures."""

    score: str
    a: float
    b: float
    difference: Interval
    """B - A, with its 95 % interval by group."""
    p: float
    """Of the permutation test: how often chance alone makes a difference as large."""
    groups: int

    @property
    def told_apart(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.difference.low > 0 or self.difference.high < 0

    def sentence(self, a: str = "A", b: str = "B") -> str:
        """Say the difference in words, in points (hundredths)."""
        value, low, high = (100 * part for part in self.difference)
        counted = f"{self.groups:,} lesion{'' if self.groups == 1 else 's'}"
        if not self.told_apart:
            return (
                f"{self.score}: the data cannot tell {a} and {b} apart: {b} - {a} is {value:.1f} "
                f"points, 95 % interval {low:.1f} to {high:.1f}, {counted}"
            )
        better = b
        if value < 0:
            better, value, low, high = a, -value, -high, -low
        return (
            f"{self.score}: {better} is better by {value:.1f} points, "
            f"95 % interval {low:.1f} to {high:.1f}, {counted}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the difference as a dictionary that JSON can hold."""
        return {**self._asdict(), "difference": self.difference._asdict()}


def paired_difference(
    score: str,
    a: ArrayLike,
    b: ArrayLike,
    denominators: ArrayLike,
    groups: Sequence[Hashable],
    strata: Sequence[Hashable] | None = None,
) -> Difference:
    """Compare the means of K ratios of sums, such as the recalls whose mean is balanced accuracy.

    Args:
        score: Its name.
        a: N x K, what each picture adds to each of A's numerators.
        b: N x K, likewise of B.
        denominators: N x K, the same for both; every column has a picture.
        groups: N group ids.
        strata: N strata within which groups are drawn; None: one for all.

    Raises:
        DataError: There is no picture, one has no group, or a value is not a number.
    """
    ours, theirs = np.asarray(a, np.float64), np.asarray(b, np.float64)
    whole = np.asarray(denominators, np.float64)
    draws = grouped_ratios(theirs - ours, whole, groups, strata)
    one, other = (float(divided(each.sum(0), whole.sum(0)).mean()) for each in (ours, theirs))
    counted = np.asarray(groups, object)[whole.any(axis=1)]
    return Difference(
        score=score,
        a=one,
        b=other,
        difference=percentile_interval(other - one, draws),
        p=swap_test(((theirs - ours) / whole.sum(0)).mean(axis=1), groups),
        groups=len(set(counted.tolist())),
    )


def swap_test(
    differences: ArrayLike,
    groups: Sequence[Hashable],
    *,
    permutations: int = PERMUTATIONS,
    seed: int = SEED,
) -> float:
    """Return the two-sided p of a permutation test that swaps A and B in whole groups.

    If A and B were alike, each group's answers might as well be the other's. The observed
    arrangement counts as one of the permutations, so that p is never 0 (Phipson & Smyth 2010).

    Args:
        differences: N, what each picture adds to B - A.
        groups: N group ids.
        permutations: How many arrangements are drawn.
        seed: Of the draws.

    Raises:
        DataError: There is no picture, one has no group, or a value is not a number.
    """
    sums = Groups.of(groups).sums(differences)
    sums = sums[sums != 0]
    observed = abs(sums.sum()) - _ROUNDING
    random = np.random.default_rng(seed)
    extreme = 1
    for start in range(0, permutations, _CHUNK):
        size = (min(_CHUNK, permutations - start), len(sums))
        signs = 2.0 * random.integers(0, 2, size=size, dtype=np.int8) - 1
        extreme += int(np.count_nonzero(np.abs(signs @ sums) >= observed))
    return extreme / (permutations + 1)


class McNemar(NamedTuple):
    """Answers of which only one is right, on one picture a group."""

    groups: int
    only_a: int
    """Pictures that A alone answers rightly."""
    only_b: int
    p: float
    """Two-sided and exact: of a fair coin thrown for each of these (McNemar 1947)."""


def mcnemar(
    right_a: NDArray[np.bool_], right_b: NDArray[np.bool_], groups: Sequence[Hashable]
) -> McNemar:
    """Return McNemar's exact test on the first picture of each group.

    Args:
        right_a: N, whether A is right, the pictures in an order that has nothing to do with it.
        right_b: N, likewise of B.
        groups: N group ids.

    Raises:
        DataError: There is no picture, one has no group, or lengths differ.
    """
    numbered = Groups.of(groups)
    first = np.unique(numbered.codes, return_index=True)[1]
    ours, theirs = (finite(each, len(numbered.codes))[first] > 0 for each in (right_a, right_b))
    only_a, only_b = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    thrown = only_a + only_b
    tail = sum(comb(thrown, heads) for heads in range(min(only_a, only_b) + 1))
    return McNemar(len(first), only_a, only_b, min(1.0, 2 * tail / 2**thrown))
