"""ONNX Runtime (an extra): on a GPU if its CUDA build is installed, otherwise on the CPU."""

from __future__ import annotations

import logging
import os
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from naevus.errors import ConfigError
from naevus.inference.engines.base import (
    graph_bytes,
    keep_in_forks,
    refuse_forked,
    unusable,
)
from naevus.inference.engines.devices import parse_device
from naevus.inference.engines.graphfile import check_graph
from naevus.io.extras import how_to_install
from naevus.io.parallel import thread_count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import ModuleType

    from numpy.typing import NDArray

    from naevus.inference.engines.base import Outputs
    from naevus.types import Precision

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_REMEDY: Final = "install onnxruntime-gpu in place of onnxruntime, or use the device cpu"

_log = logging.getLogger(__name__)


class OnnxRuntimeEngine:
    """ONNX Runtime, in float32.

    Args:
        path: The ONNX graph: one uint8 N x H x W x 3 input, float outputs.
        threads: Number of threads; None: one per processor of this process.
        precision: Precision of the computation; only fp32 is supported.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        BundleError: The file is not a usable graph.
        ConfigError: ONNX Runtime is not installed, the precision is not fp32, or it does not run on
            the device.
    """

    def __init__(
        self,
        path: Path,
        threads: int | None = None,
        *,
        precision: Precision = "fp32",
        device: str = "auto",
    ) -> None:
        kind, number = parse_device(device)
        onnxruntime = import_onnxruntime(_REMEDY if kind == "cuda" else None)
        if precision != "fp32":
            raise ConfigError(
                f"ONNX Runtime does not compute in {precision} here",
                "choose fp32, or the engine openvino",
            )
        content = graph_bytes(path)
        check_graph(path, content)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = thread_count(threads)
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        wanted = providers(onnxruntime.get_available_providers(), device)

        def make(those: Sequence[Any]) -> Any:
            # Its own fallback would print to standard output, and go on without a word here.
            return onnxruntime.InferenceSession(
                content, options, providers=those, enable_fallback=0
            )

        self._session, gpu = _session(path, make, wanted, device)
        self.device = f"cuda:{number or 0}" if gpu else "cpu"
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
            BundleError: The graph does not accept pixels of this shape.
            NaevusError: The process was forked after the engine was created.
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


def _session(
    path: Path, make: Callable[[Sequence[Any]], Any], wanted: Sequence[Any], device: str
) -> tuple[Any, bool]:
    """Return a session, and whether it runs on a GPU."""
    gpu = wanted[0] != CPU
    try:
        session = make(wanted)
    except Exception as error:  # ONNX Runtime's errors share no other base
        if not gpu:
            raise unusable(path, str(error)) from error
        problem = " ".join(str(error).split())[:200]
    else:
        if not gpu or session.get_providers()[0] == CUDA:
            return session, gpu
        problem = "CUDA or cuDNN cannot be loaded"
    if device != "auto":
        raise ConfigError(
            f"ONNX Runtime does not run on {device}: {problem}",
            "install the versions of CUDA and cuDNN that it needs, or use the device cpu",
        )
    _warn(problem)
    return _session(path, make, [CPU], "cpu")


@cache
def _warn(problem: str) -> None:
    """Log once, not for every network, that the GPU is not used."""
    _log.warning("ONNX Runtime runs on the CPU, not on the GPU: %s", problem)


def import_onnxruntime(remedy: str | None = None) -> ModuleType:
    """Import ONNX Runtime with telemetry disabled.

    Since 1.29 its Linux packages report every session to the vendor, including the graph's name and
    hashes, and store an identifier in the user's cache folder. An environment variable, set before
    the import, disables this.

    Args:
        remedy: How to install it; None: as the extra.

    Raises:
        ConfigError: ONNX Runtime is not installed.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise ConfigError(
            "ONNX Runtime is not installed", remedy or how_to_install("onnxruntime")
        ) from error
    module: ModuleType = onnxruntime
    return module


def providers(available: Sequence[str], device: str = "auto") -> list[Any]:
    """Return the execution providers for a device, best first: CUDA without TF32, then CPU.

    Raises:
        ConfigError: No device has this name, or CUDA is not available.
    """
    kind, number = parse_device(device)
    if kind == "cpu" or (kind == "auto" and CUDA not in available):
        return [CPU]
    if CUDA not in available:
        raise ConfigError(
            f"there is no device {device}: this build of ONNX Runtime has no CUDA", _REMEDY
        )
    return [(CUDA, {"device_id": str(number or 0), "use_tf32": "0"}), CPU]
