"""What runs an ONNX graph: OpenVINO, or ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, get_args

from naevus.errors import ConfigError
from naevus.inference.engines.base import Engine, Outputs
from naevus.inference.engines.onnxruntime import CPU, CUDA, OnnxRuntimeEngine, import_onnxruntime
from naevus.inference.engines.openvino import (
    PIECE,
    OpenVINOEngine,
    core,
    import_openvino,
    precisions,
)
from naevus.io.parallel import BATCH
from naevus.types import EngineName

if TYPE_CHECKING:
    from pathlib import Path

    from naevus.types import Precision


__all__ = [
    "Engine",
    "EngineName",
    "OnnxRuntimeEngine",
    "OpenVINOEngine",
    "Outputs",
    "open_engine",
    "streams_for",
]


# Which engine runs a graph, and how.


def open_engine(
    path: Path,
    engine: EngineName = "openvino",
    threads: int | None = None,
    *,
    precision: Precision = "fp32",
    streams: int = 1,
) -> Engine:
    """Load an ONNX graph into an engine.

    Args:
        path: The graph.
        engine: Which engine.
        threads: How many threads it may use; None: as many as this process has processors.
        precision: What it computes in.
        streams: How many pieces of a batch OpenVINO computes at a time; see `streams_for`.

    Raises:
        BundleError: The file is no graph of pixels.
        ConfigError: There is no such engine, it is not installed, or it does not compute in that
            precision here.
    """
    if engine == "openvino":
        return OpenVINOEngine(path, threads, precision=precision, streams=streams)
    if engine == "onnxruntime":
        return OnnxRuntimeEngine(path, threads, precision=precision)
    raise ConfigError(f"unknown engine {engine!r}", f"use {' or '.join(get_args(EngineName))}")


def streams_for(images: int, threads: int) -> int:
    """Return how many streams suit so many images.

    Few images are answered soonest when all threads work on one piece; many, when every thread
    has a piece of its own. More streams than a batch has pieces would only hold memory.
    """
    return 1 if images <= PIECE else min(threads, BATCH // PIECE)


# Which engines there are on this machine, and which one runs graphs unless told otherwise.

DEFAULT: Final[EngineName] = "openvino"
"""What runs graphs unless another engine is named, on every machine alike."""


class Found(NamedTuple):
    """An engine as it is on this machine.

    Attributes:
        name: As ``--engine`` takes it.
        version: None where it is not installed.
        devices: What it can run on, the one it takes first.
        precisions: What it computes in, the default first.
        chosen: Whether it runs graphs unless another is named.
        why: Why it is chosen or not, in a sentence.
    """

    name: EngineName
    version: str | None
    devices: tuple[str, ...]
    precisions: tuple[str, ...]
    chosen: bool
    why: str


def survey() -> tuple[Found, ...]:
    """Look at every engine that naevus knows."""
    return _openvino(), _onnxruntime()


def _openvino() -> Found:
    computes = precisions()
    bf16 = (
        "fp32, or bf16 where a bundle was measured to bear it and that is tried to be faster"
        if "bf16" in computes
        else "fp32: this processor has no instructions for bf16"
    )
    return Found(
        "openvino",
        import_openvino().get_version().partition("-")[0],
        (f"CPU ({core().get_property('CPU', 'FULL_DEVICE_NAME')})",),
        computes,
        chosen=True,
        why="Part of the base install, and the fastest on a CPU. Computes in "
        f"{bf16}. Graphs stored in 8 bits are computed in them.",
    )


def _onnxruntime() -> Found:
    try:
        onnxruntime = import_onnxruntime()
    except ConfigError as error:
        return Found("onnxruntime", None, (), (), chosen=False, why=f"{error}.")
    available = onnxruntime.get_available_providers()
    devices = tuple(
        name for provider, name in ((CUDA, "CUDA"), (CPU, "CPU")) if provider in available
    )
    why = (
        "Runs on the GPU: name it with --engine onnxruntime."
        if CUDA in available
        else "No CUDA here, and on a CPU slower than OpenVINO: taken where that fails, or by name."
    )
    return Found("onnxruntime", onnxruntime.__version__, devices, ("fp32",), chosen=False, why=why)
