"""Ordered work in threads with bounded look-ahead, and the number of usable processors."""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from naevus.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future

    Item = TypeVar("Item")

    Result = TypeVar("Result")


# The number of usable processors.

_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def cpu_count() -> int:
    """Return the number of processors this process may use, by its affinity and container quota.

    Not every system has an affinity, and none includes the quota: a container may see all
    processors of the machine, but get the time of two.
    """
    return int(max(1, min(_allowed(), _quota())))


def thread_count(threads: int | None) -> int:
    """Return a number of threads; None: one per processor of this process.

    Raises:
        ConfigError: There is less than one.
    """
    if threads is not None and threads < 1:
        raise ConfigError(f"{threads} threads", "use 1 or more, or None for one per processor")
    return cpu_count() if threads is None else threads


def _allowed() -> int:
    if hasattr(os, "process_cpu_count"):  # since Python 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quota(groups: Path = _GROUPS, own: Path = _OWN) -> float:
    """Return the processor quota of the control groups, rounded up; infinity if there is none.

    The smallest quota of the process's own group and its parents counts (Linux, cgroups v1, v2).
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
        pass  # not Linux, or hidden: the root's quota still counts
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
"""Images per batch. Fixed, since it changes the last bits of the predictions."""


def batches(items: Sequence[Item], size: int = BATCH) -> list[Sequence[Item]]:
    """Split a sequence into batches of ``size``; the last one may be shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]


class Workers:
    """Threads that decode and write; the decoders and OpenCV release the interpreter's lock.

    Use it as a context manager: an error cancels the work that has not started.

    Args:
        threads: Number of threads.
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
        """Apply a function to all items; the result of an unusable image is its error."""
        return _outcomes(self._submit(function, items))

    def ahead(
        self, function: Callable[[Item], Result], pieces: Iterable[Sequence[Item]]
    ) -> Iterator[tuple[Sequence[Item], list[Result | ImageError]]]:
        """Yield each batch with its results while the next batch is processed.

        Stages can be chained: if ``pieces`` come from another stage, that stage prepares the next
        batch before this one waits for its results. No stage holds more than two batches, so
        memory does not grow with their number.
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
        """Yield the result of each item, which is computed while the next item is prepared.

        Items are processed one at a time: none starts before the previous result was consumed.
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
