"""Outputs that the documentation shows are what the commands and the notebook give today."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from naevus.cli.main import app
from tests.helpers import ROOT

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The tool that stores the outputs."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    import run_notebook

    return run_notebook


@pytest.mark.slow
def test_the_notebook_s_outputs_are_current(tool: ModuleType) -> None:
    pytest.importorskip("matplotlib", reason="the extra report is not installed")
    stored = json.loads(tool.NOTEBOOK.read_text(encoding="utf-8"))
    made = tool.run(stored)
    found = tool.differences(tool.text_of(stored), tool.text_of(made))
    assert found == [], "run tools/run_notebook.py"


@pytest.mark.slow
def test_the_first_prediction_is_printed_as_the_tutorial_shows(
    tool: ModuleType, shared_data: Path, tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "getting-started" / "first-prediction.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"prints:\n\n```text\n(.*?)```", page, re.DOTALL)
    image = tmp_path / "photo.jpg"
    folder = shared_data / "isic2018" / "ISIC2018_Task3_Training_Input"
    shutil.copyfile(folder / "ISIC_0032031.jpg", image)
    assert "The image is ISIC_0032031" in page
    words = ["predict", str(image), "--threads", "1", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "120", "TERM": "dumb"})
    assert result.exit_code == 0, result.output
    printed = result.stdout.partition("\n1 image predicted")[0].strip("\n")
    lines = [[line.rstrip() for line in text.strip("\n").splitlines()] for text in (shown, printed)]
    while not lines[1][0]:
        lines[1].pop(0)
    assert tool.differences(*lines) == []


@pytest.mark.parametrize(
    ("stored", "made", "count"),
    [
        (["MEL 83.8 %"], ["MEL 83.9 %"], 0),
        (["MEL 83.8 %"], ["MEL 90.1 %"], 1),
        (["MEL 0.84"], ["MEL 0.849"], 0),
        (["MEL 0.84"], ["MEL 0.86"], 1),
        (["-0.2 to 0.3"], ["-0.3 to 0.3"], 0),
        (["-0.2 to 0.3"], ["-0.4 to 0.3"], 1),
        (["36 images"], ["37 images"], 1),
        (["MEL 0.84"], ["NV 0.84"], 1),
        (["MEL 84 % ███"], ["MEL 84 % ████"], 0),
        (["36 images"], ["36 images", "of 35 lesions"], 1),
        ([], [], 0),
    ],
)
def test_other_words_and_other_numbers_are_found(
    tool: ModuleType, stored: list[str], made: list[str], count: int
) -> None:
    assert len(tool.differences(stored, made)) == count
