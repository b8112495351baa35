"""What a report consists of: sections, tables, figures, galleries; how cells read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from matplotlib.figure import Figure

    from naevus.evaluation.intervals import Interval


NO_INTERVAL: Final = "no interval: too few lesions"
"""Stands where an interval would."""


class Spread(Protocol):
    """A value with its interval."""

    @property
    def value(self) -> float:
        """The value."""

    @property
    def low(self) -> float:
        """Where the interval begins."""

    @property
    def high(self) -> float:
        """Where it ends."""


def spread_with_interval(value: Spread | None) -> str:
    """Return a value with its interval, short enough for a column; a dash where it is none."""
    if value is None:
        return "-"
    if math.isnan(value.low):
        return f"{value.value:.3f}"
    return f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"


def limits(value: Spread) -> str:
    """Return an interval, or that there is none."""
    return NO_INTERVAL if math.isnan(value.low) else f"{value.low:.3f} to {value.high:.3f}"


# Values with their intervals as columns of a table.


def interval_table(first: str, intervals: Mapping[str, Interval]) -> pd.DataFrame:
    """Return a row for each figure; ``first`` heads the column of their names."""
    rows = [
        {first: name.replace("_", " "), **spread("value", interval)}
        for name, interval in intervals.items()
    ]
    return pd.DataFrame(rows)


def spread(name: str, value: Any) -> dict[str, float | None]:
    """Return the columns of a value with its interval (or None, for not known)."""
    low, high = (None, None) if value is None else (value.low, value.high)
    return {name: None if value is None else value.value, f"{name}_low": low, f"{name}_high": high}


def percent(value: float) -> str:
    """Return a fraction in per cent.

    Examples:
        >>> percent(0.8472)
        '84.7 %'
    """
    return f"{100 * value:.1f} %"


def percent_range(interval: Any) -> str:
    """Return the interval of a fraction in per cent.

    Examples:
        >>> from naevus.evaluation.intervals import Interval
        >>> percent_range(Interval(0.84, 0.826, 0.853))
        '82.6 to 85.3'
        >>> percent_range(Interval(0.84, float("nan"), float("nan")))
        'no interval: too few lesions'
    """
    if math.isnan(interval.low):
        return NO_INTERVAL
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"


class Headline(NamedTuple):
    """A figure that stands large at the top.

    Attributes:
        label: What it is.
        value: The figure, as it is read.
        note: Its interval, or what it was counted on.
    """

    label: str
    value: str
    note: str = ""


class Table(NamedTuple):
    """A table of the report; it is also written to a file of its own.

    Attributes:
        name: The files' name, without their endings.
        title: What it shows.
        frame: The values. Where ``x``, ``x_low`` and ``x_high`` are columns, the page shows them
            as one; a column ``small`` of true and false greys rows and is not shown.
        note: What a reader has to know.
    """

    name: str
    title: str
    frame: pd.DataFrame
    note: str = ""
    folded: bool = False
    """Whether the page shows it only when asked, and the terminal not at all."""
    matrix: bool = False
    """Whether it holds the counts of a confusion matrix, which a terminal shows in colours."""


class FigureSlot(NamedTuple):
    """A figure of the report; it is also written as SVG and PDF."""

    name: str
    title: str
    draw: Callable[[], Figure]
    """Draws it; called only where it is asked for, as it needs matplotlib."""
    note: str = ""
    """What it shows, for those who do not see it too."""


def borne(
    slots: Iterable[tuple[FigureSlot, int, int]],
) -> tuple[tuple[FigureSlot, ...], tuple[str, ...]]:
    """Return the figures that enough lesions bear, and a sentence for each of the others.

    Args:
        slots: Each with the lesions that it stands on, and how many it needs.
    """
    given = list(slots)
    return (
        tuple(slot for slot, lesions, least in given if lesions >= least),
        tuple(
            f"No figure “{slot.title}”: it needs {least} lesions, there are {lesions}."
            for slot, lesions, least in given
            if lesions < least
        ),
    )


class Thumbnail(NamedTuple):
    """A small image with what is to be said of it."""

    image_id: str
    words: tuple[str, ...]
    jpeg: str
    """Base64, with its contours."""
    cam: str
    """The same with its heatmap; empty where there is none."""
    right: bool | None
    """Whether the answer is right; None where there is none to judge."""


class Gallery(NamedTuple):
    """Some images that have something in common."""

    name: str
    title: str
    note: str
    images: tuple[Thumbnail, ...]


@dataclass(frozen=True)
class Section:
    """A part of the report under one heading."""

    name: str
    title: str
    notes: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figure_slots: tuple[FigureSlot, ...] = ()
    galleries: tuple[Gallery, ...] = ()
    undrawn: tuple[str, ...] = ()
    """Sentences about figures that too few lesions bear; a terminal, without figures, has none."""
    command: str = ""
    """A command to copy, shown as it is."""


@dataclass(frozen=True)
class Document:
    """A whole report.

    Attributes:
        title: What it is about.
        summary: Its result in a sentence or two.
        sections: Its parts, in order.
        headlines: The figures that matter most.
        notes: What a reader has to know of all of it.
    """

    title: str
    summary: str
    sections: tuple[Section, ...]
    headlines: tuple[Headline, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables of all sections."""
        return tuple(table for section in self.sections for table in section.tables)

    @property
    def figure_slots(self) -> tuple[FigureSlot, ...]:
        """The figures of all sections."""
        return tuple(
            figure_slot for section in self.sections for figure_slot in section.figure_slots
        )


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
