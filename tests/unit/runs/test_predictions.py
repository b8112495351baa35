"""The folder of a prediction job: whose settings it holds, and which job may go on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from naevus import __version__
from naevus.errors import NaevusError, RunError
from naevus.runs.predictions import SETTINGS, PredictionsFolder, is_run

if TYPE_CHECKING:
    from pathlib import Path

MADE: dict[str, Any] = {
    "segmenter": {"tta": "none", "bundles": ["a"]},
    "classifier": None,
    "masks": True,
    "batch": 8,
}


def claimed(root: Path, settings: dict[str, Any]) -> PredictionsFolder:
    folder = PredictionsFolder(root)
    folder.create()
    folder.claim(settings)
    return folder


def noted(folder: PredictionsFolder, **changes: Any) -> None:
    path = folder.root / SETTINGS
    settings = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in settings.items() if value != ""}))


def test_the_version_is_noted_and_the_same_job_goes_on(tmp_path: Path) -> None:
    folder = claimed(tmp_path, MADE)
    assert json.loads((tmp_path / SETTINGS).read_text()) == MADE | {"naevus_version": __version__}
    folder.claim(MADE)
    noted(folder, naevus_version="0.0.1")
    folder.claim(MADE)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"batch": 2}, "batch"),
        ({"segmenter": {"tta": "d4", "bundles": ["b"]}}, "segmenter.tta, segmenter.bundles"),
        ({"classifier": {"tta": "none"}}, "classifier"),
        ({"metadata": {"sha256": "1"}}, "metadata"),
        ({"shard": "1/2"}, "shard"),
    ],
)
def test_other_settings_are_named(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    folder = claimed(tmp_path, MADE)
    with pytest.raises(NaevusError) as caught:
        folder.claim(MADE | changes)
    assert caught.value.message == (
        f"{tmp_path} holds predictions made with other settings ({named})"
    )


@pytest.mark.parametrize(
    ("there", "maker"),
    [
        ({"naevus_version": "0.0.1", "batch": 2}, "naevus 0.0.1"),
        ({"naevus_version": "0.0.1", "batch": ""}, "naevus 0.0.1"),
        ({"naevus_version": "", "batch": ""}, "another version"),
        ({"naevus_version": "", "older": True}, "another version"),
    ],
)
def test_another_version_is_named_as_the_reason(
    there: dict[str, Any], maker: str, tmp_path: Path
) -> None:
    folder = claimed(tmp_path, MADE)
    noted(folder, **there)
    with pytest.raises(NaevusError) as caught:
        folder.claim(MADE)
    assert caught.value.message.startswith(
        f"{tmp_path} holds predictions of {maker}; naevus {__version__} has other settings ("
    )
    assert "--out" in caught.value.remedy


def test_predictions_that_were_interrupted_are_called_unfinished(tmp_path: Path) -> None:
    (tmp_path / SETTINGS).write_text("{}")
    with pytest.raises(RunError, match="is unfinished") as caught:
        is_run(tmp_path)
    assert "again" in caught.value.remedy
