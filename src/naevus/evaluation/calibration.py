"""Calibration metrics: expected calibration error, NLL, Brier score, reliability curves."""

from __future__ import annotations

from dataclasses import dataclass, fields
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from naevus.errors import DataError
from naevus.evaluation.bootstrap import DRAWS, SEED, Groups, bootstrap, finite, means_of
from naevus.evaluation.intervals import FEW, Interval, weighted_intervals, wilson_interval

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from naevus.evaluation.intervals import Proportion


# Reliability curves: observed frequency against predicted probability.

BINS = 15
"""As in Guo et al., On calibration of modern neural networks, ICML 2017."""
Binning = Literal["width", "mass"]
"""Bins of equal width, or of equal mass: as equal numbers of images as ties allow."""


class ReliabilityBin(NamedTuple):
    """Images with similar predicted probabilities."""

    low: float
    """The lower edge, exclusive (inclusive in the first bin)."""
    high: float
    """The upper edge, inclusive."""
    images: int
    stated: float
    """The mean predicted probability."""
    found: Proportion
    """The observed frequency, with its interval by group."""

    def to_dict(self) -> dict[str, Any]:
        """Return the bin as a dictionary for JSON."""
        return {**self._asdict(), "found": self.found._asdict()}


def reliability_curve(
    stated: ArrayLike,
    true: ArrayLike,
    groups: Sequence[Hashable],
    *,
    bins: int = BINS,
    binning: Binning = "mass",
) -> tuple[ReliabilityBin, ...]:
    """Return the reliability curve of a probability, without empty bins.

    Args:
        stated: N probabilities: of one class, or of the predicted class of each image.
        true: N, whether the image belongs to the class, or the prediction is correct.
        groups: N group ids.
        bins: The number of bins.
        binning: How the bins are formed.

    Raises:
        DataError: A value is not a probability, ``true`` is neither 0 nor 1, an image has no
            group, or lengths differ.
    """
    values = checked_probabilities(stated, len(groups))
    results = finite(true, len(groups))
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
                images=int(inside.sum()),
                stated=float(values[inside].mean()),
                found=wilson_interval(results[inside], names[inside].tolist()),
            )
        )
    return tuple(curve)


def bin_edges(values: NDArray[np.float64], bins: int, binning: Binning) -> NDArray[np.float64]:
    """Return ``bins + 1`` ascending edges from the lowest to the highest probability."""
    even = np.linspace(0, 1, bins + 1)
    return even if binning == "width" else np.quantile(values, even)


def bin_numbers(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the bin of each value, from 0; a value on an edge belongs to the lower bin."""
    return np.searchsorted(edges[1:-1], values)


def checked_probabilities(values: ArrayLike, images: int) -> NDArray[np.float64]:
    """Return probabilities of images as float64.

    Raises:
        DataError: A value is outside [0, 1], or the number of rows is not ``images``.
    """
    rows = finite(values, images)
    if rows.size and (rows.min() < 0 or rows.max() > 1):
        raise DataError("a probability is below 0 or above 1", "give probabilities, not logits")
    return rows


def negative_log_likelihoods(
    probabilities: NDArray[np.float64], truth: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return N values ``-log p_truth``, with p clipped at float64's epsilon as in scikit-learn."""
    chosen = probabilities[np.arange(len(truth)), truth]
    values: NDArray[np.float64] = -np.log(np.maximum(chosen, np.finfo(np.float64).eps))
    return values


def brier_scores(
    probabilities: NDArray[np.float64], truth: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return N squared distances from the one-hot truth, over classes, in [0, 2] (Brier 1950)."""
    came_true = np.eye(probabilities.shape[1])[truth]
    scores: NDArray[np.float64] = ((probabilities - came_true) ** 2).sum(axis=1)
    return scores


def gaps_by_bin(
    stated: NDArray[np.float64], true: NDArray[np.bool_], binning: Binning, bins: int = BINS
) -> NDArray[np.float64]:
    """Return N x ``bins``: predicted minus true in the bin of each image, 0 in the others.

    The expected calibration error is the sum over bins of the absolute column mean (Naeini et al.
    2015, Guo et al. 2017). Resamples use the bin edges of all images.
    """
    numbers = bin_numbers(stated, bin_edges(stated, bins, binning))
    gaps = np.zeros((len(stated), bins))
    gaps[np.arange(len(stated)), numbers] = stated - true
    return gaps


class BinnedError(NamedTuple):
    """An expected calibration error, its 95 % interval by group, and its value by chance alone."""

    value: float
    low: float
    high: float
    chance: float
    """The approximate error of perfectly calibrated probabilities on as many groups; above 0."""

    def __str__(self) -> str:
        return f"{Interval(*self[:3])}, by chance {self.chance:.3f}"


@dataclass(frozen=True)
class CalibrationScores:
    """Calibration metrics of natural probabilities; 0 is best for each."""

    images: int
    groups: int
    nll: Interval
    """Mean negative log-likelihood, in nats."""
    brier: Interval
    """Mean squared distance over all classes, in [0, 2]."""
    ece: BinnedError
    """Expected calibration error of the predicted class's probability, 15 bins of equal width."""
    ece_equal_mass: BinnedError
    """The same in bins of equal mass."""
    classwise_ece: BinnedError
    """Mean over classes of each class's error, equal width (Kull et al., NeurIPS 2019)."""

    @classmethod
    def from_probabilities(
        cls,
        probabilities: ArrayLike,
        truth: ArrayLike,
        groups: Sequence[Hashable],
        *,
        draws: int = DRAWS,
        seed: int = SEED,
    ) -> CalibrationScores:
        """Score N x C natural probabilities.

        Resampling is stratified by true class; the interval of a calibration error needs 100
        groups. An expected calibration error is above 0 by chance alone, and larger still in
        resamples, so percentile intervals would miss the true value. Its interval is therefore the
        basic bootstrap interval (twice the value minus the quantiles), which corrects that bias.
        It starts at 0 where perfectly calibrated probabilities could give the value by chance, and
        always contains the value.

        Args:
            probabilities: N x C; each row sums to 1.
            truth: N positions of the true classes.
            groups: N group ids.
            draws: The number of resamples.
            seed: The random seed.

        Raises:
            DataError: There are no images, one has no group, a value is not a probability, a row
                does not sum to 1, or a class is not one of C.
        """
        rows, classes = checked_rows(probabilities, truth, len(groups))
        losses = [negative_log_likelihoods(rows, classes), brier_scores(rows, classes)]
        nll, brier = weighted_intervals(
            means_of(np.stack(losses, axis=1)), groups, classes.tolist(), draws=draws, seed=seed
        )
        stated, right = _stated(rows, classes)
        by_class = [gaps_by_bin(rows[:, c], classes == c, "width") for c in range(rows.shape[1])]
        gaps = [
            gaps_by_bin(stated, right, "width"),
            gaps_by_bin(stated, right, "mass"),
            np.concatenate(by_class, axis=1),
        ]
        numbered = Groups.of(groups, classes.tolist())
        errors = _binned_errors(gaps, numbered, draws, seed)
        return cls(len(classes), len(numbered), nll, brier, *errors)

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as a dictionary for JSON."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: value if isinstance(value, int) else value._asdict()
            for name, value in values.items()
        }

    def __str__(self) -> str:
        names = [field.name for field in fields(self)]
        return "\n".join(f"{name.replace('_', ' ')}: {getattr(self, name)}" for name in names)


def calibration_error(
    probabilities: ArrayLike, truth: ArrayLike, groups: Sequence[Hashable]
) -> BinnedError:
    """Return `CalibrationScores.ece` alone, which is faster than all scores.

    Raises:
        DataError: As in `CalibrationScores.from_probabilities`.
    """
    rows, classes = checked_rows(probabilities, truth, len(groups))
    gaps = gaps_by_bin(*_stated(rows, classes), "width")
    return _binned_errors([gaps], Groups.of(groups, classes.tolist()))[0]


def checked_rows(
    probabilities: ArrayLike, truth: ArrayLike, images: int
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return N x C probabilities and N positions of true classes, validated.

    Raises:
        DataError: Their lengths differ, a value is not a probability, or a row does not sum to 1.
    """
    rows = checked_probabilities(probabilities, images)
    classes = np.asarray(truth)
    if rows.ndim != 2 or classes.shape != (images,):
        raise DataError(f"probabilities {rows.shape} and diagnoses {classes.shape} differ")
    if (
        not np.issubdtype(classes.dtype, np.integer)
        or not ((classes >= 0) & (classes < rows.shape[1])).all()
    ):
        raise DataError(f"a true class is not one of {rows.shape[1]}", "give positions from 0")
    if not np.allclose(rows.sum(axis=1), 1, atol=1e-3):
        raise DataError("the probabilities of an image do not sum to 1", "give all classes")
    return rows, classes.astype(np.intp)


def _stated(
    rows: NDArray[np.float64], classes: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the probability of each predicted class, and whether it is the true one."""
    predicted = rows.argmax(axis=1)
    return rows[np.arange(len(rows)), predicted], predicted == classes


def _binned_errors(
    gaps: Sequence[NDArray[np.float64]], groups: Groups, draws: int = DRAWS, seed: int = SEED
) -> list[BinnedError]:
    """Return calibration errors with intervals.

    Args:
        gaps: For each error, N x (K * bins) gaps (`gaps_by_bin`); it is the mean over K.
        groups: The groups of the N images, in strata of the true classes.
        draws: The number of resamples.
        seed: The random seed.
    """
    columns = np.concatenate(gaps, axis=1)
    ends = np.cumsum([each.shape[1] // BINS for each in gaps])[:-1]

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = (weights @ columns) / weights.sum(axis=1, keepdims=True)
        errors = np.abs(sums).reshape(len(sums), -1, BINS).sum(axis=2)
        return np.stack([each.mean(axis=1) for each in np.split(errors, ends, axis=1)], axis=1)

    values = statistic(np.ones((1, len(columns))))[0]
    chances = [_by_chance(groups.sums(each), len(columns)) for each in gaps]
    if len(groups) < FEW:
        return [
            BinnedError(float(value), np.nan, np.nan, chance)
            for value, (chance, _) in zip(values, chances, strict=True)
        ]
    found = bootstrap(statistic, groups, draws=draws, seed=seed)
    return [
        _binned_error(float(value), drawn, *chance)
        for value, drawn, chance in zip(values, found.T, chances, strict=True)
    ]


def _by_chance(sums: NDArray[np.float64], images: int) -> tuple[float, float]:
    """Return mean and standard deviation of an error under perfect calibration.

    The mean gap of a bin is then approximately normal around 0, with the variance of the group
    sums; the mean of its absolute value is sqrt(2 / pi) standard deviations.
    """
    variances = ((sums / images) ** 2).sum(axis=0).reshape(-1, BINS)
    means = np.sqrt(2 / np.pi * variances).sum(axis=1)
    spread = (1 - 2 / np.pi) * variances.sum()
    return float(means.mean()), float(np.sqrt(spread) / len(means))


def _binned_error(
    value: float, draws: NDArray[np.float64], chance: float, spread: float
) -> BinnedError:
    low, high = 2 * value - np.quantile(draws, (0.975, 0.025))
    by_chance = value <= chance + NormalDist().inv_cdf(0.95) * spread
    low = 0.0 if by_chance else min(max(float(low), 0.0), value)
    return BinnedError(value, low, max(float(high), value), chance)
