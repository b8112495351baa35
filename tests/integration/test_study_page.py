"""The page on a study: its commands, in their order, do what it says."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from naevus.cli.main import app
from naevus.datasets.layouts import load
from tests.helpers import ROOT

PAGE = (ROOT / "docs" / "how-to" / "a-study.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Return the words of each command that trains nothing and needs nothing trained."""
    lines = [line for block in BLOCK.findall(PAGE) for line in block.splitlines()]
    words = [shlex.split(line, comments=True)[1:] for line in lines]
    return [each for each in words if each[0] not in {"train", "compare"}]


@pytest.mark.slow
def test_the_commands_of_a_study_run_one_after_the_other(
    tmp_path: Path, synthetic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="the extra report is not installed")
    rows = load(synthetic).part("task3").table.head(12)
    (tmp_path / "photos").mkdir()
    table = []
    for number, (path, code) in enumerate(zip(rows["path"], rows["diagnosis"], strict=True)):
        shutil.copy(path, tmp_path / "photos")
        ids = {"lesion_id": f"L{number}", "patient_id": f"P{number // 2}"}
        site = ("back", "elbow")[number % 2]
        table.append({"image": Path(path).name, "diagnosis": code, **ids, "age": 40, "site": site})
    pd.DataFrame(table).to_csv(tmp_path / "photos" / "labels.csv", index=False)
    monkeypatch.chdir(tmp_path)
    outputs = {}
    for words in commands():
        result = CliRunner().invoke(app, words, env={"COLUMNS": "150"})
        # Images of synthetic lesions look alike across lesions, which the check reports.
        fine = {0, 1} if words[:2] == ["data", "check"] else {0}
        assert result.exit_code in fine, f"{words}: {result.output}{result.exception}"
        outputs[" ".join(words)] = result.output
    (reported,) = (output for words, output in outputs.items() if "--metadata" in words)
    assert "unknown to the bundle, without effect: site elbow (6)" in reported
    scored = [output for words, output in outputs.items() if words.startswith("evaluate")]
    assert [output.count("12 images of 6 patients") for output in scored] == [1, 1]
    for name in re.findall(r"`((?:predictions|paper)/[\w./-]+)`", PAGE):
        assert Path(name).exists(), name
    sheet = pd.read_csv("predictions/study/predictions.csv")
    assert sheet["patient_id"].nunique() == 6
