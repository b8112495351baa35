"""What a job refuses before it imports torch, which takes seconds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import scipy.stats  # noqa: F401 (asks, while it is imported, whether torch is)

from naevus.datasets.folds import make_folds
from naevus.datasets.layouts import load
from naevus.errors import NaevusError
from naevus.io import extras
from naevus.training.job import train

SEGMENTATION = {"task": "segmentation", "network.pretrained": "none"}
HEAVY = ("torch", "timm", "naevus.training.data", "naevus.training.distributed")


@pytest.fixture(autouse=True)
def _nothing_heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the import of what takes seconds fail, as if it were not installed."""
    for name in HEAVY:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("naevus.training.job.require", lambda *_: None)


FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no data": ({}, {"data": "absent"}, "absent"),
    "no folds": ({}, {"folds": "absent.csv"}, "absent.csv"),
    "no masks": (
        {"task": "classification", "data.crop_mode": "crop"}, {"masks": "absent"},
        "absent: no such folder",
    ),
    "no copies": (
        {"task": "attributes", "data.copies_fraction": 0.5}, {"copies": ["absent"]},
        "absent: no such folder",
    ),
    "no run": ({}, {"init_from": "absent"}, "absent: does not exist"),
    "no weights": ({"network.pretrained": "absent.safetensors"}, {}, "absent.safetensors: cannot"),
    "no threads": ({}, {"threads": 0}, "0 threads; use 1 or more"),
    "no such fold": ({}, {"fold": 7}, "7"),
    "nothing held out": ({"data.limit": 1}, {"folds": "folds.csv", "fold": [0, 1, 2, 3, 4]},
                         "none of the 1 image"),
    "nothing validates": (
        {"early_stopping": 2, "data.validation_fraction": 1e-9}, {},
        "fold 0 has no validation images, which .*early_stopping needs; raise",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("settings", "words", "problem"), FAULTS.values(), ids=FAULTS)
def test_faults_are_found_before_torch_is_imported(
    settings: dict[str, Any],
    words: dict[str, Any],
    problem: str,
    synthetic_images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_folds(load(synthetic_images).part("task1")).write(tmp_path / "folds.csv")
    monkeypatch.chdir(tmp_path)
    named: dict[str, Any] = {"data": synthetic_images, "out": "run"} | words
    with pytest.raises(NaevusError, match=problem):
        train(SEGMENTATION | settings, **named)
    assert not Path("run").exists()


def test_a_job_without_faults_comes_to_what_takes_seconds(
    synthetic_images: Path, tmp_path: Path
) -> None:
    with pytest.raises(ImportError, match=r"naevus\.training\.data"):
        train(SEGMENTATION, synthetic_images, out=tmp_path / "run")


@pytest.mark.usefixtures("synthetic_images")
def test_missing_packages_are_named_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setitem(extras.EXTRAS, "train", ("torch", "no_such_package"))
    with pytest.raises(NaevusError, match="training needs no_such_package, which is not installed"):
        train({"task": "segmentation"}, "absent", out="run")
