"""A report as a single HTML file that needs no network."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from naevus import __version__
from naevus.io.files import atomic, lock, sweep, write_bytes, write_json, write_text
from naevus.io.formats import csv_of
from naevus.reports import figures as style
from naevus.reports.document import Document, grid_of
from naevus.reports.figures import inlined

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd

    from naevus.evaluation.evaluate import Evaluation
    from naevus.reports.document import Grid, Section


def render(document: Document, drawn: Mapping[str, str]) -> str:
    """Return the page.

    Args:
        document: The report.
        drawn: The figures as SVG documents, by name.
    """
    figures = {
        # matplotlib escapes its text
        name: Markup(inlined(svg, name))  # noqa: S704
        for name, svg in drawn.items()
    }
    return _template().render(
        document=document, figures=figures, grids_of=_grids_of, version=__version__
    )


def _grids_of(section: Section) -> list[Grid]:
    return [grid_of(table) for table in section.tables]


@cache
def _template() -> jinja2.Template:
    loader = jinja2.PackageLoader("naevus.reports", "templates")
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html")


PAGE = "report.html"


def write_report(
    document: Document, evaluation: Evaluation, out: Path, *, figures: bool = False
) -> Path:
    """Write the page, and every table as separate files.

    Args:
        document: The report.
        evaluation: The evaluation, written unchanged.
        out: A folder for ``report.html``, ``report.json``, ``evaluation.json``, ``tables/*.csv``,
            ``*.json`` and ``*.parquet``.
        figures: Whether to write every figure as well: ``figures/*.svg``, ``*.pdf``.

    Returns:
        The path of the page.

    Raises:
        NaevusError: A file cannot be written, or another process is writing there.
    """
    with lock(out / ".lock"):
        for folder in (out, out / "tables", out / "figures"):
            sweep(folder)
        for table in document.tables:
            write_text(out / "tables" / f"{table.name}.csv", csv_of(table.frame))
            write_json(out / "tables" / f"{table.name}.json", _rows(table.frame))
            with atomic(out / "tables" / f"{table.name}.parquet") as temporary:
                table.frame.to_parquet(temporary, index=False)
        drawn = {}
        for figure_slot in document.figure_slots:
            figure = figure_slot.draw()
            drawn[figure_slot.name] = style.svg(figure)
            if figures:
                write_text(out / "figures" / f"{figure_slot.name}.svg", drawn[figure_slot.name])
                write_bytes(out / "figures" / f"{figure_slot.name}.pdf", style.pdf(figure))
        write_json(out / "report.json", as_json(document))
        write_json(out / "evaluation.json", evaluation.to_dict())
        write_text(out / PAGE, render(document, drawn))
    return out / PAGE


def as_json(document: Document) -> dict[str, Any]:
    """Return everything but images and figures as a dictionary for JSON."""
    return {
        "title": document.title,
        "summary": document.summary,
        "notes": list(document.notes),
        "sections": {
            section.name: {
                "title": section.title,
                "notes": [*section.notes, *section.undrawn],
                "tables": {table.name: _rows(table.frame) for table in section.tables},
                "images": {
                    gallery.name: [image.image_id for image in gallery.images]
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
