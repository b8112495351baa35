"""How many processors there are to use."""

from __future__ import annotations

import math
import os
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def cpu_count() -> int:
    """Return how many processors this process may use, by its affinity and its container's quota.

    Not every system knows an affinity, and none counts the quota in it: a container may see 64
    processors and be given the time of two.
    """
    return int(max(1, min(_allowed(), _quota())))


def _allowed() -> int:
    if hasattr(os, "process_cpu_count"):  # since Python 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quota(groups: Path = _GROUPS, own: Path = _OWN) -> float:
    """Return the processors that control groups leave, rounded up; infinity where none is set.

    The least of the process's own group and those above it counts (Linux, control groups 1 and 2).
    """
    places = {groups, groups / "cpu"}
    try:
        for line in own.read_text(encoding="utf-8").splitlines():
            _, kinds, name = line.split(":", 2)
            if kinds and "cpu" not in kinds.split(","):
                continue
            root = groups / "cpu" if kinds else groups
            below = root / name.lstrip("/")
            places |= {below, *(each for each in below.parents if root in each.parents)}
    except (OSError, ValueError):
        pass  # no Linux, or hidden: what stands at the root still counts
    return min((_limit(place) for place in places), default=math.inf)


def _limit(place: Path) -> float:
    try:
        if (place / "cpu.max").exists():
            quota, period = (place / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota, period = (
                (place / f"cpu.cfs_{name}_us").read_text(encoding="utf-8").strip()
                for name in ("quota", "period")
            )
        if quota in {"max", "-1"}:
            return math.inf
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf
