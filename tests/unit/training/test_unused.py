"""Settings and options that would do nothing are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from naevus.errors import ConfigError
from naevus.runs.recipe import load_recipe
from naevus.training.unused import once, refuse_unused, refuse_unused_by_all
from naevus.types import Task

MASKS, COPIES = Path("masks"), (Path("copies"),)
REFUSED: list[tuple[Task, dict[str, Any], dict[str, Any], str]] = [
    ("segmentation", {}, {"masks": MASKS}, "--masks does nothing here: segmentation learns"),
    ("segmentation", {}, {"copies": COPIES}, "--copies does nothing here"),
    ("segmentation", {"data.crop_mode": "crop"}, {}, "data.crop_mode does nothing here"),
    ("segmentation", {"data.crop_margin": 0.15}, {}, "data.crop_margin does nothing here"),
    ("segmentation", {"data.copies_size": 128}, {}, "data.copies_size does nothing here"),
    ("segmentation", {"sampling": "balanced"}, {}, "sampling does nothing here"),
    ("segmentation", {"loss.gamma": 1}, {}, "loss.gamma does nothing here"),
    ("segmentation", {"loss.class_weights": "ones"}, {}, "loss.class_weights does nothing here"),
    ("segmentation", {"network.backbone": "resnet18"}, {}, "network.backbone does nothing here"),
    ("segmentation", {"network.dropout": 0.2}, {}, "network.dropout does nothing here"),
    ("classification", {}, {"masks": MASKS}, 'data.crop_mode = "full" shows centre squares'),
    ("classification", {"loss.terms": ["bce"]}, {}, "loss.terms does nothing here"),
    ("classification", {"loss.soft_masks": True}, {}, "loss.soft_masks does nothing here"),
    ("classification", {"network.encoder": "resnet18"}, {}, "network.encoder does nothing here"),
    ("classification", {"network.decoder": {"a": 1}}, {}, "network.decoder does nothing here"),
    ("classification", {"data.crop_margin": 0.3}, {}, "data.crop_margin does nothing here"),
    ("classification", {"loss.gamma": 2.0}, {}, "loss.gamma does nothing here"),
    ("classification", {"data.copies_size": 64}, {}, "there are no --copies"),
    ("classification", {"optimiser.momentum": 0.8}, {}, "optimiser.momentum does nothing here"),
    ("classification", {"optimiser.sam_batch": 1}, {}, "optimiser.sam_batch does nothing here"),
    (
        "segmentation",
        {"optimiser.ema": 0, "optimiser.ema_restart": 1},
        {},
        "optimiser.ema_restart does nothing here",
    ),
    ("segmentation", {"data.context": 1.3}, {}, "data.context does nothing here"),
    ("classification", {"optimiser.patience": 1}, {}, "optimiser.patience does nothing here"),
    ("classification", {"epochs": 4, "early_stopping": 4}, {}, "4 epochs end before it can stop"),
    (
        "classification",
        {"epochs": 3, "optimiser.schedule": "plateau", "optimiser.patience": 3},
        {},
        "never over in 3 epochs",
    ),
]


@pytest.mark.parametrize(("task", "settings", "options", "message"), REFUSED)
def test_settings_without_effect_are_refused(
    task: Task, settings: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    recipe = load_recipe(None, task, settings)
    with pytest.raises(ConfigError, match=message):
        refuse_unused(recipe, settings, **options)


HEEDED: list[tuple[Task, dict[str, Any], dict[str, Any]]] = [
    ("segmentation", {}, {}),
    ("segmentation", {"loss.terms": ["dice"], "network.encoder": "x", "augment.stretch": 1.2}, {}),
    ("segmentation", {"optimiser.name": "sgd", "optimiser.momentum": 0.5}, {}),
    ("classification", {}, {"copies": COPIES}),
    ("classification", {"data.copies_size": 64}, {"copies": COPIES}),
    ("classification", {"data.crop_mode": "crop", "data.crop_margin": 0.3}, {"masks": MASKS}),
    ("classification", {"data.crop_mode": "blank"}, {"masks": MASKS, "copies": COPIES}),
    ("classification", {"loss.kind": "focal", "loss.gamma": 1, "sampling": "balanced"}, {}),
    ("classification", {"epochs": 4, "early_stopping": 3}, {}),
    ("classification", {"optimiser.schedule": "plateau", "optimiser.patience": 3}, {}),
]


@pytest.mark.parametrize(("task", "settings", "options"), HEEDED)
def test_settings_with_an_effect_are_accepted(
    task: Task, settings: dict[str, Any], options: dict[str, Any]
) -> None:
    refuse_unused(load_recipe(None, task, settings), settings, **options)


def test_a_recipe_s_settings_at_their_defaults_are_taken(tmp_path: Path) -> None:
    recipe = tmp_path / "a.toml"
    recipe.write_text('task = "segmentation"\n[network]\nbackbone = "tf_efficientnet_lite0"\n')
    refuse_unused(load_recipe(recipe))
    recipe.write_text('task = "segmentation"\n[network]\nbackbone = "resnet18"\n')
    with pytest.raises(ConfigError, match=r"network\.backbone does nothing"):
        refuse_unused(load_recipe(recipe))


def test_a_setting_is_given_once() -> None:
    assert once([("a", 1), ("b", 2)], {"--c x.c": "3", "--d x.d": None}) == {
        "a": 1,
        "b": 2,
        "x.c": "3",
    }
    with pytest.raises(ConfigError, match="--set gives a twice"):
        once([("a", 1), ("b", 2), ("a", 1)], {})
    with pytest.raises(
        ConfigError, match=r"--pretrained and --set network\.pretrained say the same"
    ):
        once([("network.pretrained", "none")], {"--pretrained network.pretrained": "imagenet"})


def test_a_setting_must_have_an_effect_on_one_of_several_jobs() -> None:
    full = load_recipe(None, "classification")
    crop = load_recipe(None, "classification", {"data.crop_mode": "crop"})
    options: dict[str, Any] = {"masks": MASKS, "copies": COPIES}
    refuse_unused_by_all([full, crop], {"data.crop_margin"}, **options)
    with pytest.raises(ConfigError, match="no arm that is trained cuts crops"):
        refuse_unused_by_all([full, full], (), **options)
    with pytest.raises(ConfigError, match=r"loss\.gamma does nothing"):
        refuse_unused_by_all([full, crop], {"loss.gamma"}, **options)
