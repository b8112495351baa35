"""Memory that training keeps from step to step."""

from __future__ import annotations

import contextlib
import ctypes
import platform
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Of glibc's <malloc.h>, with the values a process starts with.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_TRIM_DEFAULT, _MMAP_DEFAULT = 128 * 1024, 65536


@contextlib.contextmanager
def kept_memory() -> Iterator[None]:
    """Keep freed memory for reuse while inside; it is given back on leaving.

    Activations are blocks of tens of megabytes. glibc maps each of them anew and returns it when
    freed, and the kernel clears its pages every time: a third of a training step on a CPU
    (``benchmarks/bench_training.py``). With another C library nothing changes.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_MAX, _MMAP_DEFAULT)
        libc.mallopt(_TRIM_THRESHOLD, _TRIM_DEFAULT)
        libc.malloc_trim(0)
