"""Lesions that only the predictions know: evaluate and report use them as those of a data set."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from naevus.cli.main import app
from naevus.images.read import write_png
from tests.helpers.html_page import HtmlPage
from tests.helpers.onnx_graphs import PATIENT, whole_bundle

if TYPE_CHECKING:
    from pathlib import Path

DIAGNOSES = ("MEL", "MEL", "NV", "NV", "NV", "BKL")
LESIONS = ("arm", "arm", "back", "back", "back", "leg")
SOURCES = {
    "folder": ("--group-by", "folder"),
    "lesions": ("--lesions", "lesions.csv"),
    "metadata": ("--metadata", "metadata.csv"),
}
ORIGIN = "lesions of {} are from the predictions: the data set does not know them"


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(each) for each in words], env={"COLUMNS": "150"})
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.output


def scores(out: Path, data: Path) -> dict[str, object]:
    result = CliRunner().invoke(app, ["evaluate", str(out), "--data", str(data), "--json"])
    assert result.exit_code == 0, result.output + repr(result.exception)
    found: dict[str, object] = json.loads(result.stdout)
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos in a folder for each lesion, the tables, and predictions by each source."""
    root = tmp_path_factory.mktemp("lesions")
    whole_bundle(root / "b", patient=PATIENT)
    rng = np.random.default_rng(0)
    for number, lesion in enumerate(LESIONS):
        pixels = rng.integers(100, 250, (40, 60, 3), dtype=np.uint8)
        pixels[10:30, 10:40] = 40
        write_png(root / "photos" / lesion / f"p{number}.png", pixels)
    table = pd.DataFrame(
        {
            "image": [f"p{number}" for number in range(len(LESIONS))],
            "diagnosis": DIAGNOSES,
            "lesion_id": LESIONS,
        }
    )
    labels(root, "bare", table.drop(columns="lesion_id"))
    labels(root, "known", table)
    table[["image", "lesion_id"]].to_csv(root / "lesions.csv", index=False)
    table[["image", "lesion_id"]].assign(age=60).to_csv(root / "metadata.csv", index=False)
    for name in SOURCES:
        predict(root, name)
    return root


def labels(root: Path, name: str, table: pd.DataFrame) -> None:
    (root / name).mkdir(exist_ok=True)
    for path in sorted((root / "photos").rglob("*.png")):
        (root / name / path.name).write_bytes(path.read_bytes())
    table.to_csv(root / name / "labels.csv", index=False)


def predict(root: Path, source: str, *more: object, out: str = "") -> Path:
    option, value = SOURCES[source]
    given = value if value == "folder" else root / value
    words = (root / "photos", "--bundle", root / "b", "--threads", 1, option, given, *more)
    run("predict", *words, "--out", root / (out or source))
    return root / (out or source)


@pytest.mark.parametrize("source", SOURCES)
def test_lesions_of_each_source_count_as_those_of_a_data_set(made: Path, source: str) -> None:
    out = made / source
    assert pd.read_parquet(out / "predictions.parquet")["lesion_id"].tolist() == list(LESIONS)
    assert scores(out, made / "bare") == scores(out, made / "known")
    text = run("evaluate", out, "--data", made / "bare")
    assert ORIGIN.format("6 images") in text
    assert "6 images of 3 lesions" in text
    assert "One answer per lesion" in text
    assert "are from the predictions" not in run("evaluate", out, "--data", made / "known")


@pytest.mark.parametrize("source", SOURCES)
def test_reports_have_them_too(made: Path, source: str, tmp_path: Path) -> None:
    text = run("report", made / source, "--data", made / "bare", "--out", tmp_path)
    assert ORIGIN.format("6 images") in text
    page = HtmlPage((tmp_path / "report.html").read_text()).text
    assert "One answer per lesion" in page
    found = json.loads((tmp_path / "report.json").read_text())
    option = "--metadata METADATA" if source == "metadata" else "--lesions LESIONS"
    assert option in json.dumps(found)


def test_images_without_a_lesion_are_as_in_a_data_set(made: Path, tmp_path: Path) -> None:
    some = pd.read_csv(made / "lesions.csv").iloc[[0, 1, 3, 4]]
    some.to_csv(made / "some.csv", index=False)
    words = (made / "photos", "--bundle", made / "b", "--threads", 1)
    out = tmp_path / "out"
    run("predict", *words, "--lesions", made / "some.csv", "--out", out)
    table = pd.read_csv(made / "bare" / "labels.csv").merge(some, how="left", on="image")
    labels(made, "partial", table)
    assert scores(out, made / "bare") == scores(out, made / "partial")
    text = run("evaluate", out, "--data", made / "bare")
    assert ORIGIN.format("4 images") in text
    assert "6 images of 4 lesions" in text
    assert "because their lesion is unknown: 2" in text


def test_lesions_of_the_data_set_hold(made: Path) -> None:
    table = pd.read_csv(made / "known" / "labels.csv")
    labels(made, "other", table.assign(lesion_id=["a", "b", "c", "c", "c", "d"]))
    text = run("evaluate", made / "folder", "--data", made / "other")
    assert "6 images of 4 lesions" in text
    assert (
        "lesions of 2 images differ between the predictions and the data set: those of the data "
        "set hold" in text
    )
    assert "are from the predictions" not in text


@pytest.mark.parametrize("source", SOURCES)
def test_shards_and_repeated_jobs_give_the_same_table(made: Path, source: str) -> None:
    words = ("--batch-size", 2)
    whole = predict(made, source, *words, out=f"{source}-whole")
    shards = [
        predict(made, source, *words, "--shard", f"{n}/2", out=f"{source}-{n}") for n in (1, 2)
    ]
    run("gather", *shards, "--out", made / f"{source}-gathered")
    for name in ("predictions.parquet", "predictions.csv", "lesions.parquet"):
        content = (whole / name).read_bytes()
        assert (made / f"{source}-gathered" / name).read_bytes() == content
        (whole / name).unlink()
    again = predict(made, source, *words, out=f"{source}-whole")
    for name in ("predictions.parquet", "predictions.csv", "lesions.parquet"):
        assert (again / name).read_bytes() == (made / f"{source}-gathered" / name).read_bytes()


def test_a_whole_data_set_that_knows_its_lesions_needs_no_split(made: Path, tmp_path: Path) -> None:
    words = ("--bundle", made / "b", "--threads", 1)
    whole, split = tmp_path / "whole", tmp_path / "split"
    run("predict", made / "known", *words, "--out", whole)
    run("predict", made / "known", "--split", "train", *words, "--out", split)
    one, other = (
        pd.read_parquet(each / "lesions.parquet").drop(columns="prediction_set")
        for each in (whole, split)
    )
    pd.testing.assert_frame_equal(one, other)
    table = pd.read_parquet(whole / "predictions.parquet")
    assert table["lesion_id"].tolist() == list(LESIONS)
    run("predict", made / "bare", *words, "--out", tmp_path / "bare")
    assert not (tmp_path / "bare" / "lesions.parquet").exists()
