"""Predictions per lesion, and their evaluation: the mean logits of several images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from naevus.errors import DataError
from naevus.evaluation.bootstrap import Groups, Ranking, divided
from naevus.evaluation.calibration import calibration_error
from naevus.evaluation.conformal import cross_fitted_sets
from naevus.evaluation.intervals import (
    FEW,
    RARE,
    Interval,
    recovered_interval,
    weighted_intervals,
)
from naevus.evaluation.operating_points import targets_of
from naevus.evaluation.priors import geometric_means
from naevus.evaluation.tables import has_values

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from naevus.evaluation.bootstrap import Statistic
    from naevus.evaluation.calibration import BinnedError
    from naevus.evaluation.labelled import LabelledPredictions
    from naevus.types import Unit


# Images grouped by lesion.


class ByLesion(NamedTuple):
    """Images and the lesions that they show.

    Attributes:
        images: The N images of these lesions.
        rows: Their rows among the images that `by_lesion` was given.
        members: N positions of lesions.
        lesions: The L lesions, sorted by id, with the mean log-probabilities of their images.
        contradictory: Lesions whose images have different diagnoses; they are left out.
        unknown: The number of images of unknown lesions; they are left out too.
    """

    images: LabelledPredictions
    rows: NDArray[np.intp]
    members: NDArray[np.intp]
    lesions: LabelledPredictions
    contradictory: tuple[str, ...]
    unknown: int

    def where(self, lesions: NDArray[np.bool_]) -> ByLesion:
        """Return those of the L lesions that are true, with their images."""
        rows = lesions[self.members]
        return self._replace(
            images=self.images.where(rows),
            rows=self.rows[rows],
            members=(np.cumsum(lesions) - 1)[self.members[rows]],
            lesions=self.lesions.where(lesions),
        )


def by_lesion(labelled: LabelledPredictions) -> ByLesion:
    """Average the predictions of each lesion's images.

    Args:
        labelled: Images; without any ``lesion_id``, their groups are taken as lesions.

    Raises:
        DataError: The images of a lesion are in two groups.
    """
    table = labelled.table
    names = table[lesion_column(table)]
    counted = table.groupby(names)[["diagnosis", "group_id"]].nunique()
    apart = counted.index[counted["group_id"] > 1]
    if len(apart):
        raise DataError(f"the lesion {apart[0]} is in two groups", "use the run's own data set")
    contradictory = counted.index[counted["diagnosis"] > 1]
    kept = (names.notna() & ~names.isin(contradictory)).to_numpy(bool)
    images = labelled.where(kept)
    _, first, members = np.unique(names[kept].to_numpy(str), return_index=True, return_inverse=True)
    lesions = images._replace(
        table=images.table.iloc[first].reset_index(drop=True),
        natural=geometric_means(images.natural, members, len(first)),
        balanced=geometric_means(images.balanced, members, len(first)),
        sets=None,
    )
    unknown = int(names.isna().sum())
    left_out = tuple(map(str, contradictory))
    return ByLesion(images, np.flatnonzero(kept), members, lesions, left_out, unknown)


def lesion_column(table: pd.DataFrame) -> str:
    """Return the column of lesions: ``lesion_id`` if any is known, otherwise ``group_id``."""
    return "lesion_id" if has_values(table, "lesion_id") else "group_id"


# Metrics per lesion.


@dataclass(frozen=True)
class LevelScores:
    """Metrics of images or lesions; 95 % intervals by group."""

    answers: int
    """The number of images, or of lesions."""
    metrics: dict[str, Interval]
    """``accuracy`` (natural decision), ``balanced_accuracy`` (balanced decision), ``auc`` (of the
    target), ``covered`` (fraction of prediction sets that contain the diagnosis), ``set_size``."""
    calibration_error: BinnedError | None = None
    """Expected calibration error as predicted; None for one image per lesion."""
    calibrated_error: BinnedError | None = None
    """The same after calibration on single images of the other parts."""

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as a dictionary for JSON."""
        errors = {
            "calibration_error": self.calibration_error,
            "calibrated_error": self.calibrated_error,
        }
        return {
            "answers": self.answers,
            **{name: interval._asdict() for name, interval in self.metrics.items()},
            **{name: None if one is None else one._asdict() for name, one in errors.items()},
        }


class _Evaluated(NamedTuple):
    """Images and lesions, as predicted and calibrated, with N x C sets of images and lesions."""

    found: ByLesion
    calibrated: ByLesion | None
    sets: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None

    def where(self, lesions: NDArray[np.bool_]) -> _Evaluated:
        """Return some of the lesions."""
        rows = lesions[self.found.members]
        calibrated = None if self.calibrated is None else self.calibrated.where(lesions)
        sets = None if self.sets is None else (self.sets[0][rows], self.sets[1][rows])
        return _Evaluated(self.found.where(lesions), calibrated, sets)


@dataclass(frozen=True)
class LesionScores:
    """Metrics of the same lesions at three levels, and the gain by the mean of logits."""

    images: LevelScores
    """Every image counts."""
    single: LevelScores
    """One image per lesion, in expectation: the images of a lesion share its weight."""
    together: LevelScores
    """One prediction per lesion. Prediction sets use the thresholds of single images."""
    gain: dict[str, Interval]
    """``together`` minus ``single`` by metric; both see the same resamples."""

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as a dictionary for JSON."""
        return {
            "images": self.images.to_dict(),
            "single": self.single.to_dict(),
            "together": self.together.to_dict(),
            "gain": {name: interval._asdict() for name, interval in self.gain.items()},
        }


@dataclass(frozen=True)
class LesionEvaluation:
    """Metrics of one prediction per lesion, compared with those of its images."""

    by: str
    """The column of lesion ids: ``lesion_id``, or ``group_id`` if no lesion is known."""
    target: str | None
    """The target of ``auc``: ``melanoma`` or ``malignant``, against the rest."""
    contradictory: tuple[str, ...]
    """Lesions whose images have different diagnoses; they are left out."""
    unknown: int
    """The number of images of unknown lesions; they are left out."""
    differing: int
    """The number of lesions whose images have different natural decisions."""
    every: LesionScores
    """Of all lesions."""
    several: LesionScores
    """Of the lesions with two or more images."""

    @property
    def headline(self) -> dict[str, Interval]:
        """Metrics of one prediction per lesion, over all lesions."""
        metrics = self.every.together.metrics
        names = {"accuracy": "accuracy", "balanced_accuracy": "balanced_accuracy"}
        names |= {"auc": f"auc_{self.target}"}
        return {names[name]: one for name, one in metrics.items() if name in names}

    def to_frame(self) -> pd.DataFrame:
        """Return ``lesions, level, metric, value, low, high``: a row for each metric.

        ``lesions`` is ``all`` or ``several images``, ``level`` is ``images``, ``single``,
        ``together`` or ``gain``.
        """
        import pandas as pd  # noqa: PLC0415 (slow to import)

        rows = [
            (which, level, metric, *interval)
            for which, scores in (("all", self.every), ("several images", self.several))
            for level, metrics in (
                ("images", scores.images.metrics),
                ("single", scores.single.metrics),
                ("together", scores.together.metrics),
                ("gain", scores.gain),
            )
            for metric, interval in metrics.items()
        ]
        columns = ["lesions", "level", "metric", "value", "low", "high"]
        return pd.DataFrame(rows, columns=columns)

    @classmethod
    def of(
        cls,
        labelled: LabelledPredictions,
        calibrated: LabelledPredictions | None = None,
        parts: NDArray[np.intp] | None = None,
        *,
        unit: Unit = "lesion",
    ) -> Self | None:
        """Evaluate the lesions of N images; None if none of them has two images.

        Args:
            labelled: The images as predicted; ``lesion_id`` if it is known.
            calibrated: The same images, calibrated on other parts.
            parts: N numbers of the parts (`naevus.evaluation.scaling.parts_of`), for prediction
                sets.
            unit: What the groups are; without ``lesion_id`` only lesions are evaluated.

        Raises:
            DataError: The images of a lesion are in two groups.
        """
        if unit != "lesion" and lesion_column(labelled.table) == "group_id":
            return None
        found = by_lesion(labelled)
        several = np.bincount(found.members) > 1
        if not several.any():
            return None
        given = _Evaluated(
            found,
            None if calibrated is None else by_lesion(calibrated),
            None if parts is None else _sets(labelled, found, parts),
        )
        targets = targets_of(found.lesions.natural, found.lesions.truth, labelled.taxonomy)
        answers = np.array(found.images.natural_codes, object)
        first = np.unique(found.members, return_index=True)[1]
        other = answers != answers[first][found.members]
        return cls(
            by=lesion_column(labelled.table),
            target=targets[0].name if targets else None,
            contradictory=found.contradictory,
            unknown=found.unknown,
            differing=len(np.unique(found.members[other])),
            every=_scores(given),
            several=_scores(given.where(several)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation as a dictionary for JSON."""
        return {
            "by": self.by,
            "target": self.target,
            "contradictory": list(self.contradictory),
            "unknown": self.unknown,
            "differing": self.differing,
            "every": self.every.to_dict(),
            "several": self.several.to_dict(),
        }


def _scores(given: _Evaluated) -> LesionScores:
    images, members, lesions = given.found.images, given.found.members, given.found.lesions
    sizes = np.bincount(members)
    first = np.unique(members, return_index=True)[1]
    every, shared = np.ones(len(members)), 1 / sizes[members]
    all_rows = np.arange(len(members))
    own, joint = (None, None) if given.sets is None else (given.sets[0], given.sets[1][first])
    levels = (
        _Level(images, own, all_rows, every),
        _Level(images, own, all_rows, shared),
        _Level(lesions, joint, first, np.ones(len(first))),
    )
    names = list(levels[0].figures)
    statistics = [level.statistic() for level in levels]

    def statistic(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        one, two, three = (each(drawn) for each in statistics)
        return np.concatenate([one, two, three, three - two], axis=1)

    counts = levels[0].counts()
    each = [counts[name] for name in names] * 4
    found = iter(weighted_intervals(statistic, images.groups, images.truth, count=each))
    one, two, three, gain = ({name: next(found) for name in names} for _ in range(4))
    for level, metrics in zip(levels, (one, two, three), strict=True):
        metrics.update(level.fractions(metrics, counts))
    other = given.calibrated
    return LesionScores(
        LevelScores(len(members), one, _error(images), other and _error(other.images)),
        LevelScores(len(sizes), two),
        LevelScores(len(sizes), three, _error(lesions), other and _error(other.lesions)),
        gain,
    )


class _Level(NamedTuple):
    """Predictions for images or lesions, and their weights in a resample of images."""

    labelled: LabelledPredictions
    sets: NDArray[np.bool_] | None
    rows: NDArray[np.intp]
    """For each prediction, the row of an image of the same group."""
    weights: NDArray[np.float64]

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of the metrics, in order."""
        return (
            "accuracy",
            "balanced_accuracy",
            *(("auc",) if self._target is not None else ()),
            *(("covered", "set_size") if self.sets is not None else ()),
        )

    @property
    def _target(self) -> Ranking | None:
        targets = targets_of(self.labelled.natural, self.labelled.truth, self.labelled.taxonomy)
        return Ranking.of(targets[0].truth, targets[0].probability) if targets else None

    @property
    def _right(self) -> dict[str, NDArray[np.bool_]]:
        """The predictions that count, of the metrics that are fractions."""
        truth = np.array(self.labelled.truth, object)
        right = {"accuracy": np.array(self.labelled.natural_codes, object) == truth}
        if self.sets is not None:
            right["covered"] = self.sets[np.arange(len(truth)), self.labelled.classes]
        return right

    @property
    def _recalls(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """The predictions of each class present, and those of them that are right."""
        truth = np.array(self.labelled.truth, object)
        member = truth[:, None] == np.unique(truth.astype(str))[None, :]
        return member, member & (np.array(self.labelled.balanced_codes, object) == truth)[:, None]

    def counts(self) -> dict[str, int]:
        """Return the number of groups that each metric depends on."""
        groups, target = Groups.of(self.labelled.groups), self._target
        rarest = int((groups.sums(self._recalls[0]) > 0).sum(axis=0).min())
        counts = dict.fromkeys(self.figures, len(groups))
        if rarest < RARE:
            counts["balanced_accuracy"] = rarest
        if target is not None:
            sides = np.stack([target.truth, ~target.truth], axis=1)
            counts["auc"] = int((groups.sums(sides) > 0).sum(axis=0).min())
        return counts

    def fractions(
        self, metrics: Mapping[str, Interval], counts: Mapping[str, int]
    ) -> dict[str, Interval]:
        """Return those metrics whose resamples vary too little, with Wilson's intervals.

        They are recognised as in `mean_interval` and `mean_ratio_interval`.
        """
        weights, groups, (member, found) = self.weights, self.labelled.groups, self._recalls
        intervals = {
            name: recovered_interval((right * weights)[:, None], weights[:, None], groups)
            for name, right in self._right.items()
            if counts[name] < FEW or not metrics[name].known
        }
        if counts["balanced_accuracy"] < RARE:
            shares = weights[:, None]
            intervals["balanced_accuracy"] = recovered_interval(
                found * shares, member * shares, groups
            )
        return intervals

    def statistic(self) -> Statistic:
        """Return the statistic of these metrics, from D x N weights of images."""
        target, (member, found) = self._target, self._recalls
        means: list[NDArray[Any]] = list(self._right.values())
        if self.sets is not None:
            means.append(self.sets.sum(axis=1))
        columns = np.stack(means, axis=1).astype(np.float64)

        def statistic(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
            weights = drawn[:, self.rows] * self.weights
            mean = (weights @ columns) / weights.sum(axis=1, keepdims=True)
            recalls = divided(weights @ found, weights @ member)
            balanced = np.nanmean(recalls, axis=1, keepdims=True)
            ranked = [] if target is None else [target.auc(weights)]
            return np.concatenate([mean[:, :1], balanced, *ranked, mean[:, 1:]], axis=1)

        return statistic


def _sets(
    labelled: LabelledPredictions, found: ByLesion, parts: NDArray[np.intp]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return prediction sets of images and of their lesions, with thresholds of other parts.

    The thresholds are fitted on all images: few may be of a known lesion, all in one part.
    """
    lesions = len(found.lesions.table) + np.arange(len(parts))  # each image for itself,
    lesions[found.rows] = found.members  # except those of known lesions
    classes, groups, codes = labelled.classes, labelled.groups, labelled.taxonomy.codes
    own, joint = (
        cross_fitted_sets(labelled.natural, classes, groups, codes, parts, lesions=each)[found.rows]
        for each in (None, lesions)
    )
    return own, joint


def _error(labelled: LabelledPredictions) -> BinnedError:
    return calibration_error(labelled.natural, labelled.classes, labelled.groups)
