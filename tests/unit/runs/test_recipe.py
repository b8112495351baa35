"""Recipes: typed, checked, and the same after a round trip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from naevus.errors import ConfigError
from naevus.runs.recipe import Recipe, load_recipe, to_toml
from tests.helpers import ROOT

RECIPES = sorted((ROOT / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_load_and_survive_a_round_trip(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    again = tmp_path / "again.toml"
    again.write_text(to_toml(recipe))
    assert load_recipe(again) == recipe


@pytest.mark.parametrize("text", ["öäü", "\U0001f600", 'a"b\\c', "\x7f\x01", "a b.c"])
def test_any_text_survives_a_round_trip(text: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    settings = {"task": "segmentation", "network": {"decoder": {text: [1, 2]}, "encoder": text}}
    recipe = Recipe.model_validate(settings)
    path.write_text(to_toml(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe


def test_there_is_a_recipe_for_each_task() -> None:
    tasks = {load_recipe(path).task for path in RECIPES}
    assert tasks == {"segmentation", "classification", "attributes"}


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("epoch = 3", "epoch"),
        ("epochs = 0", "epochs"),
        ("sizes = [[1, 64]]", "sizes"),
        ("sizes = [[0, 64], [0, 96]]", "sizes"),
        ("[loss]\nterms = ['hinge']", "loss.terms"),
        ("[network]\npretrained = 'random'", "network.pretrained"),
        ("= 3", "is not TOML"),
        ("task = 'segmentation'", "is a recipe for segmentation"),
    ],
)
def test_mistakes_in_recipes_are_named(text: str, output: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=output):
        load_recipe(path, "classification")


@pytest.mark.parametrize(
    ("name", "value", "output"),
    [
        ("epoch", 1, r"epoch: there is no such setting \(did you mean epochs\?\)"),
        ("optimizer.clip", 1, r"optimizer: there is no such setting \(did you mean optimiser\?\)"),
        ("learning_rte", 1, r"\(did you mean optimiser.learning_rate\?\)"),
        ("xyz", 1, "xyz: there is no such setting;"),
        ("epochs", "one", 'epochs: must be a whole number, not "one"'),
        ("epochs", 1.5, "epochs: must be a whole number, not 1.5"),
        ("epochs", 0, "epochs: must be greater than or equal to 1, not 0"),
        ("augment.hue", "x", 'augment.hue: must be a number, not "x"'),
        ("augment.d4", "maybe", 'augment.d4: must be true or false, not "maybe"'),
        ("augment", 3, "augment: must be a table, not 3"),
        ("network.encoder", 3, "network.encoder: must be text in quotes, not 3"),
        ("loss.terms", "bce", r'loss.terms: must be a list, such as \["a", "b"\].*, not "bce"'),
        ("loss.terms", ["hinge"], "loss.terms.0: must be bce, .* or MODULE:NAME, not 'hinge'"),
        ("sizes", [[0]], "sizes.0.1: is missing"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_expected(name: str, value: Any, output: str) -> None:
    with pytest.raises(ConfigError, match=output):
        load_recipe(None, "segmentation", {name: value})


@pytest.mark.parametrize(
    ("settings", "output"),
    [
        ({"epochs": 5, "sizes": [[0, 128], [7, 160]]}, "sizes reach 160 px in epoch 7"),
        ({"epochs": 7, "sizes": [[0, 128], [7, 160]]}, "sizes reach 160 px in epoch 7"),
        ({"data.validation_fraction": 0, "select": "best"}, 'no score for select = "best"'),
        ({"data.validation_fraction": 0, "early_stopping": 3}, "early_stopping: set a"),
        ({"data.validation_fraction": 0, "optimiser.schedule": "plateau"}, "plateau"),
        ({"monitor": "jaccard"}, "'jaccard', which classification does not log; it logs balanced"),
        ({"monitor": "mine"}, "'mine', which classification does not log"),
        ({"monitor": "top_2", "metrics": ["a.b:top_1"]}, "loss, top_1, and own metrics named in"),
        ({"monitor": "loss", "monitor_lowest": False}, "the lowest loss is the best"),
    ],
)
def test_settings_that_cannot_count_are_refused(settings: dict[str, Any], output: str) -> None:
    with pytest.raises(ConfigError, match=output):
        load_recipe(None, "classification", settings)


def test_settings_that_just_count_are_taken() -> None:
    assert load_recipe(None, "segmentation", {"epochs": 8, "sizes": [[0, 128], [7, 160]]})
    assert load_recipe(None, "segmentation", {"data.validation_fraction": 0, "select": "last"})


@pytest.mark.parametrize(
    ("settings", "lowest"),
    [
        ({}, False),
        ({"monitor": "accuracy"}, False),
        ({"monitor": "loss"}, True),
        ({"monitor": "top_2", "metrics": ["a.b:top_2"]}, False),
        ({"monitor": "error", "metrics": ["a.b:error"], "monitor_lowest": True}, True),
    ],
)
def test_the_lowest_loss_and_the_highest_score_are_the_best(
    settings: dict[str, Any], lowest: bool
) -> None:
    recipe = load_recipe(None, "classification", {"select": "best", **settings})
    assert recipe.monitor_lowest is lowest
    assert Recipe.model_validate(recipe.model_dump()) == recipe


def test_a_missing_recipe_is_an_error() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_recipe(Path("nowhere.toml"), "segmentation")


def test_overrides_reach_sections() -> None:
    recipe = load_recipe(None, "segmentation", {"optimiser.clip": 0, "epochs": 3})
    assert (recipe.optimiser.clip, recipe.epochs) == (0, 3)


@pytest.mark.parametrize(("value", "read"), [(32, "32"), ("32", "32"), ("bf16", "bf16")])
def test_a_precision_is_named_by_number_or_text(value: Any, read: str) -> None:
    assert load_recipe(None, "segmentation", {"precision": value}).precision == read


@pytest.mark.parametrize(
    ("settings", "select"),
    [
        ({}, "last"),
        ({"early_stopping": 0}, "last"),
        ({"early_stopping": 2}, "best"),
        ({"early_stopping": 2, "select": "last"}, "last"),
        ({"select": "best"}, "best"),
    ],
)
def test_early_stopping_exports_the_best_weights_unless_said_otherwise(
    settings: dict[str, Any], select: str
) -> None:
    recipe = load_recipe(None, "segmentation", settings)
    assert recipe.select == select
    assert Recipe.model_validate(recipe.model_dump()) == recipe


def test_the_fingerprint_follows_the_settings() -> None:
    recipe = Recipe(task="segmentation", sizes=((0, 64), (3, 96)))
    assert [recipe.size_at(epoch) for epoch in (0, 2, 3, 9)] == [64, 64, 96, 96]
    assert recipe.input_size == 96
    same = recipe.model_copy(update={"workers": 7, "checkpoint_seconds": 1.0})
    other = recipe.model_copy(update={"seed": 1})
    assert same.fingerprint() == recipe.fingerprint() != other.fingerprint()


def test_another_start_is_another_recipe_and_another_seed_is_no_other_start() -> None:
    recipe = Recipe(task="classification")
    other = load_recipe(None, "classification", {"network.init_seed": 1})
    assert other.fingerprint() != recipe.fingerprint()
    assert load_recipe(None, "classification", {"seed": 1}).network == recipe.network


def test_architecture_is_named_as_bundles_do() -> None:
    assert Recipe(task="classification").architecture == "tf_efficientnet_lite0"
    assert Recipe(task="segmentation").architecture == "unet:tu-tf_efficientnet_lite0"


@pytest.mark.parametrize("task", ["segmentation", "classification", "attributes"])
def test_every_setting_has_a_comment_with_its_values(task: Any, tmp_path: Path) -> None:
    recipe = load_recipe(None, task)
    text = to_toml(recipe, comments=True)
    (tmp_path / "my.toml").write_text(text)
    assert load_recipe(tmp_path / "my.toml") == recipe
    assert max(map(len, text.splitlines())) <= 100
    before = ""
    found = 0
    for line in text.splitlines():
        if " = " in line and not line.startswith("#"):
            found += 1
            assert before.startswith("# "), line
            assert before.endswith("]"), line
        before = line
    tables = recipe.model_dump()
    assert found == sum(len(each) if isinstance(each, dict) else 1 for each in tables.values())
    assert "None" not in text
    assert "# Classifier: the loss. [cross_entropy, focal, MODULE:NAME]" in text
    assert "[auto, 32, bf16]" in text
