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
from naevus.runs.run import WEIGHTS, Run
from naevus.runs.start import BundleStart, check_start, noted, open_start, runs_behind
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


def folds_of(prefix: str, held_out: str) -> Folds:
    """Return folds of ten images; fold 0 holds out those with these digits."""
    ids = [f"{prefix}{n}" for n in range(10)]
    fold = ["0" if image_id[-1] in held_out else "1" for image_id in ids]
    return Folds(pd.DataFrame({"image_id": ids, "group_id": ids, "fold": fold}, dtype="string"))


def run_from(folder: Path, folds: Folds, start: str | Path | None = None) -> Run:
    """Make a run whose fold 0 is finished."""
    inputs = {
        "data": "photographs",
        "fingerprint": folder.name,
        "layout": "manifest",
        "images": 10,
        "masks": None,
        "init_from": start and str(start),
    }
    run = Run.start(folder, RECIPE, folds, inputs)
    run.fold_folder(0).mkdir(exist_ok=True)
    (run.fold_folder(0) / WEIGHTS).touch()
    return run


@pytest.mark.parametrize("between", [0, 1, 2])
def test_what_a_run_behind_the_start_learnt_is_not_held_out(between: int, tmp_path: Path) -> None:
    run = run_from(tmp_path / "first", folds_of("ham", "01234"))
    for number in range(between):
        run = run_from(tmp_path / f"{number}", folds_of(f"other{number}-", "024"), run.folder)
    start = open_start(run.folder)
    assert check_start(start, RECIPE, folds_of("ham", "01234"), 0, ELSEWHERE) is None
    assert check_start(start, RECIPE, folds_of("ham", "012"), 0, ELSEWHERE) is None
    with pytest.raises(RunError, match=r"first: its fold 0 was trained on the lesion of ham5, "):
        check_start(start, RECIPE, folds_of("ham", "0156"), 0, ELSEWHERE)


def test_only_the_start_itself_needs_weights(tmp_path: Path) -> None:
    run = run_from(tmp_path / "first", folds_of("a", "0"))
    later = run_from(tmp_path / "later", folds_of("b", "0"), run.folder)
    (run.fold_folder(0) / WEIGHTS).unlink()
    assert check_start(later, RECIPE, folds_of("c", "0"), 0, ELSEWHERE) is None
    with pytest.raises(RunError, match="first: fold 0 is not finished"):
        check_start(run, RECIPE, folds_of("c", "0"), 0, ELSEWHERE)


def test_the_bundle_that_a_run_began_with_is_checked_as_if_named(tmp_path: Path) -> None:
    run = run_from(tmp_path / "first", folds_of("a", "0"), "built-in")
    later = run_from(tmp_path / "later", folds_of("b", "0"), run.folder)
    for start in (run, later):
        learnt = check_start(start, RECIPE, folds_of("c", "0"), 0, ELSEWHERE)
        assert learnt == check_start(START, RECIPE, folds_of("c", "0"), 0, ELSEWHERE)
        assert check_start(start, RECIPE, FOLDS, 0, {"fingerprint": DATA[0]}) is None
        with pytest.raises(RunError, match="built-in: was trained on this data, and not with"):
            check_start(start, RECIPE, folds_of("c", "0"), 0, {"fingerprint": DATA[0]})


@pytest.mark.parametrize("name", ["gone", "gone.naevus"])
def test_a_start_that_is_gone_is_named(name: str, tmp_path: Path) -> None:
    run = run_from(tmp_path / "first", folds_of("a", "0"), tmp_path / name)
    learnt = check_start(run, RECIPE, folds_of("c", "0"), 0, ELSEWHERE)
    assert learnt is not None
    assert f"{name}, which is gone and has learnt from unknown images" in learnt


def test_runs_that_name_each_other_are_each_checked_once(tmp_path: Path) -> None:
    """The folder of the first run got another run, which started from the second."""
    one = run_from(tmp_path / "one", folds_of("a", "0"), tmp_path / "two")
    two = run_from(tmp_path / "two", folds_of("b", "0"), tmp_path / "one")
    assert [run.folder for run in runs_behind(one)] == [one.folder, two.folder]
    assert check_start(one, RECIPE, folds_of("c", "0"), 0, ELSEWHERE) is None
