"""``naevus study shortcuts`` on a run of small random networks over synthetic images."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from naevus.cli.evaluate import report
from naevus.cli.study import shortcuts
from naevus.datasets.layouts import load
from naevus.errors import DataError
from naevus.runs.run import Run
from naevus.taxonomy import ISIC2018
from naevus.workflows.shortcuts import _by_metadata
from tests.helpers.finished_runs import finished_run
from tests.helpers.onnx_graphs import classification_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

app = typer.Typer()
app.command()(shortcuts)


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "120"})


def report_of(*words: object) -> Result:
    reporting = typer.Typer()
    reporting.command()(report)
    return CliRunner().invoke(reporting, [str(word) for word in words])


def made(folder: Path, root: Path) -> Run:
    run = finished_run(folder, "classification", root, folds=(0, 1))
    known = load(root).part("task3").table.set_index("image_id")
    for fold in (0, 1):
        classification_bundle(run.bundle_folder(fold), seeds=(fold,), explained=True)
        path = run.fold_folder(fold) / "oof.parquet"
        table = pd.read_parquet(path)
        for name, column in (("diagnosis", "diagnosis"), ("group_id", "group_id")):
            table[name] = table["image_id"].map(known[column])
        for number, code in enumerate(ISIC2018.codes):
            table[f"logit_{code}"] = np.where(table["diagnosis"] == code, 5.0, 0.01 * number)
        table.to_parquet(path)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, synthetic: Path) -> Run:
    return made(tmp_path_factory.mktemp("shortcuts") / "run", synthetic)


def test_shortcut_scores_are_shown_next_to_the_run_s_own(run: Run) -> None:
    result = call(run.folder)
    assert result.exit_code == 0, result.output
    for word in (
        "the run's own predictions",
        "border ring",
        "age, sex and site",
        "chance",
        "fit in",
    ):
        assert word in result.stdout, word
    kept = json.loads((run.folder / "shortcuts.json").read_text())
    held_out = {*run.folds.held_out(0), *run.folds.held_out(1)}
    assert 0.8 * len(held_out) <= kept["images"] <= len(held_out)
    assert 0 < kept["hole"] < 1
    guesses = {guess["source"]: guess for guess in kept["guesses"]}
    assert guesses["the run's own predictions"]["balanced_accuracy"]["value"] == 1
    assert guesses["... with the lesion filled"]["balanced_accuracy"]["value"] < 0.6
    assert len({guess["groups"] for guess in kept["guesses"]}) <= 2  # and those that fit


def test_segmentation_runs_are_refused(run: Run, tmp_path: Path, synthetic: Path) -> None:
    other = finished_run(tmp_path / "masks", "segmentation", synthetic)
    error = call(other.folder).exception
    assert isinstance(error, DataError)
    assert "not a classification run" in str(error)


def test_data_of_another_kind_is_refused(run: Run, tmp_path: Path, synthetic: Path) -> None:
    """Other diagnoses or groups, or one image fewer, make it another data set."""
    known = load(synthetic).part("task3").split("train").table
    for rows in (
        known.assign(diagnosis=known["diagnosis"].shift(fill_value="NV")),
        known.iloc[1:],
        known.assign(group_id="g" + known["group_id"]),
    ):
        manifest = tmp_path / "manifest.csv"
        rows.assign(lesion_id=rows["group_id"]).to_csv(manifest, index=False)
        for command in (call, report_of):
            error = command(run.folder, "--data", manifest).exception
            assert isinstance(error, DataError), command
            assert "manifest.csv: is not the data that" in str(error)


def test_an_id_missing_from_the_data_never_selects_another_image(
    run: Run, synthetic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = load(synthetic).part("task3").table.set_index("image_id", drop=False)
    gone = run.folds.held_out(0)[0]
    records.loc[gone, "diagnosis"] = pd.NA
    monkeypatch.setattr("naevus.evaluation.shortcuts.by_metadata", lambda *_: np.eye(7))
    with pytest.raises(DataError, match=f"1 predicted images .* such as {gone}"):
        _by_metadata(run, records, [gone, run.folds.held_out(0)[1]], ISIC2018)


def test_images_without_a_prediction_are_an_error_unless_allowed(
    run: Run, tmp_path: Path, synthetic: Path
) -> None:
    lacking = made(tmp_path / "lacking", synthetic)
    path = lacking.fold_folder(1) / "oof.parquet"
    table = pd.read_parquet(path)
    table.iloc[3:].to_parquet(path)
    error = call(lacking.folder).exception
    assert isinstance(error, DataError)
    first = table["image_id"].iloc[0]
    problem = (
        f"3 held-out images have no prediction (failed.csv may give the reason), such as {first}"
    )
    assert problem in str(error)
    bad = table.assign(logit_NV=table["logit_NV"].where(table.index != 5))
    bad.to_parquet(path)
    error = call(lacking.folder, "--allow-missing").exception
    assert isinstance(error, DataError)
    assert f"{path}: {table['image_id'].iloc[5]}: logit_NV is nan" in str(error)
