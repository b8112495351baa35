"""The report of a run or of a prediction: put together, then written as a page and as files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from naevus.evaluation import evaluate, segmentation
from naevus.evaluation.repeatable import repeatable
from naevus.io.files import atomic, lock, sweep, write_bytes, write_json, write_text
from naevus.reports.content import background, diagnoses, honesty, outlines, ranking
from naevus.reports.content.appearance import appearances
from naevus.reports.content.pictures import gallery_section
from naevus.reports.document import Document, Section
from naevus.reports.figures import style
from naevus.reports.page import render

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd

    from naevus.reports.document import Key
    from naevus.reports.results import Results

PAGE = "report.html"
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
        sentences.append(diagnoses.summary(answers, which))
        keys += diagnoses.keys(answers)
        sections += [
            diagnoses.score_section(answers),
            ranking.clinic_section(answers),
            ranking.ranking_section(answers),
            honesty.calibration_section(answers),
            honesty.abstaining_section(answers),
        ]
        if results.records is not None:
            shown = appearances(results, progress) if pictures else None
            sections.append(background.subgroup_section(answers, results.records, shown))
    if results.outlined is not None:
        intervals = segmentation.mask_intervals(results.outlined)
        sentences.append(outlines.summary(results.outlined, intervals, which))
        keys += outlines.keys(results.outlined, intervals)
        sections.append(outlines.mask_section(results.outlined, intervals))
        sections.append(outlines.failure_section(results.outlined))
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


def write_report(document: Document, out: Path, *, figures: bool = False) -> Path:
    """Write the page, and beside it every table as files of their own.

    Args:
        document: The report.
        out: A folder: ``report.html``, ``report.json``, ``tables/*.csv``, ``*.json`` and
            ``*.parquet``.
        figures: Whether every figure is also written, for a paper: ``figures/*.svg``, ``*.pdf``.

    Returns:
        The page.

    Raises:
        NaevusError: A file cannot be written, or another process writes there.
    """
    with lock(out / ".lock"):
        for folder in (out, out / "tables", out / "figures"):
            sweep(folder)
        for table in document.tables:
            write_text(out / "tables" / f"{table.name}.csv", table.frame.to_csv(index=False))
            write_json(out / "tables" / f"{table.name}.json", _rows(table.frame))
            with atomic(out / "tables" / f"{table.name}.parquet") as temporary:
                table.frame.to_parquet(temporary, index=False)
        drawn = {}
        for drawing in document.drawings:
            drawn[drawing.name] = style.svg(drawing.figure)
            if figures:
                write_text(out / "figures" / f"{drawing.name}.svg", drawn[drawing.name])
                write_bytes(out / "figures" / f"{drawing.name}.pdf", style.pdf(drawing.figure))
        write_json(out / "report.json", as_json(document))
        write_text(out / PAGE, render(document, drawn))
    return out / PAGE


def as_json(document: Document) -> dict[str, Any]:
    """Return everything but pictures and figures as a dictionary that JSON can hold."""
    return {
        "title": document.title,
        "summary": document.summary,
        "notes": list(document.notes),
        "sections": {
            section.name: {
                "title": section.title,
                "notes": list(section.notes),
                "tables": {table.name: _rows(table.frame) for table in section.tables},
                "pictures": {
                    gallery.name: [picture.image_id for picture in gallery.pictures]
                    for gallery in section.galleries
                },
                "command": section.command,
            }
            for section in document.sections
        },
    }


def _rows(frame: pd.DataFrame) -> list[dict[Any, Any]]:
    plain = frame.astype(object)
    rows: list[dict[Any, Any]] = plain.where(plain.notna(), None).to_dict("records")
    return rows
