"""Ordered work in threads with bounded look-ahead, and how many processors there are."""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from naevus.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future

    Item = TypeVar("Item")

    Result = TypeVar("Result")


# How many processors there are to use.

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


BATCH = 32
"""Images a batch. Fixed: it decides on the last bits of what is predicted."""


def batches(items: Sequence[Item], size: int = BATCH) -> list[Sequence[Item]]:
    """Cut a sequence into pieces of ``size``, the last one maybe shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]


class Workers:
    """Threads that decode and write; decoders and OpenCV let go of the interpreter's lock.

    Use as a context: leaving it by an error drops what is not begun.

    Args:
        threads: How many.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="naevus")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def each(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> list[Result | ImageError]:
        """Apply a function to all items; an item whose image is unusable gives the error."""
        return _outcomes(self._submit(function, items))

    def ahead(
        self, function: Callable[[Item], Result], pieces: Iterable[Sequence[Item]]
    ) -> Iterator[tuple[Sequence[Item], list[Result | ImageError]]]:
        """Yield each piece with its results, working on the next one meanwhile.

        Stages chain: where ``pieces`` come from another stage, that one makes the next piece
        before this one's results are waited for. No stage holds more than two pieces, so memory
        does not grow with their number.
        """
        waiting: tuple[Sequence[Item], list[Future[Result]]] | None = None
        for piece in pieces:
            following = piece, self._submit(function, piece)
            if waiting is not None:
                yield waiting[0], _outcomes(waiting[1])
            waiting = following
        if waiting is not None:
            yield waiting[0], _outcomes(waiting[1])

    def behind(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the result for each item, which is worked on while the next item is made.

        One after the other: no item is begun before the result of the one before was taken.
        """
        coming: Future[Result] | None = None
        for item in items:
            if coming is not None:
                yield coming.result()
            coming = self._pool.submit(function, item)
        if coming is not None:
            yield coming.result()

    def _submit(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> list[Future[Result]]:
        return [self._pool.submit(function, item) for item in items]


def _outcomes(futures: Sequence[Future[Result]]) -> list[Result | ImageError]:
    results: list[Result | ImageError] = []
    for future in futures:
        try:
            results.append(future.result())
        except ImageError as error:
            results.append(error)
    return results
