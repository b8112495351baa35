"""Masks beyond their means as tables for the terminal, each figure with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from naevus.cli.score_tables import figures_table, spread
from naevus.evaluation.intervals import Interval

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType
    from rich.table import Table

    from naevus.evaluation.segmentation import OutlineScores

_SHOWN = (0.0, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
"""Thresholds of the curve that are printed."""


def outline_tables(scores: OutlineScores) -> Iterable[RenderableType]:
    """Yield how Jaccard indices are spread, distances, failures, sizes, and other thresholds."""
    table = figures_table("spread of the masks", "figure", "value, 95 % interval by lesion")
    for share, interval in scores.quantiles.items():
        table.add_row(f"Jaccard, {share:.0%} of masks at or below", spread(interval))
    for name, interval in scores.distances.items():
        low, value, high = (100 * part for part in (interval.low, interval.value, interval.high))
        title = name.replace("_", " ").replace("hausdorff 95", "Hausdorff distance, 95 %")
        table.add_row(f"{title}, % of diagonal", f"{value:.2f} ({low:.2f} to {high:.2f})")
    yield table
    if scores.circumstances:
        yield _failures(scores)
    if scores.sizes:
        yield _sizes(scores)
    if not scores.distances:
        yield Text(
            "note: this table is from before distances and conditions were measured",
            style="yellow",
        )
    yield _curve(scores)


def _failures(scores: OutlineScores) -> Table:
    table = figures_table(
        f"what goes along with failures, {scores.failed.value:.1%} in all",
        "pictures with",
        "pictures",
        "lesions",
        "failures",
        "share failed",
        "of all others",
    )
    for one in scores.circumstances:
        table.add_row(
            one.name,
            f"{one.pictures:,}",
            "0" if one.failed is None else f"{one.failed.groups:,}",
            f"{one.failures:,}",
            spread(one.failed),
            spread(one.elsewhere),
        )
    table.caption = "failed: Jaccard below 0.65; a picture may stand in several rows"
    return table


def _sizes(scores: OutlineScores) -> Table:
    table = figures_table(
        "by size of the lesion",
        "share of picture",
        "pictures",
        "lesions",
        "Jaccard",
        "share failed",
        "distance, % of diagonal",
        "area of mask / lesion, median",
    )
    for band in scores.sizes:
        low, value, high = (
            100 * part
            for part in (
                band.surface_distance.low,
                band.surface_distance.value,
                band.surface_distance.high,
            )
        )
        table.add_row(
            f"{band.low:.0%} to {band.high:.0%}",
            f"{band.pictures:,}",
            f"{band.failed.groups:,}",
            spread(band.jaccard),
            spread(band.failed),
            f"{value:.2f} ({low:.2f} to {high:.2f})",
            spread(band.area_ratio),
        )
    return table


def _curve(scores: OutlineScores) -> Table:
    table = figures_table(
        "at other thresholds", "below it a mask fails", "thresholded Jaccard", "share at or above"
    )
    shown = scores.curve[scores.curve["threshold"].round(2).isin(_SHOWN)]
    for threshold, *figures in shown.to_numpy(float).tolist():
        table.add_row(
            f"{threshold:.2f}", spread(Interval(*figures[:3])), spread(Interval(*figures[3:]))
        )
    return table
