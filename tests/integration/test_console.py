"""The output of commands in any terminal, with any arguments and any failure."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from rich.table import Table
from rich.text import Text
from typer.testing import CliRunner

from naevus.cli import console as terminal
from naevus.cli import data as check_command
from naevus.cli.info import _engines
from naevus.cli.main import app


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes below a folder whose name looks like markup; one image is damaged."""
    root = tmp_path_factory.mktemp("data") / "photos [/b] [red]x"
    for name in ("melanoma", "nevus"):
        (root / name).mkdir(parents=True)
        for number in range(2):
            pixels = np.full((120, 120, 3), 40 * number + len(name), np.uint8)
            _, encoded = cv2.imencode(".png", pixels)
            (root / name / f"{name}\u2013{number} \xe9.png").write_bytes(encoded.tobytes())
    (root / "nevus" / "cut [bold].png").write_bytes(b"\x89PNG")
    return root


def naevus(*words: object, **variables: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "naevus", *map(str, words)],
        env={**os.environ, **variables},
        capture_output=True,
        check=False,
    )
    return done.returncode, done.stdout.decode("latin-1"), done.stderr.decode("latin-1")


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii", "COLUMNS": "30"},
        {"PYTHONIOENCODING": "cp1252", "TERM": "dumb"},
        {"PYTHONIOENCODING": "latin-1", "NO_COLOR": "1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=lambda variables: "-".join(variables.values()),
)
def test_any_encoding_and_width_works(variables: dict[str, str], folder: Path) -> None:
    code, out, error = naevus("data", "check", folder, **variables)
    assert code == 1 or "no known layout" in error  # where no name with an accent is text
    assert "Traceback" not in error
    assert "findings" in out or "LC_ALL" in variables


def test_images_whose_names_are_not_text_are_findings(tmp_path: Path) -> None:
    for name in (b"nevus/a.png", b"melanoma/b.png", b"nevus/caf\xe9.png"):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(cv2.imencode(".png", np.zeros((120, 120, 3), np.uint8))[1].tobytes())
    answer = CliRunner().invoke(app, ["data", "check", str(tmp_path)])
    assert answer.exit_code == 1, answer.output
    assert "name is not UTF-8" in answer.output
    assert "caf\\xe9.png" in answer.output


def test_names_are_printed_as_they_are(folder: Path) -> None:
    answer = CliRunner().invoke(app, ["data", "check", str(folder)])
    assert "cut [bold]" in answer.output
    missing = CliRunner().invoke(app, ["data", "check", str(folder / "[/red]")])
    assert missing.exit_code == 2
    assert "[/red]" in missing.output


def test_names_that_are_not_text_are_printed(tmp_path: Path) -> None:
    code, _, error = naevus("data", "check", os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    assert code == 2
    assert "caf\\xe9" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("fault", "output"),
    [
        (ValueError("three\nlines\nlong"), "ValueError: three lines long; this is a bug in"),
        (MemoryError(), "out of memory"),
        (RuntimeError("std::bad_alloc"), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out of memory"),
        (RuntimeError("can't start new thread"), "cannot start more threads"),
        (OSError(28, "No space left on device", "/full/x"), "/full/x: No space left on device"),
        (KeyError("column"), "KeyError"),
    ],
)
def test_any_failure_is_one_line_and_exit_code_2(
    fault: Exception, output: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr("naevus.datasets.layouts.load", fails)
    answer = CliRunner().invoke(app, ["data", "check", str(folder)])
    assert answer.exit_code == 2
    assert output in answer.stderr
    assert answer.stderr.count("\n") == 1
    shown = CliRunner().invoke(app, ["--debug", "data", "check", str(folder)])
    assert shown.exit_code == 2
    assert "Traceback" in shown.stderr
    assert Path(str(check_command.__file__)).name in shown.stderr


def test_an_interruption_while_loading_exits_with_130(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'naevus.cli.predict': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
    )
    code, _, error = naevus("--help", PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]))
    assert code == 130
    assert error == "interrupted before anything was done\n"


WORDS = " ".join(f"word{number}" for number in range(60))


@pytest.mark.parametrize("in_file", [True, False])
@pytest.mark.parametrize("kind", [str, Text])
def test_text_is_wrapped_only_where_there_is_a_width(
    kind: type, in_file: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "_HAS_WIDTH", not in_file)
    console = terminal._Console(width=120, file=io.StringIO(), markup=False)
    console.print(kind(WORDS))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert (lines == [WORDS]) == in_file
    assert " ".join(lines).split() == WORDS.split()
    console.print(Table("column", title=WORDS))
    assert max(map(len, console.file.getvalue().splitlines()[len(lines) :])) <= 120


def test_lines_of_the_log_are_neither_wrapped_nor_padded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = logging.getLogger("naevus.training.train")
    with terminal.warnings_on_screen(), terminal.log_on_screen():
        log.info("fold 0: %s", WORDS)
        log.warning("fold 0: %s", WORDS)
    assert capsys.readouterr().err == f"fold 0: {WORDS}\nnote: fold 0: {WORDS}\n"


def test_the_command_that_installs_an_engine_is_shown_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use = "install/" + "-".join(f"{number}" for number in range(60)) + "[onnxruntime]"
    one = SimpleNamespace(name="onnxruntime", version=None, devices=(), precisions=(), use=use)
    monkeypatch.setattr("naevus.inference.engines.survey", lambda: [one])
    console = terminal._Console(width=100, file=io.StringIO(), markup=False)
    console.print(_engines(Table()))
    assert isinstance(console.file, io.StringIO)
    cells = [line.split("│")[-2].strip() for line in console.file.getvalue().splitlines()[3:-1]]
    assert "".join(cells) == use
