"""How many processors there are: affinity, and what a container is given."""

from __future__ import annotations

import math
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from naevus.errors import ImageError, NaevusError
from naevus.io import parallel
from naevus.io.parallel import Workers, batches

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import Any


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("10000 100000\n", 1),
        ("max 100000\n", math.inf),
        ("nonsense", math.inf),
        ("5 0", math.inf),
    ],
)
def test_the_quota_of_control_groups_2(quota: str, expected: float, tmp_path: Path) -> None:
    write(tmp_path / "groups", cpu__max=quota)
    write(tmp_path, own="0::/\n")
    assert parallel._quota(tmp_path / "groups", tmp_path / "own") == expected


def test_the_least_of_a_group_and_those_above_it_counts(tmp_path: Path) -> None:
    groups = tmp_path / "groups"
    write(groups / "slice" / "pod", cpu__max="400000 100000")
    write(groups / "slice", cpu__max="300000 100000")
    write(tmp_path, own="0::/slice/pod\n")
    assert parallel._quota(groups, tmp_path / "own") == 3


def test_the_quota_of_control_groups_1(tmp_path: Path) -> None:
    groups = tmp_path / "groups"
    cpu = groups / "cpu" / "docker"
    write(cpu, cpu__cfs_quota_us="250000\n", cpu__cfs_period_us="100000\n")
    write(groups / "cpu", cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")
    write(tmp_path, own="4:memory:/docker\n3:cpu,cpuacct:/docker\n")
    assert parallel._quota(groups, tmp_path / "own") == 3


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert parallel._quota(tmp_path / "absent", tmp_path / "absent") == math.inf


def test_at_least_one_and_at_most_what_the_quota_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_quota", lambda: 1)
    assert parallel.cpu_count() == 1
    monkeypatch.setattr(parallel, "_quota", lambda: math.inf)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    assert parallel.cpu_count() == (os.cpu_count() or 1)


class Gauge:
    """Counts the pieces that are made and not yet let go of."""

    def __init__(self, pieces: int) -> None:
        self.made = self.gone = self.most = 0
        self.pieces = pieces

    def source(self) -> Iterator[Sequence[int]]:
        for number in range(self.pieces):
            self.made += 1
            self.most = max(self.most, self.made - self.gone)
            yield [number]


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_memory_does_not_grow_with_the_number_of_pieces(stages: int) -> None:
    held = []
    for pieces in (10, 200):
        gauge = Gauge(pieces)
        with Workers(2) as workers:
            chain: Iterator[Any] = gauge.source()
            for _ in range(stages):
                chain = (list(found) for _, found in workers.ahead(lambda x: x + 1, chain))
            results: list[int] = []
            for result in chain:
                results += result
                gauge.gone += 1
        assert results == [number + stages for number in range(pieces)]
        held.append(gauge.most)
    assert held[0] == held[1] == stages + 1


def test_the_next_item_starts_before_the_present_one_is_yielded() -> None:
    begun = {number: threading.Event() for number in range(3)}

    def begin(number: int) -> int:
        begun[number].set()
        return number

    with Workers(1) as workers:
        for piece, _ in workers.ahead(begin, [[0], [1], [2]]):
            following = piece[0] + 1
            assert following == 3 or begun[following].wait(timeout=30)


def test_stages_work_at_the_same_time() -> None:
    """One stage's third piece and the next one's first wait for each other, or the test fails."""
    meeting = threading.Barrier(2, timeout=30)

    def decode(number: int) -> int:
        if number == 2:
            meeting.wait()
        return number

    def finish(number: int) -> int:
        if number == 0:
            meeting.wait()
        return number

    with Workers(2) as workers:
        decoded: Iterator[Any] = (found for _, found in workers.ahead(decode, [[0], [1], [2]]))
        assert [found for _, found in workers.ahead(finish, decoded)] == [[0], [1], [2]]


def test_an_unusable_image_is_a_result_and_other_failures_stop(tmp_path: Path) -> None:
    def check(number: int) -> int:
        if number == 1:
            raise ImageError(tmp_path, "is odd")
        if number == 5:
            raise NaevusError("the disk is full")
        return number

    with Workers(2) as workers:
        results = workers.ahead(check, batches(range(6), 2))
        _, (first, second) = next(results)
        assert first == 0
        assert isinstance(second, ImageError)
        assert next(results)[1] == [2, 3]
        with pytest.raises(NaevusError, match="disk"):
            next(results)


def test_writing_overlaps_with_computing_but_not_with_itself() -> None:
    written: list[int] = []
    made: list[int] = []
    second_made = threading.Event()

    def items() -> Iterator[int]:
        for number in range(4):
            made.append(number)
            if number == 1:
                second_made.set()
            yield number

    def write(number: int) -> int:
        if number == 0:
            assert second_made.wait(timeout=30)  # made while this is at work
        written.append(number)
        return number

    with Workers(2) as workers:
        for number in workers.behind(write, items()):
            assert written == list(range(number + 1))
            assert made == list(range(min(number + 2, 4)))


def test_a_failure_in_writing_stops_the_work() -> None:
    begun = []

    def write(number: int) -> NoReturn:
        begun.append(number)
        raise NaevusError("the disk is full")

    with Workers(2) as workers, pytest.raises(NaevusError, match="full"):
        list(workers.behind(write, range(5)))
    assert begun == [0]
