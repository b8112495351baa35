"""The terminal: consoles for output and errors, progress bars, and logging."""

from __future__ import annotations

import codecs
import io
import logging
import os
import sys
import time
import unicodedata
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

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

from naevus.cli import signals
from naevus.io.progress import duration, handled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from rich.progress import Task


# A file or a pipe has no width, unless COLUMNS gives one. Rich would take 80 columns there.
_HAS_WIDTH = os.isatty(1) or os.environ.get("COLUMNS", "").isdecimal()


class _Console(Console):
    """A console that outlives the reader of its pipe, and keeps lines whole in files."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as Rich does; text, unlike tables, is wrapped only where there is a width."""
        if not _HAS_WIDTH and all(isinstance(each, (str, Text)) for each in objects):
            options.setdefault("soft_wrap", True)
        super().print(*objects, **options)

    def on_broken_pipe(self) -> None:
        """Discard what is printed from here on, and let the command finish its files."""
        discard(self.file)


# Markup is off: paths and labels may contain brackets, or colons that read as an emoji's name.
console = _Console(width=None if _HAS_WIDTH else 120, highlight=False, markup=False, emoji=False)
errors = _Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)


def discard(stream: IO[str]) -> None:
    """Discard what is printed to a stream that failed; at exit it would only fail again."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


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
    """Replace characters that the terminal or pipe cannot encode with similar ASCII ones.

    A Latin-1 terminal has no dashes or box-drawing characters, and file names may be undecodable.
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
        if "\udc80" <= character <= "\udcff":  # an undecodable byte of a file name
            words.append(f"\\x{ord(character) - 0xDC00:02x}")
            continue
        bare = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
        words.append(_PLAIN.get(character) or bare or "?")
    return "".join(words), error.end


class _Rate(ProgressColumn):
    """Items per second over the last half minute."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}/s", style="progress.data.speed")


_EVERY = 60.0
"""Seconds between two lines about progress where standard error is no terminal."""


class _Lines:
    """Progress as lines, for logs: done, total, rate since the start and time left."""

    def __init__(self, description: str) -> None:
        self._description = description
        self._begun: tuple[float, int] | None = None
        self._printed = 0.0

    def __call__(self, done: int, of: int) -> None:
        now = time.monotonic()
        if self._begun is None:
            self._begun, self._printed = (now, done), now
            return
        if now - self._printed < _EVERY or done >= of:
            return
        self._printed = now
        seconds, made = now - self._begun[0], done - self._begun[1]
        pace = ""
        if made > 0:
            pace = f", {made / seconds:.1f}/s, {duration((of - done) * seconds / made)} left"
        errors.print(f"{self._description}: {done:,} of {of:,}{pace}")


class TerminalReporter:
    """Print messages on standard output; progress and warnings on standard error."""

    @contextmanager
    def progress(
        self, description: str, total: int | None = None
    ) -> Iterator[Callable[[int, int], None]]:
        """Show a bar with rate and time left; in a file or pipe, print a line every minute."""
        if not errors.is_terminal:
            yield _Lines(description)
            return
        with Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            console=errors,
        ) as bar:
            task = bar.add_task(description, total=total)

            def move(done: int, of: int) -> None:
                bar.update(task, completed=done, total=of)

            yield move

    def status(self, description: str) -> AbstractContextManager[object]:
        """Show a spinner."""
        return errors.status(description)

    def interruptible(self, note: Callable[[], str]) -> AbstractContextManager[object]:
        """Say what is lost or kept in the line about an interruption."""
        return signals.noting(note)

    def message(self, text: str, label: str = "") -> None:
        """Print a line on standard output."""
        console.print(_labelled(text, label), soft_wrap=True)

    def warning(self, text: str, label: str = "note") -> None:
        """Print a line on standard error."""
        errors.print(_labelled(text, label))


reporter = TerminalReporter()
"""The reporter that commands pass to jobs."""


def _labelled(text: str, label: str) -> Text:
    return Text.assemble((f"{label}: " if label else "", "yellow"), text)


class _Log(logging.Handler):
    """Prints naevus's log on standard error, warnings with a label."""

    def emit(self, record: logging.LogRecord) -> None:
        label = "note" if record.levelno >= logging.WARNING else ""
        errors.print(_labelled(record.getMessage(), label))


@contextmanager
def warnings_on_screen() -> Iterator[None]:
    """Show warnings of naevus's log on the terminal while the block runs."""
    with handled(_Log(logging.WARNING)):
        yield


@contextmanager
def log_on_screen() -> Iterator[None]:
    """Show the training log on the terminal while the block runs; not its warnings again."""
    handler = _Log()
    handler.addFilter(lambda record: record.levelno < logging.WARNING)
    with handled(handler):
        yield
