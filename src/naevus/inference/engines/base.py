"""The Engine protocol, and the errors of engines."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias
from weakref import WeakSet

from naevus.errors import BundleError, ConfigError, NaevusError
from naevus.io.extras import how_to_install
from naevus.io.limits import read_limited

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from naevus.types import EngineName, Precision


LARGEST: Final = 2**30
"""Maximum size of a graph file in bytes."""

Outputs: TypeAlias = "dict[str, NDArray[np.float32]]"


class Engine(Protocol):
    """A loaded graph. Threads may share it; a forked process may not use it.

    Attributes:
        outputs: Names of the graph's outputs.
        precision: Precision of the computation.
        device: Where it runs: ``cpu`` or ``cuda:N``.
    """

    outputs: tuple[str, ...]
    precision: Precision
    device: str

    def run(self, batch: NDArray[np.uint8]) -> Outputs:
        """Return the graph's outputs for N x H x W x 3 RGB pixels; their first axis is N."""
        ...


_KEPT: Final[WeakSet[Any]] = WeakSet()


def keep_in_forks(engine: object) -> None:
    """Keep forked processes from destroying an engine, even at exit.

    Its destructor would wait forever for threads that a fork does not have.
    """
    _KEPT.add(engine)


def _keep() -> None:
    for engine in _KEPT:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep)


def refuse_forked(loaded_in: int) -> None:
    """Check that this process loaded the networks.

    A fork has none of their threads, and would wait for them forever.

    Args:
        loaded_in: Id of the process that loaded the networks.

    Raises:
        NaevusError: Another process loaded them.
    """
    if os.getpid() != loaded_in:
        raise NaevusError(
            "networks that were loaded before a fork cannot run in the forked process",
            "load them in each process (naevus.load), or start processes with 'spawn'",
        )


def graph_bytes(path: Path) -> bytes:
    """Read a graph file.

    Engines get its content instead of its path, so that a graph cannot load files that the bundle's
    hashes do not cover.

    Raises:
        BundleError: The file cannot be read, or is larger than `LARGEST`.
    """
    try:
        return read_limited(Path(path), LARGEST)
    except (OSError, ValueError) as error:
        raise unusable(path, getattr(error, "strerror", None) or str(error)) from error


def unusable(path: Path, problem: str) -> BundleError:
    """Return the error for a graph that an engine rejects, with the problem in one line."""
    line = " ".join(problem.split())
    return BundleError(
        f"{path}: not a usable graph ({line[:300]})", "export the bundle again from its run"
    )


def unable(path: Path, engine: EngineName, precision: Precision, problem: str) -> ConfigError:
    """Return the error for a graph that cannot run here, with the problem in one line."""
    line = " ".join(problem.split())
    others = [each for each in ("openvino", "onnxruntime") if each != engine]
    choice = "fp32, or " if precision != "fp32" else ""
    return ConfigError(
        f"{path.name} does not run here with {engine} in {precision} ({line[-300:]})",
        f"choose {choice}the engine {others[0]} ({how_to_install('onnxruntime')})"
        if engine == "openvino"
        else f"choose {choice}the engine {others[0]}",
    )
