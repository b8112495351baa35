"""Settings and options without effect are rejected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from naevus.errors import ConfigError
from naevus.runs.recipe import load_recipe
from naevus.training.unused import once, refuse_unused, refuse_unused_by_all
from naevus.types import Task
from tests.helpers import ROOT

MASKS, COPIES = Path("masks"), (Path("copies"),)
REJECTED: list[tuple[Task, dict[str, Any], dict[str, Any], str]] = [
    ("segmentation", {}, {"masks": MASKS}, "--masks has no effect: segmentation learns"),
    ("segmentation", {}, {"copies": COPIES}, "--copies has no effect"),
    ("segmentation", {"data.crop_mode": "crop"}, {}, "data.crop_mode has no effect"),
    ("segmentation", {"data.crop_margin": 0.15}, {}, "data.crop_margin has no effect"),
    ("segmentation", {"data.copies_size": 128}, {}, "data.copies_size has no effect"),
    ("segmentation", {"sampling": "balanced"}, {}, "sampling has no effect"),
    ("segmentation", {"loss.gamma": 1}, {}, "loss.gamma has no effect"),
    ("segmentation", {"loss.class_weights": "ones"}, {}, "loss.class_weights has no effect"),
    ("segmentation", {"network.backbone": "resnet18"}, {}, "network.backbone has no effect"),
    ("segmentation", {"network.dropout": 0.2}, {}, "network.dropout has no effect"),
    ("classification", {}, {"masks": MASKS}, 'data.crop_mode = "full" uses centre squares'),
    ("classification", {"loss.terms": ["bce"]}, {}, "loss.terms has no effect"),
    ("classification", {"loss.soft_masks": True}, {}, "loss.soft_masks has no effect"),
    ("classification", {"network.encoder": "resnet18"}, {}, "network.encoder has no effect"),
    ("classification", {"network.decoder": {"a": 1}}, {}, "network.decoder has no effect"),
    ("classification", {"data.crop_margin": 0.3}, {}, "data.crop_margin has no effect"),
    ("classification", {"loss.gamma": 2.0}, {}, "loss.gamma has no effect"),
    ("classification", {"data.copies_size": 64}, {}, "no effect without --copies"),
    ("classification", {"optimiser.momentum": 0.8}, {}, "optimiser.momentum has no effect"),
    ("classification", {"optimiser.sam_batch": 1}, {}, "optimiser.sam_batch has no effect"),
    (
        "segmentation",
        {"optimiser.ema": 0, "optimiser.ema_restart": 1},
        {},
        "optimiser.ema_restart has no effect",
    ),
    ("segmentation", {"data.context": 1.3}, {}, "data.context has no effect"),
    ("classification", {"optimiser.patience": 1}, {}, "optimiser.patience has no effect"),
    ("segmentation", {"monitor": "loss"}, {}, "monitor has no effect: nothing follows it"),
    ("segmentation", {"monitor_lowest": True}, {}, "monitor_lowest has no effect: nothing"),
    ("segmentation", {"select": "best", "monitor_lowest": True}, {}, "the highest score is"),
    (
        "classification",
        {"epochs": 4, "early_stopping": 4},
        {},
        "training ends earlier, after 4 epochs",
    ),
    (
        "classification",
        {"epochs": 3, "optimiser.schedule": "plateau", "optimiser.patience": 3},
        {},
        "patience = 3 is too long for 3 epochs",
    ),
    (
        "segmentation",
        {"sizes": [[0, 320]]},
        {},
        "sizes reach 320 px, but data.cache_size is 256: .*; --set data.cache_size=320, or lower",
    ),
    ("attributes", {"sizes": [[0, 96], [2, 257], [4, 64]]}, {}, "reach 257 px, but data.cache_si"),
    ("classification", {"data.cache_size": 128}, {}, "sizes reach 160 px, but data.cache_size is"),
    ("classification", {"data.copies_size": 150}, {"copies": COPIES}, "data.copies_size is 150"),
]


@pytest.mark.parametrize(("task", "settings", "options", "message"), REJECTED)
def test_settings_without_effect_are_refused(
    task: Task, settings: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    recipe = load_recipe(None, task, settings)
    with pytest.raises(ConfigError, match=message):
        refuse_unused(recipe, settings, **options)


ACCEPTED: list[tuple[Task, dict[str, Any], dict[str, Any]]] = [
    ("segmentation", {}, {}),
    ("segmentation", {"loss.terms": ["dice"], "network.encoder": "x", "augment.stretch": 1.2}, {}),
    ("segmentation", {"optimiser.name": "sgd", "optimiser.momentum": 0.5}, {}),
    ("classification", {}, {"copies": COPIES}),
    ("classification", {"data.copies_size": 160}, {"copies": COPIES}),
    ("classification", {"sizes": [[0, 320]], "data.cache_size": 320}, {}),
    ("attributes", {"sizes": [[0, 320]], "data.cache_size": 320}, {"copies": COPIES}),
    ("classification", {"data.crop_mode": "crop", "data.crop_margin": 0.3}, {"masks": MASKS}),
    ("classification", {"data.crop_mode": "blank"}, {"masks": MASKS, "copies": COPIES}),
    ("classification", {"loss.kind": "focal", "loss.gamma": 1, "sampling": "balanced"}, {}),
    ("classification", {"epochs": 4, "early_stopping": 3}, {}),
    ("classification", {"optimiser.schedule": "plateau", "optimiser.patience": 3}, {}),
    ("classification", {"select": "best", "monitor": "loss"}, {}),
    ("classification", {"early_stopping": 3, "monitor": "accuracy"}, {}),
    ("segmentation", {"optimiser.schedule": "plateau", "monitor": "jaccard"}, {}),
    ("attributes", {"select": "best", "monitor": "loss", "monitor_lowest": True}, {}),
]


@pytest.mark.parametrize(("task", "settings", "options"), ACCEPTED)
def test_settings_with_an_effect_are_accepted(
    task: Task, settings: dict[str, Any], options: dict[str, Any]
) -> None:
    refuse_unused(load_recipe(None, task, settings), settings, **options)


def test_settings_at_their_defaults_are_accepted_in_a_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "a.toml"
    recipe.write_text('task = "segmentation"\n[network]\nbackbone = "tf_efficientnet_lite0"\n')
    refuse_unused(load_recipe(recipe))
    recipe.write_text('task = "segmentation"\n[network]\nbackbone = "resnet18"\n')
    with pytest.raises(ConfigError, match=r"network\.backbone has no effect"):
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
        ConfigError, match=r"--pretrained and --set network\.pretrained set the same value"
    ):
        once([("network.pretrained", "none")], {"--pretrained network.pretrained": "imagenet"})


def test_no_arm_may_enlarge_its_images() -> None:
    arms = [load_recipe(None, "classification", {"sizes": [[0, side]]}) for side in (224, 288)]
    refuse_unused_by_all(arms[:1], (), masks=None, copies=())
    with pytest.raises(ConfigError, match=r"288 px, but data\.cache_size is 256"):
        refuse_unused_by_all(arms, (), masks=None, copies=())


@pytest.mark.parametrize(
    "path", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda one: one.stem
)
def test_the_recipes_enlarge_no_image(path: Path) -> None:
    recipe = load_recipe(path)
    refuse_unused(recipe, copies=COPIES if recipe.task == "classification" else ())


def test_a_setting_must_have_an_effect_on_one_of_several_jobs() -> None:
    full = load_recipe(None, "classification")
    crop = load_recipe(None, "classification", {"data.crop_mode": "crop"})
    options: dict[str, Any] = {"masks": MASKS, "copies": COPIES}
    refuse_unused_by_all([full, crop], {"data.crop_margin"}, **options)
    with pytest.raises(ConfigError, match="no trained arm uses crops"):
        refuse_unused_by_all([full, full], (), **options)
    with pytest.raises(ConfigError, match=r"loss\.gamma has no effect"):
        refuse_unused_by_all([full, crop], {"loss.gamma"}, **options)
