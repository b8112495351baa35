"""A run's folder: taken up only by the same job, joined only from the right folds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from naevus.datasets.folds import Folds
from naevus.errors import DataError, NaevusError, RunError
from naevus.runs.recipe import Recipe
from naevus.runs.run import Run, lesions_of

RECIPE = Recipe(task="classification")
INPUTS: dict[str, Any] = {
    "data": "ISIC2018",
    "layout": "isic2018",
    "images": 9,
    "fingerprint": "abc",
    "copies": [],
    "masks": None,
}


def folds(shift: int = 0) -> Folds:
    """Eight images of four lesions in two folds, and one that is kept for testing."""
    rows = [(f"p{n}", f"g{n // 2}", str((n // 2 + shift) % 2)) for n in range(8)]
    rows.append(("p8", "g4", "test"))
    return Folds(pd.DataFrame(rows, columns=["image_id", "group_id", "fold"], dtype="string"))


def start(folder: Path, **changes: Any) -> Run:
    given: dict[str, Any] = {"recipe": RECIPE, "folds": folds(), "inputs": INPUTS} | changes
    return Run.start(folder, given["recipe"], given["folds"], given["inputs"])


def predicted(run: Run, fold: int, ids: list[str]) -> None:
    run.fold_folder(fold).mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame({"image_id": pd.Series(ids, dtype="string"), "logit_MEL": 0.5})
    table.to_parquet(run.fold_folder(fold) / "oof.parquet", index=False)


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = start(tmp_path / "run")
    found = Run.open(tmp_path / "run")
    assert found.recipe == made.recipe
    assert found.folds.sha256 == made.folds.sha256
    assert found.inputs == INPUTS
    assert "torch" in (tmp_path / "run" / "environment.json").read_text()


@pytest.mark.parametrize(
    ("changes", "output"),
    [
        (
            {"recipe": RECIPE.model_copy(update={"seed": 1})},
            "seed is 2018 there, not 1; set it",
        ),
        ({"recipe": Recipe(task="segmentation")}, 'settings: task is "classification" there'),
        (
            {"folds": folds(1)},
            r"8 of 9 images are in another fold \(p0: 1, not 0\); pass",
        ),
        (
            {"inputs": {**INPUTS, "fingerprint": "abd"}},
            'data: fingerprint is "abc" there',
        ),
        (
            {"inputs": {**INPUTS, "copies": ["sharp"]}},
            r"other data: copies is \[\] there",
        ),
    ],
)
def test_another_job_is_refused(changes: dict[str, Any], output: str, tmp_path: Path) -> None:
    start(tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(RunError, match=output):
        start(tmp_path / "run", **changes)
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_a_run_of_another_version_is_called_so(tmp_path: Path) -> None:
    run = start(tmp_path / "run")
    path = run.folder / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"naevus": "0.0.1"}))
    assert start(run.folder).recipe == run.recipe, "the same settings go on"
    other = RECIPE.model_copy(update={"seed": 1})
    with pytest.raises(RunError, match=r"seed is 2018 there, not 1 \(it is of naevus 0\.0\.1, not"):
        start(run.folder, recipe=other)


def test_the_same_job_goes_on_with_other_workers(tmp_path: Path) -> None:
    start(tmp_path / "run")
    quicker = RECIPE.model_copy(update={"workers": 3, "checkpoint_seconds": 5.0})
    assert start(tmp_path / "run", recipe=quicker).recipe.workers == 3


def test_a_start_that_was_interrupted_is_made_again(tmp_path: Path) -> None:
    start(tmp_path / "run")
    (tmp_path / "run" / "run.toml").unlink()
    (tmp_path / "run" / "environment.json").unlink()
    start(tmp_path / "run")
    assert Run.open(tmp_path / "run").recipe == RECIPE


HASHES = {"images": {f"p{n}": f"hash{n}" for n in range(8)}}


def test_the_same_images_go_on(tmp_path: Path) -> None:
    run = start(tmp_path / "run")
    assert run.cache_key("images") is None
    for _ in range(2):
        run.hold_to({"images": "key"}, HASHES)
    assert run.cache_key("images") == "key"


@pytest.mark.parametrize(
    ("changed", "output"),
    [
        ({"images": {**HASHES["images"], "p5": "x", "p3": "y"}}, r"p3 \(in images\).*2 such"),
        ({"images": {n: h for n, h in HASHES["images"].items() if n != "p7"}}, "p7"),
        ({**HASHES, "copies-0": {"p1": "z"}}, r"p1 \(in copies-0\)"),
        (HASHES, "decoded differently"),
    ],
)
def test_replaced_images_are_refused_and_named(
    changed: dict[str, dict[str, str]], output: str, tmp_path: Path
) -> None:
    run = start(tmp_path / "run")
    run.hold_to({"images": "key"}, HASHES)
    with pytest.raises(RunError, match=output):
        run.hold_to({"images": "another"}, changed)


def test_images_that_a_run_could_not_use_owe_no_answer(tmp_path: Path) -> None:
    run = start(tmp_path / "run")
    held_out = run.folds.held_out(0)
    predicted(run, 0, held_out[1:])
    with pytest.raises(DataError, match=f"has no prediction.*: {held_out[0]}"):
        run.predictions()
    used = dict.fromkeys(held_out[1:], "hash")
    run.hold_to({"images": "key"}, {"images": used})
    assert run.predictions()["image_id"].tolist() == held_out[1:]


def test_a_folder_that_is_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run"):
        Run.open(tmp_path)
    with pytest.raises(RunError, match="nowhere does not exist"):
        Run.open(tmp_path / "nowhere")
    start(tmp_path / "run")
    (tmp_path / "run" / "inputs.json").write_text("{")
    with pytest.raises(RunError, match=r"inputs\.json: is not a JSON file"):
        Run.open(tmp_path / "run")
    (tmp_path / "run" / "inputs.json").write_text("{}")
    with pytest.raises(RunError, match=r"inputs\.json: data is absent"):
        Run.open(tmp_path / "run")
    (tmp_path / "run" / "inputs.json").write_text(json.dumps(INPUTS))
    (tmp_path / "run" / "folds.csv").unlink()
    with pytest.raises(NaevusError, match=r"folds\.csv"):
        Run.open(tmp_path / "run")


def test_finished_folds_are_joined_by_id(tmp_path: Path) -> None:
    run = start(tmp_path / "run")
    assert run.finished() == []
    predicted(run, 1, ["p7", "p2", "p3", "p6"])
    assert run.finished() == [1]
    assert run.join()["image_id"].tolist() == ["p2", "p3", "p6", "p7"]
    predicted(run, 0, ["p0", "p1", "p4"])
    table = run.join()
    assert table["image_id"].tolist() == ["p0", "p1", "p2", "p3", "p4", "p6", "p7"]
    assert table["fold"].tolist() == [0, 0, 1, 1, 0, 1, 1]
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "run" / "oof.parquet"), table)


@pytest.mark.parametrize(
    ("ids", "output"),
    [
        (["p0", "p2"], "fold 0 predicted p2, which it trained on"),
        (["p0", "p8"], "fold 0 predicted p8"),
        (["p0", "other"], "fold 0 predicted other"),
        (["p0", "p1", "p0"], "fold 0 predicted p0 twice"),
    ],
)
def test_predictions_that_cannot_be_are_refused(
    ids: list[str], output: str, tmp_path: Path
) -> None:
    run = start(tmp_path / "run")
    predicted(run, 0, ids)
    with pytest.raises(RunError, match=output):
        run.join()
    assert not (tmp_path / "run" / "oof.parquet").exists()


def test_a_run_without_finished_folds_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no fold is finished"):
        start(tmp_path / "run").join()


def test_lesion_masks_of_several_copies_count_once(tmp_path: Path) -> None:
    """The data set's own copy comes first, also where two copies' folders have one name."""
    run = start(tmp_path / "run")
    assert lesions_of(run) is None
    copies = {0: [("p0", "own"), ("p4", "own"), ("p0", "there"), ("p1", "there"), ("p1", "there")],
              1: [("p2", "there")]}  # fmt: skip
    for fold, rows in copies.items():
        predicted(run, fold, [])
        table = pd.DataFrame(rows, columns=["image_id", "copy"]).assign(fold=fold)
        table["jaccard"] = [0.5 + place / 10 for place in range(len(rows))]
        table.to_parquet(run.fold_folder(fold) / "lesions.parquet", index=False)
    found = lesions_of(run)
    assert found is not None
    assert found["image_id"].tolist() == ["p0", "p4", "p1", "p2"]
    assert found["jaccard"].tolist() == [0.5, 0.6, 0.8, 0.5]
