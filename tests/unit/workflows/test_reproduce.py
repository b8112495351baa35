"""A run and its repetition are compared: versions, machine, data, scores and bytes."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from naevus.errors import NaevusError, RunError
from naevus.io.files import write_json
from naevus.runs.run import Run
from naevus.workflows.reproduce import Places, compare_repeated, reproduce
from tests.helpers.finished_runs import finished_run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def made(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = finished_run(tmp_path_factory.mktemp("made") / "run", "classification", synthetic, (0, 1))
    files = {"images": {"a": "1", "b": "2"}}
    write_json(run.folder / "contents.json", {"caches": {"images": "k"}, "files": files})
    return run


@pytest.fixture
def run(made: Run, tmp_path: Path) -> Run:
    return Run.open(shutil.copytree(made.folder, tmp_path / "run"))


@pytest.fixture
def again(made: Run, tmp_path: Path) -> Run:
    return Run.open(shutil.copytree(made.folder, tmp_path / "again"))


def change(path: Path, name: str, value: object) -> None:
    write_json(path, json.loads(path.read_text()) | {name: value})


def test_equal_runs_have_no_difference(run: Run, again: Run) -> None:
    found = compare_repeated(run, again, (0, 1))
    assert found.differences == ()
    assert found.is_identical
    assert found.files == 4
    assert found.scores
    assert f"{found}" == "folds 0, 1: all 4 files have the same bytes"


def test_only_the_chosen_folds_are_compared(run: Run, again: Run) -> None:
    (again.fold_folder(1) / "weights.safetensors").write_bytes(b"others")
    assert compare_repeated(run, again, (0,)).is_identical
    found = compare_repeated(run, again, (1,))
    assert [each.name for each in found.of("bytes")] == ["fold-1/weights.safetensors"]
    assert f"{found}".splitlines()[-1].startswith("fold 1: 1 of 2 files have other bytes, 0 of ")


def test_versions_and_the_machine_are_compared_where_both_are_known(run: Run, again: Run) -> None:
    path = again.folder / "environment.json"
    change(path, "torch", "1.0")
    change(path, "threads", "77")
    change(path, "mypackage.losses:Own", "mypackage 2")
    found = compare_repeated(run, again, (0,))
    assert found.is_identical
    assert [(each.kind, each.name, each.here) for each in found.differences] == [
        ("machine", "threads", "77"), ("version", "torch", "1.0"),
    ]  # fmt: skip


def test_other_images_are_named(run: Run, again: Run) -> None:
    change(again.folder / "contents.json", "files", {"images": {"a": "1", "b": "3"}})
    change(again.folder / "inputs.json", "fingerprint", "another")
    found = compare_repeated(run, Run.open(again.folder), (0,)).of("data")
    assert [each.name for each in found] == ["fingerprint", "1 files (images), such as b"]
    assert found[1][2:] == ("2", "3")


def test_other_predictions_change_scores_and_bytes(run: Run, again: Run) -> None:
    path = again.fold_folder(0) / "oof.parquet"
    table = pd.read_parquet(path)
    table["logit_MEL"] += 3
    table.to_parquet(path, index=False)
    found = compare_repeated(run, again, (0,))
    assert not found.is_identical
    assert found.of("score")
    (other,) = found.of("bytes")
    assert other.name == "fold-0/oof.parquet (numbers differ by up to 3, in logit_MEL)"
    table.iloc[1:].to_parquet(path, index=False)
    (other,) = compare_repeated(run, again, (0,)).of("bytes")
    assert other.name == "fold-0/oof.parquet (other images)"


def test_the_result_can_be_written_as_json(run: Run, again: Run) -> None:
    change(again.folder / "environment.json", "torch", "1.0")
    noted = json.loads(json.dumps(compare_repeated(run, again, (0,)).to_dict()))
    assert (noted["identical"], noted["folds"], noted["files"]) == (True, [0], 2)
    assert noted["differences"][0]["kind"] == "version"


def refused(run: Run, match: str, places: Places | None = None, **settings: object) -> None:
    out = run.folder.with_name("out")
    with pytest.raises(NaevusError, match=match):
        reproduce(run, out, places, **settings)  # type: ignore[arg-type]
    assert not out.exists()


def test_what_cannot_be_repeated_is_refused(run: Run, tmp_path: Path) -> None:
    refused(run, "fold 2 is finished; train it first", folds=[2])
    refused(run, "--masks has no effect", Places(masks=tmp_path))
    refused(run, "--init-from has no effect", Places(init_from=tmp_path))
    refused(run, "--pretrained has no effect", Places(pretrained=tmp_path / "w.safetensors"))
    refused(run, "trained with 0 folders of copies, not 1", Places(copies=(tmp_path,)))
    with pytest.raises(RunError, match="is the run itself"):
        reproduce(run, run.folder)


def test_inputs_that_are_gone_are_asked_for(run: Run, tmp_path: Path) -> None:
    refused(run, "does not exist.*with --data", Places(data=tmp_path / "absent"))
    change(run.folder / "inputs.json", "masks", str(tmp_path / "absent"))
    refused(Run.open(run.folder), "does not exist.*with --masks")
