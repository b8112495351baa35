"""Own parts: how they are imported and made, and what they must return."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from naevus.errors import ConfigError, WeightsError
from naevus.io.progress import SilentReporter
from naevus.runs.recipe import Recipe, load_recipe, to_toml
from naevus.runs.recipe_tables import AugmentSettings, is_own
from naevus.training.augment import Augmentation
from naevus.training.losses import OwnLoss, classification_loss, segmentation_loss
from naevus.training.networks import Preprocessed, build_classifier, build_segmenter
from naevus.training.parts import import_part, make_part, note_origins, origins_of
from naevus.training.tasks import check_network, own_metrics
from naevus.training.unused import refuse_unused
from tests.helpers import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACKAGE = ROOT / "tests" / "data" / "outside_package"
LOSS, NET = "outside_package.losses:Tversky", "outside_package.nets:Small"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(PACKAGE))
    yield
    for name in [name for name in sys.modules if name.startswith(("outside_package", "faulty"))]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("package.module:Name", True),
        ("module:name", True),
        ("bce", False),
        ("module.name", False),
        ("module:", False),
        (":name", False),
        ("a b:c", False),
        ("os:system('x')", False),
        ("package:a.b", False),
    ],
)
def test_own_parts_have_a_module_and_a_name(name: str, own: bool) -> None:
    assert is_own(name) is own


def test_a_recipe_lists_its_own_parts_once(tmp_path: Path) -> None:
    settings = {
        "loss.terms": ["bce", LOSS],
        "network.architecture": NET,
        "augment.own": ["outside_package.augment:Vignette"],
        "metrics": ["outside_package.metrics:area_error"],
    }
    recipe = load_recipe(None, "segmentation", settings)
    assert recipe.own_network == recipe.architecture == NET
    assert recipe.own_parts == (NET, LOSS, *settings["augment.own"], *settings["metrics"])
    (tmp_path / "own.toml").write_text(to_toml(recipe))
    assert load_recipe(tmp_path / "own.toml") == recipe
    plain = Recipe(task="segmentation")
    assert (plain.own_network, plain.own_parts) == (None, ())
    assert plain.fingerprint() != recipe.fingerprint()
    assert "outside_package" not in sys.modules, "reading a recipe imports nothing"


@pytest.mark.parametrize(
    "settings",
    [
        {"loss.terms": ["hinge"]},
        {"loss.kind": "hinge"},
        {"augment.own": ["Vignette"]},
        {"metrics": ["top_2"]},
    ],
)
def test_names_that_are_neither_known_nor_own_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="MODULE:NAME"):
        load_recipe(None, "segmentation", settings)


FAULTY = """
def two_dimensional(**_):
    return lambda logits, targets: logits
def text(**_):
    return lambda logits, targets: "loss"
def needs_more(width):
    return None
def nothing(**_):
    return None
def float_images():
    return lambda pixels, mask, rng: (pixels / 255, mask)
def no_module(**_):
    return lambda images: images
def raising(predicted, truth):
    raise ValueError("no")
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.losses:A", "there is no module absent"),
        ("outside_package.absent:A", "there is no module outside_package.absent"),
        ("outside_package.losses:A", "the module has no A"),
        ("faulty:nothing", "faulty:nothing returned NoneType"),
        ("faulty:needs_more", r"faulty:needs_more\(\) raised TypeError"),
        ("faulty_import:A", "importing it raised ZeroDivisionError"),
    ],
)
def test_parts_that_cannot_be_made_are_named(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY)
    (tmp_path / "faulty_import.py").write_text("1 / 0\n")
    sys.path.insert(0, str(tmp_path))
    with pytest.raises(ConfigError, match=message):
        make_part(name)
    sys.path.remove(str(tmp_path))


def test_an_own_term_is_added_to_the_others() -> None:
    logits, targets = torch.randn(2, 8, 8), (torch.rand(2, 8, 8) > 0.5).float()
    parts = [segmentation_loss([term])(logits, targets) for term in ("bce", LOSS)]
    torch.testing.assert_close(segmentation_loss(["bce", LOSS])(logits, targets), sum(parts))
    perfect = segmentation_loss([LOSS])(200 * (targets - 0.5), targets)
    assert perfect.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("maker", ["two_dimensional", "text"])
def test_a_loss_that_is_no_scalar_is_refused(
    maker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="return a tensor without dimensions"):
        OwnLoss(f"faulty:{maker}")(torch.zeros(2, 3), torch.zeros(2))


def test_an_own_loss_of_diagnoses_gets_the_class_weights() -> None:
    logits, targets = torch.zeros(4, 2), torch.tensor([0, 0, 0, 1])
    weights = torch.tensor([1.0, 3.0])
    loss = classification_loss("outside_package.losses:Poly1", class_weights=weights)
    each = float(np.log(2)) + 0.5
    assert loss(logits, targets).item() == pytest.approx(each * 6 / 4)


def test_an_own_network_takes_any_size_and_its_own_normalisation() -> None:
    segmenter = build_segmenter(NET, weights="none", decoder={"width": 4}, outputs=("a", "b"))
    assert segmenter(torch.zeros(1, 3, 33, 35)).shape == (1, 2, 33, 35)
    assert segmenter.normalisation.mean == (0.7, 0.55, 0.5)
    with pytest.raises(WeightsError, match="--pretrained none"):
        build_segmenter(NET)
    with pytest.raises(ConfigError, match="raised TypeError"):
        build_segmenter(NET, weights="none", decoder={"depth": 4})
    classifier = build_classifier("outside_package.nets:Backbone", 5, "none", hidden=3)
    assert classifier(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
    with pytest.raises(ConfigError, match="has no forward_features, forward_head, num_features"):
        build_classifier("torch.nn:Identity", 5, "none")


def test_an_own_network_of_another_shape_is_refused() -> None:
    recipe = load_recipe(
        None, "segmentation", {"network.architecture": NET, "network.pretrained": "none"}
    )
    good = Preprocessed(build_segmenter(NET, weights="none"))
    check_network(good, recipe, 1)

    class Flat(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels.float().mean((1, 2))

    with pytest.raises(ConfigError, match=r"give \(2, 3\), not \(2, 160, 160\)"):
        check_network(Flat(), recipe, 1)  # type: ignore[arg-type]


def test_own_augmentations_come_last_and_follow_the_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = dict.fromkeys(
        ("rotation", "scale", "shift", "brightness", "contrast", "saturation", "hue", "hair"), 0
    )
    still |= {"jpeg": 0, "blur": 0, "sharpen": 0, "d4": False}
    own = ("outside_package.augment:Vignette",)
    augmentation = Augmentation(AugmentSettings.model_validate({**still, "own": own}))
    pixels, mask = np.full((32, 32, 3), 200, np.uint8), np.full((32, 32), 255, np.uint8)
    corners = []
    for seed in range(20):
        varied, kept = augmentation(pixels, mask, 32, np.random.default_rng(seed))
        again, _ = augmentation(pixels, mask, 32, np.random.default_rng(seed))
        np.testing.assert_array_equal(varied, again)
        assert kept is not None
        assert kept.all()
        assert (varied[16, 16] == 200).all()
        corners.append(int(varied[0, 0, 0]))
    assert set(corners) == {0, 200}
    (tmp_path / "faulty.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(str(tmp_path))
    wrong = Augmentation(AugmentSettings.model_validate({"own": ["faulty:float_images"]}))
    with pytest.raises(ConfigError, match=r"returned float64 \(32, 32, 3\), not uint8"):
        wrong(pixels, None, 32, np.random.default_rng(0))


def test_own_metrics_are_named_after_their_functions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["outside_package.metrics:top_2"]
    recipe = load_recipe(None, "classification", {"metrics": names})
    p = np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])
    assert own_metrics(recipe, p, np.array([1, 2])) == {"top_2": 0.5}
    (tmp_path / "faulty.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(str(tmp_path))
    faulty = load_recipe(None, "classification", {"metrics": ["faulty:raising"]})
    with pytest.raises(ConfigError, match="faulty:raising raised ValueError: no"):
        own_metrics(faulty, p, np.array([1, 2]))


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        ("segmentation", {"network.architecture": NET, "network.encoder": "x"}, "network.encoder"),
        (
            "classification",
            {"network.backbone": "outside_package.nets:Backbone", "network.pooling": "max"},
            "network.pooling",
        ),
        (
            "classification",
            {"loss.kind": "outside_package.losses:Poly1", "loss.label_smoothing": 0.1},
            "loss.label_smoothing",
        ),
        ("attributes", {"metrics": ["outside_package.metrics:top_2"]}, "metrics"),
    ],
)
def test_settings_that_own_parts_ignore_are_refused(
    task: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"{message} has no effect"):
        refuse_unused(load_recipe(None, task, settings), settings)


class Kept(SilentReporter):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, text: str, label: str = "note") -> None:
        self.warnings.append(f"{label}: {text}")


def test_origins_are_noted_and_changes_reported(tmp_path: Path) -> None:
    origins = origins_of([LOSS])
    assert import_part(LOSS).__name__ == "Tversky"
    assert list(origins) == [LOSS]
    assert origins[LOSS].startswith("outside-package 1.0, file SHA-256 ")
    path, kept = tmp_path / "environment.json", Kept()
    path.write_text('{"python": "3"}')
    for _ in range(2):
        note_origins(path, origins, kept)
    assert json.loads(path.read_text()) == {"python": "3", **origins}
    assert not kept.warnings
    note_origins(path, {LOSS: "outside-package 1.1"}, kept)
    assert kept.warnings == [f"changed: {LOSS} was {origins[LOSS]} when the run was started"]
