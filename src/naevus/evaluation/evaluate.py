"""Diagnoses beyond accuracy: by class, for the clinic, how honest, how selective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from naevus.evaluation.calibration import CalibrationScores
from naevus.evaluation.classification import ClassificationScores, auc_intervals
from naevus.evaluation.conformal import SetScores, cross_fitted_sets
from naevus.evaluation.intervals import (
    Interval,
    Proportion,
    balanced_accuracy_interval,
    mean_interval,
    recall_intervals,
)
from naevus.evaluation.operating_points import ClinicalScores, decision_curve, malignant, melanoma
from naevus.evaluation.repeatable import repeatable
from naevus.evaluation.scaling import Scaling, cross_fitted, parts_of
from naevus.evaluation.selective import SelectiveScores
from naevus.evaluation.tables import probabilities

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from naevus.evaluation.operating_points import Target
    from naevus.evaluation.segmentation import OutlineScores, SegmentationScores
    from naevus.evaluation.tables import Diagnosed
    from naevus.taxonomy import Taxonomy


AS_GIVEN: Final = "as given"
FITTED: Final = "calibrated elsewhere"


@dataclass(frozen=True)
class DiagnosticScores:
    """What probabilities of known diagnoses are worth; every figure has a 95 % interval by group.

    Scalings and prediction sets are cross-fitted: each part of the pictures has those of the others
    (`parts_of`).
    """

    recalls: dict[str, Proportion]
    """By class that is present, of the balanced decision; Wilson's interval, with its groups."""
    mean_auc: Interval | None
    """Mean over classes of the area under the ROC curve; None where all are of one class."""
    aucs: dict[str, Proportion]
    """By class against the others: the share of pairs that are ranked rightly."""
    clinic: tuple[ClinicalScores, ...]
    """Melanoma and malignancy against the rest, where the truth has both sides."""
    benefit: dict[str, pd.DataFrame]
    """Decision curves (`decision_curve`) of the same."""
    calibration: dict[str, CalibrationScores]
    """Of the natural probabilities as given, and scaled as fits other parts."""
    balanced_accuracy: dict[str, Interval]
    """Of the balanced decision by the same."""
    scalings: tuple[Scaling, ...]
    """Of each part; none where there were too few groups to fit one."""
    selective: SelectiveScores
    """What answering only when sure would bring."""
    sets: SetScores | None
    """Prediction sets, by class too; None where there were too few groups."""

    @classmethod
    @repeatable
    def of(
        cls,
        table: pd.DataFrame,
        natural: NDArray[np.float64],
        balanced: NDArray[np.float64],
        taxonomy: Taxonomy,
    ) -> DiagnosticScores:
        """Score the probabilities of some pictures.

        Args:
            table: ``group_id`` and ``truth`` of N pictures; ``fold`` where it is known.
            natural: N x C natural probabilities, calibrated or not.
            balanced: N x C balanced probabilities.
            taxonomy: The C classes.

        Raises:
            DataError: There is no picture, one has no group, or a probability is none.
            NaevusError: SciPy is not installed.
        """
        truth, groups = table["truth"].tolist(), table["group_id"].tolist()
        codes = np.array(taxonomy.codes, object)
        classes = np.array([taxonomy.index(code) for code in truth], np.intp)
        folds = table["fold"].tolist() if "fold" in table.columns else None
        found = recall_intervals(truth, codes[balanced.argmax(1)].tolist(), groups)
        recalls = {code: found[code] for code in taxonomy.codes if code in found}
        targets = _targets(natural, truth, taxonomy)
        calibration = {AS_GIVEN: CalibrationScores.from_probabilities(natural, classes, groups)}
        decided = {AS_GIVEN: _balanced_accuracy(balanced, truth, groups, codes)}
        scalings: tuple[Scaling, ...] = ()
        sets = None
        # With fewer groups a part might not even have each class.
        if len(set(groups)) >= 2 * len(recalls):
            parts = parts_of(table)
            fitted = cross_fitted(natural, classes, parts)
            scalings = fitted.scalings
            calibration[FITTED] = CalibrationScores.from_probabilities(
                fitted.natural, classes, groups
            )
            # Natural and balanced probabilities differ by the shares, row for row.
            possible = natural > 0
            ratio = np.divide(balanced, natural, out=np.zeros_like(natural), where=possible)
            again = fitted.natural * ratio
            decided[FITTED] = _balanced_accuracy(again, truth, groups, codes)
            sets = SetScores.from_sets(
                cross_fitted_sets(natural, classes, groups, taxonomy.codes, parts),
                classes,
                groups,
                taxonomy.codes,
            )
        mean_auc, aucs = auc_intervals(natural, truth, groups, taxonomy)
        right = natural.argmax(1) == classes
        return cls(
            recalls=recalls,
            mean_auc=mean_auc,
            aucs=aucs,
            clinic=tuple(ClinicalScores.from_target(one, groups, folds) for one in targets),
            benefit={one.name: decision_curve(one, groups) for one in targets},
            calibration=calibration,
            balanced_accuracy=decided,
            scalings=scalings,
            selective=SelectiveScores.from_answers(right, natural.max(1), groups, truth),
            sets=sets,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as a dictionary that JSON can hold."""
        return {
            "recalls": {code: value._asdict() for code, value in self.recalls.items()},
            "mean_auc": None if self.mean_auc is None else self.mean_auc._asdict(),
            "aucs": {code: value._asdict() for code, value in self.aucs.items()},
            "clinic": [scores.to_dict() for scores in self.clinic],
            "benefit": {
                name: curve.to_dict(orient="records") for name, curve in self.benefit.items()
            },
            "calibration": {name: scores.to_dict() for name, scores in self.calibration.items()},
            "balanced_accuracy": {
                name: value._asdict() for name, value in self.balanced_accuracy.items()
            },
            "scalings": [scaling._asdict() for scaling in self.scalings],
            "selective": self.selective.to_dict(),
            "sets": None if self.sets is None else self.sets.to_dict(),
        }


def _balanced_accuracy(
    balanced: NDArray[np.float64],
    truth: Sequence[str],
    groups: Sequence[str],
    codes: NDArray[np.object_],
) -> Interval:
    return balanced_accuracy_interval(truth, codes[balanced.argmax(1)].tolist(), groups)


def _targets(
    natural: NDArray[np.float64], truth: Sequence[str], taxonomy: Taxonomy
) -> tuple[Target, ...]:
    present = set(truth)
    kinds = {
        melanoma: {"MEL"},
        malignant: {diagnosis.code for diagnosis in taxonomy.diagnoses if diagnosis.malignant},
    }
    return tuple(
        make(natural, truth, taxonomy)
        for make, codes in kinds.items()
        if present & codes and present - codes
    )


class Scored(NamedTuple):
    """The scores of one set of answers, the intervals of the headline, and what lies behind it."""

    scores: ClassificationScores | SegmentationScores
    intervals: dict[str, Interval]
    details: DiagnosticScores | OutlineScores

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as a dictionary that JSON can hold."""
        return {
            **self.scores.to_dict(),
            "intervals": {name: interval._asdict() for name, interval in self.intervals.items()},
            "details": self.details.to_dict(),
        }


def classification_scores(
    table: pd.DataFrame, taxonomy: Taxonomy
) -> tuple[ClassificationScores, dict[str, Interval]]:
    """Score out-of-fold logits.

    Args:
        table: What :func:`probabilities` reads, with ``image_id``, ``group_id`` and ``truth``.
        taxonomy: The diagnoses.

    Returns:
        The scores, and intervals by group of the headline figures.
    """
    natural, balanced = probabilities(table, taxonomy)
    return scored(table, natural, balanced, taxonomy)


@repeatable
def scored(
    table: pd.DataFrame,
    natural: NDArray[np.float64],
    balanced: NDArray[np.float64],
    taxonomy: Taxonomy,
) -> tuple[ClassificationScores, dict[str, Interval]]:
    """Score probabilities of the pictures of ``table`` (``image_id, group_id, truth``).

    Returns:
        The scores, and intervals by group: ``balanced_accuracy`` of the balanced decision,
        ``accuracy`` of the probable one, and ``accuracy_balanced`` and
        ``balanced_accuracy_probable``, the other way round.
    """
    truth, groups = table["truth"].tolist(), table["group_id"].tolist()
    codes = np.array(taxonomy.codes, object)
    by_balanced, by_probable = codes[balanced.argmax(1)], codes[natural.argmax(1)]
    intervals: dict[str, Any] = {
        "balanced_accuracy": balanced_accuracy_interval(truth, by_balanced.tolist(), groups),
        "accuracy": mean_interval(by_probable == np.array(truth, object), groups, truth),
        "balanced_accuracy_probable": balanced_accuracy_interval(
            truth, by_probable.tolist(), groups
        ),
        "accuracy_balanced": mean_interval(by_balanced == np.array(truth, object), groups, truth),
    }
    scores = ClassificationScores.from_probabilities(
        table["image_id"].tolist(), truth, natural, balanced, taxonomy
    )
    return scores, intervals


class Answers(NamedTuple):
    """The answers of some pictures with their scores, which every section reads."""

    diagnosed: Diagnosed
    scores: ClassificationScores
    intervals: dict[str, Interval]
    recalls: dict[str, Proportion]

    @property
    def truth(self) -> list[str]:
        """N true codes."""
        codes: list[str] = self.diagnosed.table["truth"].tolist()
        return codes

    @property
    def groups(self) -> list[str]:
        """N groups."""
        names: list[str] = self.diagnosed.table["group_id"].tolist()
        return names

    @property
    def folds(self) -> list[int] | None:
        """N folds that answered, where there are several."""
        numbers = self.diagnosed.table["fold"].tolist() if "fold" in self.diagnosed.table else []
        return numbers if len(set(numbers)) > 1 else None

    @property
    def balanced(self) -> list[str]:
        """N codes with the largest balanced probability."""
        codes = np.array(self.diagnosed.taxonomy.codes, object)
        answers: list[str] = codes[self.diagnosed.balanced.argmax(axis=1)].tolist()
        return answers


def answers_of(diagnosed: Diagnosed) -> Answers:
    """Score pictures with a known diagnosis."""
    scores, intervals = scored(
        diagnosed.table, diagnosed.natural, diagnosed.balanced, diagnosed.taxonomy
    )
    answers = Answers(diagnosed, scores, intervals, {})
    return answers._replace(
        recalls=recall_intervals(answers.truth, answers.balanced, answers.groups)
    )
