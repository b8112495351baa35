"""Conformal prediction sets: what cannot be ruled out, and how often they hold the truth."""

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
"""The fraction of each class's images whose set is promised to hold the truth."""


@dataclass(frozen=True)
class Conformal:
    """Class-conditional prediction sets by split conformal prediction.

    The set of an image holds its most probable class, and every class whose natural probability
    reaches that class's threshold. For an image of any class, of a lesion that took no part in the
    calibration, it holds the truth with at least the probability ``coverage`` (Vovk, Gammerman &
    Shafer, Algorithmic learning in a random world, 2005, 4.5: Mondrian predictors; Vovk, Asian
    Conf. Machine Learning 2012). As the promise holds in each class, another case mix leaves it
    standing, as long as the images of a class are alike and the probabilities are not re-weighed
    to that mix.

    A class's score is its natural, calibrated probability, or 1 where it is the most probable one
    (`set_scores`): a set without the answer that stands beside it would not be understood. The
    promise holds for any score that is fitted and used alike; a class that is the most probable one
    more often than promised has a threshold of 1, and is covered more often. Balanced probabilities
    would keep the promise too, but order the images of a class otherwise, since each row is
    normalised anew; the natural ones give small sets (Sadinle, Lei & Wasserman, JASA 2019).

    Attributes:
        classes: The codes of the C classes.
        coverage: The promised coverage, between 0 and 1.
        thresholds: C least scores. 0 where a class had too few groups for the quantile to
            exist: it is in every set. 1: it is in a set only as the most probable class.
        groups: C numbers of groups that a threshold stands on.
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
                f"{len(self.groups)} numbers of groups do not belong together"
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
        """Set the thresholds from images that the networks never saw.

        Each group gives one image, drawn: images of one lesion are not exchangeable with those
        of another. The promise is therefore to lesions; of all images less may be covered, as
        the lesions with many images are the difficult ones. The threshold of a class with n
        groups is the ``ceil((n + 1) * coverage)``-th largest score of that class.

        Args:
            natural: N x C natural probabilities, at the temperature they are used with.
            truth: N positions of the true classes.
            groups: N group ids.
            codes: The C classes.
            coverage: The promised coverage.
            seed: Of the draw.

        Raises:
            ConfigError: The coverage is not between 0 and 1.
            DataError: There is no image, or the arrays do not belong together.
        """
        _check_coverage(coverage)
        rows, classes = checked_rows(natural, truth, len(groups))
        if rows.shape[1] != len(codes):
            raise DataError(f"{rows.shape[1]} probabilities an image for {len(codes)} classes")
        drawn = one_a_group(groups, seed)
        rows, classes = set_scores(rows[drawn]), classes[drawn]
        own = [rows[classes == c, c] for c in range(len(codes))]
        thresholds = tuple(_threshold(values, coverage) for values in own)
        return cls(tuple(codes), coverage, thresholds, tuple(len(values) for values in own))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return what `to_dict` gave.

        Raises:
            ConfigError: The values do not belong together.
        """
        return cls(
            classes=tuple(values["classes"]),
            coverage=float(values["coverage"]),
            thresholds=tuple(float(threshold) for threshold in values["thresholds"]),
            groups=tuple(int(count) for count in values["groups"]),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the thresholds as a dictionary that JSON can hold."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @property
    def always(self) -> tuple[str, ...]:
        """The classes that are in every set, for want of groups."""
        return tuple(
            code
            for code, count in zip(self.classes, self.groups, strict=True)
            if _rank(count, self.coverage) > count
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the sets must know."""
        if not self.always:
            return ()
        needed = math.ceil(self.coverage / (1 - self.coverage) - 1e-9)
        names = ", ".join(self.always)
        return (f"{names}: in every set; a threshold needs {needed} lesions of the class",)

    def sets(self, natural: ArrayLike) -> NDArray[np.bool_]:
        """Return which classes are in the set of each image.

        Args:
            natural: N x C (or C) natural, calibrated probabilities.

        Returns:
            An array of the same shape.

        Raises:
            DataError: There are not C probabilities an image.
        """
        rows = np.asarray(natural, np.float64)
        if not rows.ndim or rows.shape[-1] != len(self.classes):
            raise DataError(f"probabilities {rows.shape} are not of {len(self.classes)} classes")
        return np.asarray(set_scores(rows) >= np.array(self.thresholds))


def set_scores(natural: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what thresholds of prediction sets are compared with.

    Args:
        natural: N x C (or C) natural probabilities.

    Returns:
        The same, with 1 for the most probable class (of equal ones the first).

    Examples:
        >>> set_scores(np.array([0.4, 0.35, 0.25])).tolist()
        [1.0, 0.35, 0.25]
    """
    scores = natural.copy()
    np.put_along_axis(scores, natural.argmax(axis=-1)[..., None], 1.0, axis=-1)
    return scores


def one_a_group(groups: Sequence[str], seed: int = SEED) -> NDArray[np.intp]:
    """Draw one image of each group; return their positions, rising.

    Raises:
        DataError: There is no image, or one has no group.
    """
    codes = Groups.of(groups).codes
    order = np.random.default_rng(seed).permutation(len(codes))
    first = np.unique(codes[order], return_index=True)[1]
    return np.sort(order[first])


def _rank(count: int, coverage: float) -> int:
    # Without the small number 0.9 * 30 is 27.000000000000004, and its ceiling 28.
    return math.ceil((count + 1) * coverage - 1e-9)


def _threshold(own: NDArray[np.float64], coverage: float) -> float:
    rank = _rank(len(own), coverage)
    return float(np.sort(own)[::-1][rank - 1]) if rank <= len(own) else 0.0


def _check_coverage(coverage: float) -> None:
    if not 0 < coverage < 1:
        raise ConfigError(f"the coverage {coverage} is not between 0 and 1", "ask for 0.9, say")


# Whether prediction sets hold the truth as often as they promise, and how large they are.


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
    """Return the sets of each part's images, by scaling and thresholds of the other parts.

    Args:
        natural: N x C out-of-fold natural probabilities, as the network means them.
        truth: N positions of the true classes.
        groups: N group ids.
        codes: The C classes.
        parts: N numbers from 0 (`parts_of`).
        lesions: N positions of lesions: the set of an image is then that of its lesion's mean
            log-probabilities, by the same thresholds, which are for single images.
        coverage: The promised coverage.
        seed: Of the draw of one image a group.

    Returns:
        N x C.

    Raises:
        ConfigError: The coverage is not between 0 and 1.
        DataError: The arrays do not belong together, or there is one part only.
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
    """Some prediction sets: how many hold the truth, and how much they leave open."""

    lesions: Proportion
    """The fraction that hold the truth, of one image drawn of each group: what was promised."""
    images: Proportion
    """The same of all images, with its interval by group.

    It may well be lower: lesions that are photographed again and again are the difficult ones.
    """
    mean_size: Interval
    """The mean number of classes in a set, over images, with its interval by group."""

    @property
    def size(self) -> float:
        """The mean number of classes in a set, over images."""
        return self.mean_size.value

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as a dictionary that JSON can hold."""
        return {
            "lesions": self.lesions._asdict(),
            "images": self.images._asdict(),
            "size": self.mean_size._asdict(),
        }

    def __str__(self) -> str:
        return f"{self.lesions}; of images {self.images}; {self.size:.2f} classes a set"


@dataclass(frozen=True)
class SetScores:
    """How often prediction sets hold the truth, over all images and in each class."""

    coverage: float
    """What was promised, in each class."""
    overall: Coverage
    classes: dict[str, Coverage]
    """By code; of the classes that are present."""
    single: float
    """The fraction of sets with one class."""

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
        """Score N x C sets of images that had no part in making them.

        Args:
            sets: N x C.
            truth: N positions of the true classes.
            groups: N group ids.
            codes: The C classes.
            coverage: What was promised.
            seed: Of the draw of one image a group.

        Raises:
            DataError: There is no image, one has no group, or the arrays do not belong together.
        """
        classes = np.asarray(truth)
        if sets.shape != (len(groups), len(codes)) or classes.shape != (len(groups),):
            raise DataError(
                f"sets {sets.shape} and diagnoses {classes.shape} of {len(groups)} images "
                f"in {len(codes)} classes do not belong together"
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
        """Return the scores as a dictionary that JSON can hold."""
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
