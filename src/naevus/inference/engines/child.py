"""The child process that tries a setup, so that a crash cannot affect the parent.

It reads a `Task` from standard input, loads the networks, runs them on the bundle's sample and
prints their distance to the expected outputs. For every further line it runs all networks once and
prints the time of each. Input and output have one JSON value per line.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import numpy as np

from naevus.bundles.sample import compared, distance, read_sample, sample_batch
from naevus.errors import NaevusError
from naevus.inference.engines import open_engine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from naevus.inference.engines.base import Engine
    from naevus.types import EngineName, Precision


class Network(NamedTuple):
    """A network to try.

    Attributes:
        path: Its graph file.
        size: Side of its input in pixels.
        sample: The bundle's sample; None if it has none: then outputs only need to be finite.
        precision: Precision of the computation.
    """

    path: str
    size: int
    sample: str | None
    precision: Precision


class Task(NamedTuple):
    """Networks to try, and the engine to try them with."""

    engine: EngineName
    networks: tuple[Network, ...]


class Output(NamedTuple):
    """The result of one network: the distance to the expected outputs, or the problem."""

    distance: float | None
    problem: str | None


def main() -> None:
    """Process standard input until it ends."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as stream:
        os.dup2(2, 1)  # keeps library output away from the parent
        given = json.loads(sys.stdin.readline())
        task = Task(given["engine"], tuple(Network(*each) for each in given["networks"]))
        loaded = [_opened(task.engine, network) for network in task.networks]
        _write(stream, [each[0]._asdict() for each in loaded])
        runs = [each[1:] for each in loaded]
        for _ in sys.stdin:
            _write(stream, [_seconds(*each) for each in runs])


def _write(stream: TextIO, what: Any) -> None:
    stream.write(json.dumps(what) + "\n")
    stream.flush()


def _opened(
    engine: EngineName, network: Network
) -> tuple[Output, Engine | None, NDArray[np.uint8] | None]:
    path = Path(network.path)
    reference = None
    try:
        if network.sample is None:
            pixels = np.linspace(0, 255, network.size**2 * 3).astype(np.uint8)
            batch = sample_batch(pixels.reshape(network.size, network.size, 3), network.size)
        else:
            sample = read_sample(Path(network.sample), {path.name: network.size})
            batch = sample_batch(sample.pixels, network.size)
            reference = sample.predictions[path.name]
        # One thread, so that timings do not depend on how many processors are idle.
        opened = open_engine(path, engine, 1, precision=network.precision)
        answer = compared(opened.run(batch))
    except NaevusError as error:
        return Output(None, str(error)), None, None
    off = distance(answer, answer if reference is None else reference)
    if np.isinf(off):
        return Output(None, "outputs are not finite, or have another shape"), None, None
    return Output(off, None), opened, batch


def _seconds(opened: Engine | None, batch: NDArray[np.uint8] | None) -> float | None:
    if opened is None or batch is None:
        return None
    start = time.perf_counter()
    opened.run(batch)
    return time.perf_counter() - start
