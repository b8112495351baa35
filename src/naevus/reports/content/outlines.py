"""The section about masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from naevus.evaluation.intervals import mean_interval
from naevus.evaluation.scoring.segmentation import JACCARD_THRESHOLD, MaskScore
from naevus.reports.document import Drawing, Section, Table
from naevus.reports.figures.jaccard import jaccard_figure

if TYPE_CHECKING:
    from naevus.evaluation.intervals import Interval


def mask_intervals(outlined: pd.DataFrame) -> dict[str, Interval]:
    """Return the mean of every mask score with its interval by group."""
    groups = outlined["group_id"].tolist()
    return {name: mean_interval(outlined[name], groups) for name in MaskScore._fields}


def summary(outlined: pd.DataFrame, intervals: dict[str, Interval]) -> str:
    """Return the result in a sentence."""
    jaccard, thresholded = intervals["jaccard"], intervals["thresholded"]
    failed = float((outlined["jaccard"] < JACCARD_THRESHOLD).mean())
    return (
        f"the outlines of {len(outlined):,} pictures of {outlined['group_id'].nunique():,} lesions "
        f"have a mean Jaccard index of {jaccard}; thresholded as in the challenge it is "
        f"{thresholded}, for {failed:.1%} fall below {JACCARD_THRESHOLD}."
    )


def mask_section(outlined: pd.DataFrame, intervals: dict[str, Interval]) -> Section:
    """Return mean scores of masks and how the Jaccard indices are distributed."""
    rows = [
        {"score": name, "value": value, "value_low": low, "value_high": high}
        for name, (value, low, high) in intervals.items()
    ]
    quantiles = outlined["jaccard"].quantile([0.05, 0.25, 0.5, 0.75, 0.95])
    spread = ", ".join(f"{share:.0%}: {value:.3f}" for share, value in quantiles.items())
    worst = outlined.sort_values(["jaccard", "image_id"]).head(20)
    return Section(
        "masks",
        "Masks",
        ("Means over pictures, each at its own size; intervals are 95 %, by lesion.",),
        (
            Table("mask-scores", "Scores of masks", pd.DataFrame(rows)),
            Table("worst-masks", "The worst", worst[["image_id", "jaccard", "dice"]]),
        ),
        (
            Drawing(
                "jaccard",
                "Jaccard indices",
                jaccard_figure(outlined["jaccard"]),
                f"Quantiles: {spread}. The dashed line is the challenge's threshold.",
            ),
        ),
    )
