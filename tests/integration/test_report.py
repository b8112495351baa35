"""``naevus report`` on runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from naevus.cli.evaluate import report
from naevus.datasets.layouts import load
from naevus.datasets.synthetic import write_isic2018
from naevus.errors import DataError
from naevus.evaluation.mask_metrics import MaskScore
from naevus.images.maskfile import read_mask
from naevus.images.read import write_png
from naevus.io.files import write_json
from naevus.reports.report import make_report
from naevus.runs.evaluate import evaluate_results
from naevus.runs.results import results_of_run
from naevus.taxonomy import ISIC2018

if TYPE_CHECKING:
    from naevus.datasets.dataset import Dataset


app = typer.Typer()
app.command()(report)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("drawn") / "data"
    write_isic2018(folder, images=60, size=48)
    return load(folder)


def test_a_run_is_reported_without_its_images(data: Dataset, tmp_path: Path) -> None:
    from tests.helpers.finished_runs import finished_run  # late: torch takes seconds

    run = finished_run(tmp_path / "run", "classification", data.root, folds=(0, 1))
    oof = pd.concat(
        pd.read_parquet(run.fold_folder(fold) / "oof.parquet").assign(f=fold) for fold in (0, 1)
    )
    known = data.part("task3").table.set_index("image_id").loc[oof["image_id"]]
    oof = oof.assign(diagnosis=known["diagnosis"].to_numpy(), group_id=known["group_id"].to_numpy())
    for code in ISIC2018.codes:
        oof[f"logit_{code}"] = 2.0 * (oof["diagnosis"] == code).astype(float)
    oof["logit_NV"] += 1.5
    for fold in (0, 1):
        rows = oof[oof["f"] == fold]
        rows.iloc[1:].drop(columns="f").to_parquet(run.fold_folder(fold) / "oof.parquet")
        history = pd.DataFrame({"epoch": [0, 1], "train_loss": [2.0, 1.0], "val_score": [0.1, 0.2]})
        history.to_csv(run.fold_folder(fold) / "history.csv", index=False)
    inputs = json.loads((run.folder / "inputs.json").read_text())
    write_json(run.folder / "inputs.json", {**inputs, "data": "moved"})
    error = CliRunner().invoke(app, [str(run.folder)]).exception
    assert isinstance(error, DataError)
    assert "2 held-out images have no prediction" in str(error)
    words = [str(run.folder), "--allow-missing"]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "moved not found" in result.output
    assert "2 held-out images have no prediction" in result.output
    values = json.loads((run.folder / "report" / "report.json").read_text())
    sections = values["sections"]
    assert "images" not in sections
    assert "subgroups" not in sections
    assert ", held out in training, " in values["summary"]
    assert values["notes"] == ["2 held-out images have no prediction and are left out."]
    assert len(sections["data"]["tables"]["unanswered"]) == 2
    assert sections["provenance"]["command"].startswith("naevus train classification moved")
    assert not (run.folder / "report" / "figures").exists()
    page = (run.folder / "report" / "report.html").read_text()
    assert 'id="figure-learning-train-loss"' in page
    assert {row["fold"] for row in sections["scores"]["tables"]["folds"]} == {0, 1}
    assert [row["epochs"] for row in sections["training"]["tables"]["last-epochs"]] == [2, 2]
    counts = {row["what"]: row["images"] for row in sections["data"]["tables"]["counts"]}
    evaluated, due = counts["evaluated"], counts["held out by finished folds"]
    assert evaluated == len(oof) - 2 == due - 2
    assert "balanced accuracy" in result.output
    assert "Operating points" in result.output
    recipe = {row["name"]: row["value"] for row in sections["provenance"]["tables"]["recipe"]}
    assert recipe["network.backbone"] == "test_resnet"


def test_a_segmentation_run_is_reported_with_its_masks(data: Dataset, tmp_path: Path) -> None:
    from tests.helpers.finished_runs import finished_run  # late: torch takes seconds

    run = finished_run(tmp_path / "run", "segmentation", data.root, folds=(0, 1))
    masked = data.part("task1").with_masks().table.set_index("image_id")
    oof = []
    for fold in (0, 1):
        ids = sorted(set(run.folds.held_out(fold)) & set(masked.index))
        scores = np.linspace(0.5, 0.95, len(ids))
        table = pd.DataFrame({"image_id": ids, "group_id": masked.loc[ids, "group_id"].to_numpy()})
        for name in MaskScore._fields:
            table[name] = scores
        table["thresholded_jaccard"] = np.where(scores < 0.65, 0, scores)
        oof.append(table.assign(fold=fold))
        for image_id in ids:
            mask = read_mask(Path(str(masked.loc[image_id, "mask_path"])))
            write_png(run.folder / "masks" / f"{image_id}_segmentation.png", mask)
    results = results_of_run(run.folder, pd.concat(oof, ignore_index=True), data)
    document = make_report(results, evaluate_results(results))
    names = [section.name for section in document.sections]
    assert names == ["masks", "failures", "images", "data", "provenance"]
    both = pd.concat(oof)
    assert f"mean Jaccard index of {both['jaccard'].mean():.3f}" in document.summary
    assert document.headlines[0].value == f"{both['jaccard'].mean():.3f}"
    galleries = {gallery.name: gallery for gallery in document.sections[2].galleries}
    worst = [image.words[0] for image in galleries["worst-masks"].images]
    assert worst[0] == "Jaccard 0.500"
    assert worst == sorted(worst)
