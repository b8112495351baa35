"""Which engine runs a graph, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from naevus.errors import ConfigError
from naevus.inference.engines.onnxruntime import OnnxRuntimeEngine
from naevus.inference.engines.openvino import PIECE, OpenVINOEngine
from naevus.io.parallel import BATCH
from naevus.types import EngineName

if TYPE_CHECKING:
    from pathlib import Path

    from naevus.inference.engines.engine import Engine, Precision


def open_engine(
    path: Path,
    engine: EngineName = "openvino",
    threads: int | None = None,
    *,
    precision: Precision = "f32",
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


def streams_for(pictures: int, threads: int) -> int:
    """Return how many streams suit so many pictures.

    Few pictures are answered soonest when all threads work on one piece; many, when every thread
    has a piece of its own. More streams than a batch has pieces would only hold memory.
    """
    return 1 if pictures <= PIECE else min(threads, BATCH // PIECE)
