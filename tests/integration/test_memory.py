"""Memory kept during training is released afterwards."""

from __future__ import annotations

import multiprocessing
import platform
import resource
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from naevus.training.performance import kept_memory

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc's allocator can be made to keep memory"
)
MEGABYTE = 1 << 20
PAGE = resource.getpagesize()


def resident() -> int:
    """Return this process's resident memory, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def faults_of_reuse() -> int:
    """Return the number of page faults for filling and freeing 64 MB ten times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.full(64 * MEGABYTE // 8, 1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def around_reuse() -> tuple[int, int, int]:
    """Return the page faults of reuse before, while and after memory is kept."""
    before = faults_of_reuse()
    with kept_memory():
        np.full(64 * MEGABYTE // 8, 1.0)
        kept = faults_of_reuse()
    return before, kept, faults_of_reuse()


def around_a_large_block() -> tuple[int, int, int]:
    """Return the resident memory before a block, while its memory is kept, and afterwards."""
    before = resident()
    with kept_memory():
        np.full(256 * MEGABYTE // 8, 1.0)
        inside = resident()
    return before, inside, resident()


def afresh(measure: Callable[[], tuple[int, int, int]]) -> tuple[int, int, int]:
    """Measure in a new process, since the heap depends on everything that ran before."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure).result()


def test_a_freed_block_is_reused_without_new_pages() -> None:
    before, kept, after = afresh(around_reuse)
    assert kept < before / 4
    assert after > before / 2


def test_memory_is_released_at_the_end() -> None:
    before, inside, after = afresh(around_a_large_block)
    assert inside - before > 200 * MEGABYTE
    assert after - before < 100 * MEGABYTE
