"""The networks: shapes, options, normalisation, summary."""

from __future__ import annotations

from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from naevus.errors import ConfigError, WeightsError
from naevus.training.networks import (
    Preprocessed,
    Segmenter,
    build_classifier,
    build_segmenter,
    layer_summary,
)
from naevus.training.pretrained import normalisation_of

LITE0 = "tf_efficientnet_lite0"
TINY = "test_efficientnet"
KERAS_NAMES = [
    "vgg16",
    "vgg19",
    "resnet50",
    "inception_v3",
    "densenet121",
    "densenet169",
    "densenet201",
    "nasnet",
]


@pytest.fixture(autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.mark.parametrize("name", KERAS_NAMES)
def test_the_keras_projects_backbones_are_available(name: str) -> None:
    images = torch.empty(2, 3, 96, 96, device="meta")
    with torch.device("meta"):
        network = build_classifier(name, weights="none").eval()
    assert network(images).shape == (2, 7)
    assert sum(weight.numel() for weight in network.parameters()) < 90e6  # no dense layers of VGG


@pytest.mark.slow
@pytest.mark.parametrize("name", KERAS_NAMES)
def test_the_keras_projects_backbones_segment(name: str) -> None:
    network = build_segmenter(encoder=name, weights="none").eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 96, 96)).shape == (1, 96, 96)


@pytest.mark.parametrize("architecture", sorted(smp.MODEL_ARCHITECTURES_MAPPING.keys() - {"dpt"}))
def test_every_architecture_outputs_one_logit_per_pixel(architecture: str) -> None:
    network = build_segmenter(architecture, LITE0, "none").eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 128, 160)).shape == (1, 128, 160)


@pytest.mark.parametrize("size", [(50, 64), (64, 37), (33, 95)])
@pytest.mark.parametrize("architecture", ["unet", "plain-unet"])
def test_any_image_size_is_accepted(architecture: str, size: tuple[int, int]) -> None:
    network = build_segmenter(architecture, TINY, "none").eval()
    with torch.no_grad():
        assert network(torch.zeros(2, 3, *size)).shape == (2, *size)


def test_padding_does_not_shift_the_logits() -> None:
    picked = Segmenter(
        nn.Conv2d(3, 1, kernel_size=1), stride=32, normalisation=normalisation_of("plain-unet")
    )
    images = torch.randn(1, 3, 40, 33)
    torch.testing.assert_close(picked(images), picked.network(images)[:, 0])


def test_decoder_options_are_passed_through() -> None:
    small = build_segmenter(
        encoder=TINY,
        weights="none",
        decoder={"encoder_depth": 4, "decoder_channels": [32, 16, 8, 8]},
    )
    large = build_segmenter(encoder=TINY, weights="none")
    assert small.stride == 16
    assert large.stride == 32
    assert sum(w.numel() for w in small.parameters()) < sum(w.numel() for w in large.parameters())
    plain = build_segmenter("plain-unet", weights="none", decoder={"channels": [4, 8]})
    assert plain.stride == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "vnet"}, "plain-unet"),
        ({"encoder": "resnet1"}, "did you mean resnet"),
        ({"encoder": "vit_tiny_patch16_224"}, "cannot be built"),
        ({"decoder": {"colour": 1}}, "colour"),
        ({"decoder": {"decoder_channels": [1, 2]}}, "decoder_channels"),
        ({"decoder": {"activation": "sigmoid"}}, "activation"),
        ({"architecture": "plain-unet", "decoder": {"channels": [4]}}, "two or more"),
        ({"architecture": "plain-unet", "decoder": {"depth": 4}}, "depth"),
    ],
)
def test_wrong_segmenters_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_segmenter(**{"encoder": LITE0, "weights": "none", **settings})


def test_the_plain_unet_has_no_pretrained_weights() -> None:
    with pytest.raises(WeightsError, match="--pretrained none"):
        build_segmenter("plain-unet")


def test_the_plain_unet_learns_a_square() -> None:
    network = build_segmenter("plain-unet", weights="none", decoder={"channels": [4, 8]})
    images = torch.randn(4, 3, 16, 16)
    targets = torch.zeros(4, 16, 16)
    targets[:, 4:12, 4:12] = 1
    images += 2 * targets[:, None]
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    losses = []
    for _ in range(30):
        loss = nn.functional.binary_cross_entropy_with_logits(network(images), targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_a_linear_head_over_pooled_features(pooling: Any) -> None:
    network = build_classifier(TINY, 5, "none", pooling=pooling).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        maps = network.features(images)
        pooled = maps.mean((2, 3)) if pooling == "avg" else maps.amax((2, 3))
        torch.testing.assert_close(network.pool(maps), pooled)
        torch.testing.assert_close(network(images), network.head(pooled))
    linear = [module for module in network.head if isinstance(module, nn.Linear)]
    assert len(linear) == 1


def test_a_hidden_layer_and_dropout() -> None:
    network = build_classifier(TINY, 5, "none", hidden=12, dropout=0.5)
    kinds = [type(module).__name__ for module in network.head]
    assert kinds == ["Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    features = torch.ones(1, network.head.get_parameter("1.weight").shape[1])
    assert not torch.equal(network.head(features), network.head(features))
    network.eval()
    assert torch.equal(network.head(features), network.head(features))


def test_blocks_are_skipped_only_in_training() -> None:
    network = build_classifier(LITE0, 5, "none", dropout=0, drop_path=0.9)
    images = torch.rand(4, 3, 32, 32)
    network.train()
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))
    with pytest.raises(ConfigError, match="drop_path_rate"):
        build_classifier("vgg11", 5, "none", drop_path=0.1)


@pytest.mark.parametrize(
    "settings",
    [{"backbone": "resnet1"}, {"pooling": "sum"}, {"classes": 0}, {"hidden": -1}, {"dropout": 1.5}],
)
def test_wrong_classifiers_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        build_classifier(**{"backbone": TINY, "weights": "none", **settings})


def test_the_normalisation_is_the_encoders() -> None:
    assert normalisation_of(f"tu-{LITE0}") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert normalisation_of("densenet121").mean == (0.485, 0.456, 0.406)
    assert normalisation_of("nasnet") == normalisation_of("nasnetalarge")


def test_preprocessed_networks_take_uint8_images() -> None:
    network = build_classifier("test_resnet", weights="none").eval()
    pixels = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    mean, std = (torch.tensor(values) for values in network.normalisation)
    expected = ((pixels / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        torch.testing.assert_close(Preprocessed(network)(pixels), network(expected))


def test_preprocessing_adds_nothing_to_the_weights() -> None:
    network = build_classifier(TINY, weights="none")
    assert {f"network.{key}" for key in network.state_dict()} == set(
        Preprocessed(network).state_dict()
    )


def test_the_summary_is_short_and_does_not_change_the_network() -> None:
    network = build_segmenter(weights="none").train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    text = layer_summary(network, 64)
    total = sum(weight.numel() for weight in network.parameters())
    assert f"{total:,} parameters" in text
    assert "16 × 64 × 64" in text
    assert len(text.splitlines()) < 40
    assert all(module.training for module in network.modules())
    after = network.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
