"""Trials of engine setups, each in its own process, timed in turn."""

from __future__ import annotations

import json
import math
import queue
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from naevus.inference.engines.child import Network, Task
from naevus.inference.engines.instructions import environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from naevus.types import EngineName, Precision

ROUNDS: Final = 3
TIMEOUT: Final = "timed out"
_LENGTH: Final = 300  # characters of a problem


class TrialNetwork(NamedTuple):
    """A network to try, with its expected outputs.

    Attributes:
        task: ``segmentation`` or ``classification``.
        path: Its graph file.
        size: Side of its input in pixels.
        sample: The bundle's sample; None if it has none.
        tolerances: Allowed distance to the sample's outputs, by precision.
    """

    task: str
    path: str
    size: int
    sample: str | None
    tolerances: Mapping[Precision, float]


class EngineSetup(NamedTuple):
    """A setup for running networks.

    Attributes:
        engine: The inference engine.
        precision: Precision of the computation.
        limit: The process's instruction set limit; None: the current limit.
    """

    engine: EngineName
    precision: Precision
    limit: str | None = None

    def __str__(self) -> str:
        """Return a short description."""
        held = f" up to {self.limit}" if self.limit else ""
        return f"{self.engine} {self.precision}{held}"


class Result(NamedTuple):
    """The result of one network in one setup.

    Attributes:
        problem: Why the setup is invalid for the network; None if it is valid.
        distance: Distance to the expected outputs, if there are outputs.
        seconds: Time for 8 images on one thread, in each round.
    """

    problem: str | None
    distance: float | None = None
    seconds: tuple[float, ...] = ()


def tried(
    setups: Sequence[EngineSetup],
    networks: Sequence[TrialNetwork],
    *,
    limit_s: float,
    patience_s: float,
    rounds: int = ROUNDS,
) -> dict[EngineSetup, list[Result]]:
    """Try setups for running networks, each in its own process.

    Args:
        setups: The setups; the first gets the most time.
        networks: The networks, all of which are tried in each setup.
        limit_s: Time limit of the whole trial in seconds; setups that take longer have failed.
        patience_s: Time limit of the first setup, and of its first round.
        rounds: How often each setup is timed, in turn; rounds without time are skipped.

    Returns:
        The results of all networks for each setup.
    """
    start = time.monotonic()
    found: dict[EngineSetup, list[Result]] = {}
    with ExitStack() as stack:
        children = {setup: stack.enter_context(_Child(setup, networks)) for setup in setups}
        for number, (setup, child) in enumerate(children.items()):
            allowed = limit_s if number else patience_s
            found[setup] = child.evaluated(start + allowed - time.monotonic())
        sound = [
            setup for setup, results in found.items() if any(not each.problem for each in results)
        ]
        for _ in range(rounds):
            for setup in sound:
                left = start + limit_s - time.monotonic()
                _add_round(found[setup], children[setup].timed(left))
    return found


def _add_round(results: list[Result], seconds: Sequence[float | None] | str) -> None:
    for number, result in enumerate(results):
        if result.problem is not None:
            continue
        if isinstance(seconds, str):
            if seconds:
                results[number] = Result(seconds, result.distance)
        elif (taken := seconds[number]) is not None:
            results[number] = result._replace(seconds=(*result.seconds, taken))


class _Child:
    """A child process that tries one setup; use it as a context manager."""

    def __init__(self, setup: EngineSetup, networks: Sequence[TrialNetwork]) -> None:
        self._setup, self._networks = setup, networks
        self._replies: queue.Queue[str | None] = queue.Queue()

    def __enter__(self) -> Self:
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(  # noqa: S603 (our own interpreter)
            command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment(self._setup.limit),
        )
        Thread(target=self._listen, daemon=True).start()
        task = Task(
            self._setup.engine,
            tuple(
                Network(each.path, each.size, each.sample, self._setup.precision)
                for each in self._networks
            ),
        )
        self._send(json.dumps(task._asdict()))
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            assert stream is not None
            try:
                stream.close()
            except OSError:  # unwritten data for a process that is gone
                continue

    def evaluated(self, left: float) -> list[Result]:
        """Return the result of each network."""
        reply = self._reply(left)
        if isinstance(reply, str):
            return [Result(reply)] * len(self._networks)
        results = []
        for network, one in zip(self._networks, reply, strict=True):
            distance = one["distance"]
            allowed = network.tolerances.get(self._setup.precision)
            problem = one["problem"]
            if problem is None and network.sample is not None:
                if allowed is None:
                    name = Path(network.path).name
                    problem = f"{name} was not checked in {self._setup.precision}"
                elif not distance <= allowed:
                    problem = f"wrong outputs (off by {distance:.2g}, allowed {allowed:.2g})"
            results.append(Result(problem and problem[:_LENGTH], distance))
        return results

    def timed(self, left: float) -> Sequence[float | None] | str:
        """Time all networks once more: seconds each, or the problem; "" if time ran out."""
        if left <= 0:
            return ""
        self._send("")
        reply: Any = self._reply(left)
        return "" if reply == TIMEOUT else reply

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except OSError:  # it has ended; `_reply` reports how
            return

    def _listen(self) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                self._replies.put(line.decode())
        except ValueError:  # closed, because the trial has ended
            pass
        self._replies.put(None)

    def _reply(self, left: float) -> Any:
        """Return the process's next reply; a string with the problem if there is none."""
        try:
            line = self._replies.get(timeout=max(left, 0.01))
        except queue.Empty:
            return TIMEOUT
        if line is not None:
            return json.loads(line, parse_constant=lambda _: math.inf)
        code = self._process.wait()
        if code < 0:
            return f"crashes (signal {-code})"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"fails ({lines[-1][:_LENGTH] if lines else f'exit code {code}'})"


def command() -> list[str]:
    """Return the command of a child: this interpreter, with the same module search path."""
    start = f"import sys; sys.path[:] = {sys.path!r}; from naevus.inference.engines import child"
    return [sys.executable, "-c", f"{start}; child.main()"]
