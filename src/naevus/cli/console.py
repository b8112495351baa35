"""Where commands print, and how long work shows that it moves."""

from __future__ import annotations

import codecs
import io
import logging
import os
import sys
import unicodedata
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.logging import RichHandler
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


class _Console(Console):
    """A console that leaves it to the command what an end of its reader means."""

    def on_broken_pipe(self) -> None:
        """Fail as any stream does; Rich would end the command, with the exit code for findings."""
        raise BrokenPipeError


# Markup is off: paths and labels may hold brackets, and colons that look like an emoji's name. An
# unknown width (a file, a pipe) would wrap tables at 80 columns and break paths.
_WIDTH = None if os.isatty(1) or os.environ.get("COLUMNS", "").isdecimal() else 120
console = _Console(width=_WIDTH, highlight=False, markup=False, emoji=False)
errors = _Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)

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
        TextColumn("{task.description}", markup=False),
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


@contextmanager
def logged(path: Path, *, screen: bool = True) -> Iterator[None]:
    """Send what training reports to a file, and the terminal, while the block runs."""
    handlers: list[logging.Handler] = [logging.FileHandler(path, encoding="utf-8")]
    handlers[0].setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    if screen:
        handlers.append(
            RichHandler(console=errors, show_time=False, show_level=False, show_path=False)
        )
    logger = logging.getLogger("naevus")
    logger.setLevel(logging.INFO)
    for handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
