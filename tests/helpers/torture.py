"""Commands that are broken on purpose, and what must hold afterwards.

A job is a command with all its inputs. It is run once undisturbed. It is then broken and repeated
in another folder until it succeeds, and both folders must hold the same bytes.
"""

from __future__ import annotations

import csv
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from safetensors import SafetensorError, safe_open

from naevus.io.parallel import cpu_count
from tests.helpers.faults import Commands, Fault, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


@dataclass(frozen=True)
class Job:
    """A command.

    Attributes:
        name: Its name in the table.
        arguments: The command's words; outputs are relative to the folder that it runs in.
        prepare: Puts inputs into that folder, if the command changes them.
        differs: Patterns of files that may differ from an undisturbed job's, since they hold times.
        grows: Checks of files that change until the end, by pattern.
    """

    name: str
    arguments: tuple[object, ...]
    prepare: Callable[[Path], object] | None = None
    differs: tuple[str, ...] = ()
    grows: Mapping[str, Callable[[Path], object]] = field(default_factory=dict)


_OWN = ("*.lock", "tmp")
"""Files that are not results: locks, and the folder for temporary files, which must be empty."""

_UNFINISHED = ("*.tmp*", "*.part", "*/.building/*", "*/.parts/*", ".download.lock")
"""Names of files that are known to be unfinished."""


def content(folder: Path) -> dict[str, bytes | None]:
    """Return the bytes of all files by their path; folders have None."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if not any(fnmatch(path.name, pattern) for pattern in _OWN)
    }


def readable_tensors(path: Path) -> None:
    """Read a file of tensors."""
    with safe_open(path, framework="np") as stored:
        for name in stored.keys():  # noqa: SIM118
            stored.get_slice(name).get_shape()


def whole_rows(path: Path) -> None:
    """Read a table in which every row has all cells and no epoch occurs twice."""
    with path.open(newline="") as stream:
        header, *rows = list(csv.reader(stream))
    assert all(len(row) == len(header) for row in rows)
    assert len({row[0] for row in rows}) == len(rows)


def anything(path: Path) -> None:
    """Accept a file that is only appended to."""


class Losses(NamedTuple):
    """The result of a torture: how often it was tried, and what was lost."""

    tried: int
    lost: list[str]


class Torture:
    """One job, its undisturbed result, and the faults it is put through."""

    def __init__(
        self, job: Job, commands: Commands, others: Commands, folder: Path, seed: int = 0
    ) -> None:
        self.job, self.commands, self.others, self.folder = job, commands, others, folder
        self.rng = random.Random(f"{job.name} {seed}")
        self._chains = 0

    def fresh(self) -> Path:
        """Return a new folder for the job."""
        self._chains += 1
        return self._made(f"chain-{self._chains}")

    def _made(self, name: str) -> Path:
        folder = self.folder / self.job.name.replace(" ", "-") / name
        folder.mkdir(parents=True)
        if self.job.prepare is not None:
            self.job.prepare(folder)
        return folder

    def run(self, folder: Path, fault: Fault | None = None) -> Outcome:
        """Run the job."""
        return self.commands.run(self.job.arguments, folder, fault)

    @cached_property
    def undisturbed(self) -> tuple[Outcome, dict[str, bytes | None]]:
        """The outcome and the files of a job that nothing happened to."""
        folder = self._made("undisturbed")
        outcome = self.run(folder)
        assert outcome.code in (0, 1), outcome.error
        files = content(folder)
        shutil.rmtree(folder)
        return outcome, files

    def is_as_undisturbed(self, folder: Path) -> Iterator[str]:
        """Yield what is lost, doubled or different in a folder where the job has succeeded."""
        files, expected = content(folder), self.undisturbed[1]
        yield from (f"{name} is missing" for name in expected.keys() - files.keys())
        yield from (f"{name} is left over" for name in files.keys() - expected.keys())
        yield from (f"{each.name} is left over" for each in (folder / "tmp").iterdir())
        for name in sorted(expected.keys() & files.keys()):
            if self._may_differ(name):
                continue
            if files[name] != expected[name]:
                yield f"{name} has other bytes"

    def has_only_whole_files(self, folder: Path) -> Iterator[str]:
        """Yield the files of a broken job that are neither finished nor marked as unfinished."""
        expected = self.undisturbed[1]
        for name, found in content(folder).items():
            if found is None or any(fnmatch(name, each) for each in _UNFINISHED):
                continue
            check = next((c for p, c in self.job.grows.items() if fnmatch(name, p)), None)
            try:
                if check is not None:
                    check(folder / name)
                elif name not in expected:
                    yield f"{name} is no result"
                elif expected[name] != found and not self._may_differ(name):
                    yield f"{name} is unfinished"
            except (AssertionError, SafetensorError, ValueError, OSError) as error:
                yield f"{name} is damaged ({error})"

    def _may_differ(self, name: str) -> bool:
        return any(fnmatch(name, pattern) for pattern in self.job.differs)

    def faults(self, act: str, *, timed: bool = True) -> Iterator[Fault]:
        """Yield random faults: at a change of a file, and in turn after a random time."""
        outcome = self.undisturbed[0]
        while True:
            yield Fault(act, event=self.rng.randint(1, outcome.events))
            if timed:
                yield Fault(act, after_s=self.rng.uniform(0, outcome.seconds))

    def kill(self, times: int, longest: int = 5) -> Losses:
        """Kill the job at random points, and repeat it, in chains of random length.

        Args:
            times: Number of kills.
            longest: Kills in a row after which the job may end.
        """
        lost: list[str] = []
        faults, done = self.faults("kill"), 0
        while done < times:
            folder, length = self.fresh(), self.rng.randint(1, longest)
            for _ in range(min(length, times - done)):
                outcome = self.run(folder, next(faults))
                if outcome.code != -9:
                    break
                done += 1
                lost += self.has_only_whole_files(folder)
            lost += self.finish(folder)
        return Losses(done, lost)

    def fail(self, act: str, times: int) -> Losses:
        """Let random changes of files fail, as on a full disk or in a read-only folder.

        The job must end with one line about it, unless it can do without that change.
        """
        lost: list[str] = []
        for fault in islice(self.faults(act, timed=False), times):
            folder = self.fresh()
            outcome = self.run(folder, fault)
            lost += self.is_one_error(outcome)
            lost += self.has_only_whole_files(folder)
            lost += self.finish(folder)
        return Losses(times, lost)

    def is_one_error(self, outcome: Outcome) -> Iterator[str]:
        """Yield what is wrong with the end of a job that may have failed."""
        if outcome.code == self.undisturbed[0].code:
            return
        lines = [line for line in outcome.error.splitlines() if line.startswith("error:")]
        last = outcome.error.strip().splitlines()[-1:]
        if outcome.code != 2 or len(lines) != 1 or last != lines or "bug in naevus" in last[0]:
            yield f"ends with {outcome.code}: {''.join(last)}"

    def end(self, act: str, times: int) -> Losses:
        """Interrupt or terminate the job at random points; it must end within two seconds."""
        lost: list[str] = []
        code = {"SIGINT": 130, "SIGTERM": 143}[act]
        for fault in islice(self.faults(act), times):
            folder = self.fresh()
            outcome = self.run(folder, fault)
            if outcome.reached and outcome.code != self.undisturbed[0].code:
                last = "".join(outcome.error.strip().splitlines()[-1:])
                if outcome.code != code or "run the same command again to resume" not in last:
                    lost.append(f"ends with {outcome.code}: {last}")
                lost += self.has_only_whole_files(folder)
            if outcome.ending_s > _ENDING_S * busy():
                lost.append(f"ends after {outcome.ending_s:.1f} s")
            lost += self.finish(folder)
        return Losses(times, lost)

    def fill_disk(self, times: int) -> Losses | None:
        """Run the job on a disk that is too small, then give it space; None if none can be made."""
        lost: list[str] = []
        needed = sum(len(each or b"") for each in self.undisturbed[1].values())
        for _ in range(times):
            folder = self.fresh()
            size = int(needed * self.rng.uniform(0.2, 0.8))
            if not mount(folder, f"size={size}"):
                return None
            try:
                if self.job.prepare is not None:
                    mount(folder, "remount,size=1g")
                    self.job.prepare(folder)
                    used = sum(each.stat().st_size for each in folder.rglob("*"))
                    mount(folder, f"remount,size={used + size}")
                outcome = self.run(folder)
                lost += self.is_one_error(outcome)
                lost += self.has_only_whole_files(folder)
                mount(folder, "remount,size=1g")
                lost += self.finish(folder, remove=False)
            finally:
                subprocess.run(["umount", "-l", str(folder)], check=True)
        return Losses(times, lost)

    def run_twice(self, times: int) -> Losses:
        """Start the job where it is already running; the first must end as if undisturbed."""
        lost: list[str] = []
        for fault in islice(self.faults("stop", timed=False), times):
            folder = self.fresh()
            self.commands.start(self.job.arguments, folder, fault)
            process = _stopped(folder.with_name(f"{folder.name}.pid"))
            waking = threading.Timer(_STOPPED_S, _wake, [process])
            waking.start()
            second = folder.with_name(f"{folder.name}-second")
            outcome = self.others.run(self.job.arguments, folder, logs=second)
            waking.join()
            first = self.commands.wait()
            if first.code != self.undisturbed[0].code:
                lost.append(f"the first ends with {first.code}: {first.error[-200:]}")
            lost += self.is_one_error(outcome)
            lost += self.is_as_undisturbed(folder)
            shutil.rmtree(folder)
        return Losses(times, lost)

    def finish(self, folder: Path, *, remove: bool = True) -> Iterator[str]:
        """Run the job to its end, and yield what is not as it would be undisturbed.

        It ends in another process, so that nothing depends on the order of sets.
        """
        outcome = self.others.run(self.job.arguments, folder)
        expected = self.undisturbed[0]
        if outcome.code != expected.code:
            last = outcome.error.strip().splitlines()[-1:]
            yield f"exit code {outcome.code} instead of {expected.code}: {''.join(last)}"
        else:
            yield from self.is_as_undisturbed(folder)
        if remove:
            shutil.rmtree(folder)


_ENDING_S = 2.0
_STOPPED_S = 0.5


def busy() -> float:
    """Return how many processes share each processor, at least 1: seconds are so much longer."""
    return max(1.0, os.getloadavg()[0] / cpu_count())


def mount(folder: Path, options: str) -> bool:
    """Mount or remount a file system in memory; return whether that is possible."""
    command = ["mount", "-o", options, "-t", "tmpfs", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _stopped(path: Path) -> int:
    """Return the process named in a file, once it is stopped or has ended."""
    process = 0
    for _ in range(6000):
        with suppress(OSError, ValueError):
            process = int(path.read_text())
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
            if state in "TZ":
                break
        if process and not Path(f"/proc/{process}").exists():
            break
        time.sleep(0.01)
    return process


def _wake(process: int) -> None:
    with suppress(OSError):
        os.kill(process, signal.SIGCONT)
