"""ONNX Runtime, an extra: on a GPU where its CUDA build is installed, on the CPU otherwise."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from naevus.errors import ConfigError
from naevus.inference.engines.base import (
    graph_bytes,
    keep_in_forks,
    refuse_forked,
    unusable,
)
from naevus.inference.engines.graphfile import check_graph
from naevus.io.parallel import cpu_count

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import ModuleType

    from numpy.typing import NDArray

    from naevus.inference.engines.base import Outputs
    from naevus.types import Precision

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class OnnxRuntimeEngine:
    """ONNX Runtime, in float32.

    Args:
        path: The ONNX graph: one uint8 N x H x W x 3 input, float outputs.
        threads: How many threads it may use; None: as many as this process has processors.
        precision: What it computes in; there is fp32 alone.

    Raises:
        BundleError: The file is no such graph.
        ConfigError: ONNX Runtime is not installed, or asked for another precision.
    """

    def __init__(
        self, path: Path, threads: int | None = None, *, precision: Precision = "fp32"
    ) -> None:
        onnxruntime = import_onnxruntime()
        if precision != "fp32":
            raise ConfigError(
                f"ONNX Runtime does not compute in {precision} here",
                "choose fp32, or the engine openvino",
            )
        content = graph_bytes(path)
        check_graph(path, content)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or cpu_count()
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(
                content,
                options,
                providers=providers(onnxruntime.get_available_providers()),
            )
        except Exception as error:  # ONNX Runtime's errors share no other base
            raise unusable(path, str(error)) from error
        if len(self._session.get_inputs()) != 1:
            raise unusable(path, "it must have one input")
        if self._session.get_inputs()[0].type != "tensor(uint8)":
            raise unusable(path, "its input must be uint8")
        self.outputs = tuple(output.name for output in self._session.get_outputs())
        self.precision: Precision = precision
        self._path = path
        self._process = os.getpid()
        keep_in_forks(self)
        self._input = self._session.get_inputs()[0].name

    def run(self, batch: NDArray[np.uint8]) -> Outputs:
        """Return the graph's outputs for N x H x W x 3 RGB pixels; their first axis is N.

        Raises:
            BundleError: The graph does not take pixels of this shape.
            NaevusError: The process was forked after the engine was made.
        """
        refuse_forked(self._process)
        try:
            results = self._session.run(None, {self._input: np.ascontiguousarray(batch)})
        except Exception as error:  # ONNX Runtime's errors share no other base
            raise unusable(self._path, f"it fails on pixels {batch.shape}: {error}") from error
        return {
            name: np.asarray(result, dtype=np.float32)
            for name, result in zip(self.outputs, results, strict=True)
        }


def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime, with its telemetry off.

    Since 1.29 its Linux packages report every session to its makers, the graph's name and hashes
    included, and leave an identifier in the user's cache folder, unless a variable is set before
    the import.

    Raises:
        ConfigError: It is not installed.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise ConfigError(
            "ONNX Runtime is not installed", "run pip install 'naevus[onnxruntime]'"
        ) from error
    module: ModuleType = onnxruntime
    return module


def providers(available: Sequence[str]) -> list[Any]:
    """Return where graphs run, best first: CUDA without TF32's shortened mantissas, then CPU."""
    cuda = [(CUDA, {"use_tf32": "0"})] if CUDA in available else []
    return [*cuda, CPU]
