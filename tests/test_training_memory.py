"""Memory kept in training is given back afterwards."""

from __future__ import annotations

import platform
import resource
from pathlib import Path

import numpy as np
import pytest

from naevus.training.memory import kept_memory

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told to keep memory"
)
MEGABYTE = 1 << 20
PAGE = resource.getpagesize()


def resident() -> int:
    """Return this process's resident memory, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def faults_of_reuse() -> int:
    """Return how many page faults it takes to fill and free 64 MB ten times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.full(64 * MEGABYTE // 8, 1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_a_freed_block_is_reused_without_new_pages() -> None:
    returned = faults_of_reuse()
    with kept_memory():
        np.full(64 * MEGABYTE // 8, 1.0)
        kept = faults_of_reuse()
    assert kept < returned / 4
    assert faults_of_reuse() > returned / 2


def test_memory_is_given_back_at_the_end() -> None:
    before = resident()
    with kept_memory():
        np.full(256 * MEGABYTE // 8, 1.0)
        inside = resident()
    assert inside - before > 200 * MEGABYTE
    assert resident() - before < 100 * MEGABYTE
