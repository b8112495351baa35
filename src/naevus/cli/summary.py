"""A report's result on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.columns import Columns
from rich.panel import Panel
from rich.table import Table as Lines
from rich.text import Text

from naevus.cli.console import console
from naevus.reports.document import grid_of

if TYPE_CHECKING:
    from naevus.reports.document import Document, Table

_TOLD = ("classes", "clinic", "mask-scores")
"""The tables that are shown; the page has all."""
_LEFT_OUT = {"classes": ("name", "specificity"), "clinic": ("mean AUC of folds",)}
"""Columns that a terminal has no room for."""


def show(document: Document) -> None:
    """Print the summary, the figures that matter most, and the chief tables of a report."""
    console.print(Text(document.summary, style="bold"))
    for note in document.notes:
        console.print(Text(note, style="yellow"))
    panels = [
        Panel(Text.assemble((key.value, "bold"), "\n", (key.note, "dim")), title=key.label)
        for key in document.keys
    ]
    console.print(Columns(panels, padding=(0, 1)))
    for table in document.tables:
        if table.name in _TOLD:
            console.print(_lines(table))
    console.print("Research use only, never a diagnosis.", style="dim")


def _lines(table: Table) -> Lines:
    without = table._replace(
        frame=table.frame.drop(columns=list(_LEFT_OUT.get(table.name, ())), errors="ignore")
    )
    grid = grid_of(without)
    lines = Lines(title=grid.title, title_justify="left", title_style="bold")
    for heading, number in grid.headings:
        lines.add_column(heading, justify="right" if number else "left")
    for cells, small in grid.rows:
        lines.add_row(*(Text(cell.words) for cell in cells), style="dim" if small else None)
    return lines
