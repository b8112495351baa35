"""Reliability curves: how often pictures of a stated probability are what was said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from naevus.errors import DataError
from naevus.evaluation.intervals import wilson_interval
from naevus.evaluation.resampling import finite

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from naevus.evaluation.intervals import Proportion

BINS = 15
"""As many as in Guo et al., On calibration of modern neural networks, ICML 2017."""
Binning = Literal["width", "mass"]
"""Bins of equal width, or with as equal numbers of pictures as ties allow."""


class ReliabilityBin(NamedTuple):
    """Pictures of about the same stated probability."""

    low: float
    """Above this probability (in the first bin: from it on)."""
    high: float
    """Up to and with this one."""
    pictures: int
    stated: float
    """The mean probability that was stated."""
    found: Proportion
    """The share of pictures for which it came true, with its interval by group."""

    def to_dict(self) -> dict[str, Any]:
        """Return the bin as a dictionary that JSON can hold."""
        return {**self._asdict(), "found": self.found._asdict()}


def reliability_curve(
    stated: ArrayLike,
    true: ArrayLike,
    groups: Sequence[Hashable],
    *,
    bins: int = BINS,
    binning: Binning = "mass",
) -> tuple[ReliabilityBin, ...]:
    """Return the reliability curve of a probability; empty bins are left out.

    Args:
        stated: N probabilities: of one class, or of each picture's answer.
        true: N, whether the picture was of that class, or the answer right.
        groups: N group ids.
        bins: How many bins.
        binning: How they are cut.

    Raises:
        DataError: A value is not a probability, or ``true`` neither 0 nor 1; a picture has no
            group; lengths differ.
    """
    values = checked_probabilities(stated, len(groups))
    outcomes = finite(true, len(groups))
    edges = bin_edges(values, bins, binning)
    numbers = bin_numbers(values, edges)
    names = np.asarray(groups, object)
    curve = []
    for number in np.unique(numbers):
        inside = numbers == number
        curve.append(
            ReliabilityBin(
                low=float(edges[number]),
                high=float(edges[number + 1]),
                pictures=int(inside.sum()),
                stated=float(values[inside].mean()),
                found=wilson_interval(outcomes[inside], names[inside].tolist()),
            )
        )
    return tuple(curve)


def bin_edges(values: NDArray[np.float64], bins: int, binning: Binning) -> NDArray[np.float64]:
    """Return ``bins + 1`` rising edges from the lowest to the highest probability."""
    even = np.linspace(0, 1, bins + 1)
    return even if binning == "width" else np.quantile(values, even)


def bin_numbers(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return each value's bin, from 0; a value on an edge belongs to the bin below."""
    return np.searchsorted(edges[1:-1], values)


def checked_probabilities(values: ArrayLike, pictures: int) -> NDArray[np.float64]:
    """Return probabilities of pictures as float64.

    Raises:
        DataError: One is not between 0 and 1, or there is not one row a picture.
    """
    rows = finite(values, pictures)
    if rows.size and (rows.min() < 0 or rows.max() > 1):
        raise DataError("a probability is below 0 or above 1", "give probabilities, not logits")
    return rows
