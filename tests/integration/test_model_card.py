"""``naevus info``: the stored card of a bundle, and the out-of-fold card of a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from typer.testing import CliRunner

from naevus.bundles.bundle import Bundle, builtin
from naevus.cli.main import app
from naevus.runs.manifest import spec_of_run
from tests.helpers.children import FRAMEWORKS, without
from tests.helpers.finished_runs import finished_run
from tests.helpers.onnx_graphs import classification_bundle, segmentation_bundle

if TYPE_CHECKING:
    from naevus.runs.run import Run


def run_card(*words: object) -> Any:
    return CliRunner().invoke(app, ["info", *map(str, words)])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, synthetic: Path) -> dict[str, Run]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs")
    made = {
        "answers": finished_run(folder / "answers", "classification", synthetic, (0, 2)),
        "contours": finished_run(folder / "contours", "segmentation", synthetic, (1,)),
    }
    for fold in (0, 2):
        classification_bundle(made["answers"].bundle_folder(fold), seeds=(fold,))
    segmentation_bundle(made["contours"].bundle_folder(1))
    return made


def test_a_bundle_s_card_is_the_stored_one(tmp_path: Path) -> None:
    bundle = classification_bundle(tmp_path / "bundle", temperature=1.25)
    done = run_card(bundle.folder)
    assert done.exit_code == 0, done.output
    assert done.stdout == (bundle.folder / "MODEL_CARD.md").read_text()
    assert "Temperature: 1.250" in done.stdout


def test_the_built_in_bundle_has_a_name(tmp_path: Path) -> None:
    done = run_card("built-in")
    assert done.exit_code == 0, done.output
    assert done.stdout == (builtin() / "MODEL_CARD.md").read_text()
    refused = run_card("built-in", "--data", tmp_path)
    assert refused.exit_code == 2
    assert "--data and --allow-missing apply to runs only" in refused.stderr.replace("\n", " ")


def test_a_run_s_card_describes_its_finished_folds(runs: dict[str, Run], tmp_path: Path) -> None:
    run = runs["answers"]
    before = sorted(path.name for path in run.folder.iterdir())
    out = tmp_path / "card.md"
    done = run_card(run.folder, "--out", out)
    assert done.exit_code == 0, done.output
    card = out.read_text()
    for words in ("| fold-0.onnx |", "| fold-2.onnx |", "held out in folds 0, 2", "| sex: "):
        assert words in card
    assert "an ensemble of 2 networks" in card
    assert sorted(path.name for path in run.folder.iterdir()) == before
    spec = spec_of_run(run)
    assert spec.classifier is not None
    assert f"Temperature: {spec.classifier.temperature:.3f}" in card
    contours = run_card(runs["contours"].folder)
    assert "| mean Jaccard index | 0." in contours.stdout


def test_no_training_framework_is_needed(runs: dict[str, Run], tmp_path: Path) -> None:
    words = [["info", runs["answers"].folder]]
    (answer,), imported = without(FRAMEWORKS, words, folder=tmp_path)
    assert answer.code == 0, answer.error
    assert "## By diagnosis" in answer.out
    assert not imported.intersection(FRAMEWORKS)


def test_a_run_whose_data_is_gone_has_no_subgroups(runs: dict[str, Run], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(runs["answers"].folder, folder)
    inputs = folder / "inputs.json"
    inputs.write_text(json.dumps(json.loads(inputs.read_text()) | {"data": "gone"}))
    card = run_card(folder).stdout
    assert "## By diagnosis" in card
    assert "## Subgroups" not in card
    refused = run_card(folder, "--data", tmp_path / "nowhere")
    assert refused.exit_code == 2
    assert "no such folder" in refused.output


def test_inputs_without_a_card_are_refused_in_one_line(
    runs: dict[str, Run], tmp_path: Path
) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        done = run_card(folder)
        assert done.exit_code == 2
        assert done.output.count("\n") == 1
    assert "neither a run nor a bundle" in run_card(tmp_path).output
    damaged = tmp_path / "run"
    shutil.copytree(runs["answers"].folder, damaged)
    (damaged / "fold-2" / "bundle" / "member-2.onnx").write_bytes(b"other")
    done = run_card(damaged)
    assert done.exit_code == 2
    assert "changed since the bundle was written" in done.output
    assert Bundle.read(damaged / "fold-0" / "bundle")
