"""What runs an ONNX graph: OpenVINO, or ONNX Runtime."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, cast, get_args

import numpy as np

from naevus.errors import BundleError, ConfigError
from naevus.inference.stream import processors

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray

EngineName = Literal["openvino", "onnxruntime"]
Outputs: TypeAlias = "dict[str, NDArray[np.float32]]"


class Engine(Protocol):
    """A loaded graph. One caller at a time: an engine is not shared between threads.

    Attributes:
        outputs: What the graph gives, by name.
    """

    outputs: tuple[str, ...]

    def run(self, batch: NDArray[np.uint8]) -> Outputs:
        """Return the graph's outputs for N x H x W x 3 RGB pixels; their first axis is N."""
        ...


class OpenVINOEngine:
    """OpenVINO on the CPU, in float32 whatever the machine could do faster.

    Args:
        path: The ONNX graph: one uint8 N x H x W x 3 input, float outputs.
        threads: How many threads it may use; None: as many as this process has processors.

    Raises:
        BundleError: The file is no such graph.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        openvino = _import_openvino()
        core = openvino.Core()
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads or processors(),
        }
        try:
            # From memory: a graph cannot then pull in files that the bundle's hashes don't cover.
            model = core.read_model(_graph(path))
            self._compiled = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise _unusable(path, str(error)) from error
        if len(model.inputs) != 1:
            raise _unusable(path, "it must have one input")
        if model.inputs[0].get_element_type() != openvino.Type.u8:
            raise _unusable(path, "its input must be uint8")
        self.outputs = tuple(output.get_any_name() for output in model.outputs)
        self._path = path
        self._request = self._compiled.create_infer_request()

    def run(self, batch: NDArray[np.uint8]) -> Outputs:
        """Return the graph's outputs for N x H x W x 3 RGB pixels; their first axis is N.

        Raises:
            BundleError: The graph does not take pixels of this shape.
        """
        try:
            results = self._request.infer([np.ascontiguousarray(batch)])
        except RuntimeError as error:
            raise _unusable(self._path, f"it fails on pixels {batch.shape}: {error}") from error
        # Copies: the request's own memory is overwritten by the next batch.
        return {
            name: np.array(results[number], dtype=np.float32)
            for number, name in enumerate(self.outputs)
        }


class OnnxRuntimeEngine:
    """ONNX Runtime on the CPU.

    Args:
        path: The ONNX graph: one uint8 N x H x W x 3 input, float outputs.
        threads: How many threads it may use; None: as many as this process has processors.

    Raises:
        BundleError: The file is no such graph.
        ConfigError: ONNX Runtime is not installed.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        try:
            import onnxruntime  # noqa: PLC0415 (an extra)
        except ImportError as error:
            raise ConfigError(
                "ONNX Runtime is not installed", "run pip install 'naevus[onnxruntime]'"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or processors()
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(
                _graph(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's errors share no other base
            raise _unusable(path, str(error)) from error
        if len(self._session.get_inputs()) != 1:
            raise _unusable(path, "it must have one input")
        if self._session.get_inputs()[0].type != "tensor(uint8)":
            raise _unusable(path, "its input must be uint8")
        self.outputs = tuple(output.name for output in self._session.get_outputs())
        self._path = path
        self._input = self._session.get_inputs()[0].name

    def run(self, batch: NDArray[np.uint8]) -> Outputs:
        """Return the graph's outputs for N x H x W x 3 RGB pixels; their first axis is N.

        Raises:
            BundleError: The graph does not take pixels of this shape.
        """
        try:
            results = self._session.run(None, {self._input: np.ascontiguousarray(batch)})
        except Exception as error:  # ONNX Runtime's errors share no other base
            raise _unusable(self._path, f"it fails on pixels {batch.shape}: {error}") from error
        return {
            name: np.asarray(result, dtype=np.float32)
            for name, result in zip(self.outputs, results, strict=True)
        }


def open_engine(path: Path, engine: EngineName = "openvino", threads: int | None = None) -> Engine:
    """Load an ONNX graph into an engine.

    Args:
        path: The graph.
        engine: Which engine.
        threads: How many threads it may use; None: as many as this process has processors.

    Raises:
        BundleError: The file is no graph of pixels.
        ConfigError: There is no such engine, or it is not installed.
    """
    if engine == "openvino":
        return OpenVINOEngine(path, threads)
    if engine == "onnxruntime":
        return OnnxRuntimeEngine(path, threads)
    raise ConfigError(f"unknown engine {engine!r}", f"use {' or '.join(get_args(EngineName))}")


def _import_openvino() -> ModuleType:
    # Importing OpenVINO tells its makers so over the network, unless its telemetry package is
    # absent: then a stub that does nothing takes its place. None makes the import fail.
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = cast("Any", None)
    return importlib.import_module("openvino")


def _graph(path: Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error


def _unusable(path: Path, problem: str) -> BundleError:
    line = " ".join(problem.split())
    return BundleError(
        f"{path}: not a usable graph ({line[:300]})", "export the bundle again from its run"
    )
