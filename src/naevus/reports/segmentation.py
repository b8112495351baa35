"""The sections about masks, for pages and the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from rich.text import Text

from naevus.evaluation.intervals import Interval
from naevus.evaluation.mask_metrics import JACCARD_THRESHOLD
from naevus.evaluation.segmentation import OutlineScores
from naevus.reports.document import (
    Drawing,
    Key,
    Section,
    Table,
    _plain,
    figures_table,
    interval_table,
    number,
    percent,
    spread,
    spread_with_interval,
)
from naevus.reports.figures import jaccard_figure, threshold_figure

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import RenderableType
    from rich.table import Table as RichTable

    from naevus.evaluation.segmentation import SegmentationScores


# Masks beyond their means as tables for the terminal, each figure with its interval.

_SHOWN = (0.0, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
"""Thresholds of the curve that are printed."""


def outline_tables(scores: OutlineScores) -> Iterable[RenderableType]:
    """Yield how Jaccard indices are spread, distances, failures, sizes, and other thresholds."""
    table = figures_table("spread of the masks", "figure", "value, 95 % interval by lesion")
    for share, interval in scores.quantiles.items():
        table.add_row(f"Jaccard, {share:.0%} of masks at or below", spread_with_interval(interval))
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


def _failures(scores: OutlineScores) -> RichTable:
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
            spread_with_interval(one.failed),
            spread_with_interval(one.elsewhere),
        )
    table.caption = "failed: Jaccard below 0.65; a picture may stand in several rows"
    return table


def _sizes(scores: OutlineScores) -> RichTable:
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
            spread_with_interval(band.jaccard),
            spread_with_interval(band.failed),
            f"{value:.2f} ({low:.2f} to {high:.2f})",
            spread_with_interval(band.area_ratio),
        )
    return table


def _curve(scores: OutlineScores) -> RichTable:
    table = figures_table(
        "at other thresholds", "below it a mask fails", "thresholded Jaccard", "share at or above"
    )
    shown = scores.curve[scores.curve["threshold"].round(2).isin(_SHOWN)]
    for threshold, *figures in shown.to_numpy(float).tolist():
        table.add_row(
            f"{threshold:.2f}",
            spread_with_interval(Interval(*figures[:3])),
            spread_with_interval(Interval(*figures[3:])),
        )
    return table


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
        summary.add_row(title, spread_with_interval(intervals[name]), style=style)
    yield summary
    worst = _plain("worst masks", "Jaccard")
    for image_id, jaccard in scores.worst:
        worst.add_row(image_id, number(jaccard))
    yield worst


_WORST = 20


def summary(outlined: pd.DataFrame, intervals: dict[str, Interval], which: str) -> str:
    """Return the result in a sentence.

    Args:
        outlined: ``image_id, group_id`` and the fields of `MaskScore`.
        intervals: From `mask_intervals`.
        which: What is to be said of the pictures, such as ``", held out while training,"``.
    """
    return (
        f"The outlines of {len(outlined):,} pictures of {outlined['group_id'].nunique():,} "
        f"lesions{which} have a mean Jaccard index of {intervals['jaccard']}. "
        f"{percent(_failed(outlined))} are below {JACCARD_THRESHOLD}; these counting as nothing, "
        f"as in the challenge, it is {intervals['thresholded']}."
    )


def keys(outlined: pd.DataFrame, intervals: dict[str, Interval]) -> list[Key]:
    """Return the figures that matter most."""
    found = [
        Key(label, f"{value:.3f}", f"{low:.3f} to {high:.3f}")
        for label, (value, low, high) in (
            ("mean Jaccard index", intervals["jaccard"]),
            ("thresholded Jaccard", intervals["thresholded"]),
        )
    ]
    return [
        *found,
        Key(f"below {JACCARD_THRESHOLD}", percent(_failed(outlined)), "of the pictures"),
        Key(
            "pictures outlined",
            f"{len(outlined):,}",
            f"of {outlined['group_id'].nunique():,} lesions",
        ),
    ]


def mask_section(outlined: pd.DataFrame, intervals: dict[str, Interval]) -> Section:
    """Return mean scores of masks and how the Jaccard indices are distributed."""
    quantiles = outlined["jaccard"].quantile([0.05, 0.25, 0.5, 0.75, 0.95])
    told = ", ".join(f"{value:.3f}" for value in quantiles)
    worst = outlined.sort_values(["jaccard", "image_id"]).head(_WORST)
    return Section(
        "masks",
        "Masks",
        ("Means over pictures, each at its own size; intervals are 95 %, by lesion.",),
        (
            Table("mask-scores", "Scores of masks", interval_table("score", intervals)),
            *_by_fold(outlined),
            Table(
                "worst-masks",
                f"The {len(worst)} worst",
                worst[["image_id", "jaccard", "dice"]],
                folded=True,
            ),
        ),
        (
            Drawing(
                "jaccard",
                "Jaccard indices",
                jaccard_figure(outlined["jaccard"]),
                f"5, 25, 50, 75 and 95 % of the pictures are below {told}. The dashed line is "
                "the challenge's threshold.",
            ),
        ),
    )


def failure_section(outlined: pd.DataFrame) -> Section:
    """Return what goes along with masks that fail, by size of the lesion, and at thresholds."""
    found = OutlineScores.from_table(outlined)
    tables = []
    if found.circumstances:
        rows = [
            {
                "pictures with": one.name,
                "pictures": one.pictures,
                "lesions": 0 if one.failed is None else one.failed.groups,
                "failures": one.failures,
                **spread("share failed", one.failed),
                **spread("of all others", one.elsewhere),
            }
            for one in found.circumstances
        ]
        note = "A picture may stand in several rows. This is no proof of a cause."
        tables.append(Table("mask-failures", "What goes along", pd.DataFrame(rows), note))
    if found.sizes:
        rows = [
            {
                "lesion, share of picture": f"{100 * band.low:.0f} to {100 * band.high:.0f} %",
                "pictures": band.pictures,
                "lesions": band.failed.groups,
                **spread("jaccard", band.jaccard),
                **spread("share failed", band.failed),
                **spread("distance", band.surface_distance),
                **spread("area ratio", band.area_ratio),
            }
            for band in found.sizes
        ]
        note = (
            "Distance is the mean one of the two outlines, in shares of the picture's diagonal; "
            "area ratio the median of the mask's area over the lesion's."
        )
        tables.append(Table("mask-sizes", "By size of the lesion", pd.DataFrame(rows), note))
    if found.distances:
        told = interval_table("distance, share of the diagonal", found.distances)
        tables.append(Table("mask-distances", "Distance of outlines", told, folded=True))
    tables.append(Table("mask-thresholds", "At every threshold", found.curve, folded=True))
    return Section(
        "failures",
        "Masks that fail",
        (f"Those with a Jaccard index below {JACCARD_THRESHOLD}: {percent(found.failed.value)}.",),
        tuple(tables),
        (
            Drawing(
                "thresholds",
                "Other thresholds",
                threshold_figure(found.curve),
                "The dashed line is the challenge's threshold; bands are 95 % intervals.",
            ),
        ),
    )


def _by_fold(outlined: pd.DataFrame) -> list[Table]:
    """Return the scores of each fold, where there are several."""
    if "fold" not in outlined or len(set(outlined["fold"])) < 2:
        return []
    rows = [
        {
            "fold": fold,
            "pictures": len(part),
            "lesions": part["group_id"].nunique(),
            "jaccard": part["jaccard"].mean(),
            "thresholded": part["thresholded"].mean(),
        }
        for fold, part in outlined.groupby("fold")
    ]
    return [Table("mask-folds", "Masks by fold", pd.DataFrame(rows))]


def _failed(outlined: pd.DataFrame) -> float:
    return float((outlined["jaccard"] < JACCARD_THRESHOLD).mean())
