"""Scores as tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from naevus.reports.document import _notes, _plain, number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import RenderableType

    from naevus.evaluation.challenge.lint import Finding
    from naevus.evaluation.comparison import Change, Comparison, Difference
    from naevus.evaluation.ensemble_selection import EnsembleScores
    from naevus.evaluation.evaluate import Scored


_MOST = 20
"""How many changed pictures are listed; --json has all."""


def _comparison_tables(found: Comparison) -> Iterable[RenderableType]:
    from rich.text import Text  # noqa: PLC0415

    yield Text(f"A: {found.a}\nB: {found.b}")
    yield Text(f"{found.pictures:,} pictures of {found.groups:,} lesions are in both")
    for name, count in (("A", found.only_a), ("B", found.only_b)):
        if count:
            yield Text(f"note: {count:,} more are only in {name} and left out", style="yellow")
    # Not by their paths, which the first lines give: sentences would fill three lines each.
    yield Text("\n".join(one.sentence() for one in found.differences), style="bold")
    yield _differences("score", found.differences)
    if found.recalls:
        yield _differences("class, balanced decision", found.recalls)
    test = found.mcnemar
    yield Text(
        f"one picture a lesion: A alone is right {test.only_a} times, B alone {test.only_b} times "
        f"(McNemar, exact: p = {test.p:.3g})"
    )
    if found.changed:
        yield _changes(found.changed)


def _together(found: EnsembleScores) -> Iterable[RenderableType]:
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from naevus.reports.document import spread_with_interval  # noqa: PLC0415

    table = Table(
        "balanced decision", title=f"{found.pictures:,} pictures of {found.groups:,} lesions"
    )
    table.add_column("balanced accuracy", justify="right")
    table.add_column("share in greedy", justify="right")
    for name, interval in found.single.items():
        table.add_row(name, spread_with_interval(interval), f"{found.weights[name]:.2f}")
    table.add_row("mean of all", spread_with_interval(found.mean), "", style="bold")
    table.add_row(
        "greedy, judged by nested folds", spread_with_interval(found.greedy), "", style="bold"
    )
    if found.left_out:
        yield Text(f"note: {found.left_out:,} more are not in all and left out", style="yellow")
    table.caption = "95 % intervals by lesion; shares are those chosen on all pictures"
    yield table
    yield Text(found.gain.sentence("the mean", "greedy selection"))


def _differences(first: str, differences: Sequence[Difference]) -> Table:
    from rich.table import Table  # noqa: PLC0415

    table = Table(first, title="B - A with its 95 % interval by lesion")
    for column in ("lesions", "A", "B", "B - A", "95 % interval", "p"):
        table.add_column(column, justify="right")
    for one in differences:
        value, low, high = one.difference
        table.add_row(
            one.score.removeprefix("recall of "),
            f"{one.groups:,}",
            f"{one.a:.3f}",
            f"{one.b:.3f}",
            f"{value:+.3f}",
            f"{low:+.3f} to {high:+.3f}",
            f"{one.p:.2g}",
            style="bold" if one.told_apart else None,
        )
    return table


def _changes(changed: Sequence[Change]) -> Table:
    from rich.table import Table  # noqa: PLC0415

    counts = {
        effect: sum(change.effect == effect for change in changed)
        for effect in ("mended", "broken", "other")
    }
    summary = ", ".join(f"{count:,} {effect}" for effect, count in counts.items())
    table = Table("picture", "truth", "A", "B", "effect", title=f"changed answers: {summary}")
    for change in changed[:_MOST]:
        table.add_row(*change)
    if len(changed) > _MOST:
        table.caption = f"and {len(changed) - _MOST:,} more: --json lists all"
    return table


def _evaluation_json(scored: Mapping[str, Scored]) -> dict[str, Any]:
    return {title: found.to_dict() for title, found in scored.items()}


def _evaluation_tables(found: Scored) -> Iterable[RenderableType]:
    from naevus.evaluation.segmentation import OutlineScores, SegmentationScores  # noqa: PLC0415
    from naevus.reports.classification import classification_tables, diagnostic_tables  # noqa: PLC0415
    from naevus.reports.segmentation import outline_tables, segmentation_tables  # noqa: PLC0415

    scores, intervals, details = found
    if isinstance(scores, SegmentationScores):
        assert isinstance(details, OutlineScores)
        yield from segmentation_tables(scores, intervals)
        yield from outline_tables(details)
    else:
        assert not isinstance(details, OutlineScores)
        yield from classification_tables(scores, intervals)
        yield from diagnostic_tables(details, intervals["balanced_accuracy"])


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
