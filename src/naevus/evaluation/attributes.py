"""Masks of lesion attributes: counts at every threshold, pooled Jaccard indices, presence.

Scores are pooled as Task 2 of ISIC 2018 pools them: each image's pixels count as shares of its own
number of pixels, these are summed over images, and one Jaccard index is taken of the sums. Most
images show none of an attribute, so a mean over images would say next to nothing. The best
threshold for a pooled index is not 0.5, and is chosen here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from naevus.taxonomy import ATTRIBUTES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

STEPS: Final = 20
THRESHOLDS: Final[tuple[float, ...]] = tuple(step / STEPS for step in range(1, STEPS))
"""The thresholds among which the best is chosen; a pixel above it shows the attribute."""

PEAK_FRACTION: Final = 0.01
"""The fraction of an image's pixels, the likeliest, whose mean probability tells of presence."""
_LEAST: Final = 1e-6


class ThresholdCounts(NamedTuple):
    """How many pixels of an image a mask has, and shares with the truth, at each threshold.

    Attributes:
        hit: Pixels in both, shape T.
        predicted: Pixels of the mask, shape T.
        true: Pixels of the truth.
    """

    hit: NDArray[np.int64]
    predicted: NDArray[np.int64]
    true: int


def threshold_counts(probability: NDArray[np.float32], truth: NDArray[np.bool_]) -> ThresholdCounts:
    """Count the pixels of one attribute of one image at each of `THRESHOLDS`.

    Args:
        probability: H x W, 0..1.
        truth: H x W.
    """
    # Above how many thresholds each pixel is: one pass in place of one for each threshold.
    above = np.searchsorted(np.asarray(THRESHOLDS, np.float32), probability.ravel(), side="left")
    hit, predicted = (
        np.bincount(values, minlength=len(THRESHOLDS) + 1)[1:][::-1].cumsum()[::-1]
        for values in (above[truth.ravel()], above)
    )
    return ThresholdCounts(hit, predicted, int(np.count_nonzero(truth)))


def peak(probability: NDArray[np.float32]) -> float:
    """Return the mean probability of the likeliest pixels, `PEAK_FRACTION` of all."""
    flat = probability.ravel()
    count = max(1, round(PEAK_FRACTION * flat.size))
    return float(np.partition(flat, flat.size - count)[flat.size - count :].mean())


def presence_of(peak: float, slope: float = 1.0, intercept: float = 0.0) -> float:
    """Return the probability that an attribute is there, by a logistic function of its peak."""
    inside = min(max(peak, _LEAST), 1 - _LEAST)
    return 1 / (1 + math.exp(-(slope * math.log(inside / (1 - inside)) + intercept)))


def jaccard(hit: Any, predicted: Any, true: Any) -> Any:
    """Return the Jaccard index of pooled pixels; 1 where neither mask nor truth has any."""
    union = np.asarray(predicted + true - hit, np.float64)
    return np.where(union > 0, np.divide(hit, union, where=union > 0, out=np.ones_like(union)), 1.0)


class PooledCounts(NamedTuple):
    """Shares of the pixels of N images, A attributes, T thresholds.

    Attributes:
        hit: N x A x T.
        predicted: N x A x T.
        true: N x A.
    """

    hit: NDArray[np.float64]
    predicted: NDArray[np.float64]
    true: NDArray[np.float64]

    @classmethod
    def of(cls, table: pd.DataFrame) -> PooledCounts:
        """Take the counts of an out-of-fold table (`attribute_row`)."""
        pixels = table["pixels"].to_numpy(np.float64)[:, None]

        def stacked(kind: str) -> NDArray[np.float64]:
            columns = [np.stack(table[f"{kind}_{name}"].to_list()) for name in ATTRIBUTES]
            shares: NDArray[np.float64] = np.stack(columns, axis=1) / pixels[:, :, None]
            return shares

        true = np.stack([table[f"true_{name}"] for name in ATTRIBUTES], axis=1) / pixels
        return cls(stacked("hit"), stacked("predicted"), true)

    @classmethod
    def pooled(cls, rows: Sequence[Sequence[ThresholdCounts]], pixels: int) -> PooledCounts:
        """Join the counts of images of one number of pixels, attribute by attribute."""
        return cls(
            *(
                np.array([[getattr(one, name) for one in row] for row in rows]) / pixels
                for name in cls._fields
            )
        )

    def at(self, thresholds: Sequence[float]) -> NDArray[np.float64]:
        """Return what each attribute has at a threshold of its own.

        Args:
            thresholds: A, each one of `THRESHOLDS`.

        Returns:
            N x A x 3: shares of pixels in both, in the mask, in the truth.
        """
        places = np.array([THRESHOLDS.index(threshold) for threshold in thresholds])
        each = np.arange(len(places))
        cut = (self.hit[:, each, places], self.predicted[:, each, places], self.true)
        return np.stack(cut, axis=-1)

    def best_thresholds(self) -> tuple[float, ...]:
        """Return for each attribute the threshold of the largest pooled Jaccard index."""
        found = jaccard(self.hit.sum(0), self.predicted.sum(0), self.true.sum(0)[:, None])
        return tuple(THRESHOLDS[k] for k in found.argmax(axis=1).tolist())


def attribute_row(
    probabilities: Sequence[NDArray[np.float32]],
    truths: Mapping[str, NDArray[np.bool_]],
    peaks: Sequence[float],
) -> dict[str, Any]:
    """Return the columns of an out-of-fold table for one image.

    Args:
        probabilities: One H x W for each of `ATTRIBUTES`, in order.
        truths: H x W by attribute.
        peaks: The `peak` of each attribute's map as the network gives it.

    Returns:
        ``pixels``; for each attribute ``hit_``, ``predicted_`` (a list, one for each of
        `THRESHOLDS`), ``true_`` (pixels) and ``peak_`` (see `peak`).
    """
    row: dict[str, Any] = {"pixels": probabilities[0].size}
    for name, probability, top in zip(ATTRIBUTES, probabilities, peaks, strict=True):
        counts = threshold_counts(probability, truths[name])
        row[f"hit_{name}"] = counts.hit.tolist()
        row[f"predicted_{name}"] = counts.predicted.tolist()
        row[f"true_{name}"] = counts.true
        row[f"peak_{name}"] = top
    return row
