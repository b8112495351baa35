"""Scores as tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import RenderableType

    from naevus.evaluation.challenge.lint import Finding
    from naevus.evaluation.classification import ClassificationScores
    from naevus.evaluation.intervals import Interval
    from naevus.evaluation.segmentation import SegmentationScores
    from naevus.types import Decision

_RIGHT, _WRONG = (30, 110, 60), (150, 40, 45)
_STYLES = {"refused": "bold red", "loses points": "yellow", "tidy": "cyan"}


class Spread(Protocol):
    """A value with its interval."""

    @property
    def value(self) -> float:
        """The value."""

    @property
    def low(self) -> float:
        """Where the interval begins."""

    @property
    def high(self) -> float:
        """Where it ends."""


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


def classification_tables(
    scores: ClassificationScores, intervals: Mapping[str, Interval]
) -> Iterable[RenderableType]:
    """Yield Task 3's scores by both decisions, classes, and both confusion matrices.

    Args:
        scores: The scores.
        intervals: Of the summary, by the names that `evaluation.outoffold.scored` gives.
    """
    summary = Table("decision", title=f"{scores.pictures:,} pictures, 95 % intervals by lesion")
    summary.add_column("balanced accuracy", justify="right")
    summary.add_column("accuracy", justify="right")
    own = {"balanced": "balanced_accuracy", "probable": "accuracy"}
    for decision in ("balanced", "probable"):
        cells = []
        for name in ("balanced_accuracy", "accuracy"):
            told = spread(intervals[f"{name}_{decision}" if own[decision] != name else name])
            cells.append(Text(told, style="bold" if own[decision] == name else ""))
        summary.add_row(decision, *cells)
    yield summary
    yield _classes(scores)
    yield confusion_table(scores, "balanced")
    yield confusion_table(scores, "probable")
    yield from _notes(scores.notes)


def segmentation_tables(
    scores: SegmentationScores, intervals: Mapping[str, Interval]
) -> Iterable[RenderableType]:
    """Yield Task 1's means and the worst masks.

    Args:
        scores: The scores.
        intervals: Of the means, by the names that `evaluation.outoffold.segmentation_scores` gives.
    """
    summary = _plain(f"{scores.pictures:,} masks", "mean, 95 % interval by lesion")
    for title, name in (
        ("Jaccard", "jaccard"),
        ("thresholded Jaccard", "thresholded_jaccard"),
        ("Dice", "dice"),
        ("sensitivity of pixels", "sensitivity"),
        ("specificity of pixels", "specificity"),
        ("accuracy of pixels", "accuracy"),
        ("share below 0.65", "below_threshold"),
    ):
        style = "bold" if name == "thresholded_jaccard" else None
        summary.add_row(title, spread(intervals[name]), style=style)
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


def spread(value: Spread | None) -> str:
    """Return a value with its interval, short enough for a column; a dash where it is none."""
    if value is None:
        return "-"
    return f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"


def figures_table(title: str, first: str, *others: str) -> Table:
    """Return an empty table whose columns are to the right, but for the first."""
    table = Table(first, title=title)
    for name in others:
        table.add_column(name, justify="right")
    return table


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
