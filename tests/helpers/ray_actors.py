"""The processes that this process started, and Ray's actors among them (Linux)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")


class Process(NamedTuple):
    """A process: its parent, its command line, and its processor seconds."""

    parent: int
    line: str
    seconds: float


def actors() -> list[int]:
    """Return the process ids of the actors below this process."""
    return sorted(pid for pid, process in below().items() if "_Actor" in process.line)


def processor_seconds() -> tuple[float, float]:
    """Return the processor seconds of this process with Ray's workers, and of Ray's services.

    The services work for every second that passes, the workers for every image.
    """
    found = below()
    workers = [
        process.seconds
        for pid, process in found.items()
        if pid == os.getpid() or process.line.startswith("ray::")
    ]
    return sum(workers), sum(process.seconds for process in found.values()) - sum(workers)


def below() -> dict[int, Process]:
    """Return this process and all below it."""
    found: dict[int, Process] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            stat, line = (place / "stat").read_text(), (place / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        fields = stat.rpartition(")")[2].split()
        seconds = sum(map(int, fields[11:15])) / _TICKS
        found[int(place.name)] = Process(int(fields[1]), line.decode(errors="replace"), seconds)
    return {pid: process for pid, process in found.items() if _is_below(pid, found)}


def _is_below(pid: int, known: dict[int, Process]) -> bool:
    while pid in known:
        if pid == os.getpid():
            return True
        pid = known[pid].parent
    return False
