"""The sections of a report: those of the evaluation, then images, training, data, provenance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.reports import attributes, background, classification, segmentation
from naevus.reports.document import Document
from naevus.reports.gallery import gallery_section, no_classifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from naevus.evaluation.evaluate import Evaluation
    from naevus.reports.document import Headline, Section
    from naevus.reports.gallery import ClassifierOf
    from naevus.runs.results import Results


_SEEN = (
    "It is unknown whether the networks were trained on these images. Scores on training images "
    "are too optimistic."
)


def evaluation_document(evaluation: Evaluation) -> Document:
    """Return an evaluation alone as a document: no images are opened and no figures drawn."""
    subject = evaluation.subject
    folds = ", ".join(map(str, subject.folds))
    where = f", held out by fold{'s' if len(subject.folds) > 1 else ''} {folds}" if folds else ""
    return Document(
        title=f"{subject.name}{where if subject.out_of_fold else ''}",
        summary=_summary(evaluation),
        sections=tuple(_sections(evaluation)),
        headlines=tuple(_keys(evaluation)),
        notes=() if subject.out_of_fold else (_SEEN,),
    )


def make_report(
    results: Results,
    evaluation: Evaluation,
    classifier_of: ClassifierOf = no_classifier,
    progress: Callable[[int, int], None] | None = None,
    *,
    images: bool = True,
) -> Document:
    """Compose a report.

    Args:
        results: The predictions, with their ground truth and context.
        evaluation: The evaluation of the results (`evaluate_results`).
        classifier_of: Gives the classifier for an image's heatmap.
        progress: Called with (done, total) images of the galleries.
        images: Whether to show images.

    Raises:
        BundleError: A classifier needed for heatmaps cannot be used.
    """
    behind = [
        gallery_section(results, classifier_of, progress) if images else None,
        None if results.history is None else background.training_section(results.history),
        background.data_section(results),
        background.provenance_section(results),
    ]
    return Document(
        title=f"Report of {results.name}",
        summary=_summary(evaluation),
        sections=(*_sections(evaluation), *(one for one in behind if one is not None)),
        headlines=tuple(_keys(evaluation)),
        notes=(*(() if results.out_of_fold else (_SEEN,)), *results.notes),
    )


def _summary(evaluation: Evaluation) -> str:
    which = ", held out in training," if evaluation.subject.out_of_fold else ""
    return " ".join(
        [
            *(
                [classification.summary(evaluation.classification, which)]
                if evaluation.classification
                else []
            ),
            *(
                [segmentation.summary(evaluation.segmentation, which)]
                if evaluation.segmentation
                else []
            ),
            *([attributes.summary(evaluation.attributes, which)] if evaluation.attributes else []),
        ]
    )


def _keys(evaluation: Evaluation) -> Iterator[Headline]:
    if evaluation.classification is not None:
        yield from classification.headlines(evaluation.classification)
    if evaluation.segmentation is not None:
        yield from segmentation.headlines(evaluation.segmentation)
    if evaluation.attributes is not None:
        yield from attributes.headlines(evaluation.attributes)


def _sections(evaluation: Evaluation) -> Iterator[Section]:
    if evaluation.classification is not None:
        yield from classification.sections(evaluation.classification)
    if evaluation.segmentation is not None:
        yield from segmentation.sections(evaluation.segmentation)
    if evaluation.attributes is not None:
        yield from attributes.sections(evaluation.attributes)
