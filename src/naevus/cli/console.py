"""Where commands print, and how long work shows that it moves."""

from __future__ import annotations

import codecs
import io
import os
import sys
import unicodedata
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Task

# Markup is off: paths and labels may hold brackets. An unknown width (a file, a pipe) would wrap
# tables at 80 columns and break paths.
console = Console(width=None if os.isatty(1) else 120, highlight=False, markup=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)

_PLAIN = {
    "–": "-",
    "—": "-",
    "−": "-",
    "×": "x",
    "·": ".",
    "…": "...",
    "≥": ">=",
    "≤": "<=",
    "→": "->",
}


def print_anywhere() -> None:
    """Let terminals and pipes show what their encoding has no character for, as best they can.

    A latin-1 terminal has no dash or line to draw with, and names on disk may be no text at all.
    """
    codecs.register_error("naevus", _in_plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="naevus")


def _in_plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    words = []
    for character in error.object[error.start : error.end]:
        if "\udc80" <= character <= "\udcff":  # a byte of a name that is no text
            words.append(f"\\x{ord(character) - 0xDC00:02x}")
            continue
        bare = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
        words.append(_PLAIN.get(character) or bare or "?")
    return "".join(words), error.end


def remark(label: str, rest: str, *, to: Console = console) -> None:
    """Print a line that begins with a label in yellow."""
    to.print(Text.assemble((label, "yellow"), rest), soft_wrap=True)


class _Rate(ProgressColumn):
    """How many a second, over the last half minute."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}/s", style="progress.data.speed")


@contextmanager
def progress(description: str, total: int | None = None) -> Iterator[Callable[[int, int], None]]:
    """Show a bar with rate and time left; yield what moves it.

    Args:
        description: What is being done, as a participle ("reading pictures").
        total: How many steps there are, where it is known beforehand.

    Yields:
        A function ``(done, total)``.
    """
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=errors,
        disable=not errors.is_terminal,
    ) as bar:
        task = bar.add_task(description, total=total)

        def move(done: int, of: int) -> None:
            bar.update(task, completed=done, total=of)

        yield move
