"""``naevus evaluate`` on runs: tables, JSON and the saved evaluation."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from naevus.cli.evaluate import evaluate
from naevus.datasets.folds import Folds
from naevus.errors import ConfigError, DataError
from naevus.evaluation.ensemble_selection import ensemble_scores
from naevus.images.read import write_png
from naevus.runs.recipe import Recipe
from naevus.runs.run import Run
from naevus.taxonomy import ISIC2018
from tests.helpers.tables import diagnoses, masks, table_of_masks

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

app = typer.Typer()
app.command()(evaluate)

INPUTS = {"data": "d", "layout": "l", "images": 1, "fingerprint": "f", "masks": None}
"""Where a run's images came from."""


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "120"})


def run_of(folder: Path, task: str, table: pd.DataFrame) -> Path:
    """A run with two folds, each of which held out half of the table."""
    half = len(table) // 2
    folds = Folds(table[["image_id", "group_id"]].assign(fold=[0] * half + [1] * half))
    run = Run.start(folder, Recipe.model_validate({"task": task}), folds, INPUTS)
    for fold in range(2):
        run.fold_folder(fold).mkdir()
        part = table.iloc[fold * half : (fold + 1) * half].drop(columns="fold", errors="ignore")
        part.to_parquet(run.fold_folder(fold) / "oof.parquet")
    return folder


def test_classification_prints_every_table(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "cls", "classification", diagnoses(2.0))
    result = call(folder)
    assert result.exit_code == 0, result.output
    for word in (
        "cls, held out by folds 0, 1",
        "balanced accuracy",
        "By diagnosis, balanced decision",
        "By diagnosis, balanced decision, calibrated",
        "sensitivity at specificity 0.9",
        "Net benefit",
        "error, bins of equal mass",
        "cross-fitted",
        "accuracy at 80 % coverage",
        "diagnoses in a set",
        "Confusion matrix, balanced decision",
    ):
        assert word in result.stdout, word


def test_json_and_the_saved_evaluation_are_equal(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "cls", "classification", diagnoses(2.0))
    answer = json.loads(call(folder, "--json").stdout)
    assert answer == json.loads((folder / "evaluation.json").read_text())
    assert answer["subject"] == {
        "name": "cls", "images": 240, "groups": 120, "folds": [0, 1], "out_of_fold": True,
        "unit": "lesion",
    }  # fmt: skip
    found = answer["classification"]
    for scores in (found["as_predicted"], found["calibrated"]):
        assert scores["intervals"]["balanced_accuracy"]["value"] == pytest.approx(
            scores["balanced"]["balanced_accuracy"]
        )
        for name in ("accuracy_balanced", "balanced_accuracy_natural"):
            assert scores["intervals"][name]["low"] < scores["intervals"][name]["high"]
        assert scores["recalls"]["MEL"]["groups"] > 0
    assert len(found["scalings"]) == 2
    assert found["targets"][0]["fold_auc"]["value"] > 0.5
    assert answer["segmentation"] is None


def test_several_runs_are_averaged(tmp_path: Path) -> None:
    tables = {"a": diagnoses(2.0), "b": diagnoses(0.5, seed=1)}
    runs = [run_of(tmp_path / name, "classification", table) for name, table in tables.items()]
    answer = json.loads(call(*runs, "--json").stdout)
    together = ensemble_scores(tables)
    interval = answer["classification"]["as_predicted"]["intervals"]["balanced_accuracy"]
    assert interval == pytest.approx(together.mean._asdict())
    assert interval["value"] != together.single["a"].value
    assert not (runs[0] / "evaluation.json").exists()


def test_runs_that_cannot_be_averaged_are_refused(tmp_path: Path) -> None:
    contours = run_of(tmp_path / "seg", "segmentation", masks())
    classes = run_of(tmp_path / "cls", "classification", diagnoses(2.0))
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    (predictions / "predictions.parquet").touch()
    for folders, problem in (
        ((contours, contours), "only classification runs"),
        ((contours, classes), f"{contours} and {classes} are runs of different tasks; name"),
        ((classes, classes, contours), f"{classes} and {contours} are runs of different"),
        ((contours, predictions), "runs and predictions"),
        ((predictions, predictions), "several predictions"),
    ):
        assert problem in str(call(*folders).exception)


def test_masks_get_failures_sizes_and_thresholds(tmp_path: Path) -> None:
    table = table_of_masks()
    result = call(run_of(tmp_path / "seg", "segmentation", table))
    assert result.exit_code == 0, result.output
    for word in (
        "Scores of masks",
        "Quantiles of the Jaccard index",
        "mean hausdorff 95",
        "lesion under 5 % of the image",
        "none of these",
        "By lesion size",
        "60 to 100 %",
        "At every threshold",
    ):
        assert word in result.stdout, word
    assert "from before" not in result.stdout


def test_tables_without_image_conditions_state_what_is_missing(tmp_path: Path) -> None:
    result = call(run_of(tmp_path / "seg", "segmentation", masks()))
    assert result.exit_code == 0, result.output
    assert "Distances and conditions were not measured" in result.stdout
    assert "At every threshold" in result.stdout


def predictions_of(folder: Path, rows: pd.DataFrame, data: Path) -> tuple[Path, Path]:
    """A predictions folder, and a manifest with its ground truth."""
    table = rows[["image_id"]].copy()
    for code in ISIC2018.codes:
        for kind in ("prob", "balanced_prob"):
            table[f"{kind}_{code}"] = np.where(rows["diagnosis"] == code, 0.7, 0.05)
    folder.mkdir()
    table.to_parquet(folder / "predictions.parquet")
    for name in rows["image_id"]:
        write_png(data / f"{name}.png", np.zeros((8, 8, 3), np.uint8))
    known = rows.assign(diagnosis=rows["diagnosis"], path=rows["image_id"] + ".png")
    known[["image_id", "path", "diagnosis", "group_id"]].to_csv(data / "all.csv", index=False)
    return folder, data / "all.csv"


def test_missing_predictions_or_ground_truth_are_errors_unless_allowed(tmp_path: Path) -> None:
    rows = diagnoses(2.0).iloc[:70]
    folder, manifest = predictions_of(tmp_path / "out", rows, tmp_path / "data")
    whole = call(folder, "--data", manifest)
    assert whole.exit_code == 0, whole.output
    assert "left out" not in whole.output
    assert "no true" not in whole.output
    path = folder / "predictions.parquet"
    table = pd.read_parquet(path)
    table.iloc[2:].to_parquet(path)
    known = pd.read_csv(manifest)
    known[known["image_id"] != rows["image_id"].iloc[9]].to_csv(manifest, index=False)
    error = call(folder, "--data", manifest).exception
    assert isinstance(error, DataError)
    first, strange = rows["image_id"].iloc[0], rows["image_id"].iloc[9]
    assert f"2 images with ground truth have no prediction, such as {first}" in str(error)
    assert f"1 predicted image is not in the data set: {strange}" in str(error)
    allowed = call(folder, "--data", manifest, "--allow-missing")
    assert allowed.exit_code == 0, allowed.output
    assert "2 images with ground truth have no prediction" in allowed.output
    scores = json.loads(call(folder, "--data", manifest, "--allow-missing", "--json").stdout)
    assert scores["classification"]["images"] == 67
    table.loc[4, "balanced_prob_DF"] = np.nan
    table.to_parquet(path)
    error = call(folder, "--data", manifest, "--allow-missing").exception
    assert isinstance(error, DataError)
    assert f"{path}: {rows['image_id'].iloc[4]}: balanced_prob_DF is nan" in str(error)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"metadata": {"columns": ["age", "site"], "known": {"site": ["torso"]}}},
            "The probabilities of 14 of 70 images include the patient's data: age of 7, site of 7.",
        ),
        ({"metadata": {"columns": ["age"]}}, "No probability includes the patient's data"),
        (
            {"classifier": {"prevalence": [1 / 7] * 7}, "metadata": None},
            "Probabilities are for the prevalence that was given.",
        ),
        ({"classifier": None}, ""),
    ],
)
def test_what_else_probabilities_depend_on_is_noted(
    tmp_path: Path, settings: dict[str, object], sentence: str
) -> None:
    folder, manifest = predictions_of(tmp_path / "out", diagnoses(2.0).iloc[:70], tmp_path / "data")
    table = pd.read_parquet(folder / "predictions.parquet")
    table["age"] = [61.0] * 7 + [None] * 63
    table["site"] = [None] * 7 + ["back"] * 7 + ["elbow"] * 56
    table.to_parquet(folder / "predictions.parquet")
    (folder / "predict.json").write_text(json.dumps(settings))
    found = call(folder, "--data", manifest)
    assert found.exit_code == 0, found.output
    assert sentence in found.output
    assert ("patient's data" in found.output) == ("patient's data" in sentence)
    assert ("prevalence that" in found.output) == ("prevalence that" in sentence)


def test_options_without_effect_are_refused(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "cls", "classification", diagnoses(2.0))
    for option, value in (("--part", "x"), ("--split", "test"), ("--taxonomy", "isic2018")):
        for data in ((), ("--data", "x")):
            error = call(folder, option, value, *data).exception
            assert isinstance(error, ConfigError)
            assert option in str(error)
    assert isinstance(call(folder, "--data", "x", "--copies", "x").exception, ConfigError)
    assert isinstance(call(folder, "--data", "x").exception, DataError)
    out, manifest = predictions_of(tmp_path / "out", diagnoses(2.0).iloc[:14], tmp_path / "data")
    assert isinstance(call(out, "--data", manifest, "--copies", out).exception, ConfigError)
    error = call(out, "--data", manifest, "--part", "task9").exception
    assert isinstance(error, DataError)
    assert "task9" in str(error)
    assert call(out, "--data", manifest, "--split", "later").exit_code == 2


def test_lesions_are_those_of_the_data_set(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "cls", "classification", diagnoses(2.0))
    Run.open(folder).join()
    table = pd.read_parquet(folder / "oof.parquet")
    found = json.loads(call(folder / "oof.parquet", "--json").stdout)["classification"]["lesions"]
    assert (found["by"], found["every"]["together"]["answers"]) == ("group_id", 120)
    (tmp_path / "data").mkdir()
    lesions = table[["image_id"]].assign(path="none.png", lesion_id=table["image_id"])
    lesions.loc[:3, "lesion_id"] = table["group_id"][:4]
    lesions.loc[4, "lesion_id"] = None
    lesions.to_csv(tmp_path / "data" / "manifest.csv", index=False)
    result = call(folder / "oof.parquet", "--data", tmp_path / "data", "--json")
    found = json.loads(result.stdout)["classification"]["lesions"]
    assert (found["by"], found["unknown"]) == ("lesion_id", 1)
    assert found["several"]["together"]["answers"] == 2
    text = call(folder / "oof.parquet", "--data", tmp_path / "data").stdout
    assert "The 2 lesions with two or more images" in text
    assert "because their lesion is unknown: 1" in text
    lesions.loc[2:3, "lesion_id"] = ["c", "d"]
    lesions.to_csv(tmp_path / "data" / "manifest.csv", index=False)
    text = call(folder / "oof.parquet", "--data", tmp_path / "data").stdout
    single = text.partition("The 1 lesion with two or more images")[2]
    cells = re.findall(r"answers[\s│]+(\d+)[\s│]+(\S+)[\s│]+(\S+)", single)
    assert cells[0] == ("2", "1", "1")  # counts are no scores
    assert "of 1 lesion have different" in " ".join(text.split())
    lesions.assign(image_id=[f"other{n}" for n in range(len(lesions))]).to_csv(
        tmp_path / "data" / "manifest.csv", index=False
    )
    error = call(folder / "oof.parquet", "--data", tmp_path / "data").exception
    assert isinstance(error, DataError)
    assert "has none of these images" in str(error)


def test_subgroups_are_those_of_the_data_set(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "cls", "classification", diagnoses(2.0))
    Run.open(folder).join()
    table = pd.read_parquet(folder / "oof.parquet")
    known = table[["image_id"]].assign(path="none.png", sex="female", confirmation="follow-up")
    known.loc[::3, ["sex", "confirmation"]] = ("male", "histopathology")
    known.loc[5, "confirmation"] = None
    (tmp_path / "data").mkdir()
    known.to_csv(tmp_path / "data" / "manifest.csv", index=False)
    oof = folder / "oof.parquet"
    assert "by subgroup" not in call(oof).stdout
    found = json.loads(call(oof, "--data", tmp_path / "data", "--json").stdout)
    rows = found["classification"]["as_predicted"]["subgroups"]
    assert {(one["attribute"], one["value"]): one["images"] for one in rows} == {
        ("sex", "female"): (known["sex"] == "female").sum(),
        ("sex", "male"): (known["sex"] == "male").sum(),
        ("confirmed by", "follow-up"): (known["confirmation"] == "follow-up").sum(),
        ("confirmed by", "histopathology"): (known["confirmation"] == "histopathology").sum(),
    }
    assert "Balanced decision by subgroup" in call(oof, "--data", tmp_path / "data").stdout


def test_a_run_with_missing_predictions_is_evaluated_only_if_allowed(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "cls", "classification", diagnoses(2.0))
    path = folder / "fold-1" / "oof.parquet"
    pd.read_parquet(path).iloc[:-4].to_parquet(path)
    assert "4 held-out images have no prediction" in str(call(folder).exception)
    result = call(folder, "--allow-missing")
    assert result.exit_code == 0, result.output
    assert "4 held-out images have no prediction" in result.output
    whole = run_of(tmp_path / "other", "classification", diagnoses(1.0, seed=1))
    assert "4 held-out images" in str(call(whole, folder).exception)
    both = call(whole, folder, "--allow-missing")
    assert both.exit_code == 0, both.output
    assert "4 images are not in all runs: left out" in both.output


def test_tables_are_evaluated_like_their_runs(tmp_path: Path) -> None:
    first = run_of(tmp_path / "first", "classification", diagnoses(2.0))
    second = run_of(tmp_path / "second", "classification", diagnoses(1.5, seed=1))
    tables = []
    for folder in (first, second):
        Run.open(folder).join()
        tables.append(folder / "oof.parquet")
    for runs, files in (([first], tables[:1]), ([first, second], tables)):
        expected, found = (json.loads(call(*paths, "--json").stdout) for paths in (runs, files))
        assert expected["subject"].pop("name") != found["subject"].pop("name")
        assert found == expected


@pytest.mark.parametrize("more", ["run", "--data", "--part", "--copies"])
def test_tables_are_evaluated_without_other_inputs(tmp_path: Path, more: str) -> None:
    folder = run_of(tmp_path / "cls", "classification", diagnoses(2.0))
    Run.open(folder).join()
    further = [folder] if more == "run" else [more, "task3"]
    result = call(folder / "oof.parquet", *further)
    assert isinstance(result.exception, ConfigError | DataError)


def test_a_damaged_table_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "oof.parquet"
    path.write_text("no table")
    result = call(path)
    assert isinstance(result.exception, DataError)
    assert str(path) in str(result.exception)
