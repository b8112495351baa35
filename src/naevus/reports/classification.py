"""The report sections on diagnoses, from a ClassificationEvaluation."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from naevus.evaluation.intervals import FEW, LEAST, RARE
from naevus.evaluation.subgroups import LEAST_OF_CLASS, SMALL
from naevus.io.words import counted, images_of, plural
from naevus.reports import figures
from naevus.reports.document import (
    Curve,
    FigureSlot,
    Headline,
    Section,
    Table,
    percent,
    percent_range,
    spread,
    with_enough_groups,
)
from naevus.reports.probabilities import calibrated_of, calibration_section, selective_section

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from naevus.evaluation.evaluate import ClassificationEvaluation
    from naevus.evaluation.lesions import LesionEvaluation, LesionScores
    from naevus.evaluation.operating_points import OperatingPoints
    from naevus.types import Unit

_PROXY: Final = (
    "Skin tone is the typology angle of the skin around the mask: a proxy that depends on camera, "
    "light and white balance. Image is the first quality flag of the image."
)


def sections(found: ClassificationEvaluation) -> Iterator[Section]:
    """Yield all sections on diagnoses, the headline first."""
    yield score_section(found)
    if found.targets:
        yield target_section(found)
    if found.curves:
        yield ranking_section(found)
    yield calibration_section(found)
    yield selective_section(found)
    if found.lesions is not None:
        yield lesion_section(found.lesions, calibrated=calibrated_of(found) is not None)
    if found.as_predicted.subgroups:
        yield subgroup_section(found)


def summary(found: ClassificationEvaluation, which: str) -> str:
    """Return the result in a sentence.

    Args:
        found: The evaluation.
        which: A phrase about the images, such as ``", held out in training,"``.
    """
    headline, recalls = found.as_predicted.intervals, found.as_predicted.recalls
    text = (
        f"Of {images_of(found.images, found.groups, found.unit)}{which} "
        f"{_fraction(headline['accuracy'], found.unit)} are classified correctly by the natural "
        f"decision. By the balanced one, the mean recall of the {len(recalls)} diagnoses "
        f"(balanced accuracy) is {_fraction(headline['balanced_accuracy'], found.unit)}"
    )
    if "MEL" in recalls:
        text += f"; the recall of melanoma is {_fraction(recalls['MEL'], found.unit)}"
    return text + "."


def headlines(found: ClassificationEvaluation) -> list[Headline]:
    """Return the headline figures."""
    headline, recalls = found.as_predicted.intervals, found.as_predicted.recalls
    shown = [
        ("balanced accuracy", headline["balanced_accuracy"]),
        ("accuracy", headline["accuracy"]),
        *((("recall of melanoma", recalls["MEL"]),) if "MEL" in recalls else ()),
    ]
    return [
        *(
            Headline(name, percent(one.value), percent_range(one, found.unit))
            for name, one in shown
        ),
        Headline(
            "images classified", f"{found.images:,}", f"of {counted(found.groups, found.unit)}"
        ),
    ]


def _fraction(interval: Any, unit: Unit) -> str:
    return f"{percent(interval.value)} ({percent_range(interval, unit)})"


def score_section(found: ClassificationEvaluation) -> Section:
    """Return the headline, scores by fold and class, and confusion matrices."""
    scores, codes = found.as_predicted.scores, found.taxonomy.codes
    folded = f"Classes were merged for scoring: {found.folded}."
    return Section(
        "scores",
        "Diagnoses",
        (
            (
                f"Intervals are 95 %, by {found.unit}, conditional on the trained networks. The "
                "balanced decision assumes equally common diagnoses; accuracy is that of the "
                "natural one."
            ),
            *scores.notes,
            *([_few(found.unit)] if found.groups < FEW else []),
            *([folded] if found.folded else []),
            *([_too_few(found.unit)] if calibrated_of(found) is None else []),
        ),
        (
            Table("scores", "Scores", _headline(found)),
            *_by_fold(found),
            Table("classes", "By diagnosis, balanced decision", _by_class(found, calibrated=False)),
            *_calibrated_classes(found),
            Table(
                "confusion",
                "Confusion matrix, balanced decision, counts",
                _confusion(scores.balanced.confusion, codes),
                folded=True,
                matrix=True,
            ),
            Table(
                "confusion-natural",
                "Confusion matrix, natural decision, counts",
                _confusion(scores.natural.confusion, codes),
                folded=True,
                matrix=True,
            ),
        ),
        (
            FigureSlot(
                "confusion",
                "Confusion matrix, balanced decision",
                partial(figures.confusion_figure, scores.balanced.confusion, codes),
                "Rows: ground truth; columns: predictions. The mean of the diagonal, over the "
                f"classes present, is {scores.balanced.balanced_accuracy:.3f}.",
            ),
        ),
    )


def _too_few(unit: Unit) -> str:
    """Return why there is no calibration."""
    return f"There are too few {plural(unit)} for a calibration: it needs {FEW}."


def _few(unit: Unit) -> str:
    groups = plural(unit)
    return (
        f"With fewer than {FEW} {groups}, fractions such as recalls have Wilson's interval, "
        "balanced accuracy has one made from those of the recalls, and other figures have a BCa "
        f"interval. With fewer than {LEAST} {groups}, these other figures have no interval."
    )


def _headline(found: ClassificationEvaluation) -> pd.DataFrame:
    """Return one row per score, as predicted and calibrated on the other parts."""
    other = calibrated_of(found)
    rows = [
        {
            "score": name.replace("_", " "),
            **spread("value", interval),
            **({} if other is None else spread("calibrated", other.intervals[name])),
        }
        for name, interval in found.as_predicted.intervals.items()
    ]
    mean = {"score": "mean AUC", **spread("value", found.mean_auc)}
    return pd.DataFrame([*rows, *([] if found.mean_auc is None else [mean])])


def _by_fold(found: ClassificationEvaluation) -> list[Table]:
    rows = [
        {
            "fold": one.fold,
            "images": one.images,
            plural(found.unit): one.groups,
            "balanced accuracy": one.balanced_accuracy,
            "accuracy": one.accuracy,
        }
        for one in found.by_fold
    ]
    return [Table("folds", "By fold", pd.DataFrame(rows))] if rows else []


def _by_class(found: ClassificationEvaluation, *, calibrated: bool) -> pd.DataFrame:
    metrics = found.calibrated if calibrated else found.as_predicted
    assert metrics is not None
    names = {one.code: one.name for one in found.taxonomy.diagnoses}
    rows = []
    for one in metrics.scores.balanced.classes:
        recall = metrics.recalls.get(one.code)
        area = None if calibrated else found.aucs.get(one.code)
        rows.append(
            {
                "class": one.code,
                "name": names[one.code],
                "images": one.images,
                plural(found.unit): 0 if recall is None else recall.groups,
                **spread("recall", recall),
                "precision": one.precision,
                "specificity": one.specificity,
                "AUC": metrics.scores.auc[one.code],
                **({} if area is None else {"AUC_low": area.low, "AUC_high": area.high}),
                "average precision": metrics.scores.average_precision[one.code],
            }
        )
    return pd.DataFrame(rows)


def _calibrated_classes(found: ClassificationEvaluation) -> list[Table]:
    if calibrated_of(found) is None:
        return []
    rows = _by_class(found, calibrated=True)
    note = "Calibrated with temperature and offsets fitted on the other parts."
    title = "By diagnosis, balanced decision, calibrated"
    return [Table("classes-calibrated", title, rows, note)]


def _confusion(counts: Any, codes: Sequence[str]) -> pd.DataFrame:
    table = pd.DataFrame(counts, columns=list(codes))
    table.insert(0, "diagnosis", list(codes))
    return table


def target_section(found: ClassificationEvaluation) -> Section:
    """Return operating points and decision curves: melanoma and malignancy against the rest."""
    areas = {one.name: one.auc.value for one in found.targets}
    benefit = pd.concat(
        curve.rename(columns={"low": "net_benefit_low", "high": "net_benefit_high"}).assign(
            **{"against the rest": name}
        )
        for name, curve in found.decision_curves.items()
    )
    several = len(found.by_fold) > 1
    rarer = min(one.rarer for one in found.targets)
    borne = with_enough_groups(
        [
            Curve(
                FigureSlot(
                    "operating-points-roc",
                    "ROC against the rest",
                    partial(figures.roc_figure, found.target_curves, areas),
                    f"Areas under the curves: {_listed(areas, areas)}.",
                ),
                rarer,
                LEAST,
            ),
            Curve(
                FigureSlot(
                    "net-benefit",
                    "Net benefit",
                    partial(figures.benefit_figure, found.decision_curves),
                    "True positives per image minus the cost of false positives, when acting on "
                    "probabilities from the threshold up; dotted: acting on everyone.",
                ),
                rarer,
                RARE,
                Table("net-benefit", "Net benefit, values", benefit, folded=True),
            ),
        ],
        found.unit,
    )
    return Section(
        "operating-points",
        "Melanoma and malignancy against the rest",
        (
            "Natural probabilities of the diagnoses are summed. Thresholds depend on the case mix.",
            *borne.notes,
        ),
        (
            Table(
                "operating-points",
                "Operating points",
                pd.DataFrame(_target(one, several=several) for one in found.targets),
            ),
            *borne.tables,
        ),
        borne.slots,
        undrawn=borne.undrawn,
    )


def _target(one: OperatingPoints, *, several: bool) -> dict[str, Any]:
    """Return a row; with the mean area per fold if there are several folds."""
    return {
        "against the rest": one.name,
        "images with it": one.positives,
        **spread("AUC", one.auc),
        **(spread("mean AUC of folds", one.fold_auc) if several and one.fold_auc else {}),
        **{
            name: value
            for at, interval in one.sensitivity_at.items()
            for name, value in spread(f"sensitivity at specificity {at}", interval).items()
        },
        **{
            name: value
            for at, interval in one.specificity_at.items()
            for name, value in spread(f"specificity at sensitivity {at}", interval).items()
        },
    }


def _listed(values: Mapping[str, float | None], classes: Iterable[str]) -> str:
    return ", ".join(f"{code} {values[code]:.3f}" for code in classes)


def ranking_section(found: ClassificationEvaluation) -> Section:
    """Return ROC and precision-recall curves by diagnosis."""
    scores = found.as_predicted.scores
    areas, precisions = scores.auc, scores.average_precision
    curves = {code: found.curves[code] for code in found.curves if _rarer(found, code) >= LEAST}
    few = ", ".join(code for code in found.curves if code not in curves)
    slots = (
        FigureSlot(
            "roc",
            "ROC by diagnosis",
            partial(figures.roc_figure, curves, areas),
            f"Areas under the curves: {_listed(areas, curves)}.",
        ),
        FigureSlot(
            "precision-recall",
            "Precision and recall by diagnosis",
            partial(figures.precision_recall_figure, curves, precisions),
            f"Average precisions: {_listed(precisions, curves)}.",
        ),
    )
    return Section(
        "ranking",
        "Ranking",
        ("How well each probability ranks its diagnosis above the others, over all thresholds.",),
        figure_slots=slots if curves else (),
        undrawn=(f"{few}: no curves; these need {counted(LEAST, found.unit)} with and without it.",)
        if few
        else (),
    )


def _rarer(found: ClassificationEvaluation, code: str) -> int:
    """Return the number of groups with a diagnosis or without it, whichever is smaller."""
    return min(found.aucs[code].groups, found.groups - found.aucs[code].groups)


def lesion_section(found: LesionEvaluation, *, calibrated: bool) -> Section:
    """Return what one answer per lesion is worth, beside the answers for its images.

    Args:
        found: The evaluation.
        calibrated: Whether enough groups bear a calibration.
    """
    several = counted(found.several.single.answers, "lesion")
    notes = [
        (
            "One answer per lesion is the mean log-probability of its images. It is compared with "
            "one image per lesion, where the images of a lesion share its weight. Where every "
            "image counts, lesions with many images have more weight."
        ),
        f"The images of {found.differing:,} of {several} have different predictions.",
        (
            "Calibration and the thresholds of prediction sets are fitted on single images of "
            "other parts; nothing guarantees them for means of several images."
        ),
    ]
    if found.by == "group_id":
        notes.append("No lesion is known here: each group of the folds is taken as one lesion.")
    if found.contradictory:
        notes.append(
            "Lesions left out because their images have different true diagnoses: "
            f"{len(found.contradictory):,}, such as {found.contradictory[0]}."
        )
    if found.unknown:
        notes.append(f"Images left out because their lesion is unknown: {found.unknown:,}.")
    rows = partial(_levels, target=found.target, calibrated=calibrated)
    tables = (
        ("lesions", "All lesions", found.every),
        ("lesions-several", f"The {several} with two or more images", found.several),
    )
    return Section(
        "lesions",
        "One answer per lesion",
        tuple(notes),
        tuple(
            # As objects, counts stay whole numbers in columns of scores.
            Table(name, title, pd.DataFrame(rows(one), dtype=object))
            for name, title, one in tables
        ),
    )


def _levels(
    found: LesionScores, target: str | None, *, calibrated: bool
) -> Iterator[dict[str, Any]]:
    """Yield a row for each metric."""
    names = {
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced accuracy",
        "auc": f"AUC, {target}",
        "covered": "set contains the diagnosis",
        "set_size": "diagnoses in a set",
    }
    levels = {
        "every image": found.images,
        "one image": found.single,
        "one answer": found.together,
    }
    yield {"score": "answers", **{level: one.answers for level, one in levels.items()}}
    for name in found.gain:
        row: dict[str, Any] = {"score": names[name]}
        for level, one in levels.items():
            row |= spread(level, one.metrics[name])
        yield {**row, **spread("gain", found.gain[name])}
    errors = {"calibration error": "calibration_error"}
    errors |= {"... calibrated": "calibrated_error"} if calibrated else {}
    for title, name in errors.items():
        found_errors = {level: getattr(one, name) for level, one in levels.items()}
        if found_errors["every image"] is None:
            continue
        row = {"score": title}
        for level, error in found_errors.items():
            row |= spread(level, error)
        yield row
        chances = {level: error and error.chance for level, error in found_errors.items()}
        yield {"score": "... by chance", **chances}


def subgroup_section(found: ClassificationEvaluation) -> Section:
    """Return scores of the balanced decision in subgroups."""
    groups = found.as_predicted.subgroups
    table = pd.DataFrame(
        {
            "attribute": one.attribute,
            "value": one.value,
            "images": one.images,
            plural(found.unit): one.groups,
            **spread("correct", one.correct),
            **spread("balanced accuracy", one.balanced_accuracy),
            "gap": one.gap,
            "p": one.p,
            "p, Holm": one.p_holm,
            "over": " ".join(one.classes),
            "gap over": " ".join(one.shared),
            "small": one.small,
        }
        for one in groups
    )
    return Section(
        "subgroups",
        "Subgroups",
        (
            (
                "An image counts for its own value. Balanced accuracy is over the diagnoses with "
                f"at least {counted(LEAST_OF_CLASS, found.unit)} in the subgroup. Compare only "
                "rows with the same diagnoses. Accuracy depends on the case mix, but is given for "
                "any number of images."
            ),
            (
                "The gap is the subgroup's balanced accuracy minus that of all others, over the "
                "diagnoses that both have. The p value is from permuting the subgroups among the "
                f"{plural(found.unit)} of each diagnosis, with Holm's correction for all rows."
            ),
            f"Grey rows have fewer than {counted(SMALL, found.unit)}.",
            *([_PROXY] if any(one.attribute == "skin (proxy)" for one in groups) else []),
        ),
        (Table("subgroups", "Balanced decision by subgroup", table),),
    )
