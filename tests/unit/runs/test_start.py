"""Where training starts: another run, or bundles."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from naevus.bundles.bundle import Bundle, builtin
from naevus.datasets.folds import Folds
from naevus.errors import BundleError, NaevusError, RunError
from naevus.runs.recipe import Recipe, load_recipe
from naevus.runs.start import BundleStart, check_start, noted, open_start
from tests.helpers import ROOT
from tests.helpers.mixed_inputs import mixed_bundle

if TYPE_CHECKING:
    from naevus.types import CropMode

RECIPE = load_recipe(ROOT / "recipes" / "segmentation.toml")
FOLDS = Folds.read(ROOT / "results" / "folds" / "isic2018-task1.csv")
START = open_start("built-in")
DATA = str(Bundle.read(builtin()).spec.provenance["segmentation data"]).split(", ")
ELSEWHERE = {"fingerprint": "0" * 64}


def test_what_can_be_started_from(tmp_path: Path) -> None:
    shutil.copytree(builtin(), tmp_path / "folder")
    for name in ("built-in", str(tmp_path / "folder"), "b.naevus", "b-{fold}"):
        assert isinstance(open_start(name), BundleStart)
    assert noted(START) == "built-in"
    assert noted(open_start("b-{fold}")) == str(Path("b-{fold}").resolve())
    assert noted(None) is None


@pytest.mark.parametrize(
    ("name", "match"),
    [("absent", "absent: does not exist"), (".", "neither a run nor a bundle")],
)
def test_nothing_else_can(name: str, match: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=match):
        open_start(tmp_path / name)


def test_a_folder_with_the_name_of_the_built_in_bundle_is_not_guessed_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(builtin(), tmp_path / "built-in")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match="a folder here has that name"):
        open_start("built-in")
    assert isinstance(open_start(tmp_path / "built-in"), BundleStart)


def test_each_fold_can_have_a_bundle_of_its_own() -> None:
    start = BundleStart(str(ROOT / "results/bundles/segmentation-both-fold-{fold}.naevus"))
    assert [start.network(RECIPE, fold).member.folds for fold in range(5)] == [
        (k,) for k in range(5)
    ]
    with pytest.raises(NaevusError, match=r"segmentation-both-fold-7\.naevus"):
        start.bundle(7)


@pytest.mark.parametrize(("mode", "file"), [("full", 2), ("crop", 1), ("blank", 1)])
def test_a_classifier_that_sees_the_same_is_preferred(
    tmp_path: Path, mode: CropMode, file: int
) -> None:
    bundle = mixed_bundle(Bundle.read(builtin()), tmp_path / "mixed", 2, "full")
    recipe = load_recipe(
        ROOT / "recipes" / "classification-lite2.toml", None, {"data.crop_mode": mode}
    )
    found = BundleStart(str(bundle.folder)).network(recipe, 0)
    assert found.member.file == f"classification-{file}.onnx"


@pytest.mark.parametrize(
    ("changes", "other"),
    [
        ({}, None),
        ({"sizes": [[0, 160]]}, "size 192, not 160"),
        ({"data.crop_mode": "full"}, "data.crop_mode crop, not full"),
        ({"data.crop_margin": 0.5}, "data.crop_margin 0.15, not 0.5"),
        ({"data.colour_constancy": True}, "without data.colour_constancy"),
        (
            {"data.crop_mode": "blank", "sizes": [[0, 96], [2, 224]]},
            "size 192, not 224, and data.crop_mode crop, not blank",
        ),
    ],
)
def test_an_input_unlike_the_network_s_is_named(changes: dict[str, Any], other: str | None) -> None:
    recipe = load_recipe(ROOT / "recipes" / "classification-lite3.toml", None, changes)
    assert BundleStart("built-in").network(recipe, 0).other_input(recipe) == other


def test_other_data_are_named() -> None:
    learnt = "built-in has learnt from ISIC 2018 Task 1 and HAM10000"
    assert check_start(START, RECIPE, FOLDS, 3, ELSEWHERE) == learnt
    recipe = load_recipe(ROOT / "recipes" / "classification.toml")
    learnt = "built-in has learnt from HAM10000 and ISIC 2018 Task 1"
    assert check_start(START, recipe, FOLDS, 3, ELSEWHERE) == learnt


@pytest.mark.parametrize("data", DATA)
def test_the_same_data_need_the_same_folds(data: str) -> None:
    inputs = {"fingerprint": data}
    assert check_start(START, RECIPE, FOLDS, 0, inputs) is None
    with pytest.raises(RunError, match="not with fold 1 of these folds held out"):
        check_start(START, RECIPE, FOLDS, 1, inputs)
    moved = FOLDS.table.copy()
    moved["fold"] = moved["fold"].replace({"0": "1", "1": "0"})
    with pytest.raises(RunError, match="not with fold 0"):
        check_start(START, RECIPE, Folds(pd.DataFrame(moved)), 0, inputs)


OTHER: dict[str, tuple[dict[str, Any], str]] = {
    "another encoder": (
        {"task": "segmentation", "network": {"encoder": "tu-resnet18"}},
        "unet:tu-resnet18 for segmentation; .*unet:tu-tf_efficientnet_lite0",
    ),
    "another architecture": (
        {"task": "segmentation", "network": {"architecture": "fpn"}},
        "no network fpn:",
    ),
    "another backbone": (
        {"task": "classification", "network": {"backbone": "resnet18"}},
        "resnet18 for classification; .*lite0, tf_efficientnet_lite2, tf_efficientnet_lite3$",
    ),
}


@pytest.mark.parametrize("other", OTHER)
def test_a_bundle_without_such_a_network_is_refused(other: str) -> None:
    settings, match = OTHER[other]
    with pytest.raises(RunError, match=match):
        check_start(START, Recipe.model_validate(settings), FOLDS, 0, ELSEWHERE)
