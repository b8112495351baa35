"""Sections about diagnoses: scores, ranking, honesty of probabilities, abstaining."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from naevus.evaluation.calibration.metrics import CalibrationScores
from naevus.evaluation.calibration.parts import parts_of
from naevus.evaluation.calibration.reliability import reliability_curve
from naevus.evaluation.calibration.temperature import cross_fitted
from naevus.evaluation.clinic import ClinicalScores, malignant, melanoma
from naevus.evaluation.intervals import recall_intervals
from naevus.evaluation.outoffold import scored
from naevus.evaluation.selective import SelectiveScores
from naevus.reports.document import Drawing, Section, Table
from naevus.reports.figures.confusion import confusion_figure
from naevus.reports.figures.coverage import risk_coverage_figure
from naevus.reports.figures.ranking import precision_recall_figure, roc_figure
from naevus.reports.figures.reliability import reliability_figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from naevus.evaluation.calibration.reliability import ReliabilityBin
    from naevus.evaluation.intervals import Interval, Proportion
    from naevus.evaluation.scoring.classification import ClassificationScores
    from naevus.reports.results import Diagnosed


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


def summary(answers: Answers) -> str:
    """Return the result in a sentence."""
    accuracy, balanced = (answers.intervals[name] for name in ("accuracy", "balanced_accuracy"))
    text = (
        f"of {len(answers.truth):,} pictures of {len(set(answers.groups)):,} lesions, "
        f"{accuracy.value:.1%} ({accuracy.low:.1%} to {accuracy.high:.1%}) get the right "
        f"diagnosis; the mean over the {len(answers.recalls)} diagnoses (balanced accuracy) is "
        f"{balanced.value:.1%} ({balanced.low:.1%} to {balanced.high:.1%})"
    )
    if "MEL" in answers.recalls:
        found = answers.recalls["MEL"]
        text += f"; of melanomas, {found.value:.1%} ({found.low:.1%} to {found.high:.1%}) are found"
    return text + "."


def score_section(answers: Answers) -> Section:
    """Return headline scores, scores by class, and the confusion matrix."""
    scores, codes = answers.scores, answers.diagnosed.taxonomy.codes
    headline = _interval_table("score", answers.intervals)
    rows = []
    for one, diagnosis in zip(
        scores.balanced.classes, answers.diagnosed.taxonomy.diagnoses, strict=True
    ):
        recall = answers.recalls.get(one.code)
        rows.append(
            {
                "class": one.code,
                "name": diagnosis.name,
                "pictures": one.pictures,
                "lesions": 0 if recall is None else recall.groups,
                **_spread("recall", recall),
                "precision": one.precision,
                "specificity": one.specificity,
                "AUC": scores.auc[one.code],
                "average precision": scores.average_precision[one.code],
            }
        )
    shares = scores.balanced.normalised_confusion()
    mean = np.nanmean(np.diag(shares))
    return Section(
        "scores",
        "Diagnoses",
        (
            (
                "Intervals are 95 %, by lesion, given the trained networks. Balanced answers are "
                "the best ones were all diagnoses equally common; accuracy is of the most probable."
            ),
            *scores.notes,
        ),
        (
            Table("scores", "Scores", headline),
            Table("classes", "By diagnosis, balanced answers", pd.DataFrame(rows)),
            Table(
                "confusion",
                "Confusion, counts",
                _confusion(scores.balanced.confusion, codes),
                folded=True,
            ),
        ),
        (
            Drawing(
                "confusion",
                "Confusion of balanced answers",
                confusion_figure(scores.balanced.confusion, codes),
                f"Rows are the truth, columns the answers; the diagonal's mean is {mean:.3f}.",
            ),
        ),
    )


def ranking_section(answers: Answers) -> Section:
    """Return ROC and precision-recall curves, and melanoma and malignancy against the rest."""
    diagnosed, names = answers.diagnosed, np.array(answers.truth, object)
    classes = {
        code: (np.asarray(names == code), diagnosed.natural[:, place])
        for place, code in enumerate(diagnosed.taxonomy.codes)
        if (names == code).any() and (names != code).any()
    }
    folds = diagnosed.table["fold"].tolist() if "fold" in diagnosed.table else None
    rows = []
    for target_of in (melanoma, malignant):
        if not _has_sides(target_of.__name__, answers):
            continue
        target = target_of(diagnosed.natural, answers.truth, diagnosed.taxonomy)
        found = ClinicalScores.from_target(target, answers.groups, folds)
        rows.append(
            {
                "against the rest": found.name,
                "pictures with it": found.positives,
                **_spread("AUC", found.auc),
                **_spread("sensitivity at specificity 0.9", found.sensitivity_at[0.9]),
                **_spread("specificity at sensitivity 0.9", found.specificity_at[0.9]),
            }
        )
    tables = (
        (Table("clinic", "Finding what must not be missed", pd.DataFrame(rows)),) if rows else ()
    )
    areas, precisions = answers.scores.auc, answers.scores.average_precision
    return Section(
        "ranking",
        "Ranking",
        ("How well each probability ranks its diagnosis above the others at any threshold.",),
        tables,
        (
            Drawing(
                "roc",
                "ROC by diagnosis",
                roc_figure(classes, areas),
                f"Areas under the curves: {_listed(areas, classes)}.",
            ),
            Drawing(
                "precision-recall",
                "Precision and recall by diagnosis",
                precision_recall_figure(classes, precisions),
                f"Average precisions: {_listed(precisions, classes)}.",
            ),
        ),
    )


def calibration_section(answers: Answers) -> Section:
    """Return how honest the probabilities are, as given and with a temperature fitted elsewhere."""
    diagnosed = answers.diagnosed
    classes = np.array([diagnosed.taxonomy.index(code) for code in answers.truth], np.intp)
    variants = {"as given": diagnosed.natural}
    notes = ["How often answers of a stated probability are right; bars are 95 % intervals."]
    if len(set(answers.groups)) >= 2 * len(answers.recalls):
        fitted = cross_fitted(diagnosed.natural, classes, parts_of(diagnosed.table))
        variants["with a fitted temperature"] = fitted.natural
        told = ", ".join(f"{value:.2f}" for value in fitted.temperatures)
        notes.append(f"Each part's temperature is fitted on the other parts alone: {told}.")
    rows, curves = [], {}
    for name, natural in variants.items():
        found = CalibrationScores.from_probabilities(natural, classes, answers.groups)
        rows.append(
            {
                "probabilities": name,
                **_spread("negative log-likelihood", found.nll),
                **_spread("Brier", found.brier),
                **_spread("calibration error", found.ece),
                "error by chance": found.ece.chance,
                **_spread("class-wise error", found.classwise_ece),
            }
        )
        right = natural.argmax(axis=1) == classes
        curves[name] = reliability_curve(natural.max(axis=1), right, answers.groups)
    return Section(
        "calibration",
        "Honesty of the probabilities",
        tuple(notes),
        (
            Table("calibration", "Calibration; 0 is best", pd.DataFrame(rows)),
            Table("reliability", "Reliability curve", _curve_table(curves), folded=True),
        ),
        (
            Drawing(
                "reliability",
                "Reliability",
                reliability_figure(curves),
                "On the dotted diagonal, what is stated comes true.",
            ),
        ),
    )


def abstaining_section(answers: Answers) -> Section:
    """Return what answering only when sure would bring."""
    natural, codes = answers.diagnosed.natural, np.array(answers.diagnosed.taxonomy.codes, object)
    right = codes[natural.argmax(axis=1)] == np.array(answers.truth, object)
    found = SelectiveScores.from_answers(right, natural.max(axis=1), answers.groups, answers.truth)
    rows = [{"score": "area under the curve", **_spread("value", found.aurc)}]
    rows.append({"score": "of it avoidable", **_spread("value", found.excess_aurc)})
    for share, interval in found.accuracy_at.items():
        rows.append({"score": f"accuracy of the surest {share:.0%}", **_spread("value", interval)})
    return Section(
        "abstaining",
        "Answering only when sure",
        ("Pictures are answered in the order of their greatest probability, the surest first.",),
        (Table("abstaining", "Risk and coverage", pd.DataFrame(rows)),),
        (
            Drawing(
                "risk-coverage",
                "Risk and coverage",
                risk_coverage_figure(found.curve),
                f"Where all are answered, {found.risk.value:.1%} are wrong (dotted line).",
            ),
        ),
    )


def _has_sides(target: str, answers: Answers) -> bool:
    diagnoses = answers.diagnosed.taxonomy.diagnoses
    codes = {"MEL"} if target == "melanoma" else {one.code for one in diagnoses if one.malignant}
    inside = [code in codes for code in answers.truth]
    return any(inside) and not all(inside)


def _interval_table(first: str, intervals: dict[str, Interval]) -> pd.DataFrame:
    rows = [
        {first: name.replace("_", " "), **_spread("value", interval)}
        for name, interval in intervals.items()
    ]
    return pd.DataFrame(rows)


def _spread(name: str, value: Any) -> dict[str, float | None]:
    """Return the columns of a value with its interval."""
    low, high = (None, None) if value is None else (value.low, value.high)
    return {name: None if value is None else value.value, f"{name}_low": low, f"{name}_high": high}


def _confusion(counts: Any, codes: Sequence[str]) -> pd.DataFrame:
    table = pd.DataFrame(counts, columns=list(codes))
    table.insert(0, "truth", list(codes))
    return table


def _curve_table(curves: dict[str, tuple[ReliabilityBin, ...]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "probabilities": name,
            "pictures": one.pictures,
            "lesions": one.found.groups,
            "stated": one.stated,
            **_spread("right", one.found),
        }
        for name, bins in curves.items()
        for one in bins
    )


def _listed(values: dict[str, float | None], classes: dict[str, Any]) -> str:
    return ", ".join(f"{code} {values[code]:.3f}" for code in classes)
