"""Ways of running networks, each tried in a process of its own, and timed in turn."""

from __future__ import annotations

import json
import math
import queue
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from naevus.inference.engines.child import Network, Task
from naevus.inference.engines.instructions import environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from naevus.types import EngineName, Precision

ROUNDS: Final = 3
TIMEOUT: Final = "gave no answer in time"
_LENGTH: Final = 300  # of a problem that is told


class TrialNetwork(NamedTuple):
    """A network and how it is judged.

    Attributes:
        task: ``segmentation`` or ``classification``.
        path: Its graph.
        size: Side of the square it sees, pixels.
        sample: The bundle's sample; None where it has none.
        tolerances: How far its answers may be from the sample's, by precision.
    """

    task: str
    path: str
    size: int
    sample: str | None
    tolerances: Mapping[Precision, float]


class EngineSetup(NamedTuple):
    """A way to run networks.

    Attributes:
        engine: What runs them.
        precision: What they compute in.
        limit: Which instructions the process is held to; None: those it is held to now.
    """

    engine: EngineName
    precision: Precision
    limit: str | None = None

    def __str__(self) -> str:
        """Return it in words."""
        held = f" up to {self.limit}" if self.limit else ""
        return f"{self.engine} {self.precision}{held}"


class Result(NamedTuple):
    """What came of one network in one way.

    Attributes:
        problem: Why it cannot be used so; None where it can.
        distance: How far its answers are off, where there are any.
        seconds: For 8 images on one thread, in each round.
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
    """Try ways of running networks, each in a process of its own.

    Args:
        setups: The first is waited for longest.
        networks: All are tried in each way.
        limit_s: How long all of it may take, seconds; who has not answered by then has failed.
        patience_s: How long the first way may take, and its first round.
        rounds: How often each is timed, in turn; rounds for which there is no time are left out.

    Returns:
        For each way what came of each network.
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
    """A process that tries one way. Use as a context: it ends with it."""

    def __init__(self, setup: EngineSetup, networks: Sequence[TrialNetwork]) -> None:
        self._setup, self._networks = setup, networks
        self._answers: queue.Queue[str | None] = queue.Queue()

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
            except OSError:  # what was still to be written to a process that is gone
                continue

    def evaluated(self, left: float) -> list[Result]:
        """Return what came of each network."""
        answer = self._answer(left)
        if isinstance(answer, str):
            return [Result(answer)] * len(self._networks)
        results = []
        for network, one in zip(self._networks, answer, strict=True):
            distance = one["distance"]
            allowed = network.tolerances.get(self._setup.precision)
            problem = one["problem"]
            if problem is None and network.sample is not None:
                if allowed is None:
                    problem = "was not measured for this bundle"
                elif not distance <= allowed:
                    problem = f"wrong answers (off by {distance:.2g} where {allowed:.2g} may be)"
            results.append(Result(problem and problem[:_LENGTH], distance))
        return results

    def timed(self, left: float) -> Sequence[float | None] | str:
        """Run all networks once more; seconds each, or what went wrong: "" for want of time."""
        if left <= 0:
            return ""
        self._send("")
        answer: Any = self._answer(left)
        return "" if answer == TIMEOUT else answer

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except OSError:  # it has ended; the answer tells how
            return

    def _listen(self) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                self._answers.put(line.decode())
        except ValueError:  # closed, for the trial has ended
            pass
        self._answers.put(None)

    def _answer(self, left: float) -> Any:
        """Return what the process says next; a string where it says nothing more."""
        try:
            line = self._answers.get(timeout=max(left, 0.01))
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
    """Return what starts a child: this interpreter, which looks for modules where we do."""
    start = f"import sys; sys.path[:] = {sys.path!r}; from naevus.inference.engines import child"
    return [sys.executable, "-c", f"{start}; child.main()"]
