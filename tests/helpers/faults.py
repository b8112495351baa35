"""Run naevus commands in forks of one process, and break them on the way.

Run as a module, it imports everything once, then reads one request per line (JSON, see `Request`),
carries it out in a fork, and prints the outcome. Forks start in milliseconds, so that commands can
be killed often.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass
from functools import reduce
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

from tests.helpers import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Fault:
    """What happens to a command.

    Attributes:
        act: ``kill``, ``stop`` or another signal by its name (``SIGINT``); ``memory`` for a
            `MemoryError`; the name of an errno (``ENOSPC``), which the operation then raises; or
            ``remove``, ``cut`` and ``grow`` for a file that changes just before it is opened.
        event: At which change of a file below the command's folder, from 1. Python announces
            each (`sys.addaudithook`): opening for writing, renaming, removing, making folders.
        reading: Count openings for reading of files whose path contains this, in place of changes.
        after_s: Seconds after which a signal is sent, in place of an event.
        call: The function (``package.module:name``) whose call counts, in place of an event.
        after: Whether that call is completed first.
    """

    act: str = "kill"
    event: int = 1
    reading: str | None = None
    after_s: float | None = None
    call: str | None = None
    after: bool = False

    @property
    def signal(self) -> signal.Signals | None:
        """The signal that is sent, if it is one."""
        name = {"kill": "SIGKILL", "stop": "SIGSTOP"}.get(self.act, self.act)
        return signal.Signals[name] if name.startswith("SIG") else None


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        code: Its exit code; negative for a signal.
        seconds: How long it ran.
        events: Number of changes of files below its folder.
        reached: Whether the fault was reached.
        ending_s: Seconds from the signal to the end.
        out: Standard output.
        error: Standard error.
    """

    code: int
    seconds: float
    events: int
    reached: bool
    ending_s: float
    out: str
    error: str


class Commands:
    """Run commands, each in a fork of a process that has imported everything.

    Args:
        modules: What is imported.
        hash_seed: The seed of Python's hashes, on which the order of sets depends.
    """

    def __init__(self, *modules: str, hash_seed: int = 0) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.faults", *modules],
            cwd=ROOT,
            env={
                **os.environ,
                "NAEVUS_CACHE": "off",
                "PYTHONHASHSEED": f"{hash_seed}",
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
                "MPLBACKEND": "agg",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(
        self,
        arguments: Sequence[object],
        folder: Path,
        fault: Fault | None = None,
        logs: Path | None = None,
    ) -> None:
        """Start a command in a folder; `wait` returns how it ended.

        Args:
            arguments: The words after ``naevus``.
            folder: The folder it runs in; it is created.
            fault: What happens to it.
            logs: Output goes to this path with ``.out`` and ``.err``; by default the folder's.
        """
        folder.mkdir(parents=True, exist_ok=True)
        request = {
            "arguments": [str(word) for word in arguments],
            "folder": str(folder),
            "logs": str(logs or folder),
            "fault": fault and asdict(fault),
        }
        assert self._server.stdin
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()

    def wait(self) -> Outcome:
        """Return how the command ended that was started."""
        assert self._server.stdout
        return Outcome(**json.loads(self._server.stdout.readline()))

    def run(
        self,
        arguments: Sequence[object],
        folder: Path,
        fault: Fault | None = None,
        logs: Path | None = None,
    ) -> Outcome:
        """Run a command, see `start`."""
        self.start(arguments, folder, fault, logs)
        return self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate()


# The process that forks.

_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.chmod"}


class _Counters:
    """Numbers that a fork leaves behind, even when it is killed."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 24)  # three numbers

    def __setitem__(self, place: int, value: float) -> None:
        struct.pack_into("d", self._memory, 8 * place, value)

    def __getitem__(self, place: int) -> float:
        return float(struct.unpack_from("d", self._memory, 8 * place)[0])


_EVENTS, _REACHED, _BEGUN = 0, 1, 2


def _changed(event: str, arguments: tuple[Any, ...]) -> str | None:
    """Return the path that an event is about to change."""
    if event in _CHANGES:
        path = arguments[0]
    elif event == "open" and isinstance(arguments[2], int):
        path = arguments[0] if arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else None
    else:
        return None
    if isinstance(path, (str, bytes, os.PathLike)):
        return os.path.abspath(os.fsdecode(path))
    return None


def _read(event: str, arguments: tuple[Any, ...]) -> str | None:
    """Return the path that an event is about to read."""
    if event != "open" or not isinstance(arguments[0], (str, bytes, os.PathLike)):
        return None
    return None if _changed(event, arguments) else os.path.abspath(os.fsdecode(arguments[0]))


def _watch(folder: Path, counters: _Counters, fault: Fault | None) -> None:
    """Count the changes of files below a folder, and act at the fault's one."""
    start, numbers, reads = f"{folder}{os.sep}", count(1), count(1)
    timed = fault is not None and (fault.after_s is not None or fault.call is not None)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        path = _changed(event, arguments)
        if path is not None and path.startswith(start):
            number = next(numbers)
            counters[_EVENTS] = number
            if fault and not timed and fault.reading is None and number == fault.event:
                _act(fault, path, counters)
        elif fault and fault.reading is not None and not timed:
            path = _read(event, arguments)
            if path is not None and fault.reading in path and next(reads) == fault.event:
                _act(fault, path, counters)

    sys.addaudithook(hook)


def _act(fault: Fault, path: str, counters: _Counters) -> None:
    counters[_REACHED] = time.monotonic()
    if fault.signal is not None:
        os.kill(os.getpid(), fault.signal)
    elif fault.act == "memory":
        raise MemoryError
    elif fault.act == "remove":
        os.unlink(path)
    elif fault.act == "cut":
        os.truncate(path, os.stat(path).st_size // 2)
    elif fault.act == "grow":
        with open(path, "ab") as stream:
            stream.write(b"\0" * 100)
    else:
        import errno

        code = getattr(errno, fault.act)
        raise OSError(code, os.strerror(code), path)


def _arm(fault: Fault, counters: _Counters) -> None:
    """Act at the call of a function."""
    assert fault.call
    module, _, names = fault.call.partition(":")
    *owners, name = names.split(".")
    owner: Any = reduce(getattr, owners, import_module(module))
    original, calls = getattr(owner, name), count(1)

    def faulty(*args: Any, **kwargs: Any) -> Any:
        last = next(calls) == fault.event
        if last and not fault.after:
            _act(fault, "", counters)
        result = original(*args, **kwargs)
        if last and fault.after:
            _act(fault, "", counters)
        return result

    setattr(owner, name, faulty)


def _carry_out(request: dict[str, Any], counters: _Counters) -> NoReturn:
    folder = Path(request["folder"])
    for number, path in enumerate(_logs(request), 1):
        os.dup2(os.open(path, os.O_WRONLY), number)
    os.chdir(folder)
    tempfile.tempdir = str(folder / "tmp")
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache-home")
    fault = Fault(**request["fault"]) if request["fault"] else None
    if fault and fault.call:
        _arm(fault, counters)
    _watch(folder, counters, fault)
    sys.argv = ["naevus", *request["arguments"]]
    code = 70
    run = import_module("naevus.__main__").run
    counters[_BEGUN] = time.monotonic()
    try:
        run()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 (the fork must not go on as its parent)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _logs(request: dict[str, Any]) -> tuple[Path, Path]:
    return Path(request["logs"] + ".out"), Path(request["logs"] + ".err")


_AT_LEAST_S = 0.02


def _since(moment: float) -> float:
    """Return the seconds since a moment; 0 before it."""
    return time.monotonic() - moment if moment else 0.0


def _outcome(request: dict[str, Any]) -> Outcome:
    counters, folder = _Counters(), Path(request["folder"])
    for path in _logs(request):
        path.write_bytes(b"")
    (folder / "tmp").mkdir(exist_ok=True)
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        _carry_out(request, counters)
    Path(request["logs"] + ".pid").write_text(f"{child}")
    fault = Fault(**request["fault"]) if request["fault"] else None
    if fault is not None and fault.after_s is not None:
        # Before it has begun, a signal is Python's own business.
        while (left := fault.after_s + _AT_LEAST_S - _since(counters[_BEGUN])) > 0:
            time.sleep(min(left, 0.005))
            if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                break
        else:
            assert fault.signal
            counters[_REACHED] = time.monotonic()
            os.kill(child, fault.signal)
    _, status = os.waitpid(child, 0)
    ended = time.monotonic()
    reached = counters[_REACHED]
    texts = [path.read_text(errors="replace") for path in _logs(request)]
    return Outcome(
        os.waitstatus_to_exitcode(status),
        ended - begun,
        int(counters[_EVENTS]),
        reached > 0,
        ended - reached if reached else 0.0,
        *texts,
    )


def main() -> None:
    """Carry out the requests on standard input."""
    for module in ("naevus.cli.main", *sys.argv[1:]):
        import_module(module)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(asdict(_outcome(json.loads(line)))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
