"""Inference engines for ONNX graphs: OpenVINO and ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, get_args

from naevus.errors import ConfigError
from naevus.inference.engines.base import Engine, Outputs
from naevus.inference.engines.devices import check_device
from naevus.inference.engines.onnxruntime import CPU, CUDA, OnnxRuntimeEngine, import_onnxruntime
from naevus.inference.engines.openvino import (
    PIECE,
    OpenVINOEngine,
    core,
    import_openvino,
    precisions,
)
from naevus.io.parallel import BATCH
from naevus.io.settings import check_choice
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


# Opening a graph.


def open_engine(
    path: Path,
    engine: EngineName = "openvino",
    threads: int | None = None,
    *,
    precision: Precision = "fp32",
    streams: int = 1,
    device: str = "auto",
) -> Engine:
    """Load an ONNX graph into an engine.

    Args:
        path: The graph file.
        engine: The engine's name.
        threads: Number of threads; None: one per processor of this process.
        precision: Precision of the computation.
        streams: Number of chunks of a batch that OpenVINO computes in parallel; see `streams_for`.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; OpenVINO runs on the CPU.

    Raises:
        BundleError: The file is not a usable graph.
        ConfigError: The engine is unknown or not installed, or does not support the precision or
            the device here.
    """
    check_choice("engine", engine, get_args(EngineName))
    check_device(device, engine)
    if engine == "openvino":
        return OpenVINOEngine(path, threads, precision=precision, streams=streams)
    return OnnxRuntimeEngine(path, threads, precision=precision, device=device)


def streams_for(images: int, threads: int) -> int:
    """Return a suitable number of streams for a number of images.

    Few images are fastest if all threads work on one chunk, many if every thread has its own chunk.
    More streams than chunks in a batch would only use memory.
    """
    return 1 if images <= PIECE else min(threads, BATCH // PIECE)


# The engines of this machine. Which one runs a bundle's networks, a trial decides (`automatic`).


class Found(NamedTuple):
    """An engine on this machine.

    Attributes:
        name: The value for ``--engine``.
        version: The installed version; None if it is not installed.
        devices: Devices it can run on, the preferred one first.
        precisions: Supported precisions, the default first.
        use: When it is used, or how to install it.
    """

    name: EngineName
    version: str | None
    devices: tuple[str, ...]
    precisions: tuple[str, ...]
    use: str


def survey() -> tuple[Found, ...]:
    """Return the state of every known engine on this machine."""
    return _openvino(), _onnxruntime()


def _openvino() -> Found:
    return Found(
        "openvino",
        import_openvino().get_version().partition("-")[0],
        (f"CPU ({core().get_property('CPU', 'FULL_DEVICE_NAME')})",),
        precisions(),
        "where it runs correctly, unless --engine names another",
    )


def _onnxruntime() -> Found:
    try:
        onnxruntime = import_onnxruntime()
    except ConfigError as error:
        return Found("onnxruntime", None, (), (), error.remedy)
    available = onnxruntime.get_available_providers()
    devices = tuple(
        name for provider, name in ((CUDA, "CUDA"), (CPU, "CPU")) if provider in available
    )
    use = "with --engine onnxruntime, or where OpenVINO fails"
    return Found("onnxruntime", onnxruntime.__version__, devices, ("fp32",), use)
