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
from naevus.io.parallel import cpu_count

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from numpy.typing import NDArray

    from naevus.inference.engines.base import Outputs
    from naevus.types import Precision


# Compiled graphs kept on disk, so that the next start is quicker.
#
# OpenVINO's own cache (``CACHE_DIR``) is not used: it trusts its files, and one with damaged
# weights is loaded and gives wrong answers without a word. Here every file carries a SHA-256 and is
# written atomically; one that does not agree is made again.

SWITCH: Final = "NAEVUS_CACHE"
"""The environment variable that turns the cache off when it is ``off``."""

LIMIT: Final = 2**30
"""Bytes that the cache may hold; the files used longest ago go first."""

_DIGEST = 32


@dataclass(frozen=True)
class CompiledCache:
    """A folder of compiled graphs. Nothing that goes wrong in it stops anybody.

    Args:
        folder: Where the files are; it is made when the first one is written.
    """

    folder: Path

    @classmethod
    def of_user(cls) -> CompiledCache | None:
        """Return the cache in the user's cache folder; None if off, or without such a folder."""
        if os.environ.get(SWITCH) == "off":
            return None
        folder = cache_folder("compiled")
        return None if folder is None else cls(folder)

    @staticmethod
    def digest(content: bytes) -> bytes:
        """Return the SHA-256 of a content."""
        return hashlib.sha256(content).digest()

    def load(self, key: str) -> bytes | None:
        """Return what was stored under a key, or None if it is absent or damaged."""
        path = self._file(key)
        try:
            whole = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        content = whole[_DIGEST:]
        return content if self.digest(content) == whole[:_DIGEST] else None

    def store(self, key: str, content: bytes) -> None:
        """Keep a content under a key, and let go of the oldest files beyond `LIMIT`."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_bytes(self._file(key), self.digest(content) + content)
            self._prune()
        except (NaevusError, OSError):  # a full disk, a folder of somebody else
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
"""OpenVINO's names of what it computes in."""

PIECE = 8
"""Images a request. Fixed, whatever the number of streams: it may decide on last bits."""


class OpenVINOEngine:
    """OpenVINO on the CPU, in the precision asked for whatever the machine could do faster.

    A batch is cut into pieces of `PIECE` images that asynchronous requests take in turn. What was
    compiled is kept on disk (`CompiledCache`) for the next start.

    Args:
        path: The ONNX graph: one uint8 N x H x W x 3 input, float outputs.
        threads: How many threads it may use; None: as many as this process has processors.
        precision: What it computes in.
        streams: How many pieces are computed at a time; they share the threads.

    Raises:
        BundleError: The file is no such graph.
        ConfigError: The processor does not compute in that precision, or the graph not in it.
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
                f"this processor does not compute in {precision}",
                "choose fp32 (`naevus info` tells what there is)",
            )
        threads = threads or cpu_count()
        self._path = path
        self._compiled = _compiled(
            path,
            precision,
            {
                "INFERENCE_PRECISION_HINT": _HINTS[precision],
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": min(streams, threads),
                # Its threads share the processors with those that decode, and with other
                # processes: bound to one each, they would wait where another is free.
                "ENABLE_CPU_PINNING": False,
            },
        )
        self.outputs = tuple(output.get_any_name() for output in self._compiled.outputs)
        self.precision = precision
        # Two a stream: the next piece waits where the last one is computed.
        self._alone, self._process = Lock(), os.getpid()
        keep_in_forks(self)
        self._requests = [
            self._compiled.create_infer_request() for _ in range(2 * min(streams, threads))
        ]

    def run(self, batch: NDArray[np.uint8]) -> Outputs:
        """Return the graph's outputs for N x H x W x 3 RGB pixels; their first axis is N.

        Threads that share the engine wait for one another: it uses all its processors for each.

        Raises:
            BundleError: The graph does not take pixels of this shape.
            NaevusError: The process was forked after the engine was made.
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
            # None may still be running when the next batch comes, or when the program ends.
            for _, request in waiting:
                _wait_out(request)
        return outputs

    def _take(self, start: int, request: Any, outputs: Outputs, count: int) -> None:
        """Wait for a piece and put its answers where they belong among those of ``count``."""
        request.wait()
        for number, name in enumerate(self.outputs):
            # Copied: the request's own memory is overwritten by its next piece.
            values = request.get_output_tensor(number).data
            if name not in outputs:
                outputs[name] = np.empty((count, *values.shape[1:]), np.float32)
            outputs[name][start : start + len(values)] = values


def import_openvino() -> ModuleType:
    """Import OpenVINO, with its telemetry out of reach.

    Importing it tells its makers so over the network, unless its telemetry package is absent: then
    a stub that does nothing takes its place.
    """
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = cast("Any", None)  # makes the import of it fail
    return importlib.import_module("openvino")


@cache
def core() -> Any:
    """Return what all graphs are compiled by; it may be used from several threads at once."""
    return import_openvino().Core()


@cache
def capabilities() -> tuple[str, ...]:
    """Return what OpenVINO says that the CPU computes in, such as FP32, BF16 and INT8."""
    return tuple(sorted(core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")))


def precisions() -> tuple[Precision, ...]:
    """Return what the CPU computes in; bf16 only where it has instructions for it."""
    return ("fp32", "bf16") if "BF16" in capabilities() else ("fp32",)


def _compiled(path: Path, precision: Precision, settings: dict[str, Any]) -> Any:
    """Compile a graph, or take what an earlier start compiled."""
    content = graph_bytes(path)
    check_graph(path, content)  # before the cache is asked, which would answer all the same
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
        except RuntimeError:  # of a build that calls itself by the same version
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
