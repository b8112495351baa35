"""What every engine does, and how one that cannot is told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from naevus.errors import BundleError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EngineName = Literal["openvino", "onnxruntime"]
Precision = Literal["f32", "bf16"]
Outputs: TypeAlias = "dict[str, NDArray[np.float32]]"


class Engine(Protocol):
    """A loaded graph. One caller at a time: an engine is not shared between threads.

    Attributes:
        outputs: What the graph gives, by name.
        precision: What it computes in.
    """

    outputs: tuple[str, ...]
    precision: Precision

    def run(self, batch: NDArray[np.uint8]) -> Outputs:
        """Return the graph's outputs for N x H x W x 3 RGB pixels; their first axis is N."""
        ...


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
