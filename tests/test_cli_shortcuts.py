"""``naevus shortcuts`` on a run of small random networks over drawn pictures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from naevus.cli.shortcuts import shortcuts
from naevus.datasets.layouts import load
from naevus.errors import DataError
from naevus.taxonomy import ISIC2018
from naevus.training.run import Run
from tests.finished_runs import finished_run
from tests.onnx_graphs import classification_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

app = typer.Typer()
app.command()(shortcuts)


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "120"})


def made(folder: Path, root: Path) -> Run:
    run = finished_run(folder, "classification", root, folds=(0, 1))
    known = load(root).part("task3").table.set_index("image_id")
    for fold in (0, 1):
        classification_bundle(run.bundle_folder(fold), seeds=(fold,), explained=True)
        path = run.fold_folder(fold) / "heldout.parquet"
        table = pd.read_parquet(path)
        for name, column in (("truth", "diagnosis"), ("group_id", "group_id")):
            table[name] = table["image_id"].map(known[column])
        for number, code in enumerate(ISIC2018.codes):
            table[f"logit_{code}"] = np.where(table["truth"] == code, 5.0, 0.01 * number)
        table.to_parquet(path)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, drawn: Path) -> Run:
    return made(tmp_path_factory.mktemp("shortcuts") / "run", drawn)


def test_guesses_stand_beside_the_run_s_own_answers(run: Run) -> None:
    result = call(run.folder)
    assert result.exit_code == 0, result.output
    for word in ("the run's own answers", "border ring", "age, sex and site", "chance", "fit in"):
        assert word in result.stdout, word
    kept = json.loads((run.folder / "shortcuts.json").read_text())
    held_out = {*run.folds.held_out(0), *run.folds.held_out(1)}
    assert 0.8 * len(held_out) <= kept["pictures"] <= len(held_out)
    assert 0 < kept["hole"] < 1
    guesses = {guess["source"]: guess for guess in kept["guesses"]}
    assert guesses["the run's own answers"]["balanced_accuracy"]["value"] == 1
    assert guesses["... with the lesion filled"]["balanced_accuracy"]["value"] < 0.6
    assert len({guess["groups"] for guess in kept["guesses"]}) <= 2  # and those that fit


def test_what_gives_no_answer_is_told(run: Run, tmp_path: Path, drawn: Path) -> None:
    other = finished_run(tmp_path / "masks", "segmentation", drawn)
    error = call(other.folder).exception
    assert isinstance(error, DataError)
    assert "no run of classification" in str(error)
