"""The report sections on masks, from a SegmentationEvaluation."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from naevus.evaluation.intervals import RARE
from naevus.evaluation.mask_metrics import JACCARD_THRESHOLD
from naevus.io.words import counted, images_of, plural
from naevus.reports import figures
from naevus.reports.document import (
    Curve,
    FigureSlot,
    Headline,
    Section,
    Table,
    interval_table,
    limits,
    percent,
    spread,
    with_enough_groups,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from naevus.evaluation.segmentation import SegmentationEvaluation


def sections(found: SegmentationEvaluation) -> Iterator[Section]:
    """Yield all sections on masks, the headline first."""
    yield mask_section(found)
    yield failure_section(found)


def summary(found: SegmentationEvaluation, which: str) -> str:
    """Return the result in a sentence.

    Args:
        found: The evaluation.
        which: A phrase about the images, such as ``", held out in training,"``.
    """
    return (
        f"The masks of {images_of(found.images, found.groups, found.unit)}{which} have a mean "
        f"Jaccard index of {found.metrics['jaccard']}. {percent(found.failed.value)} are below "
        f"{JACCARD_THRESHOLD}; with these set to 0, as in the challenge, the mean is "
        f"{found.metrics['thresholded_jaccard']}."
    )


def headlines(found: SegmentationEvaluation) -> list[Headline]:
    """Return the headline figures."""
    shown = [
        Headline(label, f"{one.value:.3f}", limits(one, found.unit))
        for label, one in (
            ("mean Jaccard index", found.metrics["jaccard"]),
            ("thresholded Jaccard", found.metrics["thresholded_jaccard"]),
        )
    ]
    return [
        *shown,
        Headline(f"below {JACCARD_THRESHOLD}", percent(found.failed.value), "of the images"),
        Headline(
            "images segmented", f"{found.images:,}", f"of {counted(found.groups, found.unit)}"
        ),
    ]


def mask_section(found: SegmentationEvaluation) -> Section:
    """Return mean scores of masks and the distribution of the Jaccard index."""
    worst = pd.DataFrame(found.worst)
    listed = ", ".join(f"{interval.value:.3f}" for interval in found.quantiles.values())
    slot = FigureSlot(
        "jaccard",
        "Jaccard indices",
        partial(figures.jaccard_figure, found.jaccard),
        f"5, 25, 50, 75 and 95 % of the images are at or below {listed}. The dashed line is the "
        "challenge's threshold.",
    )
    borne = with_enough_groups([Curve(slot, found.groups, RARE)], found.unit)
    return Section(
        "masks",
        "Masks",
        (f"Means over images, each at its original size; intervals are 95 %, by {found.unit}.",),
        (
            Table("mask-scores", "Scores of masks", interval_table("score", found.metrics)),
            *_by_fold(found),
            Table("mask-quantiles", "Quantiles of the Jaccard index", _quantiles(found)),
            Table("worst-masks", f"The {len(worst)} worst masks", worst, folded=True),
        ),
        borne.slots,
        undrawn=borne.undrawn,
    )


def _by_fold(found: SegmentationEvaluation) -> list[Table]:
    rows = [
        {
            "fold": one.fold,
            "images": one.images,
            plural(found.unit): one.groups,
            "jaccard": one.jaccard,
            "thresholded_jaccard": one.thresholded_jaccard,
        }
        for one in found.by_fold
    ]
    return [Table("mask-folds", "Masks by fold", pd.DataFrame(rows))] if rows else []


def _quantiles(found: SegmentationEvaluation) -> pd.DataFrame:
    return pd.DataFrame(
        {"images at or below": f"{100 * fraction:.0f} %", **spread("jaccard", interval)}
        for fraction, interval in found.quantiles.items()
    )


def failure_section(found: SegmentationEvaluation) -> Section:
    """Return failures: associated conditions, lesion sizes, and other thresholds."""
    before = "Distances and conditions were not measured for this table."
    slot = FigureSlot(
        "thresholds",
        "Other thresholds",
        partial(figures.threshold_figure, found.curve),
        "The dashed line is the challenge's threshold; bands are 95 % intervals.",
    )
    table = Table("mask-thresholds", "At every threshold", found.curve, folded=True)
    borne = with_enough_groups([Curve(slot, found.groups, RARE, table)], found.unit)
    return Section(
        "failures",
        "Failures",
        (
            f"Masks with a Jaccard index below {JACCARD_THRESHOLD}: {percent(found.failed.value)}.",
            *([] if found.distances else [before]),
            *borne.notes,
        ),
        (*_failure_tables(found), *borne.tables),
        borne.slots,
    )


def _failure_tables(found: SegmentationEvaluation) -> Iterator[Table]:
    if found.factors:
        rows = [
            {
                "images with": one.name,
                "images": one.images,
                plural(found.unit): 0 if one.failed is None else one.failed.groups,
                "failures": one.failures,
                **spread("fraction failed", one.failed),
                **spread("of all others", one.elsewhere),
            }
            for one in found.factors
        ]
        note = "An image may be in several rows. The association does not prove a cause."
        yield Table("mask-failures", "Failures by condition", pd.DataFrame(rows), note)
    if found.sizes:
        rows = [
            {
                "lesion, fraction of image": f"{100 * band.low:.0f} to {100 * band.high:.0f} %",
                "images": band.images,
                plural(found.unit): band.failed.groups,
                **spread("jaccard", band.jaccard),
                **spread("fraction failed", band.failed),
                **spread("distance", band.surface_distance),
                **spread("area ratio", band.area_ratio),
            }
            for band in found.sizes
        ]
        note = (
            "Distance is the mean contour distance, as a fraction of the image's diagonal; "
            "area ratio is the median ratio of mask area to lesion area."
        )
        yield Table("mask-sizes", "By lesion size", pd.DataFrame(rows), note)
    if found.distances:
        rows_ = interval_table("distance, fraction of the diagonal", found.distances)
        yield Table("mask-distances", "Distance of contours", rows_)
