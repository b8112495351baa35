"""The sections about diagnoses, for pages and the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from rich.table import Table as RichTable
from rich.text import Text

from naevus.evaluation.calibration import CalibrationScores, reliability_curve
from naevus.evaluation.evaluate import AS_GIVEN, FITTED
from naevus.evaluation.intervals import Interval
from naevus.evaluation.operating_points import ClinicalScores, decision_curve, targets_of
from naevus.evaluation.scaling import cross_fitted, parts_of
from naevus.evaluation.selective import SelectiveScores
from naevus.reports.document import (
    Drawing,
    Key,
    Section,
    Table,
    _notes,
    figures_table,
    interval_table,
    number,
    percent,
    percent_range,
    spread,
    spread_with_interval,
)
from naevus.reports.figures import (
    benefit_figure,
    confusion_figure,
    precision_recall_figure,
    reliability_figure,
    risk_coverage_figure,
    roc_figure,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import RenderableType

    from naevus.evaluation.calibration import ReliabilityBin
    from naevus.evaluation.classification import ClassificationScores
    from naevus.evaluation.evaluate import Answers, DiagnosticScores
    from naevus.types import Decision


# Diagnoses beyond accuracy as tables for the terminal, each figure with its interval.

_BENEFITS = (0.05, 0.1, 0.2, 0.3)


def diagnostic_tables(
    scores: DiagnosticScores, balanced_accuracy: Interval
) -> Iterable[RenderableType]:
    """Yield figures by class, for the clinic, of honesty and of abstaining.

    Args:
        scores: The figures.
        balanced_accuracy: Of the balanced decision: the mean of the classes' recalls.
    """
    yield _by_class(scores, balanced_accuracy)
    if scores.clinic:
        yield _clinic(scores)
        yield _benefit(scores)
    yield _calibration(scores)
    yield _selective(scores)
    if scores.sets is None:
        yield Text("note: too few lesions to fit a calibration and sets", style="yellow")


def _by_class(scores: DiagnosticScores, balanced_accuracy: Interval) -> RichTable:
    table = figures_table(
        "each class, with 95 % intervals by lesion", "class", "lesions", "recall", "AUC"
    )
    if scores.sets is not None:
        table.add_column(f"in its {scores.sets.level:.0%} set", justify="right")
        table.add_column("set size", justify="right")
    for code, recall in scores.recalls.items():
        cells = [
            code,
            f"{recall.groups:,}",
            spread_with_interval(recall),
            spread_with_interval(scores.aucs.get(code)),
        ]
        if scores.sets is not None:
            own = scores.sets.classes[code]
            cells += [spread_with_interval(own.lesions), f"{own.size:.2f}"]
        table.add_row(*cells)
    cells = [
        "mean or all",
        "",
        spread_with_interval(balanced_accuracy),
        spread_with_interval(scores.mean_auc),
    ]
    if scores.sets is not None:
        overall = scores.sets.overall
        cells += [spread_with_interval(overall.lesions), f"{overall.size:.2f}"]
    table.add_row(*cells, style="bold")
    table.caption = "recall of the balanced decision; AUC of all folds' pictures ranked together"
    return table


def _clinic(scores: DiagnosticScores) -> RichTable:
    names = [f"{one.name} ({one.positives:,})" for one in scores.clinic]
    table = figures_table("against the rest (pictures with it)", "figure", *names)
    table.add_row("AUC, pooled", *(spread_with_interval(one.auc) for one in scores.clinic))
    table.add_row(
        "AUC, mean of folds", *(spread_with_interval(one.fold_auc) for one in scores.clinic)
    )
    for fixed in scores.clinic[0].sensitivity_at:
        values = (spread_with_interval(one.sensitivity_at[fixed]) for one in scores.clinic)
        table.add_row(f"sensitivity at specificity {fixed}", *values)
    for fixed in scores.clinic[0].specificity_at:
        values = (spread_with_interval(one.specificity_at[fixed]) for one in scores.clinic)
        table.add_row(f"specificity at sensitivity {fixed}", *values)
    return table


def _benefit(scores: DiagnosticScores) -> RichTable:
    table = figures_table("net benefit a picture of acting from a probability on", "probability")
    for name in scores.benefit:
        table.add_column(name, justify="right")
        table.add_column("acting on all", justify="right")
    for threshold in _BENEFITS:
        cells = [f"{threshold:.0%}"]
        for curve in scores.benefit.values():
            row = curve.iloc[int((curve["threshold"] - threshold).abs().argmin())]
            cells.append(
                spread_with_interval(Interval(row["net_benefit"], row["low"], row["high"]))
            )
            cells.append(f"{row['act_on_all']:.3f}")
        table.add_row(*cells)
    table.caption = "acting on nobody has 0; at this case mix"
    return table


def _calibration(scores: DiagnosticScores) -> RichTable:
    table = figures_table("honesty of the natural probabilities", "figure", *scores.calibration)
    found = scores.calibration.values()
    for name, title in (("nll", "log-likelihood, negative"), ("brier", "Brier score")):
        table.add_row(title, *(spread_with_interval(getattr(one, name)) for one in found))
    for name, title in (
        ("ece", "calibration error (ECE)"),
        ("ece_equal_mass", "ECE, bins of equal mass"),
        ("classwise_ece", "ECE by class, mean"),
    ):
        values = [getattr(one, name) for one in found]
        table.add_row(
            title, *(f"{spread_with_interval(each)}, chance {each.chance:.3f}" for each in values)
        )
    decided = (spread_with_interval(interval) for interval in scores.balanced_accuracy.values())
    table.add_row("balanced accuracy, balanced decision", *decided)
    if scores.scalings:
        fitted = ", ".join(f"{scaling.temperature:.2f}" for scaling in scores.scalings)
        table.caption = f"each part by temperature ({fitted}) and offsets of the others"
    return table


def _selective(scores: DiagnosticScores) -> RichTable:
    found = scores.selective
    table = figures_table("answering only when sure (probable decision)", "figure", "value")
    table.add_row("area under risk-coverage curve", spread_with_interval(found.aurc))
    table.add_row("of it avoidable", spread_with_interval(found.excess_aurc))
    for share, accuracy in found.accuracy_at.items():
        table.add_row(f"accuracy of the surest {share:.0%}", spread_with_interval(accuracy))
    if scores.sets is not None:
        table.add_row(
            "diagnoses in a prediction set", spread_with_interval(scores.sets.overall.mean_size)
        )
        table.add_row("sets with one diagnosis", f"{scores.sets.single:.3f}")
        table.add_row("sets with none", f"{scores.sets.empty:.3f}")
    return table


_RIGHT, _WRONG = (30, 110, 60), (150, 40, 45)


def classification_tables(
    scores: ClassificationScores, intervals: Mapping[str, Interval]
) -> Iterable[RenderableType]:
    """Yield Task 3's scores by both decisions, classes, and both confusion matrices.

    Args:
        scores: The scores.
        intervals: Of the summary, by the names that `evaluation.outoffold.scored` gives.
    """
    summary = RichTable("decision", title=f"{scores.pictures:,} pictures, 95 % intervals by lesion")
    summary.add_column("balanced accuracy", justify="right")
    summary.add_column("accuracy", justify="right")
    own = {"balanced": "balanced_accuracy", "probable": "accuracy"}
    for decision in ("balanced", "probable"):
        cells = []
        for name in ("balanced_accuracy", "accuracy"):
            told = spread_with_interval(
                intervals[f"{name}_{decision}" if own[decision] != name else name]
            )
            cells.append(Text(told, style="bold" if own[decision] == name else ""))
        summary.add_row(decision, *cells)
    yield summary
    yield _classes(scores)
    yield confusion_table(scores, "balanced")
    yield confusion_table(scores, "probable")
    yield from _notes(scores.notes)


def confusion_table(scores: ClassificationScores, decision: Decision) -> RichTable:
    """Return a confusion matrix: counts with their share of the row, coloured by the share.

    The diagonal is green, the rest red; the stronger, the larger the share of its true class.
    """
    chosen = scores.by(decision)
    shares = chosen.normalised_confusion()
    table = RichTable("truth", title=f"{decision} decision: truth down, answer across")
    for code in scores.codes:
        table.add_column(code, justify="right")
    table.add_column("pictures", justify="right")
    for row, code in enumerate(scores.codes):
        cells = [
            _shaded(int(count), float(share), right=row == column)
            for column, (count, share) in enumerate(
                zip(chosen.confusion[row], shares[row], strict=True)
            )
        ]
        table.add_row(code, *cells, str(int(chosen.confusion[row].sum())))
    return table


def _classes(scores: ClassificationScores) -> RichTable:
    table = RichTable("class", title="each class, balanced | probable decision")
    for column in ("pictures", "recall", "precision", "specificity", "AUC", "average precision"):
        table.add_column(column, justify="right")
    for balanced, probable in zip(scores.balanced.classes, scores.probable.classes, strict=True):
        table.add_row(
            balanced.code,
            str(balanced.pictures),
            f"{number(balanced.recall)} | {number(probable.recall)}",
            f"{number(balanced.precision)} | {number(probable.precision)}",
            f"{number(balanced.specificity)} | {number(probable.specificity)}",
            number(scores.auc[balanced.code]),
            number(scores.average_precision[balanced.code]),
        )
    return table


def _shaded(count: int, share: float, *, right: bool) -> Text:
    if not count:
        return Text("·", style="dim")
    strength = 0.25 + 0.75 * share
    red, green, blue = (round(part * strength) for part in (_RIGHT if right else _WRONG))
    return Text(f"{count} {share:4.0%}", style=f"white on rgb({red},{green},{blue})")


# Sections about how far probabilities are what they say, and about answering only when sure.


def calibration_section(answers: Answers) -> Section:
    """Return how honest the probabilities are, as given and calibrated elsewhere."""
    diagnosed = answers.diagnosed
    classes = np.array([diagnosed.taxonomy.index(code) for code in answers.truth], np.intp)
    variants = {AS_GIVEN: diagnosed.natural}
    notes = ["How often answers of a stated probability are right; bars are 95 % intervals."]
    if len(set(answers.groups)) >= 2 * len(answers.recalls):
        fitted = cross_fitted(diagnosed.natural, classes, parts_of(diagnosed.table))
        variants[FITTED] = fitted.natural
        told = ", ".join(f"{scaling.temperature:.2f}" for scaling in fitted.scalings)
        notes.append(
            f"Each part's temperature ({told}) and offsets are fitted on the other parts alone."
        )
    rows, curves = [], {}
    for name, natural in variants.items():
        found = CalibrationScores.from_probabilities(natural, classes, answers.groups)
        rows.append(
            {
                "probabilities": name,
                **spread("negative log-likelihood", found.nll),
                **spread("Brier", found.brier),
                **spread("calibration error", found.ece),
                "error by chance": found.ece.chance,
                **spread("class-wise error", found.classwise_ece),
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
    rows = [{"score": "area under the curve", **spread("value", found.aurc)}]
    rows.append({"score": "of it avoidable", **spread("value", found.excess_aurc)})
    for share, interval in found.accuracy_at.items():
        rows.append(
            {"score": f"accuracy of the surest {100 * share:.0f} %", **spread("value", interval)}
        )
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
                f"Where all are answered, {percent(found.risk.value)} are wrong (dotted line).",
            ),
        ),
    )


def _curve_table(curves: dict[str, tuple[ReliabilityBin, ...]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "probabilities": name,
            "pictures": one.pictures,
            "lesions": one.found.groups,
            "stated": one.stated,
            **spread("right", one.found),
        }
        for name, bins in curves.items()
        for one in bins
    )


# The section about ranking: curves by diagnosis, and what must not be missed.


def ranking_section(answers: Answers) -> Section:
    """Return ROC and precision-recall curves by diagnosis."""
    diagnosed, names = answers.diagnosed, np.array(answers.truth, object)
    classes = {
        code: (np.asarray(names == code), diagnosed.natural[:, place])
        for place, code in enumerate(diagnosed.taxonomy.codes)
        if (names == code).any() and (names != code).any()
    }
    areas, precisions = answers.scores.auc, answers.scores.average_precision
    return Section(
        "ranking",
        "Ranking",
        ("How well each probability ranks its diagnosis above the others at any threshold.",),
        drawings=(
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


def clinic_section(answers: Answers) -> Section | None:
    """Return melanoma and malignancy against the rest; None where only one side is there."""
    diagnosed = answers.diagnosed
    targets = targets_of(diagnosed.natural, answers.truth, diagnosed.taxonomy)
    if not targets:
        return None
    scores = [ClinicalScores.from_target(one, answers.groups, answers.folds) for one in targets]
    areas = {one.name: one.auc.value for one in scores}
    curves = {one.name: decision_curve(one, answers.groups) for one in targets}
    table = pd.concat(
        curve.rename(columns={"low": "net_benefit_low", "high": "net_benefit_high"}).assign(
            **{"against the rest": name}
        )
        for name, curve in curves.items()
    )
    return Section(
        "clinic",
        "What must not be missed",
        ("The natural probabilities of the diagnoses add up; thresholds hold for this case mix.",),
        (
            Table("clinic", "Against the rest", pd.DataFrame(map(_row, scores))),
            Table("net-benefit", "Net benefit, values", table, folded=True),
        ),
        (
            Drawing(
                "clinic-roc",
                "ROC against the rest",
                roc_figure({one.name: (one.truth, one.probability) for one in targets}, areas),
                f"Areas under the curves: {_listed(areas, areas)}.",
            ),
            Drawing(
                "net-benefit",
                "Net benefit",
                benefit_figure(curves),
                "Found cases a picture, less what false alarms cost, were all acted on whose "
                "probability is the threshold or more; dotted: acting on everybody.",
            ),
        ),
    )


def _row(found: ClinicalScores) -> dict[str, Any]:
    return {
        "against the rest": found.name,
        "pictures with it": found.positives,
        **spread("AUC", found.auc),
        **({} if found.fold_auc is None else spread("mean AUC of folds", found.fold_auc)),
        **spread("sensitivity at specificity 0.9", found.sensitivity_at[0.9]),
        **spread("specificity at sensitivity 0.9", found.specificity_at[0.9]),
    }


def _listed(values: Mapping[str, float | None], classes: Iterable[str]) -> str:
    return ", ".join(f"{code} {values[code]:.3f}" for code in classes)


def summary(answers: Answers, which: str) -> str:
    """Return the result in a sentence.

    Args:
        answers: The answers.
        which: What is to be said of the pictures, such as ``", held out while training,"``.
    """
    accuracy, balanced = (answers.intervals[name] for name in ("accuracy", "balanced_accuracy"))
    text = (
        f"Of {len(answers.truth):,} pictures of {len(set(answers.groups)):,} lesions{which} "
        f"{_share(accuracy)} get the right diagnosis. The mean over the {len(answers.recalls)} "
        f"diagnoses (balanced accuracy) is {_share(balanced)}"
    )
    if "MEL" in answers.recalls:
        text += f"; of melanomas, {_share(answers.recalls['MEL'])} are found"
    return text + "."


def keys(answers: Answers) -> list[Key]:
    """Return the figures that matter most."""
    found = [
        Key(name, percent(interval.value), percent_range(interval))
        for name, interval in (
            ("balanced accuracy", answers.intervals["balanced_accuracy"]),
            ("accuracy", answers.intervals["accuracy"]),
            *((("melanomas found", answers.recalls["MEL"]),) if "MEL" in answers.recalls else ()),
        )
    ]
    groups = f"of {len(set(answers.groups)):,} lesions"
    return [*found, Key("pictures diagnosed", f"{len(answers.truth):,}", groups)]


def score_section(answers: Answers) -> Section:
    """Return headline scores, scores by class, and the confusion matrix."""
    scores, codes = answers.scores, answers.diagnosed.taxonomy.codes
    headline = interval_table("score", answers.intervals)
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
                **spread("recall", recall),
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
            *_by_fold(answers),
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


def _by_fold(answers: Answers) -> list[Table]:
    """Return the scores of each fold, where there are several."""
    diagnosed = answers.diagnosed
    if answers.folds is None:
        return []
    codes = np.array(diagnosed.taxonomy.codes, object)
    judged = diagnosed.table[["fold", "group_id", "truth"]].assign(
        balanced=np.array(answers.balanced, object) == diagnosed.table["truth"].to_numpy(object),
        probable=codes[diagnosed.natural.argmax(axis=1)] == diagnosed.table["truth"],
    )
    rows = [
        {
            "fold": fold,
            "pictures": len(part),
            "lesions": part["group_id"].nunique(),
            "balanced accuracy": part.groupby("truth")["balanced"].mean().mean(),
            "accuracy": part["probable"].mean(),
        }
        for fold, part in judged.groupby("fold")
    ]
    return [Table("folds", "By fold", pd.DataFrame(rows))]


def _share(interval: Any) -> str:
    return f"{percent(interval.value)} ({percent_range(interval)})"


def _confusion(counts: Any, codes: Sequence[str]) -> pd.DataFrame:
    table = pd.DataFrame(counts, columns=list(codes))
    table.insert(0, "truth", list(codes))
    return table
