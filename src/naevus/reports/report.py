"""Which sections a report has: those of the evaluation, then images, training, data, provenance."""

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
    "Whether the networks had seen these images in training is not known here: scores of "
    "images that they learnt from are too good."
)


def evaluation_document(evaluation: Evaluation) -> Document:
    """Return an evaluation alone as a document: no image is opened, and no figure drawn."""
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
    """Put a report together.

    Args:
        results: What was predicted, and what is known of it.
        evaluation: That of the results (`evaluate_results`).
        classifier_of: Gives the classifier to draw an image's heatmap with.
        progress: Called with (done, total) images of the galleries.
        images: Whether images are shown.

    Raises:
        BundleError: A classifier that is to show its heatmaps cannot be used.
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
    which = ", held out while training," if evaluation.subject.out_of_fold else ""
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
