"""An attribute run from images to its evaluation, and predictions scored with ground truth."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from typer.testing import CliRunner

import naevus
from naevus.bundles.bundle import Bundle, builtin
from naevus.cli.main import app
from naevus.datasets.layouts import load
from naevus.errors import ConfigError
from naevus.evaluation.attributes import AttributesEvaluation
from naevus.evaluation.challenge import score_attributes
from naevus.export import export, precision
from naevus.export.export import ExportCallbacks, ExportOptions, export_runs
from naevus.export.precision import REFERENCE, Variant
from naevus.runs.manifest import prediction_command, training_data
from naevus.runs.run import Run
from naevus.runs.start import learnt_by
from naevus.taxonomy import ATTRIBUTES
from tests.helpers.attribute_images import INPUT, LESIONS, TRUTH, write_shifted, write_task2
from tests.helpers.finished_runs import finished_run
from tests.helpers.onnx_graphs import attributes_bundle, segmentation_bundle

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = """
task = "attributes"
epochs = 1
batch_size = 8
sizes = [[0, 32]]
[data]
cache_size = 48
[network]
pretrained = "none"
architecture = "plain-unet"
decoder = { channels = [4, 8] }
"""


def call(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two of five folds, with lesion masks from shifted copies."""
    root = tmp_path_factory.mktemp("attributes")
    write_task2(root / "task2")
    write_shifted(root / "task1")
    (root / "recipe.toml").write_text(RECIPE)
    words = ["train", "attributes", root / "task2", "--copies", root / "task1"]
    for fold in range(2):
        call(*words, "--recipe", root / "recipe.toml", "--fold", fold, "--out", root / "run")
    return root / "run"


def test_a_run_has_attributes_and_lesions_out_of_fold(run: Path) -> None:
    opened = Run.open(run)
    assert opened.finished() == [0, 1]
    table = opened.predictions()
    assert set(table["image_id"]) == {*opened.folds.held_out(0), *opened.folds.held_out(1)}
    lesions = pd.read_parquet(run / "fold-0" / "lesions.parquet")
    assert sorted(lesions["image_id"]) == sorted(opened.folds.held_out(0))
    assert set(lesions["copy"]) == {"task1"}
    bundle = Bundle.read(opened.bundle_folder(0))
    assert bundle.spec.tasks == ("segmentation", "attributes")
    assert len(bundle.spec.members) == 1
    assert bundle.attributes.chosen_on is not None
    found = json.loads(call("evaluate", run, "--json"))
    assert set(found["attributes"]["by_attribute"]) == set(ATTRIBUTES)
    assert len(found["attributes"]["by_attribute"]["streaks"]["thresholds"]) == 2
    assert found["segmentation"]["images"] == len(table)
    assert found["subject"]["out_of_fold"]
    call("report", run, "--data", run.parent / "task2", "--out", run.parent / "page")
    reported = (run.parent / "page" / "report.html").read_text()
    assert "Attributes (true): orange globules" in reported
    assert "Worst masks" not in reported  # these are from copies in another folder


def test_masks_of_copies_are_refused_if_the_recipe_does_not_use_them(run: Path) -> None:
    root = run.parent
    words = ["train", "attributes", root / "task2", "--recipe", root / "recipe.toml"]
    result = CliRunner().invoke(app, [str(word) for word in [*words, "--out", root / "alone"]])
    assert result.exit_code == 2
    assert "no training image has a mask of lesion; name a data set" in result.output
    masks = [*words, "--masks", root, "--out", root / "alone"]
    result = CliRunner().invoke(app, [str(word) for word in masks])
    assert "--masks has no effect" in result.output


def test_predictions_are_scored_as_in_the_challenge(tmp_path: Path) -> None:
    write_task2(tmp_path / "task2", 6)
    attributes_bundle(tmp_path / "bundle", thresholds=(0.999,) * 5)
    out = tmp_path / "out"
    call("predict", tmp_path / "task2" / INPUT, "--bundle", tmp_path / "bundle", "--out", out)
    found = json.loads(call("evaluate", out, "--data", tmp_path / "task2", "--json"))
    official = score_attributes(tmp_path / "task2" / TRUTH, out / "attributes")
    pooled = found["attributes"]["jaccard"]["value"]
    assert pooled == pytest.approx(official["overall"], abs=1e-12)
    for name, one in found["attributes"]["by_attribute"].items():
        assert one["jaccard"]["value"] == pytest.approx(official[name]["jaccard"], abs=1e-12)
    page = tmp_path / "page"
    call("report", out, "--data", tmp_path / "task2", "--out", page)
    reported = (page / "report.html").read_text()
    assert "Scores of attributes" in reported
    assert "Attributes (predicted): orange globules" in reported
    assert "Worst attribute masks" in reported


def test_attributes_can_be_left_out(tmp_path: Path) -> None:
    write_task2(tmp_path / "task2", 4)
    bundle = attributes_bundle(tmp_path / "bundle").folder
    words = ["predict", tmp_path / "task2" / INPUT, "--bundle", bundle, "--out"]
    call(*words, tmp_path / "with")
    call(*words, tmp_path / "without", "--no-attributes")
    call(*words, tmp_path / "crops", "--only", "crops")
    masks = [sorted((tmp_path / out / "masks").iterdir()) for out in ("with", "without")]
    assert [path.read_bytes() for path in masks[0]] == [path.read_bytes() for path in masks[1]]
    assert len(list((tmp_path / "with" / "attributes").iterdir())) == 4 * len(ATTRIBUTES)
    for out in ("without", "crops"):
        assert not (tmp_path / out / "attributes").exists()
        table = pd.read_parquet(tmp_path / out / "predictions.parquet")
        assert not [name for name in table.columns if name.startswith("presence_")]
    # A job with attributes does not continue one without.
    other = CliRunner().invoke(app, [str(word) for word in [*words, tmp_path / "without"]])
    assert other.exit_code == 2
    assert "segmenter" in other.output
    settings = json.loads((tmp_path / "without" / "predict.json").read_text())
    again = prediction_command(settings, load(tmp_path / "task2"))
    assert "--no-attributes" in again
    predictor = naevus.load(bundle, attributes=False)
    prediction = predictor(tmp_path / "task2" / INPUT / "ISIC_0000003.png")
    assert prediction.mask is not None
    assert not prediction.attributes
    assert not prediction.attribute_masks


def test_leaving_out_attributes_that_no_bundle_has_is_refused(tmp_path: Path) -> None:
    write_task2(tmp_path / "task2", 1)
    bundle = segmentation_bundle(tmp_path / "bundle").folder
    words = ["predict", tmp_path / "task2" / INPUT, "--bundle", bundle, "--no-attributes"]
    result = CliRunner().invoke(app, [str(word) for word in [*words, "--out", tmp_path / "out"]])
    assert result.exit_code == 2
    assert "no attributes: no bundle here has networks for them" in " ".join(result.output.split())
    with pytest.raises(ConfigError, match="no attributes"):
        naevus.load(bundle, attributes=False)


def test_the_costs_of_precisions_are_measured(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = (REFERENCE, Variant("fp16", "fp32"))
    for module in (precision, export):
        monkeypatch.setattr(module, "variants", lambda: pair)
    options = ExportOptions(folds=(0,), checked=4, measure=True)
    quiet = ExportCallbacks(lambda _: None)
    spec = export_runs([Run.open(run)], tmp_path / "bundle", options, quiet).spec
    (cost,) = spec.storage_costs
    assert (cost.task, cost.score) == ("attributes", "pooled Jaccard")
    assert (cost.storage, cost.precision) == ("fp16", "fp32")
    assert cost.networks == "2 networks, each on its own fold"
    assert cost.images == len(Run.open(run).predictions())
    assert abs(cost.difference.value) < 0.01
    (choice,) = spec.recommended
    assert choice.task == "attributes"
    assert "of pooled Jaccard" in choice.reason


def test_a_run_is_exported_with_thresholds_from_all_folds(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    output = call("export", run, "--fold", 0, "--out", out)
    assert "attributes, pooled Jaccard index" in output
    bundle = Bundle.read(out)
    found = AttributesEvaluation.of(Run.open(run).predictions())
    assert bundle.spec.tasks == ("segmentation", "attributes")
    assert [member.file for member in bundle.spec.members] == ["attributes-0.onnx"]
    assert bundle.attributes.thresholds == found.thresholds
    assert [(one.slope, one.intercept) for one in bundle.attributes.presence] == [*found.presence]
    card = (out / "MODEL_CARD.md").read_text()
    assert "| milia-like cysts | " in card
    assert "ISIC 2018 Task 2" in card
    assert "out-of-fold predictions" in card
    predictor = naevus.load(out)
    prediction = predictor(run.parent / "task2" / INPUT / "ISIC_0000003.png")
    assert set(prediction.attribute_masks) == set(ATTRIBUTES)
    assert prediction.mask is not None
    assert "presence" in call("info", run)


def test_lesions_come_from_lesion_networks(run: Path, tmp_path: Path) -> None:
    lesions = finished_run(tmp_path / "seg", "segmentation", run.parent / "task1")
    call("export", run, lesions.folder, "--fold", 0, "--out", tmp_path / "both", "--force")
    spec = Bundle.read(tmp_path / "both").spec
    assert spec.segmenter is not None
    assert spec.attributes is not None
    assert [member.file for member in spec.segmenter.members] == ["segmentation-0.onnx"]
    assert [member.file for member in spec.attributes.members] == ["attributes-0.onnx"]


def test_training_data_includes_that_of_the_initial_run(run: Path, tmp_path: Path) -> None:
    start = finished_run(tmp_path / "start", "segmentation", run.parent / "task1")
    opened = Run.open(run)
    (alone,) = training_data([opened])
    assert alone.name.startswith("ISIC 2018 Task 2")
    inputs = {**opened.inputs, "init_from": str(start.folder)}
    (both,) = training_data([replace(opened, inputs=inputs)])
    assert both.name.startswith("ISIC 2018 Task 2")
    assert "ISIC 2018 Task 1 (" in both.name
    taught = {**opened.inputs, "layout": "unlabelled", "init_from": "built-in"}
    own, before = training_data([replace(opened, inputs=taught)])
    assert own.name == "images in the layout unlabelled"
    assert before.name.startswith("ISIC 2018 Task 2")
    (start.folder / "inputs.json").write_text(json.dumps({**start.inputs, "init_from": "built-in"}))
    chained = {**opened.inputs, "init_from": str(start.folder)}
    names = [each.name for each in training_data([replace(opened, inputs=chained)])]
    assert names[0] == both.name, "its own data and those of the run behind it"
    assert names[1:] == [each.name for each in learnt_by(Bundle.read(builtin()), "segmentation")]
    gone = {**opened.inputs, "init_from": str(tmp_path / "gone")}
    assert training_data([replace(opened, inputs=gone)]) == [alone]


def test_an_image_with_a_damaged_mask_is_left_out(tmp_path: Path) -> None:
    write_task2(tmp_path / "task2", 10)
    write_shifted(tmp_path / "task1", 10)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    bad = "ISIC_0000003"
    (tmp_path / "task2" / TRUTH / f"{bad}_attribute_streaks.png").write_bytes(b"damaged")
    (tmp_path / "task1" / LESIONS / "ISIC_0000004_segmentation.png").write_bytes(b"damaged")
    folds = ["image_id,group_id,fold", *(f"ISIC_{n:07d},{n},{n % 2}" for n in range(10))]
    (tmp_path / "folds.csv").write_text("\n".join(folds) + "\n")
    words = ["--recipe", tmp_path / "recipe.toml", "--folds", tmp_path / "folds.csv"]
    words += ["--copies", tmp_path / "task1", "--out", tmp_path / "run"]
    printed = call("train", "attributes", tmp_path / "task2", *words)
    assert bad in printed
    failed = pd.read_csv(tmp_path / "run" / "failed.csv")
    assert sorted(failed["image_id"]) == [bad, "ISIC_0000004"]
    table = pd.read_parquet(tmp_path / "run" / "oof.parquet")
    assert bad not in set(table["image_id"])
    assert len(table) == 9
    lesions = [
        pd.read_parquet(tmp_path / "run" / f"fold-{fold}" / "lesions.parquet") for fold in (0, 1)
    ]
    assert "ISIC_0000004" not in set(pd.concat(lesions)["image_id"])
