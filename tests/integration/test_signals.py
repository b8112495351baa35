"""Ctrl-C and SIGTERM end a command within two seconds, whatever it is doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from naevus.cli import main, signals

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no such signals on Windows")

BEGIN = """
import ctypes, sys, time
from naevus.cli import main, signals

def work(hangs):
    while True:
        try:
            print("working", flush=True)
            getattr(time if hangs == "deaf" else ctypes.CDLL(None), "sleep")(60)
        except KeyboardInterrupt:
            if hangs != "deaf":
                raise

signals.end_soon()
main.app.command("work")(main._guarded(lambda: work(sys.argv[2])))
main.run()
"""


@pytest.mark.parametrize("hangs", ["native", "deaf"])
@pytest.mark.parametrize(
    ("number", "code", "line"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_command_that_hangs_ends_soon(
    hangs: str, number: signal.Signals, code: int, line: str
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", BEGIN.replace("sys.argv[2]", repr(hangs)), "work"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "working\n"
        process.send_signal(number)
        begun = time.monotonic()
        assert process.stderr
        error = process.stderr.read()
        process.wait(60)
        # Tests measure no time, but this is the promise; a busy machine may need longer.
        assert time.monotonic() - begun < 10
    assert error == f"{line}; run the same command again to resume\n"
    assert process.returncode == code


def test_a_second_signal_ends_a_command_at_once() -> None:
    slow = BEGIN.replace("sys.argv[2]", "'deaf'").replace(
        "signals.end_soon()", "signals._GRACE_S = 600; signals.end_soon()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", slow, "work"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)], ids=repr)
def test_an_interruption_outside_a_command_is_reported_alike(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(**_: object) -> None:
        raise error

    monkeypatch.setattr(signals._state, "signal", signal.SIGTERM)
    monkeypatch.setattr(signals._state, "reported", False)
    monkeypatch.setattr(main, "app", interrupted)
    with pytest.raises(SystemExit) as end:
        main.run()
    assert end.value.code == 143
    assert capsys.readouterr().err == "terminated; run the same command again to resume\n"


@pytest.mark.parametrize("ending", [True, False])
@pytest.mark.parametrize("note", ["nothing is kept yet", ""])
def test_the_line_says_what_is_lost(
    note: str, ending: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after the block, which the interruption has left; not once the block has ended."""
    monkeypatch.setattr(signals, "_state", signals._State())
    with suppress(KeyboardInterrupt), signals.noting(lambda: note):
        if ending:
            signals._raise(signal.SIGINT, None)
    said = "; nothing is kept yet" if ending and note else ""
    assert signals.line() == f"interrupted{said}; run the same command again to resume"
