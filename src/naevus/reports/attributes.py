"""The report sections on attributes, from an AttributesEvaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from naevus.io.words import images_of, plural
from naevus.reports.document import Headline, Section, Table, limits, spread
from naevus.taxonomy import ATTRIBUTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from naevus.evaluation.attributes import AttributesEvaluation

_POOLED = (
    "As in Task 2 of the challenge, pixels are pooled over all images, with equal weight for each "
    "image. Intervals are 95 %, by {unit}."
)
_CHOSEN = (
    "The thresholds of each fold maximise the pooled index of all attributes on the other folds. "
    "The column alone uses thresholds that maximise each attribute's own index."
)


def sections(found: AttributesEvaluation) -> Iterator[Section]:
    """Yield the sections on attributes: scores, by fold, and the worst images."""
    chosen = any(one.thresholds for one in found.by_attribute.values())
    yield Section(
        "attributes",
        "Attributes",
        (_POOLED.format(unit=found.unit), *((_CHOSEN,) if chosen else ())),
        tuple(_tables(found)),
    )


def summary(found: AttributesEvaluation, which: str) -> str:
    """Return the result in a sentence.

    Args:
        found: The evaluation.
        which: A phrase about the images, such as ``", held out in training,"``.
    """
    return (
        f"The attribute masks of {images_of(found.images, found.groups, found.unit)}{which} have "
        f"a pooled Jaccard index of {found.jaccard}."
    )


def headlines(found: AttributesEvaluation) -> list[Headline]:
    """Return the headline figures."""
    one = found.jaccard
    return [Headline("attributes, pooled Jaccard", f"{one.value:.3f}", limits(one, found.unit))]


def _tables(found: AttributesEvaluation) -> Iterator[Table]:
    rows = [
        {
            "attribute": ATTRIBUTES[name],
            "images": one.shown,
            plural(found.unit): one.groups,
            **spread("jaccard", one.jaccard),
            **(spread("alone", one.alone) if one.alone is not None else {}),
            **spread("AUC of presence", one.auc),
            "threshold": _range(one.thresholds),
        }
        for name, one in found.by_attribute.items()
    ]
    note = f"Images and {plural(found.unit)} that show the attribute."
    yield Table("attribute-scores", "Scores of attributes", pd.DataFrame(rows), note)
    if found.by_fold:
        by_fold = [
            {
                "fold": one.fold,
                "images": one.images,
                plural(found.unit): one.groups,
                "pooled Jaccard": one.jaccard,
            }
            for one in found.by_fold
        ]
        yield Table("attribute-folds", "Attributes by fold", pd.DataFrame(by_fold))
    worst = [
        {
            "image_id": one.image_id,
            "attribute": ATTRIBUTES[one.attribute],
            "missed": one.missed,
            "invented": one.invented,
        }
        for one in found.worst
    ]
    note = (
        "Fractions of the image's pixels, summed over attributes, that are only in the ground "
        "truth or only in the mask; with the attribute that contributes most."
    )
    title = f"The {len(worst)} images with the most wrong pixels"
    yield Table("worst-attributes", title, pd.DataFrame(worst), note, folded=True)


def _range(thresholds: tuple[float, ...]) -> str:
    if not thresholds:
        return ""
    low, high = min(thresholds), max(thresholds)
    return f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}"
