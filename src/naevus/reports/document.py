"""What a report consists of: sections of tables, figures and galleries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class Key(NamedTuple):
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
    """Whether the page shows it only when asked."""


class Drawing(NamedTuple):
    """A figure of the report; it is also written as SVG and PDF."""

    name: str
    title: str
    figure: Figure
    note: str = ""
    """What it shows, for those who do not see it too."""


class Thumbnail(NamedTuple):
    """A small picture with what is to be said of it."""

    image_id: str
    words: tuple[str, ...]
    jpeg: str
    """Base64, with its outlines."""
    heat: str
    """The same with its heat map; empty where there is none."""
    right: bool | None
    """Whether the answer is right; None where there is none to judge."""


class Gallery(NamedTuple):
    """Some pictures that have something in common."""

    name: str
    title: str
    note: str
    pictures: tuple[Thumbnail, ...]


@dataclass(frozen=True)
class Section:
    """A part of the report under one heading."""

    name: str
    title: str
    notes: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    galleries: tuple[Gallery, ...] = ()
    command: str = ""
    """A command to copy, shown as it is."""


@dataclass(frozen=True)
class Document:
    """A whole report.

    Attributes:
        title: What it is about.
        summary: Its result in a sentence or two.
        sections: Its parts, in order.
        keys: The figures that matter most.
        notes: What a reader has to know of all of it.
    """

    title: str
    summary: str
    sections: tuple[Section, ...]
    keys: tuple[Key, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables of all sections."""
        return tuple(table for section in self.sections for table in section.tables)

    @property
    def drawings(self) -> tuple[Drawing, ...]:
        """The figures of all sections."""
        return tuple(drawing for section in self.sections for drawing in section.drawings)
