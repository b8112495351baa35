"""A report as one HTML file that needs no network."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import jinja2
import pandas as pd
from markupsafe import Markup

from naevus import __version__
from naevus.reports.figures.style import inlined

if TYPE_CHECKING:
    from collections.abc import Mapping

    from naevus.reports.document import Document, Section, Table

_SMALL = "small"
_NOTHING = 1e-9
"""What is less is a rounding error."""
_SHORT = 28
"""Letters up to which a cell is one line."""
_NARROW, _GAP, _ARROW = 64, 3, 2
"""Letters up to which a table stands beside a figure; those that edges and arrows take."""


class Cell(NamedTuple):
    """A table's cell: what is read, and what rows are sorted by."""

    words: str
    key: str

    @property
    def long(self) -> bool:
        """Whether it may be broken into lines."""
        return len(self.words) > _SHORT


class Grid(NamedTuple):
    """A table as the template shows it."""

    name: str
    title: str
    note: str
    folded: bool
    headings: list[tuple[str, bool]]
    """Names, and whether the column is of numbers."""
    rows: list[tuple[list[Cell], bool]]
    """Cells, and whether the row is greyed."""

    @property
    def narrow(self) -> bool:
        """Whether it finds room beside a figure."""
        if self.folded or not self.rows:
            return False
        columns = zip(*(cells for cells, _ in self.rows), strict=True)
        widths = [
            max(_ARROW + max(map(len, heading.split())), *(len(cell.words) for cell in column))
            for (heading, _), column in zip(self.headings, columns, strict=True)
        ]
        return sum(widths) + _GAP * len(widths) <= _NARROW


def render(document: Document, drawn: Mapping[str, str]) -> str:
    """Return the page.

    Args:
        document: The report.
        drawn: By name, the figures as SVG documents.
    """
    figures = {
        # matplotlib escapes what it writes
        name: Markup(inlined(svg, name))  # noqa: S704
        for name, svg in drawn.items()
    }
    return _template().render(
        document=document, figures=figures, grids_of=_grids_of, version=__version__
    )


def _grids_of(section: Section) -> list[Grid]:
    return [grid_of(table) for table in section.tables]


def grid_of(table: Table) -> Grid:
    """Return a table's headings and cells; a value and its interval share one cell."""
    frame = table.frame
    folded = {
        f"{name}{end}"
        for name in frame.columns
        if f"{name}_low" in frame.columns
        for end in ("_low", "_high")
    }
    shown = [name for name in frame.columns if name not in folded and name != _SMALL]
    grey = frame[_SMALL].tolist() if _SMALL in frame.columns else [False] * len(frame)
    records: list[dict[Any, Any]] = frame.to_dict("records")
    rows = [
        ([_cell(record, name) for name in shown], bool(pale))
        for record, pale in zip(records, grey, strict=True)
    ]
    headings = [(str(name).replace("_", " "), _numeric(frame[name])) for name in shown]
    return Grid(table.name, table.title, table.note, table.folded, headings, rows)


def _cell(record: dict[Any, Any], name: str) -> Cell:
    value = record[name]
    words = words_of(value)
    if f"{name}_low" in record and words:
        low, high = (words_of(record[f"{name}{end}"]) for end in ("_low", "_high"))
        words += f" ({low} to {high})" if low else ""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(words, repr(float(value)) if number and words else words)


def words_of(value: object) -> str:
    """Return a value as it is read; nothing for what is not known.

    Examples:
        >>> [words_of(value) for value in (0.12345, 12345, 0.00021, None, "MEL")]
        ['0.123', '12,345', '0.0002', '', 'MEL']
    """
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        value = 0.0 if abs(value) < _NOTHING else value
        if value.is_integer() and abs(value) >= 2:
            return f"{value:,.0f}"
        return f"{value:.1g}" if 0 < abs(value) < 5e-4 else f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _numeric(column: pd.Series[Any]) -> bool:
    known = column.dropna()
    return not known.empty and all(isinstance(value, int | float) for value in known.tolist())


@cache
def _template() -> jinja2.Template:
    loader = jinja2.PackageLoader("naevus.reports", "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html")
