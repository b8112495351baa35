"""Paired differences of two recipes on the same images: their size, intervals and p values."""

from __future__ import annotations

from math import comb
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from naevus.evaluation.bootstrap import SEED, Groups, divided, finite
from naevus.evaluation.intervals import Interval
from naevus.io.words import counted

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from naevus.types import Unit


PERMUTATIONS = 10_000
ERROR: Final = 0.05
"""The family-wise error rate: of finding any difference between equal recipes."""
_CHUNK = 500
_MOST_PLACES = 4
_ROUNDING = 1e-12
_STEPS = 30  # of bisection: limits are found to 1e-9


class Difference(NamedTuple):
    """One score of A and B on the same images.

    Interval and p value come from the same test and never contradict each other: the interval
    contains the differences that the test does not reject.
    """

    score: str
    a: float
    b: float
    difference: Interval
    """B - A, with its 95 % interval by group, simultaneous with those of ``tests`` differences."""
    p: float
    """The p value of the permutation test, with Bonferroni's correction for ``tests`` scores."""
    groups: int
    tests: int = 1
    """The number of tests that interval and p are corrected for."""

    @property
    def distinguishable(self) -> bool:
        """Whether p is at most 0.05; the interval then excludes 0."""
        return self.p <= ERROR

    def sentence(self, a: str = "A", b: str = "B", unit: Unit = "lesion") -> str:
        """Describe the difference of A and B in a sentence, in percentage points.

        Args:
            a: The name of A.
            b: The name of B.
            unit: What the groups are.
        """
        value, low, high = (100 * part for part in self.difference)
        better = b
        if self.distinguishable and value < 0:
            better, value, low, high = a, -value, -high, -low
        # As many decimals as a distinguishable difference needs in order not to read 0.0.
        places = 1
        while self.distinguishable and places < _MOST_PLACES and round(value, places) == 0:
            places += 1
        limits = (
            f", 95 % interval {low:z.{places}f} to {high:z.{places}f}"
            if self.difference.known
            else ""
        )
        points = f"{value:z.{places}f} points{limits}, {counted(self.groups, unit)}"
        if self.distinguishable:
            return f"{self.score}: {better} is better by {points}"
        return f"{self.score}: no clear difference between {a} and {b}: {b} - {a} is {points}"

    def to_dict(self) -> dict[str, Any]:
        """Return the difference as a dictionary for JSON."""
        return {**self._asdict(), "difference": self.difference._asdict()}


def paired_difference(
    score: str,
    a: ArrayLike,
    b: ArrayLike,
    denominators: ArrayLike,
    groups: Sequence[Hashable],
    *,
    tests: int = 1,
) -> Difference:
    """Compare the means of K ratios of sums, such as the recalls in a balanced accuracy.

    The permutation test swaps A and B in whole groups; its interval holds each difference d that
    the same test does not refuse after d was taken from B, in each group by its weight.

    Args:
        score: The name of the score.
        a: N x K, the contribution of each image to each numerator of A.
        b: N x K, the same for B.
        denominators: N x K, common to both; every column has a non-zero value.
        groups: N group ids.
        tests: The number of tests that interval and p are corrected for (Bonferroni).

    Raises:
        DataError: There are no images, one has no group, or a value is not a finite number.
    """
    ours, theirs = np.asarray(a, np.float64), np.asarray(b, np.float64)
    whole = np.asarray(denominators, np.float64)
    one, other = (float(divided(each.sum(0), whole.sum(0)).mean()) for each in (ours, theirs))
    counted = np.asarray(groups, object)[whole.any(axis=1)]
    swaps = _Swaps.of(
        ((theirs - ours) / whole.sum(0)).mean(axis=1), (whole / whole.sum(0)).mean(axis=1), groups
    )
    return Difference(
        score=score,
        a=one,
        b=other,
        difference=Interval(other - one, *swaps.limits(ERROR / tests)),
        p=min(1.0, tests * swaps.p(0.0)),
        groups=len(set(counted.tolist())),
        tests=tests,
    )


def swap_test(
    differences: ArrayLike,
    groups: Sequence[Hashable],
    *,
    permutations: int = PERMUTATIONS,
    seed: int = SEED,
) -> float:
    """Return the two-sided p value of a permutation test that swaps A and B in whole groups.

    Under the null hypothesis, A and B are exchangeable within each group. The observed
    arrangement counts as one of the permutations, so p is never 0 (Phipson & Smyth 2010).

    Args:
        differences: N, the contribution of each image to B - A.
        groups: N group ids.
        permutations: The number of random permutations.
        seed: The random seed.

    Raises:
        DataError: There are no images, one has no group, or a value is not a finite number.
    """
    values = finite(differences, len(groups))
    return _Swaps.of(values, np.zeros_like(values), groups, permutations=permutations, seed=seed).p(
        0.0
    )


class _Swaps(NamedTuple):
    """A difference, and its values with A and B swapped in some groups.

    Where d was taken from B first, ``swapped`` is less by d times ``weights``. ``ends`` are the
    least and the largest difference in a group.
    """

    observed: float
    swapped: NDArray[np.float64]
    weights: NDArray[np.float64]
    ends: tuple[float, float]

    @classmethod
    def of(
        cls,
        differences: NDArray[np.float64],
        weights: NDArray[np.float64],
        groups: Sequence[Hashable],
        *,
        permutations: int = PERMUTATIONS,
        seed: int = SEED,
    ) -> _Swaps:
        """Draw arrangements from N images' parts of the difference, and of the score's weight."""
        sums = Groups.of(groups).sums(np.stack([differences, weights], axis=1))
        sums = sums[(sums != 0).any(axis=1)]
        ratios = divided(sums[:, 0], sums[:, 1])
        ends = (float(ratios.min()), float(ratios.max())) if len(sums) else (0.0, 0.0)
        rng = np.random.default_rng(seed)
        found = np.empty((permutations, 2))
        for start in range(0, permutations, _CHUNK):
            size = (min(_CHUNK, permutations - start), len(sums))
            signs = 2.0 * rng.integers(0, 2, size=size, dtype=np.int8) - 1
            found[start : start + len(signs)] = signs @ sums
        return cls(float(sums[:, 0].sum()), found[:, 0], found[:, 1], ends)

    def p(self, difference: float) -> float:
        """Return the two-sided p value of a difference; the observed arrangement counts."""
        far = abs(self.observed - difference) - _ROUNDING
        extreme = np.count_nonzero(np.abs(self.swapped - difference * self.weights) >= far)
        return (1 + int(extreme)) / (1 + len(self.swapped))

    def limits(self, error: float) -> tuple[float, float]:
        """Return the least and the largest difference whose p is above ``error``; NaN for none.

        Beyond the ends of the groups' own differences all are on one side. If not even that can be
        refused, there are too few groups; if all differ alike, the test tells nothing of others.
        """
        low, high = self.ends
        margin = high - low
        if margin < _ROUNDING or self.p(low - margin) > error:
            return np.nan, np.nan
        return self._limit(low - margin, error), self._limit(high + margin, error)

    def _limit(self, outside: float, error: float) -> float:
        inside = self.observed
        for _ in range(_STEPS):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if self.p(middle) > error else (inside, middle)
        return inside


class McNemar(NamedTuple):
    """Discordant predictions (only A or only B is correct), with one image per group."""

    groups: int
    only_a: int
    """The number of images that only A classifies correctly."""
    only_b: int
    p: float
    """The two-sided p value of the exact test: binomial with probability 1/2 (McNemar 1947)."""


def mcnemar(
    right_a: NDArray[np.bool_], right_b: NDArray[np.bool_], groups: Sequence[Hashable]
) -> McNemar:
    """Return McNemar's exact test on the first image of each group.

    Args:
        right_a: N, whether A is correct; the order of the images must be unrelated to this.
        right_b: N, the same for B.
        groups: N group ids.

    Raises:
        DataError: There are no images, one has no group, or lengths differ.
    """
    numbered = Groups.of(groups)
    first = np.unique(numbered.codes, return_index=True)[1]
    ours, theirs = (finite(each, len(numbered.codes))[first] > 0 for each in (right_a, right_b))
    only_a, only_b = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    thrown = only_a + only_b
    tail = sum(comb(thrown, heads) for heads in range(min(only_a, only_b) + 1))
    return McNemar(len(first), only_a, only_b, min(1.0, 2 * tail / 2**thrown))


def pooled_difference(
    name: str,
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    groups: Sequence[Hashable],
    *,
    tests: int = 1,
) -> Difference:
    """Compare two pooled Jaccard indices, which have different denominators.

    Each index is linearised at the mean of both: an image contributes what its hits exceed
    mean times union, as a fraction of all unions. The contributions sum exactly to the indices.

    Args:
        name: The name of the score.
        a: N x 3: pixels in both, in the mask, and in the ground truth, as fractions.
        b: The same for B.
        groups: N group ids.
        tests: The number of tests that interval and p are corrected for.
    """
    hits, unions = zip(
        *((cut[:, 0], cut[:, 1] + cut[:, 2] - cut[:, 0]) for cut in (a, b)), strict=True
    )
    whole = [hit.sum() / union.sum() for hit, union in zip(hits, unions, strict=True)]
    middle = float(np.mean(whole))
    weights = np.mean([union / union.sum() for union in unions], axis=0)
    ours, theirs = (
        middle * weights + (hit - middle * union) / union.sum()
        for hit, union in zip(hits, unions, strict=True)
    )
    inside = weights > 0
    kept = [group for group, there in zip(groups, inside.tolist(), strict=True) if there]
    first, second, inner = (each[inside, None] for each in (ours, theirs, weights))
    found = paired_difference(name, first, second, inner, kept, tests=tests)
    return found._replace(a=float(whole[0]), b=float(whole[1]))  # without rounding errors
