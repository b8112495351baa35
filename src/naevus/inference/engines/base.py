"""What every engine does, and how one that cannot is told."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias
from weakref import WeakSet

from naevus.errors import BundleError, ConfigError, NaevusError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from naevus.types import EngineName, Precision


Outputs: TypeAlias = "dict[str, NDArray[np.float32]]"


class Engine(Protocol):
    """A loaded graph. Threads may share it; a process that was forked may not.

    Attributes:
        outputs: What the graph gives, by name.
        precision: What it computes in.
    """

    outputs: tuple[str, ...]
    precision: Precision

    def run(self, batch: NDArray[np.uint8]) -> Outputs:
        """Return the graph's outputs for N x H x W x 3 RGB pixels; their first axis is N."""
        ...


_KEPT: Final[WeakSet[Any]] = WeakSet()


def keep_in_forks(engine: object) -> None:
    """Have a process that is forked never take an engine apart, not even at its end.

    Taking it apart would wait without end for threads that a fork does not have.
    """
    _KEPT.add(engine)


def _keep() -> None:
    for engine in _KEPT:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep)


def refuse_forked(loaded_in: int) -> None:
    """Refuse to go on in another process than the one that loaded the networks.

    A fork has none of their threads, and would wait for them without end.

    Args:
        loaded_in: The number of the process that loaded them.

    Raises:
        NaevusError: This is another one.
    """
    if os.getpid() != loaded_in:
        raise NaevusError(
            "networks were loaded before this process was forked, and do not run in it",
            "load them in each process (naevus.load), or start processes by 'spawn'",
        )


def graph_bytes(path: Path) -> bytes:
    """Read a graph's file.

    Engines are given its content, not its path: a graph cannot then pull in files that the
    bundle's hashes don't cover.

    Raises:
        BundleError: It cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise unusable(path, error.strerror or str(error)) from error


def unusable(path: Path, problem: str) -> BundleError:
    """Return the error for a graph that an engine does not take, its problem in one line."""
    line = " ".join(problem.split())
    return BundleError(
        f"{path}: not a usable graph ({line[:300]})", "export the bundle again from its run"
    )


def unable(path: Path, engine: EngineName, precision: Precision, problem: str) -> ConfigError:
    """Return the error for a graph that an engine cannot run here, its problem in one line."""
    line = " ".join(problem.split())
    others = [each for each in ("openvino", "onnxruntime") if each != engine]
    choice = "fp32, or " if precision != "fp32" else ""
    return ConfigError(
        f"{path.name} does not run here by {engine} in {precision} ({line[-300:]})",
        f"choose {choice}the engine {others[0]} (pip install 'naevus[onnxruntime]')"
        if engine == "openvino"
        else f"choose {choice}the engine {others[0]}",
    )
