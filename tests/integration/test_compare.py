"""``naevus compare``: tables, JSON and refusals."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import typer
from typer.testing import CliRunner

from naevus.cli.evaluate import compare
from naevus.datasets.folds import Folds
from naevus.errors import ConfigError, DataError, RunError
from naevus.runs.recipe import Recipe
from naevus.runs.run import Run
from tests.helpers.tables import diagnoses, masks

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

app = typer.Typer()
app.command()(compare)

INPUTS = {"data": "d", "layout": "l", "images": 1, "fingerprint": "f", "masks": None}
"""Where a run's images came from."""


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "120"})


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "a.parquet", tmp_path / "b.parquet"
    diagnoses(1.0).to_parquet(paths[0])
    diagnoses(4.0).iloc[:220].to_parquet(paths[1])
    return paths


def test_tables_list_changed_decisions(tables: tuple[Path, Path]) -> None:
    error = call(*tables).exception
    assert isinstance(error, DataError)
    assert "b.parquet have 220 images in common: 20 images have no prediction in" in str(error)
    assert "--allow-missing" in str(error)
    result = call(*tables, "--allow-missing")
    assert result.exit_code == 0, result.output
    assert "220 images of 110 lesions are in both" in result.stdout
    assert "20 more are only in A and left out" in result.stdout
    assert "only in B" not in result.stdout
    assert "balanced decision: B is better by" in result.stdout
    for word in ("MEL", "NV", "BCC", "McNemar, exact", "fixed", "--json lists all"):
        assert word in result.stdout


def test_predictions_are_to_be_evaluated_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "predictions.parquet").touch()
    error = call(tmp_path, tmp_path).exception
    assert isinstance(error, RunError)
    assert f"naevus evaluate {tmp_path} --data DATA" in str(error)


def test_other_folds_are_noted(tables: tuple[Path, Path]) -> None:
    for path, folds in zip(tables, (5, 4), strict=True):
        table = diagnoses(1.0)
        groups = [int(each[1:]) for each in table["group_id"]]
        table.assign(fold=[each % folds for each in groups]).to_parquet(path)
    output = call(*tables).stdout
    assert "240 images of 120 lesions are in both" in output
    assert "note: the folds of A and B differ" in output
    assert "the folds of A and B differ" not in call(tables[0], tables[0]).stdout


def test_json_contains_the_whole_comparison(tables: tuple[Path, Path]) -> None:
    answer = json.loads(call(*tables, "--allow-missing", "--json").stdout)
    assert answer["images"] == 220
    assert answer["only_a"] == 20
    assert len(answer["changed"]) > 20


def test_runs_are_joined_over_their_folds(tmp_path: Path) -> None:
    folders = tmp_path / "one", tmp_path / "other"
    for folder, shift in zip(folders, (0.0, 0.02), strict=True):
        table = masks(shift)
        folds = Folds(table[["image_id", "group_id"]].assign(fold=[n // 50 for n in range(100)]))
        run = Run.start(folder, Recipe(task="segmentation"), folds, INPUTS)
        for fold in range(2):
            run.fold_folder(fold).mkdir()
            part = table.iloc[fold * 50 : fold * 50 + 50]
            part.to_parquet(run.fold_folder(fold) / "oof.parquet")
    answer = json.loads(call(*folders, "--json").stdout)
    assert answer["images"] == 100
    assert answer["differences"][1]["difference"]["value"] == pytest.approx(0.02, abs=0.001)
    assert "Jaccard" in call(*folders).stdout


def test_incomparable_results_are_refused(tables: tuple[Path, Path], tmp_path: Path) -> None:
    error = call(tables[0], tmp_path / "nowhere").exception
    assert isinstance(error, RunError)
    assert "nowhere does not exist" in str(error)
    error = call(tables[0], tmp_path).exception
    assert isinstance(error, RunError)
    assert "is neither a run nor a table" in str(error)
    broken = tmp_path / "broken.parquet"
    broken.write_text("no table")
    error = call(tables[0], broken).exception
    assert isinstance(error, DataError)
    assert "broken.parquet: is not a Parquet table" in str(error)
    masks().to_parquet(broken)
    error = call(tables[0], broken).exception
    assert isinstance(error, DataError)
    assert "different tasks" in str(error)


def test_several_runs_are_compared_as_their_mean(tables: tuple[Path, Path]) -> None:
    assert isinstance(call(*tables, "--ensemble").exception, DataError)
    result = call(*tables, "--ensemble", "--allow-missing")
    assert result.exit_code == 0, result.output
    assert "20 more are not in all and left out" in result.stdout
    for word in ("mean of all", "evaluated on nested folds", "greedy selection", "220 images"):
        assert word in result.stdout, word
    error = call(*tables, tables[0], "--ensemble").exception
    assert isinstance(error, ConfigError)
    assert "a run is named twice" in str(error)
    error = call(*tables, tables[0]).exception
    assert isinstance(error, ConfigError)
    assert "--ensemble for more" in str(error)
