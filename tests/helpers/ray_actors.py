"""The processes of Ray's actors that this process started."""

from __future__ import annotations

import os
from pathlib import Path


def actors() -> list[int]:
    """Return the process ids of the actors below this process (Linux)."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            stat, line = (place / "stat").read_text(), (place / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        pid = int(place.name)
        parents[pid] = int(stat.rpartition(")")[2].split()[1])
        names[pid] = line.decode(errors="replace")
    return sorted(
        pid for pid, name in names.items() if "_Actor" in name and _is_below(pid, parents)
    )


def _is_below(pid: int, parents: dict[int, int]) -> bool:
    while pid in parents:
        pid = parents[pid]
        if pid == os.getpid():
            return True
    return False
