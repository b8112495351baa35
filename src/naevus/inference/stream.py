"""Work in bounded pieces: the next batch is decoded while the present one is predicted."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self, TypeVar

from naevus.errors import PictureError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    Item = TypeVar("Item")
    Result = TypeVar("Result")

BATCH = 32
"""Pictures a batch. Fixed: it decides on the last bits of what is predicted."""


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))


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
    ) -> list[Result | PictureError]:
        """Apply a function to all items; an item whose picture is unusable gives the error."""
        return _outcomes(self._submit(function, items))

    def ahead(
        self, function: Callable[[Item], Result], pieces: Sequence[Sequence[Item]]
    ) -> Iterator[tuple[Sequence[Item], list[Result | PictureError]]]:
        """Yield each piece with its results, working on the next one meanwhile."""
        coming = self._submit(function, pieces[0]) if pieces else []
        for number, piece in enumerate(pieces):
            present = coming
            following = pieces[number + 1] if number + 1 < len(pieces) else ()
            results = _outcomes(present)
            coming = self._submit(function, following)
            yield piece, results

    def _submit(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> list[Future[Result]]:
        return [self._pool.submit(function, item) for item in items]


def _outcomes(futures: Sequence[Future[Result]]) -> list[Result | PictureError]:
    outcomes: list[Result | PictureError] = []
    for future in futures:
        try:
            outcomes.append(future.result())
        except PictureError as error:
            outcomes.append(error)
    return outcomes
