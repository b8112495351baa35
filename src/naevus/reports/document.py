"""The parts of a report: sections, tables, figures, galleries; and the format of table cells."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pandas as pd

from naevus.io.words import counted, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from matplotlib.figure import Figure

    from naevus.evaluation.intervals import Interval
    from naevus.types import Unit


class Spread(Protocol):
    """A value with its interval."""

    @property
    def value(self) -> float:
        """The value."""

    @property
    def low(self) -> float:
        """The lower end of the interval."""

    @property
    def high(self) -> float:
        """The upper end of the interval."""


def spread_with_interval(value: Spread | None) -> str:
    """Return a value with its interval, short enough for a column; a dash for None."""
    if value is None:
        return "-"
    if math.isnan(value.low):
        return f"{value.value:z.3f}"
    return f"{value.value:z.3f} ({value.low:z.3f} to {value.high:z.3f})"


def limits(value: Spread, unit: Unit) -> str:
    """Return an interval as text, or a note that there are too few lesions or patients for one."""
    return _none(unit) if math.isnan(value.low) else f"{value.low:z.3f} to {value.high:z.3f}"


def _none(unit: Unit) -> str:
    return f"no interval: too few {plural(unit)}"


# Table columns of values with intervals.


def interval_table(first: str, intervals: Mapping[str, Interval]) -> pd.DataFrame:
    """Return one row per figure; ``first`` is the name of the column of their names."""
    rows = [
        {first: name.replace("_", " "), **spread("value", interval)}
        for name, interval in intervals.items()
    ]
    return pd.DataFrame(rows)


def spread(name: str, value: Any) -> dict[str, float | None]:
    """Return the columns of a value with its interval (None if unknown)."""
    low, high = (None, None) if value is None else (value.low, value.high)
    return {name: None if value is None else value.value, f"{name}_low": low, f"{name}_high": high}


def percent(value: float) -> str:
    """Return a fraction in per cent.

    Examples:
        >>> percent(0.8472)
        '84.7 %'
    """
    return f"{100 * value:.1f} %"


def percent_range(interval: Any, unit: Unit) -> str:
    """Return the interval of a fraction in per cent.

    Examples:
        >>> from naevus.evaluation.intervals import Interval
        >>> percent_range(Interval(0.84, 0.826, 0.853), "lesion")
        '82.6 to 85.3'
        >>> percent_range(Interval(0.84, float("nan"), float("nan")), "patient")
        'no interval: too few patients'
    """
    if math.isnan(interval.low):
        return _none(unit)
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"


class Headline(NamedTuple):
    """A large figure at the top of the report.

    Attributes:
        label: The name of the figure.
        value: The figure as text.
        note: Its interval or sample size.
    """

    label: str
    value: str
    note: str = ""


class Table(NamedTuple):
    """A table of the report; it is also written to its own file.

    Attributes:
        name: The files' name, without extensions.
        title: The title.
        frame: The values. Columns ``x``, ``x_low`` and ``x_high`` are shown as one column; rows
            with a true value in the column ``small`` are greyed, and this column is not shown.
        note: A note for readers.
    """

    name: str
    title: str
    frame: pd.DataFrame
    note: str = ""
    folded: bool = False
    """Whether the page shows it collapsed, and the terminal does not show it."""
    matrix: bool = False
    """Whether it is a confusion matrix of counts, which a terminal shows in colours."""


class FigureSlot(NamedTuple):
    """A figure of the report; it is also written as SVG and PDF."""

    name: str
    title: str
    draw: Callable[[], Figure]
    """Draws the figure; called only on demand, because it needs matplotlib."""
    note: str = ""
    """A description, also for readers who cannot see the figure."""


class Curve(NamedTuple):
    """A figure, and the table of its values where that is shown, which too few groups do not bear.

    Attributes:
        slot: The figure.
        groups: How many groups there are.
        least: How many it needs.
        table: The values of the figure.
    """

    slot: FigureSlot
    groups: int
    least: int
    table: Table | None = None


class Borne(NamedTuple):
    """The parts of a section that enough groups bear.

    Attributes:
        slots: The figures.
        tables: Their tables.
        notes: A sentence for each table that is missing, with its figure.
        undrawn: A sentence for each figure that is missing alone.
    """

    slots: tuple[FigureSlot, ...]
    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    undrawn: tuple[str, ...]


def with_enough_groups(curves: Iterable[Curve], unit: Unit) -> Borne:
    """Return the figures with enough groups and their tables, and what is said of the others.

    Args:
        curves: The figures.
        unit: What the groups are.
    """
    given = list(curves)
    borne = [one for one in given if one.groups >= one.least]
    missing = [one for one in given if one.groups < one.least]
    needs = {one.slot.name: f"needs {counted(one.least, unit)}, there are {one.groups}"
             for one in missing}  # fmt: skip
    return Borne(
        tuple(one.slot for one in borne),
        tuple(one.table for one in borne if one.table is not None),
        tuple(
            f"Neither figure nor table “{one.slot.title}”: it {needs[one.slot.name]}."
            for one in missing
            if one.table is not None
        ),
        tuple(
            f"No figure “{one.slot.title}”: it {needs[one.slot.name]}."
            for one in missing
            if one.table is None
        ),
    )


class Thumbnail(NamedTuple):
    """A small image with a caption."""

    image_id: str
    words: tuple[str, ...]
    jpeg: str
    """The image with its contours, base64."""
    cam: str
    """The image with its heatmap, base64; empty if there is none."""
    right: bool | None
    """Whether the prediction is correct; None if it cannot be evaluated."""


class Gallery(NamedTuple):
    """Images with a common property."""

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
    """Sentences about figures that too few groups bear; a terminal, without figures, has none."""
    command: str = ""
    """A command to copy, shown verbatim."""


@dataclass(frozen=True)
class Document:
    """A whole report.

    Attributes:
        title: The title.
        summary: The result in a sentence or two.
        sections: The sections, in order.
        headlines: The headline figures.
        notes: Notes for readers of the whole report.
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
"""Smaller values are rounding errors."""
_SHORT = 28
"""The number of characters up to which a cell is not wrapped."""
_NARROW, _GAP, _ARROW = 64, 3, 2
"""The number of characters, including padding and sort arrows, up to which a table fits beside
a figure."""


class Cell(NamedTuple):
    """A table cell: its text and its sort key."""

    words: str
    key: str

    @property
    def long(self) -> bool:
        """Whether the text may be wrapped."""
        return len(self.words) > _SHORT


class Grid(NamedTuple):
    """A table as the template shows it."""

    name: str
    title: str
    note: str
    folded: bool
    headings: list[tuple[str, bool]]
    """Names, and whether the column is numeric."""
    rows: list[tuple[list[Cell], bool]]
    """Cells, and whether the row is greyed."""

    @property
    def narrow(self) -> bool:
        """Whether it fits beside a figure."""
        if self.folded or not self.rows:
            return False
        columns = zip(*(cells for cells, _ in self.rows), strict=True)
        widths = [
            max(_ARROW + max(map(len, heading.split())), *(len(cell.words) for cell in column))
            for (heading, _), column in zip(self.headings, columns, strict=True)
        ]
        return sum(widths) + _GAP * len(widths) <= _NARROW


def grid_of(table: Table) -> Grid:
    """Return the headings and cells of a table; a value and its interval share a cell."""
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
    """Return a value as text; empty for unknown values.

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
