"""``naevus challenge score`` and ``naevus challenge lint``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from naevus.cli.main import app
from naevus.evaluation.challenge.classification import write_submission
from naevus.taxonomy import ISIC2018
from tests.helpers.golden import flat

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

IDS = [f"ISIC_{n:07d}" for n in range(7)]


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=True)


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Path, Path]:
    truth, prediction = tmp_path / "truth.csv", tmp_path / "prediction.csv"
    write_submission(truth, IDS, np.eye(7), ISIC2018)
    write_submission(prediction, IDS, 0.3 / 7 + 0.7 * np.roll(np.eye(7), 1, axis=0), ISIC2018)
    return truth, prediction


@pytest.fixture
def masks(tmp_path: Path) -> tuple[Path, Path]:
    folders = tmp_path / "truth", tmp_path / "prediction"
    for folder, side in zip(folders, (10, 9), strict=True):
        folder.mkdir()
        mask = np.zeros((20, 30), np.uint8)
        mask[:side, :side] = 255
        Image.fromarray(mask).save(folder / "ISIC_0000001_segmentation.png")
    return folders


def test_score_of_a_csv_file(tables: tuple[Path, Path]) -> None:
    truth, prediction = tables
    answer = json.loads(call("challenge", "score", truth, truth, "--json").stdout)
    assert answer["overall"] == 1
    result = call("challenge", "score", truth, prediction)
    assert result.exit_code == 0
    assert "0.000" in result.stdout
    assert "auc_sens_80" in result.stdout


def test_score_of_a_folder_of_masks(masks: tuple[Path, Path]) -> None:
    answer = json.loads(call("challenge", "score", *masks, "--json").stdout)
    assert answer["macro_average"]["jaccard"] == pytest.approx(0.81)
    assert "0.810" in call("challenge", "score", *masks).stdout


def test_refusals_reach_the_command_as_errors(tables: tuple[Path, Path]) -> None:
    truth, _ = tables
    result = call("challenge", "score", truth, truth.parent / "nowhere.csv")
    assert result.exit_code == 2
    assert "nowhere.csv" in result.stderr


def test_paths_that_do_not_exist_are_named(
    tables: tuple[Path, Path], masks: tuple[Path, Path], tmp_path: Path
) -> None:
    nowhere = tmp_path / "nowhere"
    for words in (
        ("score", nowhere, tables[1]),
        ("score", nowhere, masks[1]),
        ("score", tables[0], nowhere),
        ("score", masks[0], nowhere),
        ("lint", tables[1], "--truth", nowhere),
        ("lint", masks[1], "--truth", nowhere),
        ("lint", masks[1], "--images", nowhere),
    ):
        result = call("challenge", *words)
        assert result.exit_code != 0
        assert f"{nowhere} does not exist" in result.output.replace("\n", ""), words


def test_lint_reports_every_fault_of_a_csv_file(tables: tuple[Path, Path]) -> None:
    truth, prediction = tables
    fine = call("challenge", "lint", prediction, "--truth", truth)
    assert (fine.exit_code, "nothing to fix" in fine.stdout) == (0, True)
    prediction.write_text(prediction.read_text().replace("ISIC_0000003", "ISIC_0000009"))
    bad = call("challenge", "lint", prediction, "--truth", truth)
    assert bad.exit_code == 1
    assert "findings: 2, of which 2 lead" in bad.stdout


def test_lint_of_tables_against_images(tables: tuple[Path, Path], tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name in IDS[1:]:
        (images / f"{name}.jpg").touch()
    bad = call("challenge", "lint", tables[1], "--images", images)
    assert bad.exit_code == 1
    assert "extra row" in bad.stdout
    both = call("challenge", "lint", tables[1], "--images", images, "--truth", tables[0])
    assert both.exit_code == 2
    assert both.stderr.startswith("error:")


def test_lint_reports_every_fault_of_masks(masks: tuple[Path, Path]) -> None:
    truth, prediction = masks
    assert call("challenge", "lint", prediction, "--truth", truth).exit_code == 0
    (prediction / "ISIC_0000001_segmentation.png").unlink()
    bad = call("challenge", "lint", prediction, "--truth", truth)
    assert bad.exit_code == 1
    assert "missing mask" in bad.stdout


def test_score_and_lint_of_a_folder_of_attributes(golden: Path, tmp_path: Path) -> None:
    folder = golden / "attributes" / "case_00"
    answer = json.loads(
        call("challenge", "score", folder / "truth", folder / "prediction", "--json").stdout
    )
    expected = flat(json.loads((folder / "expected.json").read_text()))
    assert flat(answer) == pytest.approx(expected, abs=1e-9)
    shown = call("challenge", "score", folder / "truth", folder / "prediction")
    assert shown.exit_code == 0
    assert "milia-like cysts" in shown.stdout
    assert "micro average" in shown.stdout
    forced = call("challenge", "score", folder / "truth", folder / "prediction", "--force")
    assert forced.exit_code == 2
    odd = golden / "refused_attributes"
    assert call("challenge", "score", odd / "truth", odd / "missing").exit_code == 2
    assert call("challenge", "lint", odd / "truth", "--truth", odd / "truth").exit_code == 0
    (tmp_path / "empty").mkdir()
    linted = call("challenge", "lint", tmp_path / "empty", "--truth", odd / "truth")
    assert "attribute" in linted.stdout
    linted = call("challenge", "lint", odd / "missing", "--truth", odd / "truth")
    assert linted.exit_code == 1
    assert "missing mask" in linted.stdout
