"""Ablations: plans, and arms that are trained with the same budget and compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
import typer
from typer.testing import CliRunner

from naevus.cli import study as command
from naevus.datasets.layouts import load
from naevus.errors import ConfigError, DataError
from naevus.evaluation.comparison import compare
from naevus.images.maskfile import read_mask
from naevus.images.preprocess import ImageFiles, cut
from naevus.images.read import read, write_png
from naevus.inference.out_of_fold import oof_logits
from naevus.runs.recipe import Recipe
from naevus.runs.run import Run
from naevus.workflows.ablation import side_of_crops, with_detail
from naevus.workflows.ablation_plan import load_plan, recipes
from tests.helpers import ROOT

if TYPE_CHECKING:
    from typer.testing import Result

pytestmark = pytest.mark.slow

RECIPES = ROOT / "recipes"
RECIPE = """
task = "classification"
batch_size = 8
workers = 0
precision = "32"
sampling = "balanced-sqrt"
[data]
parts = ["task3"]
cache_size = 64
[network]
pretrained = "none"
backbone = "test_efficientnet"
[loss]
class_weights = "ones"
[optimiser]
learning_rate = 1e-2
ema = 0.5
"""
PLAN = """
title = "What helps"
recipe = "recipe.toml"
reference = "full"
[settings]
epochs = 1
sizes = [[0, 32]]
[arms.full]
about = "the recipe"
[arms.flips]
about = "four flips"
of = "full"
tta = "flips"
[arms.raw]
about = "as they come"
of = "full"
decision = "raw"
[arms.crop]
about = "crops around lesions"
set = { "data.crop_mode" = "crop" }
[arms.both]
about = "mean of two"
mean = ["crop", "full"]
[arms.coarse]
about = "no more pixels than crops"
detail_of = "crop"
"""
app = typer.Typer()
app.command()(command.ablate)


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "160"})


class Made:
    """A finished ablation."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.out, self.data, self.masks = folder / "out", data, folder / "masks"
        self.plan = folder / "plan.toml"
        (folder / "recipe.toml").write_text(RECIPE)
        self.plan.write_text(PLAN)
        for row in load(data).part("task3").rows():
            assert row.path is not None
            height, width = read(row.path).shape[:2]
            disc = np.zeros((height, width), np.uint8)
            centre = (int(width * 0.45), int(height * 0.55))
            cv2.circle(disc, centre, int(height * 0.25), 1, -1)
            write_png(self.masks / f"{row.image_id}_segmentation.png", disc > 0)
        self.result = self.call()

    def call(self, *more: object) -> Result:
        masks, cache = ("--masks", self.masks), ("--cache", self.out.parent / "cache")
        return call(self.plan, self.data, "--out", self.out, *masks, *cache, *more)

    def run(self, arm: str) -> Run:
        return Run.open(self.out / "arms" / arm)

    def predictions(self, arm: str, file: str = "oof.parquet") -> pd.DataFrame:
        return pd.read_parquet(self.run(arm).fold_folder(0) / file)


@pytest.fixture(scope="module")
def made(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    torch.set_num_threads(1)
    return Made(tmp_path_factory.mktemp("ablation"), synthetic)


def columns(table: pd.DataFrame, kind: str) -> np.ndarray[Any, Any]:
    names = [name for name in table.columns if name.startswith(f"{kind}_") and name != "group_id"]
    return table[names].to_numpy(np.float64)


def test_every_arm_is_in_the_tables_with_its_difference(made: Made) -> None:
    assert made.result.exit_code == 0, made.result.output
    assert "1 epoch at 32 px" in made.result.stdout
    assert "Crops use predicted masks" in made.result.stdout
    names = ["flips", "raw", "crop", "both", "coarse"]
    whole = json.loads((made.out / "ablation.json").read_text())
    assert [arm["name"] for arm in whole["arms"]] == names
    table = pd.read_csv(made.out / "ablation.csv")
    assert list(dict.fromkeys(table["arm"])) == names
    known = table.dropna(subset=["low", "high"])  # few lesions leave intervals blank
    assert len(known)
    assert ((known["low"] <= known["difference"]) & (known["difference"] <= known["high"])).all()
    np.testing.assert_allclose(table["difference"], table["value"] - table["reference"])
    page = (made.out / "ablation.md").read_text()
    assert all(f"| {name} |" in page and f"- {name}: " in page for name in ["full", *names])
    assert all(name in made.result.stdout for name in names)


def test_differences_are_those_of_compare(made: Made) -> None:
    tables = (made.predictions("full"), made.predictions("crop"))
    expected = compare(*tables, corrected=False).differences  # arms are corrected together
    table = pd.read_csv(made.out / "ablation.csv")
    rows = table[table["arm"] == "crop"].set_index("score")
    for one in expected:
        row = rows.loc[one.score]
        assert tuple(row[["difference", "low", "high"]]) == pytest.approx(
            tuple(one.difference), nan_ok=True
        )
        assert row["p"] == pytest.approx(one.p)


def test_arms_differ_only_in_their_settings(made: Made) -> None:
    full = made.run("full").recipe
    assert (full.epochs, full.sizes) == (1, ((0, 32),))
    assert made.run("crop").recipe == _with_data(full, crop_mode="crop")
    coarse = made.run("coarse").recipe
    assert coarse == _with_data(
        full, cache_size=coarse.data.cache_size, copies_size=coarse.data.cache_size
    )
    assert 32 < coarse.data.cache_size < 64
    held_out = {
        name: list(made.predictions(name)["image_id"]) for name in ("full", "crop", "coarse")
    }
    assert held_out["full"] == held_out["crop"] == held_out["coarse"]


def _with_data(recipe: Recipe, **changes: Any) -> Recipe:
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=changes)})


def test_transforms_are_those_of_prediction(made: Made) -> None:
    from naevus.bundles.bundle import Bundle
    from naevus.datasets.cache import ImageCache

    flips = made.predictions("full", "oof-flips.parquet")
    plain = made.predictions("full")
    assert not np.allclose(columns(flips, "logit"), columns(plain, "logit"))
    assert flips["diagnosis"].tolist() == plain["diagnosis"].tolist()
    caches = [ImageCache.open(folder) for folder in (made.out.parent / "cache").glob("full-64-*")]
    (cache,) = caches
    bundle = Bundle.read(made.run("full").bundle_folder(0))
    seen = oof_logits(bundle, cache, plain["image_id"].tolist(), tta="flips")
    np.testing.assert_array_equal(columns(seen, "logit"), columns(flips, "logit"))


def test_a_second_start_trains_nothing(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (made.out / "ablation.json").read_bytes()

    def trained(*_: object) -> None:
        pytest.fail("trained again")

    monkeypatch.setattr("naevus.workflows.ablation.train_folds", trained)
    monkeypatch.setattr("naevus.workflows.ablation.oof_logits", trained)
    assert made.call().exit_code == 0
    assert (made.out / "ablation.json").read_bytes() == before


def test_single_arms_are_shown_with_the_reference(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = made.call("--arm", "both")
    assert result.exit_code == 0, result.output
    assert [
        arm["name"] for arm in json.loads((made.out / "ablation.json").read_text())["arms"]
    ] == ["both"]
    unknown = made.call("--arm", "twice")
    assert isinstance(unknown.exception, ConfigError)
    assert "no arm is called twice" in str(unknown.exception)


def test_another_budget_is_not_mixed_in(made: Made) -> None:
    result = made.call("--set", "epochs=2")
    assert "epochs is 1 there, not 2" in str(result.exception)


def test_crops_need_masks(made: Made, tmp_path: Path) -> None:
    few = tmp_path / "few"
    for path in sorted(made.masks.iterdir())[:3]:
        write_png(few / path.name, read_mask(path))
    result = call(made.plan, made.data, "--out", tmp_path / "out", "--arm", "crop", "--masks", few)
    assert isinstance(result.exception, DataError)
    assert "have no mask for arm crop" in str(result.exception)


def test_the_side_of_crops_is_the_median_over_masks(made: Made) -> None:
    sources = [
        ImageFiles(row.image_id, row.path, made.masks / f"{row.image_id}_segmentation.png")
        for row in load(made.data).part("task3").rows()
        if row.path is not None
    ]
    sides = []
    for source in sources:
        assert source.mask_path is not None
        crop = cut(read(source.path), read_mask(source.mask_path), mode="crop", size=32, margin=0.1)
        sides.append(crop.box.width)
    assert side_of_crops(sources, 0.1) == round(float(np.median(sides)))
    with pytest.raises(DataError, match="no mask contains a lesion"):
        side_of_crops([source._replace(mask_path=None) for source in sources], 0.1)


def test_resolution_never_exceeds_the_recipe_s() -> None:
    recipe = Recipe(task="classification")
    assert with_detail(recipe, 100).data.cache_size == 100
    assert with_detail(recipe, 999).data.cache_size == recipe.data.cache_size


@pytest.mark.parametrize(
    ("changed", "output"),
    [
        (("= 3", ""), "not TOML"),
        (('reference = "full"', 'reference = "none"'), "the reference none is not a trained arm"),
        (('reference = "full"', 'reference = "raw"'), "the reference raw is not a trained arm"),
        (('of = "full"', 'of = "nothing"'), "flips depends on nothing"),
        (('tta = "flips"', 'tta = "many"'), "arms.flips.tta"),
        (
            ('set = { "data.crop_mode" = "crop" }', "set = { epochs = 9 }"),
            "crop cannot set epochs",
        ),
        (('mean = ["crop", "full"]', 'mean = ["crop"]'), "a mean needs two"),
        (('mean = ["crop", "full"]', 'mean = ["crop", "raw"]'), "both depends on raw"),
        (('detail_of = "crop"', 'tta = "flips"'), "need `of`"),
        (('detail_of = "crop"', 'detail_of = "crop"\nof = "full"'), "either trains"),
        (("[arms.raw]", '[arms."raw logits"]'), "lower-case letters"),
        (("[arms.raw]", "[arms.raw]\nlr = 3"), "arms.raw.lr"),
        (("[arms.raw]", "[arms.raw]\nsets = 3"), r"arms.raw.sets: .*did you mean set\?"),
    ],
)
def test_mistakes_in_plans_are_named(changed: tuple[str, str], output: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN.replace(*changed) if changed[1] else PLAN + changed[0])
    with pytest.raises(ConfigError, match=output):
        load_plan(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_plan(tmp_path / "none.toml")


def test_committed_plans_load_and_have_one_budget() -> None:
    plans = sorted((RECIPES / "ablations").glob("*.toml"))
    assert plans
    for path in plans:
        plan = load_plan(path)
        configs = recipes(plan, path.parent)
        assert set(configs) == set(plan.to_train(plan.shown(())))
        budgets = {(c.epochs, c.sizes, c.batch_size, c.seed) for c in configs.values()}
        assert len(budgets) == 1
        assert "5 epochs" in path.read_text().splitlines()[0]
        assert budgets.pop()[:2] == (5, ((0, 160),))
