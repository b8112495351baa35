"""How long jobs say what they do: a progress bar, a message, a status, or nothing at all."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path


class Reporter(Protocol):
    """What a long job reports to; the terminal's is `naevus.cli.console.TerminalReporter`."""

    def progress(
        self, description: str, total: int | None = None
    ) -> AbstractContextManager[Callable[[int, int], None]]:
        """Show a progress bar while the block runs.

        Args:
            description: What is being done, as a participle ("reading images").
            total: The number of steps, where it is known beforehand.

        Returns:
            A context that yields a function of (done, total), which moves the bar.
        """

    def status(self, description: str) -> AbstractContextManager[object]:
        """Show what is being done while the block runs, where there is nothing to count."""

    def message(self, text: str, label: str = "") -> None:
        """Print a line of the job's output, after a label that stands out."""

    def warning(self, text: str, label: str = "note") -> None:
        """Print a line about what was assumed, left out or passed over."""


class SilentReporter:
    """Says nothing: for jobs that are run from Python."""

    def progress(
        self,
        description: str,  # noqa: ARG002 (the protocol's)
        total: int | None = None,  # noqa: ARG002
    ) -> AbstractContextManager[Callable[[int, int], None]]:
        """Show nothing."""
        return nullcontext(lambda _done, _total: None)

    def status(self, description: str) -> AbstractContextManager[object]:  # noqa: ARG002
        """Show nothing."""
        return nullcontext()

    def message(self, text: str, label: str = "") -> None:
        """Print nothing."""

    def warning(self, text: str, label: str = "note") -> None:
        """Print nothing."""


SILENT: Final[Reporter] = SilentReporter()


def warn_all(reporter: Reporter, notes: Iterable[str]) -> None:
    """Report several notes on what does not count."""
    for note in notes:
        reporter.warning(note)


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Append what naevus logs to a file while the block runs, each line with its time."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    with handled(handler):
        yield


@contextmanager
def handled(handler: logging.Handler) -> Iterator[None]:
    """Send what naevus logs to a handler while the block runs, and close it."""
    logger = logging.getLogger("naevus")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
