"""All faults of all commands, and the table of what was lost; ``make torture`` runs it.

The table goes to standard output, progress to standard error. The exit code is 1 if anything was
lost. ``--factor 0.1`` repeats each fault a tenth as often, at least once.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tests.helpers.torture_jobs import shop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.helpers.torture import Losses, Torture

    Fault = Callable[[Torture, int], Losses | None]


FAULTS: dict[str, Fault] = {
    "SIGKILL": lambda torture, times: torture.kill(times),
    "full disk": lambda torture, times: torture.fill_disk(times),
    "no space": lambda torture, times: torture.fail("ENOSPC", times),
    "read-only": lambda torture, times: torture.fail("EROFS", times),
    "no memory": lambda torture, times: torture.fail("memory", times),
    "Ctrl-C": lambda torture, times: torture.end("SIGINT", times),
    "SIGTERM": lambda torture, times: torture.end("SIGTERM", times),
    "two at once": lambda torture, times: torture.run_twice(times),
}
"""What happens to commands, by its heading in the table."""

KILLS = {"train": 20, "export to a file": 10, "export to a folder": 10}
OFTEN, SELDOM = 50, 5
"""How often a command is killed, and how often other faults happen to it."""

EXPENSIVE = ("train", "export to a file", "export to a folder", "report")
"""Commands that other faults happen to only twice."""


def times_of(fault: str, name: str, factor: float) -> int:
    """Return how often a fault happens to a command."""
    usual = KILLS.get(name, OFTEN) if fault == "SIGKILL" else 2 if name in EXPENSIVE else SELDOM
    return max(1, round(usual * factor))


def main(words: Sequence[str] | None = None) -> int:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--factor", type=float, default=1.0)
    parser.add_argument("--fault", choices=FAULTS, action="append")
    parser.add_argument("--job", action="append")
    given = parser.parse_args(words)
    faults, tried = given.fault or list(FAULTS), Counter[tuple[str, str]]()
    lost: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as folder, shop(Path(folder)) as jobs:
        names = given.job or list(jobs.jobs)
        for name in names:
            torture = jobs.torture(name)
            for fault in faults:
                begun = time.monotonic()
                losses = FAULTS[fault](torture, times_of(fault, name, given.factor))
                taken = f"{time.monotonic() - begun:.0f} s"
                if losses is None:
                    print(f"{name}, {fault}: no file system can be mounted", file=sys.stderr)
                    continue
                tried[name, fault] = losses.tried
                lost[name, fault] = len(losses.lost)
                print(f"{name}, {fault}: {losses.tried} tried, {taken}", file=sys.stderr)
                for each in losses.lost:
                    print(f"    lost: {each}", file=sys.stderr)
    print("\n".join(table(names, faults, tried, lost)))
    return int(lost.total() > 0)


def table(
    names: Sequence[str],
    faults: Sequence[str],
    tried: Mapping[tuple[str, str], int],
    lost: Mapping[tuple[str, str], int],
) -> Iterator[str]:
    """Yield the lines of the table: how often each fault happened to each command."""
    yield f"| command | {' | '.join(faults)} | lost |"
    yield f"|---|{'---:|' * len(faults)}---|"
    for name in names:
        counts = [tried[name, fault] for fault in faults]
        cells = " | ".join(f"{count:,}" if count else "–" for count in counts)
        number = sum(lost[name, fault] for fault in faults)
        yield f"| {name} | {cells} | {number or 'nothing'} |"


if __name__ == "__main__":
    sys.exit(main())
