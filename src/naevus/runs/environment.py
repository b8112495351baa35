"""What results depend on besides settings and data: versions, processor, processes, threads."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from naevus.io.parallel import cpu_count
from naevus.io.torchrun import launched

_PACKAGES: Final = (
    "naevus", "torch", "timm", "segmentation-models-pytorch", "lightning-fabric", "numpy",
    "opencv-python-headless", "openvino", "onnx",
)  # fmt: skip

MACHINE: Final = ("machine", "processor", "processes", "threads")
"""The entries that describe the machine; all others are versions."""

_CPUINFO: Final = Path("/proc/cpuinfo")


def environment() -> dict[str, str]:
    """Return the versions of Python and packages, the processor, processes and threads.

    Threads are those of each of the processes that train together.
    """
    name, _ = processor()
    threads = os.environ.get("OMP_NUM_THREADS") or str(cpu_count())
    found = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": name,
        "processes": str(launched().world),
        "threads": threads,
    }
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


@cache
def processor() -> tuple[str, frozenset[str]]:
    """Return the processor's name and features; without features if the system hides them."""
    name, able = f"{platform.system()} {platform.machine()} {platform.processor()}", ""
    try:
        lines = _CPUINFO.read_text(errors="replace").splitlines()
    except OSError:
        return name, frozenset()
    for line in lines:
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "model name":
            name = f"{name} {value}"
        elif key.lower() in {"flags", "features"}:
            able = value
            break
    return name, frozenset(able.split())
