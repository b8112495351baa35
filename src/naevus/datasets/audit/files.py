"""Every picture file read once: whether it is whole, how large, and what it looks like."""

from __future__ import annotations

from collections import defaultdict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from naevus.datasets.audit.duplicates import Look, look_at
from naevus.datasets.audit.findings import Finding
from naevus.datasets.audit.registration import SIDE
from naevus.errors import PictureError
from naevus.images.read import Header, Limits, probe, read_with_header
from naevus.io.files import sha256
from naevus.types import explained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from naevus.datasets.records import Problem

    Item = TypeVar("Item")
    Result = TypeVar("Result")

_ERRORS = {
    "row without picture",
    "picture without row",
    "picture in two splits",
    "two rows of one id",
    "two files of one id",
    "lesion in several groups",
}
_LOOK_AHEAD = 32


class Seen(NamedTuple):
    """One picture file: what was seen of it, or why it cannot be read."""

    image_id: str
    header: Header | None
    sha256: str
    look: Look | None
    problem: str
    flags: tuple[str, ...] = ()


def see(image_id: str, path: Path, limits: Limits) -> Seen:
    """Read a picture file from end to end, at the smallest scale that does."""
    try:
        header = probe(path, limits)
        decoded = read_with_header(path, shortest=SIDE, limits=limits)
        look = look_at(decoded.pixels)
        return Seen(image_id, header, sha256(path), look, "", decoded.flags)
    except PictureError as error:
        return Seen(image_id, None, "", None, error.problem)


def file_findings(seen: Iterable[Seen]) -> list[Finding]:
    """Return the pictures that cannot be read, and why, and those that are read with a doubt."""
    seen = list(seen)
    unusable = [
        Finding("unusable picture", "error", picture.image_id, picture.problem)
        for picture in seen
        if picture.problem
    ]
    doubtful = [
        Finding("doubtful picture", "warning", picture.image_id, sentence)
        for picture in seen
        for sentence in explained(picture.flags).values()
    ]
    return unusable + doubtful


def layout_findings(problems: Iterable[Problem]) -> list[Finding]:
    """Return what the layout noticed; what loses or mixes up pictures is an error."""
    return [
        Finding(kind, "error" if kind in _ERRORS else "warning", subject, detail)
        for kind, subject, detail in problems
    ]


def same_files(seen: list[Seen]) -> list[tuple[int, int]]:
    """Return positions of files with the same bytes: each later one with the first."""
    positions: dict[str, list[int]] = defaultdict(list)
    for position, picture in enumerate(seen):
        if picture.sha256:
            positions[picture.sha256].append(position)
    return [(first, other) for first, *others in positions.values() for other in others]


def in_threads(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Yield ``work(item)`` in order, looking ahead only a little."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= _LOOK_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
