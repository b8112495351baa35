"""Scores as tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import RenderableType

    from naevus.evaluation.decisions import Decision
    from naevus.evaluation.scoring import ClassificationScores, SegmentationScores
    from naevus.evaluation.submission.finding import Finding

_RIGHT, _WRONG = (30, 110, 60), (150, 40, 45)
_STYLES = {"refused": "bold red", "loses points": "yellow", "tidy": "cyan"}


def challenge_tables(scores: Mapping[str, Any]) -> Iterable[RenderableType]:
    """Yield what the challenge's scorer answers, as tables and notes."""
    summary = _plain("challenge score", "value")
    summary.add_row("overall", number(scores["overall"]), style="bold")
    summary.add_row("validation", number(scores["validation"]))
    if "per_category" not in scores:
        for name, value in scores["macro_average"].items():
            summary.add_row(f"mean {name}", number(value))
        yield summary
        return
    yield summary
    by_category = Table("score", title="each class against the others, above 0.5")
    codes = list(scores["per_category"]["accuracy"])
    for column in (*codes, "mean"):
        by_category.add_column(column, justify="right")
    for name, values in scores["per_category"].items():
        cells = [number(values[code]) for code in codes]
        by_category.add_row(name, *cells, number(scores["macro_average"][name]))
    yield by_category
    yield from _notes(scores.get("notes", ()))


def classification_tables(scores: ClassificationScores) -> Iterable[RenderableType]:
    """Yield Task 3's scores by both decisions, classes, and both confusion matrices."""
    summary = Table("decision", title=f"{scores.pictures} pictures")
    summary.add_column("balanced accuracy", justify="right")
    summary.add_column("accuracy", justify="right")
    for name, decision in (("balanced", scores.balanced), ("probable", scores.probable)):
        summary.add_row(name, number(decision.balanced_accuracy), number(decision.accuracy))
    yield summary
    yield _classes(scores)
    yield confusion_table(scores, "balanced")
    yield confusion_table(scores, "probable")
    yield from _notes(scores.notes)


def segmentation_tables(scores: SegmentationScores) -> Iterable[RenderableType]:
    """Yield Task 1's means and the worst masks."""
    summary = _plain(f"{scores.pictures} masks", "mean")
    summary.add_row("Jaccard", number(scores.jaccard))
    summary.add_row("thresholded Jaccard", number(scores.thresholded_jaccard), style="bold")
    summary.add_row("Dice", number(scores.dice))
    summary.add_row("sensitivity of pixels", number(scores.sensitivity))
    summary.add_row("specificity of pixels", number(scores.specificity))
    summary.add_row("share below 0.65", number(scores.below_threshold))
    yield summary
    worst = _plain("worst masks", "Jaccard")
    for image_id, jaccard in scores.worst:
        worst.add_row(image_id, number(jaccard))
    yield worst


def confusion_table(scores: ClassificationScores, decision: Decision) -> Table:
    """Return a confusion matrix: counts with their share of the row, coloured by the share.

    The diagonal is green, the rest red; the stronger, the larger the share of its true class.
    """
    chosen = scores.by(decision)
    shares = chosen.normalised_confusion()
    table = Table("truth", title=f"{decision} decision: truth down, answer across")
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


def findings_table(findings: Sequence[Finding], most: int = 50) -> Table:
    """Return findings, the gravest first, and how many more there are."""
    table = Table("consequence", show_lines=True)
    for column in ("what", "where", "finding", "remedy"):
        table.add_column(column, overflow="fold")
    gravity = list(_STYLES)
    ordered = sorted(findings, key=lambda finding: gravity.index(finding.consequence))
    for finding in ordered[:most]:
        table.add_row(
            Text(finding.consequence, style=_STYLES[finding.consequence]),
            *(Text(text) for text in (finding.kind, finding.subject, finding.detail)),
            Text(finding.remedy),
        )
    if len(ordered) > most:
        table.caption = f"and {len(ordered) - most} more"
    return table


def number(value: float | None) -> str:
    """Return a score with three decimals, or a dash where it is undefined."""
    return "-" if value is None else f"{value:.3f}"


def _classes(scores: ClassificationScores) -> Table:
    table = Table("class", title="each class, balanced | probable decision")
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


def _plain(first: str, second: str) -> Table:
    table = Table(first)
    table.add_column(second, justify="right")
    return table


def _shaded(count: int, share: float, *, right: bool) -> Text:
    if not count:
        return Text("·", style="dim")
    strength = 0.25 + 0.75 * share
    red, green, blue = (round(part * strength) for part in (_RIGHT if right else _WRONG))
    return Text(f"{count} {share:4.0%}", style=f"white on rgb({red},{green},{blue})")


def _notes(notes: Iterable[str]) -> Iterable[RenderableType]:
    for note in notes:
        yield Text(f"note: {note}", style="yellow")
