"""Evaluation and evaluate(): the one result that every table, page, card and file is made from."""

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

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from naevus.evaluation.calibration import ReliabilityBin
    from naevus.evaluation.intervals import Interval, Proportion
    from naevus.evaluation.operating_points import BinaryTarget
    from naevus.evaluation.scaling import Scaling
    from naevus.evaluation.subgroups import Subgroup
    from naevus.evaluation.tables import LabelledPredictions
    from naevus.taxonomy import Taxonomy

    Attributes = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class ProbabilityMetrics:
    """How good one set of probabilities is; every figure has a 95 % interval by group."""

    scores: ClassificationScores
    """Both decisions, their confusion matrices, and the ranking of each class."""
    intervals: dict[str, Interval]
    """The headline, by the names of `headline_intervals`."""
    recalls: dict[str, Proportion]
    """By class that is present, of the balanced decision; Wilson's interval, with its groups."""
    calibration: CalibrationScores
    """How honest the natural probabilities are."""
    reliability: tuple[ReliabilityBin, ...]
    """How often the natural decision is right, by its stated probability."""
    subgroups: tuple[Subgroup, ...]
    """Of the balanced decision; none where nothing is known of the images."""

    @classmethod
    def of(cls, labelled: LabelledPredictions, attributes: Attributes) -> ProbabilityMetrics:
        """Judge the probabilities of N images; each attribute has N values, None for unknown."""
        truth, groups, taxonomy = labelled.truth, labelled.groups, labelled.taxonomy
        natural, classes = labelled.natural, _classes(labelled)
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
        """Return the metrics as a dictionary that JSON can hold."""
        return {
            **self.scores.to_dict(),
            "intervals": _plain(self.intervals),
            "recalls": _plain(self.recalls),
            "calibration": self.calibration.to_dict(),
            "reliability": [one.to_dict() for one in self.reliability],
            "subgroups": [one.to_dict() for one in self.subgroups],
        }


class FoldAccuracy(NamedTuple):
    """The headline of the images of one fold."""

    fold: int
    images: int
    groups: int
    balanced_accuracy: float
    """Of the balanced decision, over the classes that the fold's images have."""
    accuracy: float
    """Of the natural decision."""


@dataclass(frozen=True)
class ClassificationEvaluation:
    """What probabilities of known diagnoses are worth.

    Calibration is cross-fitted: each part of the images has the one that was fitted on the others
    (`parts_of`). So are prediction sets, unless they were predicted: then they are scored as they
    are. What does not say otherwise is of the probabilities as predicted.
    """

    taxonomy: Taxonomy
    """The C classes."""
    images: int
    groups: int
    folded: str
    """How classes were folded to be scored; empty where they were not."""
    as_predicted: ProbabilityMetrics
    calibrated: ProbabilityMetrics | None
    """After temperature and offsets fitted on the other parts; None for want of groups."""
    scalings: tuple[Scaling, ...]
    """Those of each part; none for want of groups."""
    mean_auc: Interval | None
    """Mean over classes of the area under the ROC curve; None where all are of one class."""
    aucs: dict[str, Proportion]
    """By class against the others: the fraction of pairs that are ranked rightly."""
    curves: dict[str, RankingCurve]
    """ROC and precision-recall curves, by class that has both sides."""
    by_fold: tuple[FoldAccuracy, ...]
    """Where there are several folds."""
    targets: tuple[OperatingPoints, ...]
    """Operating points: melanoma and malignancy against the rest, where there are both sides."""
    target_curves: dict[str, RankingCurve]
    """ROC and precision-recall curves of the same."""
    decision_curves: dict[str, pd.DataFrame]
    """Decision curves (`decision_curve`) of the same."""
    selective: SelectiveScores
    """What answering only when sure would bring."""
    sets: SetScores | None
    """Prediction sets, by class too; None where none are given, or for want of groups."""
    sets_given: bool
    """Whether these are the sets that were predicted; else those fitted by parts."""
    in_every_set: tuple[str, ...]
    """Classes that all sets of a part hold, for want of groups to fit a threshold on."""
    lesions: LesionEvaluation | None = None
    """One answer per lesion; None if no lesion has two images."""

    @classmethod
    @repeatable
    def of(
        cls,
        labelled: LabelledPredictions,
        attributes: Attributes | None = None,
        *,
        always_calibrated: bool = False,
        fit_sets: bool = True,
    ) -> ClassificationEvaluation:
        """Judge the probabilities of some images.

        Args:
            labelled: N images: ``image_id``, ``group_id``, ``diagnosis``; ``fold`` where known.
            attributes: What is known of the images, by name N values, for the subgroups.
            always_calibrated: Whether few groups are an error; else figures that need more of
                them are left out.
            fit_sets: Whether prediction sets are fitted by parts where none are given.

        Raises:
            DataError: There is no image, one has no group, or a probability is none; or there are
                too few groups.
            NaevusError: SciPy or scikit-learn is not installed.
        """
        table, natural, taxonomy = labelled.table, labelled.natural, labelled.taxonomy
        truth, groups, given = labelled.truth, labelled.groups, attributes or {}
        as_predicted = ProbabilityMetrics.of(labelled, given)
        calibrated: ProbabilityMetrics | None = None
        scalings: tuple[Scaling, ...] = ()
        sets = _given_sets(labelled)
        in_every_set: tuple[str, ...] = ()
        # With fewer groups a part might not even have each class.
        if always_calibrated or len(set(groups)) >= 2 * len(as_predicted.recalls):
            parts = parts_of(table)
            other, scalings = _calibrated(labelled, parts)
            calibrated = ProbabilityMetrics.of(other, given)
            if sets is None and fit_sets:
                sets, in_every_set = _sets(labelled, parts)
            lesions = LesionEvaluation.of(labelled, other, parts if fit_sets else None)
        else:
            lesions = LesionEvaluation.of(labelled)
        mean_auc, aucs = auc_intervals(natural, truth, groups, taxonomy)
        targets = targets_of(natural, truth, taxonomy)
        folds = table["fold"].tolist() if "fold" in table.columns else None
        right = natural.argmax(axis=1) == _classes(labelled)
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
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all but the curves with a point an image as a dictionary that JSON can hold."""
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


def _classes(labelled: LabelledPredictions) -> NDArray[np.intp]:
    return np.array([labelled.taxonomy.index(code) for code in labelled.truth], np.intp)


def _any_known(values: Sequence[Any]) -> bool:
    import pandas as pd  # noqa: PLC0415 (slow to import)

    return bool(pd.Series(list(values), dtype=object).notna().any())


def _calibrated(
    labelled: LabelledPredictions, parts: NDArray[np.intp]
) -> tuple[LabelledPredictions, tuple[Scaling, ...]]:
    """Return the images with probabilities that other parts calibrated."""
    natural = labelled.natural
    fitted = cross_fitted(natural, _classes(labelled), parts)
    # Natural and balanced probabilities differ by the class priors, row for row; a class that
    # cannot be, as a prevalence of 0 makes it, stays impossible.
    ratio = np.divide(labelled.balanced, natural, out=np.zeros_like(natural), where=natural > 0)
    balanced = fitted.natural * ratio
    balanced /= balanced.sum(axis=1, keepdims=True)
    return labelled._replace(natural=fitted.natural, balanced=balanced), fitted.scalings


def _given_sets(labelled: LabelledPredictions) -> SetScores | None:
    """Return how good the prediction sets are that came with the probabilities, if any did."""
    if labelled.sets is None or labelled.coverage is None:
        return None
    return SetScores.from_sets(
        labelled.sets,
        _classes(labelled),
        labelled.groups,
        labelled.taxonomy.codes,
        coverage=labelled.coverage,
    )


def _sets(
    labelled: LabelledPredictions, parts: NDArray[np.intp]
) -> tuple[SetScores, tuple[str, ...]]:
    """Return how good cross-fitted prediction sets are, and what is in all of a part's."""
    codes, classes, groups = labelled.taxonomy.codes, _classes(labelled), labelled.groups
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
    """What an evaluation is of.

    Attributes:
        name: Of the run, the runs or the folder of predictions.
        images: How many were judged, by either task.
        groups: How many lesions these are of.
        folds: The folds that predicted them, as far as they are known.
        out_of_fold: Whether no network had seen the lesions that it is judged by.
    """

    name: str
    images: int
    groups: int
    folds: tuple[int, ...]
    out_of_fold: bool


@dataclass(frozen=True)
class Evaluation:
    """How good a run, an ensemble of runs, or predictions are.

    Attributes:
        subject: What was evaluated.
        classification: Of the diagnoses, where there are any.
        segmentation: Of the masks, where there are any.
        attributes: Of the attributes' masks, where there are any.
    """

    subject: Subject
    classification: ClassificationEvaluation | None = None
    segmentation: SegmentationEvaluation | None = None
    attributes: AttributesEvaluation | None = None

    def __str__(self) -> str:
        """Return what was evaluated and its headline metrics, one a line."""
        subject = self.subject
        lines = [f"{subject.name}: {subject.images:,} images of {subject.groups:,} lesions"]
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
        table = self.to_frame().to_html(index=False, float_format="{:.3f}".format)
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
        """Return the headline metrics: ``task, metric, value, low, high``, one row a metric.

        Values are as predicted; ``low`` and ``high`` bound the 95 % interval by lesion.
        """
        import pandas as pd  # noqa: PLC0415 (slow to import)

        return pd.DataFrame(
            [(task, name, *interval) for task, name, interval in self._metrics()],
            columns=["task", "metric", "value", "low", "high"],
        )

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return tables by name: ``metrics``, and for each task what it has.

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
        """Draw the headline metrics with their intervals; ``naevus report`` draws all figures.

        Raises:
            NaevusError: matplotlib is not installed.
        """
        rows = [(f"{task}: {_spaced(name)}", *interval) for task, name, interval in self._metrics()]
        return interval_figure(rows, self.subject.name)

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation as a dictionary that JSON can hold."""
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
) -> Evaluation:
    """Evaluate diagnoses, masks, or both.

    Args:
        name: What is evaluated.
        labelled: Images with their true diagnosis and probabilities; prediction sets that stand
            with them are scored, none are fitted unless they are out-of-fold.
        masks: A row an image: ``image_id, group_id`` and what `mask_metrics` measures.
        attribute_counts: A row an image, as `AttributesEvaluation.of` takes them.
        attributes: What is known of the diagnosed images, by name N values, for subgroups.
        out_of_fold: Whether no network had seen the lesions.

    Raises:
        DataError: Nothing is given, or what is given contradicts itself.
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
    return Evaluation(
        Subject(name, len(groups), len(set(groups.values())), tuple(sorted(folds)), out_of_fold),
        None
        if labelled is None
        else ClassificationEvaluation.of(labelled, attributes, fit_sets=out_of_fold),
        None if masks is None else SegmentationEvaluation.of(masks),
        None if attribute_counts is None else AttributesEvaluation.of(attribute_counts),
    )
