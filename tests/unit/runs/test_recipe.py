"""Recipes: typed, checked, and the same after a round trip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from naevus.errors import ConfigError
from naevus.runs.recipe import TrainConfig, load_config, to_toml
from tests.helpers import ROOT

RECIPES = sorted((ROOT / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_load_and_survive_a_round_trip(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    again = tmp_path / "again.toml"
    again.write_text(to_toml(config))
    assert load_config(again) == config


def test_there_is_a_recipe_for_each_task() -> None:
    tasks = {load_config(path).task for path in RECIPES}
    assert tasks == {"segmentation", "classification", "attributes"}


@pytest.mark.parametrize(
    ("text", "said"),
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
def test_mistakes_in_recipes_are_named(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_config(path, "classification")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epochs": 5, "sizes": [[0, 128], [7, 160]]}, "sizes reach 160 px in epoch 7"),
        ({"epochs": 7, "sizes": [[0, 128], [7, 160]]}, "sizes reach 160 px in epoch 7"),
        ({"data.inner_share": 0, "select": "best"}, 'no score for select = "best"'),
        ({"data.inner_share": 0, "early_stopping": 3}, "no score for early_stopping"),
        ({"data.inner_share": 0, "optimiser.schedule": "plateau"}, "plateau"),
    ],
)
def test_settings_that_cannot_count_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(None, "classification", settings)


def test_settings_that_just_count_are_taken() -> None:
    assert load_config(None, "segmentation", {"epochs": 8, "sizes": [[0, 128], [7, 160]]})
    assert load_config(None, "segmentation", {"data.inner_share": 0, "select": "last"})


def test_a_missing_recipe_is_an_error() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(Path("nowhere.toml"), "segmentation")


def test_overrides_reach_sections() -> None:
    config = load_config(None, "segmentation", {"optimiser.clip": 0, "epochs": 3})
    assert (config.optimiser.clip, config.epochs) == (0, 3)


def test_the_fingerprint_follows_the_settings() -> None:
    config = TrainConfig(task="segmentation", sizes=((0, 64), (3, 96)))
    assert [config.size_at(epoch) for epoch in (0, 2, 3, 9)] == [64, 64, 96, 96]
    assert config.input_size == 96
    same = config.model_copy(update={"workers": 7, "checkpoint_seconds": 1.0})
    other = config.model_copy(update={"seed": 1})
    assert same.fingerprint() == config.fingerprint() != other.fingerprint()


def test_another_start_is_another_recipe_and_another_seed_is_no_other_start() -> None:
    config = TrainConfig(task="classification")
    other = load_config(None, "classification", {"network.init_seed": 1})
    assert other.fingerprint() != config.fingerprint()
    assert load_config(None, "classification", {"seed": 1}).network == config.network


def test_architecture_is_named_as_bundles_do() -> None:
    assert TrainConfig(task="classification").architecture == "tf_efficientnet_lite0"
    assert TrainConfig(task="segmentation").architecture == "unet:tu-tf_efficientnet_lite0"
