"""OpenVINO on the CPU."""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from collections import deque
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from naevus.errors import ConfigError, NaevusError
from naevus.inference.engines.base import (
    graph_bytes,
    keep_in_forks,
    refuse_forked,
    unable,
    unusable,
)
from naevus.inference.engines.graphfile import check_graph
from naevus.inference.engines.instructions import limit
from naevus.io.files import cache_folder, sha256_of, write_bytes
from naevus.io.parallel import thread_count

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from numpy.typing import NDArray

    from naevus.inference.engines.base import Outputs
    from naevus.types import Precision


# Compiled graphs are cached on disk, so that the next start is faster.
#
# OpenVINO's own cache (``CACHE_DIR``) does not check its files: damaged weights silently give wrong
# outputs. Here every file is written atomically with a SHA-256; a damaged one is compiled again.

SWITCH: Final = "NAEVUS_CACHE"
"""Environment variable that disables the cache if it is ``off``."""

LIMIT: Final = 2**30
"""Maximum size of the cache in bytes; the least recently used files are removed first."""

_DIGEST = 32


@dataclass(frozen=True)
class CompiledCache:
    """A folder of compiled graphs. Its failures never stop a job.

    Args:
        folder: The folder, created with the first file.
    """

    folder: Path

    @classmethod
    def of_user(cls) -> CompiledCache | None:
        """Return the cache in the user's cache folder; None if disabled or without a folder."""
        if os.environ.get(SWITCH) == "off":
            return None
        folder = cache_folder("compiled")
        return None if folder is None else cls(folder)

    @staticmethod
    def digest(content: bytes) -> bytes:
        """Return the SHA-256 of the content."""
        return hashlib.sha256(content).digest()

    def load(self, key: str) -> bytes | None:
        """Return the content stored under a key, or None if it is missing or damaged."""
        path = self._file(key)
        try:
            whole = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        content = whole[_DIGEST:]
        return content if self.digest(content) == whole[:_DIGEST] else None

    def store(self, key: str, content: bytes) -> None:
        """Store content under a key, and remove the oldest files beyond `LIMIT`."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_bytes(self._file(key), self.digest(content) + content)
            self._prune()
        except (NaevusError, OSError):  # a full disk, or another user's folder
            return

    def _prune(self) -> None:
        found = [(path.stat(), path) for path in self.folder.glob("*.blob")]
        held = 0
        for status, path in sorted(found, key=lambda each: -each[0].st_mtime_ns):
            held += status.st_size
            if held > LIMIT:
                path.unlink(missing_ok=True)

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.blob"


_HINTS: Final[dict[Precision, str]] = {"fp32": "f32", "bf16": "bf16"}
"""OpenVINO's names of precisions."""

PIECE = 8
"""Images per request. Fixed for any number of streams, since it may change the last bits."""


class OpenVINOEngine:
    """OpenVINO on the CPU, always in the requested precision.

    A batch is split into chunks of `PIECE` images, which asynchronous requests process in turn.
    Compiled graphs are cached on disk (`CompiledCache`) for the next start.

    Args:
        path: The ONNX graph: one uint8 N x H x W x 3 input, float outputs.
        threads: Number of threads; None: one per processor of this process.
        precision: Precision of the computation.
        streams: Number of chunks that are computed in parallel; they share the threads.

    Raises:
        BundleError: The file is not a usable graph.
        ConfigError: The processor or the graph does not support the precision.
    """

    def __init__(
        self,
        path: Path,
        threads: int | None = None,
        *,
        precision: Precision = "fp32",
        streams: int = 1,
    ) -> None:
        if precision not in precisions():
            raise ConfigError(
                f"this processor does not support {precision}",
                "choose fp32 (`naevus info` lists what is supported)",
            )
        threads = thread_count(threads)
        self._path = path
        self._compiled = _compiled(
            path,
            precision,
            {
                "INFERENCE_PRECISION_HINT": _HINTS[precision],
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": min(streams, threads),
                # Engine threads share the processors with decoding and with other processes:
                # pinned to one processor, they would wait while another is idle.
                "ENABLE_CPU_PINNING": False,
            },
        )
        self.outputs = tuple(output.get_any_name() for output in self._compiled.outputs)
        self.precision = precision
        self.device = "cpu"
        # Two per stream, so that the next chunk is ready when one is finished.
        self._alone, self._process = Lock(), os.getpid()
        keep_in_forks(self)
        self._requests = [
            self._compiled.create_infer_request() for _ in range(2 * min(streams, threads))
        ]

    def run(self, batch: NDArray[np.uint8]) -> Outputs:
        """Return the graph's outputs for N x H x W x 3 RGB pixels; their first axis is N.

        Threads that share the engine take turns, since each call uses all its processors.

        Raises:
            BundleError: The graph does not accept pixels of this shape.
            NaevusError: The process was forked after the engine was created.
        """
        refuse_forked(self._process)
        with self._alone:
            return self._run(np.ascontiguousarray(batch))

    def _run(self, batch: NDArray[np.uint8]) -> Outputs:
        starts = range(0, max(len(batch), 1), PIECE)
        outputs: Outputs = {}
        waiting: deque[tuple[int, Any]] = deque()
        try:
            for number, start in enumerate(starts):
                if len(waiting) == len(self._requests):
                    self._take(*waiting.popleft(), outputs, len(batch))
                request = self._requests[number % len(self._requests)]
                request.start_async([batch[start : start + PIECE]])
                waiting.append((start, request))
            while waiting:
                self._take(*waiting.popleft(), outputs, len(batch))
        except RuntimeError as error:
            problem = f"it fails on pixels {batch.shape}: {error}"
            raise unusable(self._path, problem) from error
        finally:
            # No request may run on when the next batch starts or the program ends.
            for _, request in waiting:
                _wait_out(request)
        return outputs

    def _take(self, start: int, request: Any, outputs: Outputs, count: int) -> None:
        """Wait for a chunk, and copy its outputs into those of the whole batch."""
        request.wait()
        for number, name in enumerate(self.outputs):
            # Copied, since the request's memory is reused for its next chunk.
            values = request.get_output_tensor(number).data
            if name not in outputs:
                outputs[name] = np.empty((count, *values.shape[1:]), np.float32)
            outputs[name][start : start + len(values)] = values


def import_openvino() -> ModuleType:
    """Import OpenVINO with telemetry disabled.

    The import reports to the vendor over the network, unless the telemetry package is missing. In
    that case OpenVINO uses a stub.
    """
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = cast("Any", None)  # makes its import fail
    return importlib.import_module("openvino")


@cache
def core() -> Any:
    """Return OpenVINO's core, which compiles all graphs; it is thread-safe."""
    return import_openvino().Core()


@cache
def capabilities() -> tuple[str, ...]:
    """Return the CPU's capabilities according to OpenVINO, such as FP32, BF16 and INT8."""
    return tuple(sorted(core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")))


def precisions() -> tuple[Precision, ...]:
    """Return the supported precisions; bf16 only if the CPU has instructions for it."""
    return ("fp32", "bf16") if "BF16" in capabilities() else ("fp32",)


def _compiled(path: Path, precision: Precision, settings: dict[str, Any]) -> Any:
    """Compile a graph, or load it from the cache."""
    content = graph_bytes(path)
    check_graph(path, content)  # before the cache, which would accept it
    disk = CompiledCache.of_user()
    key = sha256_of(
        import_openvino().__version__,
        core().get_property("CPU", "FULL_DEVICE_NAME"),
        *capabilities(),
        str(limit()),
        settings["INFERENCE_PRECISION_HINT"],
        CompiledCache.digest(content).hex(),
    )
    kept = disk.load(key) if disk is not None else None
    if kept is not None:
        try:
            return core().import_model(kept, "CPU", settings)
        except RuntimeError:  # from another build of the same version
            kept = None
    try:
        model = core().read_model(content)
        _check(path, model)
    except RuntimeError as error:
        raise unusable(path, str(error)) from error
    try:
        compiled = core().compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise unable(path, "openvino", precision, str(error)) from error
    if disk is not None:
        disk.store(key, _exported(compiled))
    return compiled


def _check(path: Path, model: Any) -> None:
    if len(model.inputs) != 1:
        raise unusable(path, "it must have one input")
    if model.inputs[0].get_element_type() != import_openvino().Type.u8:
        raise unusable(path, "its input must be uint8")


def _exported(compiled: Any) -> bytes:
    exported = compiled.export_model()
    return exported if isinstance(exported, bytes) else bytes(exported.getbuffer())


def _wait_out(request: Any) -> None:
    try:
        request.wait()
    except RuntimeError:
        return
