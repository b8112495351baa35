"""The report of a run or of a prediction: put together, then written as a page and as files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.evaluation import evaluate, segmentation
from naevus.evaluation.repeatable import repeatable
from naevus.reports import background, classification
from naevus.reports import segmentation as segmentation_sections
from naevus.reports.background import appearances
from naevus.reports.document import Document, Section
from naevus.reports.gallery import gallery_section

if TYPE_CHECKING:
    from collections.abc import Callable

    from naevus.reports.document import Key
    from naevus.reports.results import Results


_SEEN = (
    "Whether the networks had seen these pictures in training is not known here: scores of "
    "pictures that they learnt from are too good."
)


@repeatable
def make_report(
    results: Results,
    progress: Callable[[int, int], None] | None = None,
    *,
    pictures: bool = True,
) -> Document:
    """Put a report together.

    Args:
        results: The answers, and what is known of them.
        progress: Called with (done, total) pictures that are looked at, then of the galleries.
        pictures: Whether pictures are looked at and shown.

    Raises:
        DataError: The answers contradict themselves.
        NaevusError: scikit-learn is not installed.
    """
    which = ", held out while training," if results.unseen else ""
    sections: list[Section | None] = []
    sentences: list[str] = []
    keys: list[Key] = []
    if results.diagnosed is not None:
        answers = evaluate.answers_of(results.diagnosed)
        sentences.append(classification.summary(answers, which))
        keys += classification.keys(answers)
        sections += [
            classification.score_section(answers),
            classification.clinic_section(answers),
            classification.ranking_section(answers),
            classification.calibration_section(answers),
            classification.abstaining_section(answers),
        ]
        if results.records is not None:
            shown = appearances(results, progress) if pictures else None
            sections.append(background.subgroup_section(answers, results.records, shown))
    if results.outlined is not None:
        intervals = segmentation.mask_intervals(results.outlined)
        sentences.append(segmentation_sections.summary(results.outlined, intervals, which))
        keys += segmentation_sections.keys(results.outlined, intervals)
        sections.append(segmentation_sections.mask_section(results.outlined, intervals))
        sections.append(segmentation_sections.failure_section(results.outlined))
    if pictures:
        sections.append(gallery_section(results, progress))
    if results.history is not None:
        sections.append(background.training_section(results.history))
    sections += [background.data_section(results), background.provenance_section(results)]
    return Document(
        title=f"Report of {results.name}",
        summary=" ".join(sentences),
        sections=tuple(section for section in sections if section is not None),
        keys=tuple(keys),
        notes=(*(() if results.unseen else (_SEEN,)), *results.notes),
    )
