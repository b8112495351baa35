"""``naevus reproduce``: the same seed gives the same bytes, and what differs is named."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from naevus.cli.reproduce import _beside
from tests.helpers.faults import Commands
from tests.helpers.torture_jobs import train_words

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
]


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    with Commands("naevus.workflows.reproduce") as forks:
        yield forks


def test_a_run_is_repeated_byte_by_byte_from_its_own_record(
    commands: Commands, synthetic: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(synthetic, tmp_path / "data")
    words = train_words(data, "run", epochs=1)
    trained = commands.run(words, tmp_path)
    assert trained.code == 0, trained.error
    moved = data.rename(tmp_path / "moved")
    gone = commands.run(("reproduce", "run", "--out", "again"), tmp_path)
    assert gone.code == 2
    assert gone.error.strip().endswith("name where it is now with --data")
    repeat = ("reproduce", "run", "--data", moved, "--out", "again", "--cache", "other")
    ended = commands.run(repeat, tmp_path)
    assert ended.code == 0, ended.error
    assert "have the same bytes" in ended.out
    noted = json.loads((tmp_path / "again" / "reproduction.json").read_text())
    assert noted["identical"]
    assert noted["differences"] == []
    assert noted["files"] >= 5  # weights, predictions, and a bundle of three files or more

    versions = tmp_path / "run" / "environment.json"
    versions.write_text(json.dumps(json.loads(versions.read_text()) | {"torch": "1.0"}))
    with (tmp_path / "run" / "fold-0" / "weights.safetensors").open("ab") as stream:
        stream.write(b"\0")
    other = commands.run((*repeat, "--json"), tmp_path)
    assert other.code == 1, other.error
    found = json.loads(other.out[other.out.index("{") :])
    assert [(each["kind"], each["name"]) for each in found["differences"]] == [
        ("version", "torch"), ("bytes", "fold-0/weights.safetensors"),
    ]  # fmt: skip
    assert "torch: 1.0 in the run" in other.error


@pytest.mark.parametrize(
    ("path", "problem"), [("absent", "absent does not exist"), (".", ".: is not a run")]
)
def test_only_runs_are_repeated(
    path: str, problem: str, commands: Commands, tmp_path: Path
) -> None:
    ended = commands.run(("reproduce", path, "--out", "again"), tmp_path / "work")
    assert ended.code == 2
    assert ended.error.startswith(f"error: {problem}")
    assert not (tmp_path / "work" / "again").exists()


def test_a_damaged_record_is_one_line(commands: Commands, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.toml").write_text('task = "classification"\n')
    (run / "inputs.json").write_text("{")
    ended = commands.run(("reproduce", "run", "--out", "again"), tmp_path)
    assert ended.code == 2
    assert ended.error.startswith("error: run/inputs.json")
    assert ended.error.count("\n") == 1


@pytest.mark.parametrize(
    ("run", "out"),
    [("runs/cls", "runs/cls-again"), ("runs/cls/", "runs/cls-again"), ("cls", "cls-again")],
)
def test_a_repetition_lies_beside_the_run_by_default(run: str, out: str) -> None:
    assert _beside(Path(run)) == Path(out)


def test_a_repetition_of_the_working_directory_lies_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cls").mkdir()
    monkeypatch.chdir(tmp_path / "cls")
    assert _beside(Path()) == tmp_path / "cls-again"
