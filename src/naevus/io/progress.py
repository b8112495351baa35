"""The Reporter protocol, through which long jobs report progress and messages, and a silent one."""

from __future__ import annotations

import logging
import math
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path


class Reporter(Protocol):
    """Where a long job reports to; see `naevus.cli.console.TerminalReporter` for the terminal."""

    def progress(
        self, description: str, total: int | None = None
    ) -> AbstractContextManager[Callable[[int, int], None]]:
        """Show a progress bar while the block runs.

        Args:
            description: The current work, as a participle ("reading images").
            total: The number of steps, if known beforehand.

        Returns:
            A context that yields a function of (done, total), which moves the bar.
        """

    def status(self, description: str) -> AbstractContextManager[object]:
        """Show the current work while the block runs, for work without countable steps."""

    def interruptible(self, note: Callable[[], str]) -> AbstractContextManager[object]:
        """Say what is lost or kept if the block is interrupted.

        Args:
            note: Returns it, or an empty text; called as the command ends.
        """

    def message(self, text: str, label: str = "") -> None:
        """Print a line of the job's output, after a highlighted label."""

    def warning(self, text: str, label: str = "note") -> None:
        """Print a line about an assumption, or about something left out or skipped."""


class SilentReporter:
    """Report nothing; for jobs that run from Python."""

    def progress(
        self,
        description: str,  # noqa: ARG002 (part of the protocol)
        total: int | None = None,  # noqa: ARG002
    ) -> AbstractContextManager[Callable[[int, int], None]]:
        """Show nothing."""
        return nullcontext(lambda _done, _total: None)

    def status(self, description: str) -> AbstractContextManager[object]:  # noqa: ARG002
        """Show nothing."""
        return nullcontext()

    def interruptible(
        self,
        note: Callable[[], str],  # noqa: ARG002 (part of the protocol)
    ) -> AbstractContextManager[object]:
        """Say nothing."""
        return nullcontext()

    def message(self, text: str, label: str = "") -> None:
        """Print nothing."""

    def warning(self, text: str, label: str = "note") -> None:
        """Print nothing."""


SILENT: Final[Reporter] = SilentReporter()


def duration(seconds: float) -> str:
    """Return a time in words, with at most two units.

    Examples:
        >>> duration(42.4), duration(75), duration(12_100), duration(200_000)
        ('42 s', '1 min 15 s', '3 h 21 min', '2 d 7 h')
    """
    whole = round(seconds)
    for limit, (large, size), (small, part) in (
        (3600, ("min", 60), ("s", 1)),
        (86_400, ("h", 3600), ("min", 60)),
        (math.inf, ("d", 86_400), ("h", 3600)),
    ):
        if whole < 60:
            return f"{whole} s"
        if whole < limit:
            rest = whole % size // part
            return f"{whole // size} {large}" + (f" {rest} {small}" if rest else "")
    raise AssertionError


def warn_all(reporter: Reporter, notes: Iterable[str]) -> None:
    """Report each note as a warning."""
    for note in notes:
        reporter.warning(note)


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Append naevus's log to a file while the block runs, each line with its time."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    with handled(handler):
        yield


@contextmanager
def handled(handler: logging.Handler) -> Iterator[None]:
    """Send naevus's log to a handler while the block runs, then close the handler."""
    logger = logging.getLogger("naevus")
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        handler.close()
