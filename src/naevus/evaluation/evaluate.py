"""Evaluation and evaluate(): the result that all tables, pages, cards and files are made from."""

from __future__ import annotations

import html
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from naevus.evaluation.attributes import AttributesEvaluation
from naevus.evaluation.bootstrap import repeatable
from naevus.evaluation.calibration import CalibrationScores, reliability_curve
from naevus.evaluation.classification import (
    ClassificationScores,
    RankingCurve,
    auc_intervals,
    headline_intervals,
)
from naevus.evaluation.conformal import SetScores, cross_fitted_sets
from naevus.evaluation.intervals import recall_intervals
from naevus.evaluation.lesions import LesionEvaluation
from naevus.evaluation.operating_points import OperatingPoints, decision_curve, targets_of
from naevus.evaluation.scaling import cross_fitted, parts_of
from naevus.evaluation.segmentation import SegmentationEvaluation
from naevus.evaluation.selective import SelectiveScores
from naevus.evaluation.subgroups import subgroup_scores
from naevus.io.figures import interval_figure
from naevus.io.files import plain
from naevus.io.words import images_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from naevus.evaluation.calibration import ReliabilityBin
    from naevus.evaluation.intervals import Interval, Proportion
    from naevus.evaluation.labelled import LabelledPredictions
    from naevus.evaluation.operating_points import BinaryTarget
    from naevus.evaluation.scaling import Scaling
    from naevus.evaluation.subgroups import Subgroup
    from naevus.taxonomy import Taxonomy
    from naevus.types import Unit

    Attributes = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class ProbabilityMetrics:
    """The metrics of one set of probabilities; each has a 95 % interval by group."""

    scores: ClassificationScores
    """Scores of both decisions, confusion matrices, and AUCs of the classes."""
    intervals: dict[str, Interval]
    """The headline metrics, named as by `headline_intervals`."""
    recalls: dict[str, Proportion]
    """Recall of each class present, by the balanced decision, with Wilson's interval by group."""
    calibration: CalibrationScores
    """The calibration of the natural probabilities."""
    reliability: tuple[ReliabilityBin, ...]
    """Accuracy of the natural decision against its predicted probability."""
    subgroups: tuple[Subgroup, ...]
    """Of the balanced decision; empty if no attribute is known."""

    @classmethod
    def of(cls, labelled: LabelledPredictions, attributes: Attributes) -> ProbabilityMetrics:
        """Evaluate probabilities of N images; each attribute has N values, None for unknown."""
        truth, groups, taxonomy = labelled.truth, labelled.groups, labelled.taxonomy
        natural, classes = labelled.natural, labelled.classes
        recalls = recall_intervals(truth, labelled.balanced_codes, groups)
        known = {name: values for name, values in attributes.items() if _any_known(values)}
        return cls(
            scores=ClassificationScores.from_probabilities(
                labelled.table["image_id"].tolist(), truth, natural, labelled.balanced, taxonomy
            ),
            intervals=headline_intervals(labelled),
            recalls={code: recalls[code] for code in taxonomy.codes if code in recalls},
            calibration=CalibrationScores.from_probabilities(natural, classes, groups),
            reliability=reliability_curve(
                natural.max(axis=1), natural.argmax(axis=1) == classes, groups
            ),
            subgroups=subgroup_scores(truth, labelled.balanced_codes, groups, known)
            if known
            else (),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics as a dictionary for JSON."""
        return {
            **self.scores.to_dict(),
            "intervals": _plain(self.intervals),
            "recalls": _plain(self.recalls),
            "calibration": self.calibration.to_dict(),
            "reliability": [one.to_dict() for one in self.reliability],
            "subgroups": [one.to_dict() for one in self.subgroups],
        }


class FoldAccuracy(NamedTuple):
    """The headline metrics of the images of one fold."""

    fold: int
    images: int
    groups: int
    balanced_accuracy: float
    """Of the balanced decision, over the classes present in the fold."""
    accuracy: float
    """Of the natural decision."""


@dataclass(frozen=True)
class ClassificationEvaluation:
    """Metrics of predicted probabilities against known diagnoses.

    Calibration is cross-fitted: the one of each part of the images is fitted on the other parts
    (`parts_of`). So are prediction sets, unless they are given with the predictions. All other
    metrics are of the probabilities as predicted, unless stated otherwise.
    """

    taxonomy: Taxonomy
    """The C classes."""
    images: int
    groups: int
    folded: str
    """How classes were merged before scoring; empty if they were not."""
    as_predicted: ProbabilityMetrics
    calibrated: ProbabilityMetrics | None
    """With temperature and offsets fitted on the other parts; None if there are too few groups."""
    scalings: tuple[Scaling, ...]
    """The scaling of each part; empty if there are too few groups."""
    mean_auc: Interval | None
    """Mean over classes of the area under the ROC curve; None if all images are of one class."""
    aucs: dict[str, Proportion]
    """Area under the ROC curve by class, one against the others."""
    curves: dict[str, RankingCurve]
    """ROC and precision-recall curves, by class with positive and negative images."""
    by_fold: tuple[FoldAccuracy, ...]
    """Empty unless there are several folds."""
    targets: tuple[OperatingPoints, ...]
    """Operating points of melanoma and malignancy against the rest, if both sides are present."""
    target_curves: dict[str, RankingCurve]
    """ROC and precision-recall curves of the same."""
    decision_curves: dict[str, pd.DataFrame]
    """Decision curves (`decision_curve`) of the same."""
    selective: SelectiveScores
    """Selective prediction: risk and coverage."""
    sets: SetScores | None
    """Prediction sets, also by class; None if none are given or there are too few groups."""
    sets_given: bool
    """Whether the sets are those of the predictions; otherwise they are cross-fitted."""
    in_every_set: tuple[str, ...]
    """Classes in all sets of a part, because they have too few groups for a threshold."""
    lesions: LesionEvaluation | None = None
    """Metrics per lesion; None if no lesion has two images."""
    unit: Unit = "lesion"
    """What the groups are."""

    @classmethod
    @repeatable
    def of(
        cls,
        labelled: LabelledPredictions,
        attributes: Attributes | None = None,
        *,
        always_calibrated: bool = False,
        fit_sets: bool = True,
        unit: Unit = "lesion",
    ) -> ClassificationEvaluation:
        """Evaluate predicted probabilities.

        Args:
            labelled: N images: ``image_id``, ``group_id``, ``diagnosis``; ``fold`` where known.
            attributes: Attributes of the images for subgroups, by name, N values each.
            always_calibrated: Whether too few groups for calibration are an error; otherwise the
                figures that need it are left out.
            fit_sets: Whether to fit prediction sets if none are given.
            unit: What the groups are.

        Raises:
            DataError: There are no images, one has no group, a value is not a probability, or there
                are too few groups.
            NaevusError: SciPy or scikit-learn is not installed.
        """
        table, natural, taxonomy = labelled.table, labelled.natural, labelled.taxonomy
        truth, groups, given = labelled.truth, labelled.groups, attributes or {}
        as_predicted = ProbabilityMetrics.of(labelled, given)
        calibrated: ProbabilityMetrics | None = None
        scalings: tuple[Scaling, ...] = ()
        sets = _given_sets(labelled)
        in_every_set: tuple[str, ...] = ()
        # With fewer groups, a part might lack a class.
        if always_calibrated or len(set(groups)) >= 2 * len(as_predicted.recalls):
            parts = parts_of(table)
            other, scalings = _calibrated(labelled, parts)
            calibrated = ProbabilityMetrics.of(other, given)
            if sets is None and fit_sets:
                sets, in_every_set = _sets(labelled, parts)
            lesions = LesionEvaluation.of(labelled, other, parts if fit_sets else None, unit=unit)
        else:
            lesions = LesionEvaluation.of(labelled, unit=unit)
        mean_auc, aucs = auc_intervals(natural, truth, groups, taxonomy)
        targets = targets_of(natural, truth, taxonomy)
        folds = table["fold"].tolist() if "fold" in table.columns else None
        right = natural.argmax(axis=1) == labelled.classes
        return cls(
            taxonomy=taxonomy,
            images=len(table),
            groups=len(set(groups)),
            folded=labelled.folded,
            as_predicted=as_predicted,
            calibrated=calibrated,
            scalings=scalings,
            mean_auc=mean_auc,
            aucs=aucs,
            curves=_curves(labelled),
            by_fold=_by_fold(labelled),
            targets=tuple(OperatingPoints.from_target(one, groups, folds) for one in targets),
            target_curves={one.name: _curve(one) for one in targets},
            decision_curves={one.name: decision_curve(one, groups) for one in targets},
            selective=SelectiveScores.from_predictions(right, natural.max(axis=1), groups, truth),
            sets=sets,
            sets_given=labelled.sets is not None,
            in_every_set=in_every_set,
            lesions=lesions,
            unit=unit,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all but the curves with one point per image, as a dictionary for JSON."""
        curves = {name: one.to_dict(orient="records") for name, one in self.decision_curves.items()}
        values: dict[str, Any] = {
            "images": self.images,
            "groups": self.groups,
            "folded": self.folded,
            "as_predicted": self.as_predicted.to_dict(),
            "calibrated": None if self.calibrated is None else self.calibrated.to_dict(),
            "scalings": [scaling._asdict() for scaling in self.scalings],
            "mean_auc": None if self.mean_auc is None else self.mean_auc._asdict(),
            "aucs": _plain(self.aucs),
            "by_fold": [one._asdict() for one in self.by_fold],
            "targets": [one.to_dict() for one in self.targets],
            "decision_curves": curves,
            "selective": self.selective.to_dict(),
            "sets": None if self.sets is None else self.sets.to_dict(),
            "sets_given": self.sets_given,
            "in_every_set": list(self.in_every_set),
            "lesions": None if self.lesions is None else self.lesions.to_dict(),
        }
        return {name: plain(value) for name, value in values.items()}


def _any_known(values: Sequence[Any]) -> bool:
    import pandas as pd  # noqa: PLC0415 (slow to import)

    return bool(pd.Series(list(values), dtype=object).notna().any())


def _calibrated(
    labelled: LabelledPredictions, parts: NDArray[np.intp]
) -> tuple[LabelledPredictions, tuple[Scaling, ...]]:
    """Return the images with probabilities that were calibrated on the other parts."""
    fitted = cross_fitted(labelled.natural, labelled.classes, parts)
    return labelled.with_natural(fitted.natural), fitted.scalings


def _given_sets(labelled: LabelledPredictions) -> SetScores | None:
    """Return the scores of the prediction sets given with the probabilities, if any."""
    if labelled.sets is None or labelled.coverage is None:
        return None
    return SetScores.from_sets(
        labelled.sets,
        labelled.classes,
        labelled.groups,
        labelled.taxonomy.codes,
        coverage=labelled.coverage,
    )


def _sets(
    labelled: LabelledPredictions, parts: NDArray[np.intp]
) -> tuple[SetScores, tuple[str, ...]]:
    """Return scores of cross-fitted prediction sets, and the classes in all sets of a part."""
    codes, classes, groups = labelled.taxonomy.codes, labelled.classes, labelled.groups
    sets = cross_fitted_sets(labelled.natural, classes, groups, codes, parts)
    always = np.any([sets[parts == part].all(axis=0) for part in np.unique(parts)], axis=0)
    every = tuple(code for code, each in zip(codes, always, strict=True) if each)
    return SetScores.from_sets(sets, classes, groups, codes), every


def _curves(labelled: LabelledPredictions) -> dict[str, RankingCurve]:
    names = np.array(labelled.truth, object)
    return {
        code: RankingCurve.of(names == code, labelled.natural[:, place])
        for place, code in enumerate(labelled.taxonomy.codes)
        if (names == code).any() and (names != code).any()
    }


def _curve(target: BinaryTarget) -> RankingCurve:
    return RankingCurve.of(target.truth, target.probability)


def _by_fold(labelled: LabelledPredictions) -> tuple[FoldAccuracy, ...]:
    if "fold" not in labelled.table or labelled.table["fold"].nunique() < 2:
        return ()
    truth = labelled.table["diagnosis"].to_numpy(object)
    evaluated = labelled.table[["fold", "group_id", "diagnosis"]].assign(
        balanced=np.array(labelled.balanced_codes, object) == truth,
        natural=np.array(labelled.natural_codes, object) == truth,
    )
    return tuple(
        FoldAccuracy(
            fold=int(part["fold"].iloc[0]),
            images=len(part),
            groups=part["group_id"].nunique(),
            balanced_accuracy=float(part.groupby("diagnosis")["balanced"].mean().mean()),
            accuracy=float(part["natural"].mean()),
        )
        for _, part in evaluated.groupby("fold")
    )


def _plain(intervals: Mapping[str, Interval | Proportion]) -> dict[str, dict[str, Any]]:
    return {name: interval._asdict() for name, interval in intervals.items()}


@dataclass(frozen=True)
class Subject:
    """The subject of an evaluation.

    Attributes:
        name: The name of the run, the runs or the predictions folder.
        images: The number of images that were evaluated for any task.
        groups: The number of groups of these images.
        folds: The folds that predicted them, where known.
        out_of_fold: Whether no network was trained on the evaluated groups.
        unit: What the groups are.
    """

    name: str
    images: int
    groups: int
    folds: tuple[int, ...]
    out_of_fold: bool
    unit: Unit = "lesion"


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of a run, an ensemble of runs, or predictions.

    Attributes:
        subject: What was evaluated.
        classification: Metrics of the diagnoses, if there are any.
        segmentation: Metrics of the lesion masks, if there are any.
        attributes: Metrics of the attribute masks, if there are any.
    """

    subject: Subject
    classification: ClassificationEvaluation | None = None
    segmentation: SegmentationEvaluation | None = None
    attributes: AttributesEvaluation | None = None

    def __str__(self) -> str:
        """Return the subject and its headline metrics, one per line."""
        subject = self.subject
        lines = [f"{subject.name}: {images_of(subject.images, subject.groups, subject.unit)}"]
        if subject.out_of_fold:
            lines[0] += ", out-of-fold"
        rows = list(self._metrics())
        width = max((len(_spaced(name)) for _, name, _ in rows), default=0)
        for task, metrics in groupby(rows, key=itemgetter(0)):
            lines.append(task)
            lines += [f"  {_spaced(name):{width}}  {interval}" for _, name, interval in metrics]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return the headline metrics for a notebook."""
        first = html.escape(str(self).partition("\n")[0])
        table = self.to_frame().to_html(index=False, float_format="{:z.3f}".format)
        return f"<p>{first}</p>{table}"

    def _metrics(self) -> Iterator[tuple[str, str, Interval]]:
        if self.classification is not None:
            for name, interval in self.classification.as_predicted.intervals.items():
                yield "classification", name, interval
            if self.classification.mean_auc is not None:
                yield "classification", "mean_auc", self.classification.mean_auc
            if self.classification.lesions is not None:
                for name, interval in self.classification.lesions.headline.items():
                    yield "one answer per lesion", name, interval
        if self.segmentation is not None:
            for name, interval in self.segmentation.metrics.items():
                yield "segmentation", name, interval
        if self.attributes is not None:
            yield "attributes", "jaccard", self.attributes.jaccard
            for name, scores in self.attributes.by_attribute.items():
                yield "attributes", f"jaccard_{name}", scores.jaccard

    def to_frame(self) -> pd.DataFrame:
        """Return the headline metrics: ``task, metric, value, low, high``, one row per metric.

        Values are as predicted; ``low`` and ``high`` bound the 95 % interval by group.
        """
        import pandas as pd  # noqa: PLC0415 (slow to import)

        return pd.DataFrame(
            [(task, name, *interval) for task, name, interval in self._metrics()],
            columns=["task", "metric", "value", "low", "high"],
        )

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return tables by name: ``metrics``, and the tables of each task.

        Returns:
            Classification: ``classes`` and ``confusion`` (rows are the ground truth) of the
            balanced decision, ``folds``, ``lesions`` (one answer per lesion beside its images).
            Segmentation: ``mask_folds``, ``mask_thresholds``.
            Attributes: ``attribute_folds``. Tables without a row are left out.
        """
        import pandas as pd  # noqa: PLC0415 (slow to import)

        found = {"metrics": self.to_frame()}
        if self.classification is not None:
            scores = self.classification.as_predicted.scores
            classes = pd.DataFrame(map(asdict, scores.balanced.classes))
            classes["auc"] = pd.Series(list(scores.auc.values()), dtype=float)
            ranked = list(scores.average_precision.values())
            classes["average_precision"] = pd.Series(ranked, dtype=float)
            found["classes"] = classes
            found["confusion"] = pd.DataFrame(
                scores.balanced.confusion, index=list(scores.codes), columns=list(scores.codes)
            )
            found["folds"] = pd.DataFrame(self.classification.by_fold)
            if self.classification.lesions is not None:
                found["lesions"] = self.classification.lesions.to_frame()
        if self.segmentation is not None:
            found["mask_folds"] = pd.DataFrame(self.segmentation.by_fold)
            found["mask_thresholds"] = self.segmentation.curve
        if self.attributes is not None:
            found["attribute_folds"] = pd.DataFrame(self.attributes.by_fold)
        return {name: table for name, table in found.items() if len(table)}

    def plot(self) -> Figure:
        """Plot the headline metrics with their intervals; ``naevus report`` plots all figures.

        Raises:
            NaevusError: matplotlib is not installed.
        """
        rows = [(f"{task}: {_spaced(name)}", *interval) for task, name, interval in self._metrics()]
        label = f"with 95 % intervals by {self.subject.unit}"
        return interval_figure(rows, self.subject.name, xlabel=label)

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation as a dictionary for JSON."""
        parts = {
            "classification": self.classification,
            "segmentation": self.segmentation,
            "attributes": self.attributes,
        }
        return {
            "subject": asdict(self.subject),
            **{name: None if one is None else one.to_dict() for name, one in parts.items()},
        }


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def evaluate(
    name: str,
    *,
    labelled: LabelledPredictions | None = None,
    masks: pd.DataFrame | None = None,
    attribute_counts: pd.DataFrame | None = None,
    attributes: Attributes | None = None,
    out_of_fold: bool = False,
    unit: Unit = "lesion",
) -> Evaluation:
    """Evaluate diagnoses, masks, or both.

    Args:
        name: The name of the evaluated run or folder.
        labelled: Images with true diagnosis and probabilities. Their prediction sets are scored;
            without any, sets are fitted only if the predictions are out-of-fold.
        masks: One row per image: ``image_id, group_id`` and the metrics of `mask_metrics`.
        attribute_counts: One row per image, as for `AttributesEvaluation.of`.
        attributes: Attributes of the classified images for subgroups, by name, N values each.
        out_of_fold: Whether no network was trained on these groups.
        unit: What the groups are.

    Raises:
        DataError: There is nothing to evaluate, or the inputs contradict each other.
        NaevusError: SciPy or scikit-learn is not installed.
    """
    given = (labelled and labelled.table, masks, attribute_counts)
    tables = [table for table in given if table is not None]
    groups = {
        image_id: group
        for table in tables
        for image_id, group in zip(table["image_id"], table["group_id"], strict=True)
    }
    folds = {int(fold) for table in tables if "fold" in table for fold in table["fold"].unique()}
    subject = Subject(
        name, len(groups), len(set(groups.values())), tuple(sorted(folds)), out_of_fold, unit
    )
    return Evaluation(
        subject,
        None
        if labelled is None
        else ClassificationEvaluation.of(labelled, attributes, fit_sets=out_of_fold, unit=unit),
        None if masks is None else SegmentationEvaluation.of(masks, unit),
        None if attribute_counts is None else AttributesEvaluation.of(attribute_counts, unit),
    )
