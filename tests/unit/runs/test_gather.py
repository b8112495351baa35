"""Folds trained on several machines, joined into one run or refused with the reason."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from naevus.errors import NaevusError, RunError
from naevus.images.read import write_png
from naevus.io.progress import SilentReporter
from naevus.runs import gather
from naevus.runs.gather import RECORD, gather_folds
from naevus.runs.run import Run
from tests.unit.runs.test_run import INPUTS, RECIPE, folds, predicted, start

if TYPE_CHECKING:
    from pathlib import Path

HELD_OUT = {0: ["p0", "p1", "p4", "p5"], 1: ["p2", "p3", "p6", "p7"]}


class Warnings(SilentReporter):
    """Keep the warnings."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, text: str, label: str = "note") -> None:
        self.lines.append(text)


def trained(folder: Path, *which: int, **changes: Any) -> Path:
    """A run in which some folds are finished, with what training leaves beside the table."""
    run = start(folder, **changes)
    run.hold_to({"images": "key"}, {"images": {f"p{n}": f"{n}" for n in range(8)}})
    for fold in which:
        predicted(run, fold, HELD_OUT[fold])
        (run.bundle_folder(fold)).mkdir()
        (run.bundle_folder(fold) / "bundle.json").write_text(f"{fold}")
        (run.fold_folder(fold) / ".lock").touch()
        for image_id in HELD_OUT[fold]:
            mask = np.full((2, 2), 255 * fold, np.uint8)
            write_png(folder / "masks" / f"{image_id}_segmentation.png", mask)
    (folder / "train.log").write_text(f"trained {which}\n")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    own = {RECORD, ".lock", "train.log"}
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in own
    }


def test_folds_joined_are_the_run_of_one_machine(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", 0, 1)
    Run.open(whole).join()
    parts = [trained(tmp_path / f"{fold}", fold) for fold in (0, 1)]
    run = gather_folds(parts[::-1], tmp_path / "out")
    assert run.finished() == [0, 1]
    assert contents(tmp_path / "out") == contents(whole)
    assert (tmp_path / "out" / "train.log").read_text() == "trained (1,)\ntrained (0,)\n"
    assert sorted(run.predictions()["image_id"]) == [f"p{n}" for n in range(8)]


def test_the_same_command_again_does_nothing(tmp_path: Path) -> None:
    parts = [trained(tmp_path / f"{fold}", fold) for fold in (0, 1)]
    gather_folds(parts, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    gather_folds(parts[::-1], tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_a_killed_job_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [trained(tmp_path / f"{fold}", fold) for fold in (0, 1)]

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    for step in ("link", "link_fold", "write_text", "write_json", "flush_together"):
        with monkeypatch.context() as patch:
            patch.setattr(gather, step, killed)
            with pytest.raises(KeyboardInterrupt):
                gather_folds(parts, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    gather_folds(parts, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "out"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"recipe": RECIPE.model_copy(update={"seed": 1})}, "settings: seed is 2018 there, not 1"),
        ({"folds": folds(1)}, "folds: 8 of 9 images are in another fold"),
        ({"inputs": {**INPUTS, "fingerprint": "x"}}, 'data: fingerprint is "abc" there, not "x"'),
    ],
)
def test_folds_of_other_trainings_are_refused(
    changes: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    parts = [trained(tmp_path / "0", 0), trained(tmp_path / "1", 1, **changes)]
    with pytest.raises(RunError, match=problem):
        gather_folds(parts, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_files_and_versions_are_refused(tmp_path: Path) -> None:
    parts = [trained(tmp_path / f"{fold}", fold) for fold in (0, 1)]
    path = parts[1] / "environment.json"
    before = path.read_text()
    path.write_text(json.dumps(json.loads(before) | {"naevus": "0.0"}))
    with pytest.raises(RunError, match=r'differ in their version: naevus is .* not "0.0"'):
        gather_folds(parts, tmp_path / "out")
    path.write_text(before)
    path = parts[1] / "contents.json"
    found = json.loads(path.read_text())
    found["files"]["images"]["p3"] = "other"
    path.write_text(json.dumps(found))
    with pytest.raises(RunError, match=r"files: p3 \(in images\) is not the same file"):
        gather_folds(parts, tmp_path / "out")


def test_places_and_other_packages_may_differ_and_are_reported(tmp_path: Path) -> None:
    parts = [
        trained(tmp_path / "0", 0),
        trained(tmp_path / "1", 1, inputs={**INPUTS, "data": "elsewhere"}),
    ]
    path = parts[1] / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"python": "3.99"}))
    reporter = Warnings()
    gather_folds(parts, tmp_path / "out", reporter=reporter)
    output = "\n".join(reporter.lines)
    assert 'data is "ISIC2018" there, not "elsewhere"' in output
    assert 'not "3.99"' in output


def test_missing_and_doubled_folds_are_named(tmp_path: Path) -> None:
    one = trained(tmp_path / "0", 0)
    with pytest.raises(RunError, match="1 of 2 folds are finished in none of these runs: 1"):
        gather_folds([one], tmp_path / "out")
    two = trained(tmp_path / "both", 0, 1)
    with pytest.raises(RunError, match=r"fold 0 is finished in .*0 and in .*both"):
        gather_folds([one, two], tmp_path / "out")
    with pytest.raises(RunError, match="is not a run"):
        gather_folds([one, tmp_path], tmp_path / "out")


def test_other_files_are_not_overwritten(tmp_path: Path) -> None:
    parts = [trained(tmp_path / f"{fold}", fold) for fold in (0, 1)]
    gather_folds(parts, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "masks")
    (tmp_path / "out" / RECORD).unlink()
    with pytest.raises(NaevusError, match="holds other files"):
        gather_folds(parts, tmp_path / "out")
