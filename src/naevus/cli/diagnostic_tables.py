"""Diagnoses beyond accuracy as tables for the terminal, each figure with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from naevus.cli.score_tables import figures_table, spread
from naevus.evaluation.intervals import Interval

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType
    from rich.table import Table

    from naevus.evaluation.evaluate import DiagnosticScores

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


def _by_class(scores: DiagnosticScores, balanced_accuracy: Interval) -> Table:
    table = figures_table(
        "each class, with 95 % intervals by lesion", "class", "lesions", "recall", "AUC"
    )
    if scores.sets is not None:
        table.add_column(f"in its {scores.sets.level:.0%} set", justify="right")
        table.add_column("set size", justify="right")
    for code, recall in scores.recalls.items():
        cells = [code, f"{recall.groups:,}", spread(recall), spread(scores.aucs.get(code))]
        if scores.sets is not None:
            own = scores.sets.classes[code]
            cells += [spread(own.lesions), f"{own.size:.2f}"]
        table.add_row(*cells)
    cells = ["mean or all", "", spread(balanced_accuracy), spread(scores.mean_auc)]
    if scores.sets is not None:
        overall = scores.sets.overall
        cells += [spread(overall.lesions), f"{overall.size:.2f}"]
    table.add_row(*cells, style="bold")
    table.caption = "recall of the balanced decision; AUC of all folds' pictures ranked together"
    return table


def _clinic(scores: DiagnosticScores) -> Table:
    names = [f"{one.name} ({one.positives:,})" for one in scores.clinic]
    table = figures_table("against the rest (pictures with it)", "figure", *names)
    table.add_row("AUC, pooled", *(spread(one.auc) for one in scores.clinic))
    table.add_row("AUC, mean of folds", *(spread(one.fold_auc) for one in scores.clinic))
    for fixed in scores.clinic[0].sensitivity_at:
        values = (spread(one.sensitivity_at[fixed]) for one in scores.clinic)
        table.add_row(f"sensitivity at specificity {fixed}", *values)
    for fixed in scores.clinic[0].specificity_at:
        values = (spread(one.specificity_at[fixed]) for one in scores.clinic)
        table.add_row(f"specificity at sensitivity {fixed}", *values)
    return table


def _benefit(scores: DiagnosticScores) -> Table:
    table = figures_table("net benefit a picture of acting from a probability on", "probability")
    for name in scores.benefit:
        table.add_column(name, justify="right")
        table.add_column("acting on all", justify="right")
    for threshold in _BENEFITS:
        cells = [f"{threshold:.0%}"]
        for curve in scores.benefit.values():
            row = curve.iloc[int((curve["threshold"] - threshold).abs().argmin())]
            cells.append(spread(Interval(row["net_benefit"], row["low"], row["high"])))
            cells.append(f"{row['act_on_all']:.3f}")
        table.add_row(*cells)
    table.caption = "acting on nobody has 0; at this case mix"
    return table


def _calibration(scores: DiagnosticScores) -> Table:
    table = figures_table("honesty of the natural probabilities", "figure", *scores.calibration)
    found = scores.calibration.values()
    for name, title in (("nll", "log-likelihood, negative"), ("brier", "Brier score")):
        table.add_row(title, *(spread(getattr(one, name)) for one in found))
    for name, title in (
        ("ece", "calibration error (ECE)"),
        ("ece_equal_mass", "ECE, bins of equal mass"),
        ("classwise_ece", "ECE by class, mean"),
    ):
        values = [getattr(one, name) for one in found]
        table.add_row(title, *(f"{spread(each)}, chance {each.chance:.3f}" for each in values))
    decided = (spread(interval) for interval in scores.balanced_accuracy.values())
    table.add_row("balanced accuracy, balanced decision", *decided)
    if scores.scalings:
        fitted = ", ".join(f"{scaling.temperature:.2f}" for scaling in scores.scalings)
        table.caption = f"each part by temperature ({fitted}) and offsets of the others"
    return table


def _selective(scores: DiagnosticScores) -> Table:
    found = scores.selective
    table = figures_table("answering only when sure (probable decision)", "figure", "value")
    table.add_row("area under risk-coverage curve", spread(found.aurc))
    table.add_row("of it avoidable", spread(found.excess_aurc))
    for share, accuracy in found.accuracy_at.items():
        table.add_row(f"accuracy of the surest {share:.0%}", spread(accuracy))
    if scores.sets is not None:
        table.add_row("diagnoses in a prediction set", spread(scores.sets.overall.mean_size))
        table.add_row("sets with one diagnosis", f"{scores.sets.single:.3f}")
        table.add_row("sets with none", f"{scores.sets.empty:.3f}")
    return table
