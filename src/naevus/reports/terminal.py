"""Documents, comparisons and challenge scores on the terminal, with Rich."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.columns import Columns
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from naevus.io.words import images_of, plural
from naevus.reports.document import grid_of, spread_with_interval
from naevus.taxonomy import ATTRIBUTES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from rich.console import RenderableType

    from naevus.evaluation.challenge.lint import Finding
    from naevus.evaluation.comparison import Change, Comparison
    from naevus.evaluation.ensemble_selection import EnsembleScores
    from naevus.evaluation.paired_tests import Difference
    from naevus.reports.document import Document
    from naevus.reports.document import Table as DocumentTable
    from naevus.types import Unit


# A document: `evaluate` shows all of it, `report` only the main tables.

CHIEF: Final = ("classes", "operating-points", "lesions", "mask-scores", "attribute-scores")
"""The tables that `report` shows."""
_LEFT_OUT: Final = dict.fromkeys(("classes", "classes-calibrated"), ("name", "specificity"))
"""Columns left out on the terminal."""
_CHOSEN: Final = {
    "net-benefit": (0.05, 0.1, 0.2, 0.3),
    "mask-thresholds": (0.0, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9),
}
"""The thresholds shown of long tables."""
_FEW, _WIDE = 3, 5
"""Tables with at most so many rows, and more columns, are transposed to fit the window."""
_RIGHT, _WRONG = (30, 110, 60), (150, 40, 45)


def document_lines(
    document: Document, only: Collection[str] | None = None
) -> Iterable[RenderableType]:
    """Yield the summary, the headline figures and the tables of a document.

    Args:
        document: The document.
        only: The names of the tables to show; None: all that are not collapsed.
    """
    if only is None:
        yield Rule(Text(document.title), align="left")
    yield Text(document.summary, style="bold")
    for note in document.notes:
        yield Text(note, style="yellow")
    panels = [
        Panel(Text.assemble((key.value, "bold"), "\n", (key.note, "dim")), title=key.label)
        for key in document.headlines
    ]
    yield Columns(panels, padding=(0, 1))
    for section in document.sections:
        shown = [table for table in section.tables if _is_shown(table, only)]
        if only is None and shown:
            yield Text(f"\n{section.title}", style="bold cyan")
            yield from (Text(note, style="dim") for note in section.notes)
        for table in shown:
            yield _matrix(table) if table.matrix else _lines(table)


def _is_shown(table: DocumentTable, only: Collection[str] | None) -> bool:
    if only is not None:
        return table.name in only
    return not table.folded or table.matrix or table.name in _CHOSEN


def _lines(table: DocumentTable) -> Table:
    frame = table.frame.drop(columns=list(_LEFT_OUT.get(table.name, ())), errors="ignore")
    if table.name in _CHOSEN:
        frame = frame[frame["threshold"].round(3).isin(_CHOSEN[table.name])]
    grid = grid_of(table._replace(frame=frame))
    lines = Table(title=grid.title, title_justify="left", title_style="bold", caption=grid.note)
    rows = [[Text(cell.words) for cell in cells] for cells, _ in grid.rows]
    headings = [heading for heading, _ in grid.headings]
    if len(rows) <= _FEW and len(headings) > _WIDE:
        lines.add_column(headings[0])
        for row in rows:
            lines.add_column(row[0].plain, justify="right")
        for place, heading in enumerate(headings[1:], 1):
            lines.add_row(heading, *(row[place] for row in rows))
        return lines
    for heading, is_number in grid.headings:
        lines.add_column(heading, justify="right" if is_number else "left")
    for row, (_, small) in zip(rows, grid.rows, strict=True):
        lines.add_row(*row, style="dim" if small else None)
    return lines


def _matrix(table: DocumentTable) -> Table:
    """Return a confusion matrix: counts with their fraction of the row, as text and colour.

    The diagonal is green, other cells are red, with an intensity given by the fraction.
    """
    lines = Table("diagnosis", title=table.title, title_justify="left", title_style="bold")
    codes = [str(name) for name in table.frame.columns[1:]]
    for code in (*codes, "all"):
        lines.add_column(code, justify="right")
    for code, row in zip(codes, table.frame[codes].to_numpy().tolist(), strict=True):
        total = sum(row)
        cells = (
            _shaded(count, count / max(total, 1), right=code == answer)
            for answer, count in zip(codes, row, strict=True)
        )
        lines.add_row(code, *cells, str(total))
    return lines


def _shaded(count: int, fraction: float, *, right: bool) -> Text:
    if not count:
        return Text("·", style="dim")
    strength = 0.25 + 0.75 * fraction
    red, green, blue = (round(part * strength) for part in (_RIGHT if right else _WRONG))
    return Text(f"{count} {fraction:4.0%}", style=f"white on rgb({red},{green},{blue})")


# Comparisons of runs.

_MOST = 20
"""The number of changed images listed; --json has all."""


def comparison_tables(found: Comparison) -> Iterable[RenderableType]:
    """Yield the differences between two runs: scores, classes, and changed images."""
    yield Text(f"A: {found.a}\nB: {found.b}")
    yield Text(f"{images_of(found.images, found.groups, found.unit)} are in both")
    for name, count in (("A", found.only_a), ("B", found.only_b)):
        if count:
            yield Text(f"note: {count:,} more are only in {name} and left out", style="yellow")
    if not found.same_folds:
        yield Text(
            "note: the folds of A and B differ: their networks were trained on other images, which "
            "adds to the difference",
            style="yellow",
        )
    # Not by their paths, which the first lines give: sentences would be three lines long.
    yield Text("\n".join(one.sentence(unit=found.unit) for one in found.differences), style="bold")
    yield _differences("score", found.differences, found.unit)
    if found.recalls:
        yield _differences("class, balanced decision", found.recalls, found.unit)
    test = found.mcnemar
    yield Text(
        f"one image per {found.unit}: only A is correct {test.only_a} times, only B {test.only_b} "
        f"times (McNemar, exact: p = {test.p:.3g})"
    )
    if found.changed:
        yield _changes(found.changed)


def ensemble_tables(found: EnsembleScores) -> Iterable[RenderableType]:
    """Yield the scores of runs alone and as ensembles."""
    table = Table(
        "balanced decision",
        title=images_of(found.images, found.groups, found.unit),
    )
    table.add_column("balanced accuracy", justify="right")
    table.add_column("weight in greedy", justify="right")
    for name, interval in found.single.items():
        table.add_row(name, spread_with_interval(interval), f"{found.weights[name]:.2f}")
    table.add_row("mean of all", spread_with_interval(found.mean), "", style="bold")
    table.add_row(
        "greedy, evaluated on nested folds", spread_with_interval(found.greedy), "", style="bold"
    )
    if found.left_out:
        yield Text(f"note: {found.left_out:,} more are not in all and left out", style="yellow")
    table.caption = f"95 % intervals by {found.unit}; weights are fitted on all images"
    yield table
    yield Text(found.gain.sentence("the mean", "greedy selection", found.unit))


def _differences(first: str, differences: Sequence[Difference], unit: Unit) -> Table:
    tests = differences[0].tests
    corrected = f", corrected for all {tests} differences" if tests > 1 else ""
    table = Table(first, title=f"B - A with its 95 % interval by {unit}, and p{corrected}")
    for column in (plural(unit), "A", "B", "B - A", "95 % interval", "p"):
        table.add_column(column, justify="right")
    for one in differences:
        value, low, high = one.difference
        table.add_row(
            one.score.removeprefix("recall of "),
            f"{one.groups:,}",
            f"{one.a:.3f}",
            f"{one.b:.3f}",
            f"{value:+z.3f}",
            f"{low:+z.3f} to {high:+z.3f}" if one.difference.known else "",
            f"{one.p:.2g}",
            style="bold" if one.distinguishable else None,
        )
    return table


def _changes(changed: Sequence[Change]) -> Table:
    counts = {
        effect: sum(change.effect == effect for change in changed)
        for effect in ("fixed", "broken", "other")
    }
    summary = ", ".join(f"{count:,} {effect}" for effect, count in counts.items())
    title = f"changed images: {summary}"
    if any(change.truth for change in changed):
        table = Table("image", "ground truth", "A", "B", "effect", title=title)
        for change in changed[:_MOST]:
            table.add_row(*change)
    else:
        table = Table("image", "A", "B", "effect", title=title)
        for image_id, _, *rest in changed[:_MOST]:
            table.add_row(image_id, *rest)
    if len(changed) > _MOST:
        table.caption = f"and {len(changed) - _MOST:,} more: --json lists all"
    return table


# Scores and findings of the challenge.

_STYLES = {"refused": "bold red", "loses points": "yellow", "tidy": "cyan"}


def challenge_tables(scores: Mapping[str, Any]) -> Iterable[RenderableType]:
    """Yield the result of the challenge's scorer, as tables and notes."""
    summary = _plain("challenge score", "value")
    summary.add_row("overall", _number(scores["overall"]), style="bold")
    if "validation" not in scores:
        yield summary
        yield _attributes_table(scores)
        return
    summary.add_row("validation", _number(scores["validation"]))
    if "per_category" not in scores:
        for name, value in scores["macro_average"].items():
            summary.add_row(f"mean {name}", _number(value))
        yield summary
        return
    yield summary
    by_category = Table("score", title="each class against the others, threshold 0.5")
    codes = list(scores["per_category"]["accuracy"])
    for column in (*codes, "mean"):
        by_category.add_column(column, justify="right")
    for name, values in scores["per_category"].items():
        cells = [_number(values[code]) for code in codes]
        by_category.add_row(name, *cells, _number(scores["macro_average"][name]))
    yield by_category
    for note in scores.get("notes", ()):
        yield Text(f"note: {note}", style="yellow")


def _attributes_table(scores: Mapping[str, Any]) -> Table:
    """Return the scores of Task 2, pooled over all images."""
    table = Table("attribute", title="pooled over all images")
    for column in ("jaccard", "dice"):
        table.add_column(column, justify="right")
    for name, title in (*ATTRIBUTES.items(), ("micro_average", "micro average")):
        table.add_row(title, *(_number(scores[name][score]) for score in ("jaccard", "dice")))
    return table


def findings_table(findings: Sequence[Finding], most: int = 50) -> Table:
    """Return a table of findings, the most severe first, with the number of findings not shown."""
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


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _plain(first: str, second: str) -> Table:
    table = Table(first)
    table.add_column(second, justify="right")
    return table
