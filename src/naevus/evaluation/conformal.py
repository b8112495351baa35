"""Conformal prediction sets and their coverage."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from naevus.errors import ConfigError, DataError
from naevus.evaluation.bootstrap import SEED, Groups
from naevus.evaluation.calibration import checked_rows
from naevus.evaluation.intervals import mean_interval, wilson_interval
from naevus.evaluation.priors import geometric_means
from naevus.evaluation.scaling import each_part, fit_scaling, scaled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from naevus.evaluation.intervals import Interval, Proportion


COVERAGE = 0.9
"""The default nominal coverage of each class."""


@dataclass(frozen=True)
class Conformal:
    """Class-conditional prediction sets by split conformal prediction.

    The set of an image contains its most probable class, and every class whose natural probability
    reaches the threshold of that class. For an image of any class, from a lesion outside the
    calibration data, the set contains the true class with probability at least ``coverage`` (Vovk,
    Gammerman & Shafer, Algorithmic learning in a random world, 2005, 4.5: Mondrian predictors;
    Vovk, Asian Conf. Machine Learning 2012). The guarantee holds within each class, so it also
    holds for another case mix, provided that the images of each class have the same distribution
    and the probabilities are not adjusted to that mix.

    The score of a class is its natural, calibrated probability, or 1 if it is the most probable
    class (`set_scores`), so that a set always contains the predicted class. The guarantee holds for
    any score that is used for both fitting and prediction. A class that is the most probable one
    more often than the nominal coverage has a threshold of 1 and a higher coverage. Balanced
    probabilities would also be valid, but they order the images of a class differently because each
    row is normalised again; natural ones give small sets (Sadinle, Lei & Wasserman, JASA 2019).

    Attributes:
        classes: The codes of the C classes.
        coverage: The nominal coverage, between 0 and 1.
        thresholds: C minimum scores. 0 if a class has too few groups for the quantile to exist;
            such a class is in every set. 1: the class is in a set only as the most probable one.
        groups: C numbers of groups that the thresholds were fitted on.
    """

    classes: tuple[str, ...]
    coverage: float
    thresholds: tuple[float, ...]
    groups: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_coverage(self.coverage)
        if not len(self.classes) == len(self.thresholds) == len(self.groups):
            raise ConfigError(
                f"{len(self.classes)} classes, {len(self.thresholds)} thresholds and "
                f"{len(self.groups)} numbers of groups do not match"
            )
        if not all(0 <= threshold <= 1 for threshold in self.thresholds):
            raise ConfigError(f"the thresholds {list(self.thresholds)} are not probabilities")

    @classmethod
    def fit(
        cls,
        natural: ArrayLike,
        truth: ArrayLike,
        groups: Sequence[str],
        codes: Sequence[str],
        *,
        coverage: float = COVERAGE,
        seed: int = SEED,
    ) -> Self:
        """Fit the thresholds on images that the networks were not trained on.

        Each group contributes one random image, because images of the same lesion are not
        exchangeable with images of others. The guarantee therefore applies to lesions. Coverage
        over all images may be lower, because lesions with many images tend to be difficult. The
        threshold of a class with n groups is its ``ceil((n + 1) * coverage)``-th largest score.

        Args:
            natural: N x C natural probabilities, at the temperature used for prediction.
            truth: N positions of the true classes.
            groups: N group ids.
            codes: The C classes.
            coverage: The nominal coverage.
            seed: The random seed.

        Raises:
            ConfigError: The coverage is not between 0 and 1.
            DataError: There are no images, or the arrays do not match.
        """
        _check_coverage(coverage)
        rows, classes = checked_rows(natural, truth, len(groups))
        if rows.shape[1] != len(codes):
            raise DataError(f"{rows.shape[1]} probabilities per image for {len(codes)} classes")
        drawn = one_a_group(groups, seed)
        rows, classes = set_scores(rows[drawn]), classes[drawn]
        own = [rows[classes == c, c] for c in range(len(codes))]
        thresholds = tuple(_threshold(values, coverage) for values in own)
        return cls(tuple(codes), coverage, thresholds, tuple(len(values) for values in own))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Create an instance from the result of `to_dict`.

        Raises:
            ConfigError: The values are inconsistent.
        """
        return cls(
            classes=tuple(values["classes"]),
            coverage=float(values["coverage"]),
            thresholds=tuple(float(threshold) for threshold in values["thresholds"]),
            groups=tuple(int(count) for count in values["groups"]),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the thresholds as a dictionary for JSON."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @property
    def always(self) -> tuple[str, ...]:
        """The classes that are in every set because they have too few groups."""
        return tuple(
            code
            for code, count in zip(self.classes, self.groups, strict=True)
            if _rank(count, self.coverage) > count
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for readers of the sets."""
        if not self.always:
            return ()
        needed = math.ceil(self.coverage / (1 - self.coverage) - 1e-9)
        names = ", ".join(self.always)
        return (f"{names}: in every set, because a threshold needs {needed} lesions of the class",)

    def sets(self, natural: ArrayLike) -> NDArray[np.bool_]:
        """Return which classes are in the set of each image.

        Args:
            natural: N x C (or C) natural, calibrated probabilities.

        Returns:
            An array of the same shape.

        Raises:
            DataError: The number of probabilities per image is not C.
        """
        rows = np.asarray(natural, np.float64)
        if not rows.ndim or rows.shape[-1] != len(self.classes):
            raise DataError(f"probabilities {rows.shape} do not match {len(self.classes)} classes")
        return np.asarray(set_scores(rows) >= np.array(self.thresholds))


def set_scores(natural: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the scores that are compared with the thresholds of prediction sets.

    Args:
        natural: N x C (or C) natural probabilities.

    Returns:
        The same, with 1 for the most probable class (the first one of ties).

    Examples:
        >>> set_scores(np.array([0.4, 0.35, 0.25])).tolist()
        [1.0, 0.35, 0.25]
    """
    scores = natural.copy()
    np.put_along_axis(scores, natural.argmax(axis=-1)[..., None], 1.0, axis=-1)
    return scores


def one_a_group(groups: Sequence[str], seed: int = SEED) -> NDArray[np.intp]:
    """Draw one image per group; return their positions in ascending order.

    Raises:
        DataError: There are no images, or one has no group.
    """
    codes = Groups.of(groups).codes
    order = np.random.default_rng(seed).permutation(len(codes))
    first = np.unique(codes[order], return_index=True)[1]
    return np.sort(order[first])


def _rank(count: int, coverage: float) -> int:
    # Without the subtraction, 0.9 * 30 is 27.000000000000004, and its ceiling 28.
    return math.ceil((count + 1) * coverage - 1e-9)


def _threshold(own: NDArray[np.float64], coverage: float) -> float:
    rank = _rank(len(own), coverage)
    return float(np.sort(own)[::-1][rank - 1]) if rank <= len(own) else 0.0


def _check_coverage(coverage: float) -> None:
    if not 0 < coverage < 1:
        raise ConfigError(f"the coverage {coverage} is not between 0 and 1", "choose 0.9, say")


# Empirical coverage and size of prediction sets.


def cross_fitted_sets(
    natural: ArrayLike,
    truth: ArrayLike,
    groups: Sequence[str],
    codes: Sequence[str],
    parts: NDArray[np.intp],
    *,
    lesions: NDArray[np.intp] | None = None,
    coverage: float = COVERAGE,
    seed: int = SEED,
) -> NDArray[np.bool_]:
    """Return the sets of each part's images, with scaling and thresholds fitted on the others.

    Args:
        natural: N x C out-of-fold natural probabilities, before calibration.
        truth: N positions of the true classes.
        groups: N group ids.
        codes: The C classes.
        parts: N part numbers from 0 (`parts_of`).
        lesions: N positions of lesions. The set of an image is then that of its lesion's mean
            log-probabilities, with the same thresholds, which are fitted on single images.
        coverage: The nominal coverage.
        seed: The random seed.

    Returns:
        N x C.

    Raises:
        ConfigError: The coverage is not between 0 and 1.
        DataError: The arrays do not match, or there is only one part.
        NaevusError: SciPy is not installed.
    """
    rows, classes = checked_rows(natural, truth, len(groups))
    names = np.asarray(groups, object)
    sets = np.zeros(rows.shape, bool)
    for inside in each_part(parts, len(rows)):
        rest = ~inside
        calibrated = scaled(rows, fit_scaling(rows[rest], classes[rest]))
        conformal = Conformal.fit(
            calibrated[rest],
            classes[rest],
            names[rest].tolist(),
            codes,
            coverage=coverage,
            seed=seed,
        )
        own = calibrated[inside]
        if lesions is not None:
            _, members = np.unique(lesions[inside], return_inverse=True)
            own = geometric_means(own, members, int(members.max()) + 1)[members]
        sets[inside] = conformal.sets(own)
    return sets


class Coverage(NamedTuple):
    """The coverage and size of some prediction sets."""

    lesions: Proportion
    """Coverage with one random image per group; this has the nominal coverage."""
    images: Proportion
    """Coverage over all images, with its interval by group.

    It may be lower, because lesions with many images tend to be difficult.
    """
    mean_size: Interval
    """The mean number of classes per set, over images, with its interval by group."""

    @property
    def size(self) -> float:
        """The mean number of classes per set, over images."""
        return self.mean_size.value

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as a dictionary for JSON."""
        return {
            "lesions": self.lesions._asdict(),
            "images": self.images._asdict(),
            "size": self.mean_size._asdict(),
        }

    def __str__(self) -> str:
        return f"{self.lesions}; of images {self.images}; {self.size:.2f} classes per set"


@dataclass(frozen=True)
class SetScores:
    """The coverage and size of prediction sets, overall and by class."""

    coverage: float
    """The nominal coverage of each class."""
    overall: Coverage
    classes: dict[str, Coverage]
    """By code, for the classes that are present."""
    single: float
    """The fraction of images with exactly one class in the set."""

    @classmethod
    def from_sets(
        cls,
        sets: NDArray[np.bool_],
        truth: ArrayLike,
        groups: Sequence[str],
        codes: Sequence[str],
        *,
        coverage: float = COVERAGE,
        seed: int = SEED,
    ) -> SetScores:
        """Score N x C sets of images that were not used to fit them.

        Args:
            sets: N x C.
            truth: N positions of the true classes.
            groups: N group ids.
            codes: The C classes.
            coverage: The nominal coverage.
            seed: The random seed for the draw of one image per group.

        Raises:
            DataError: There are no images, one has no group, or the arrays do not match.
        """
        classes = np.asarray(truth)
        if sets.shape != (len(groups), len(codes)) or classes.shape != (len(groups),):
            raise DataError(
                f"sets {sets.shape} and diagnoses {classes.shape} of {len(groups)} images "
                f"in {len(codes)} classes do not match"
            )
        names = np.asarray(groups, object)
        held, sizes = sets[np.arange(len(sets)), classes], sets.sum(axis=1)

        def covered(own: NDArray[np.bool_]) -> Coverage:
            ids = names[own].tolist()
            drawn = one_a_group(ids, seed)
            return Coverage(
                wilson_interval(held[own][drawn], [ids[n] for n in drawn]),
                wilson_interval(held[own], ids),
                mean_interval(sizes[own], ids),
            )

        present = np.unique(classes).tolist()
        return cls(
            coverage=coverage,
            overall=covered(np.ones(len(sets), bool)),
            classes={codes[c]: covered(classes == c) for c in present},
            single=float((sizes == 1).mean()),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as a dictionary for JSON."""
        return {
            "coverage": self.coverage,
            "overall": self.overall.to_dict(),
            "classes": {code: scores.to_dict() for code, scores in self.classes.items()},
            "single": self.single,
        }

    def __str__(self) -> str:
        lines = [f"sets at {self.coverage:.0%}: one class in {self.single:.1%}"]
        lines += [f"all: {self.overall}"]
        lines += [f"{code}: {scores}" for code, scores in self.classes.items()]
        return "\n".join(lines)
