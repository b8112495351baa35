"""Weights taken back from exported graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from timm.models.densenet import DenseNet

from naevus.bundles.bundle import Bundle, builtin
from naevus.bundles.sample import distance, read_sample, sample_batch
from naevus.errors import WeightsError
from naevus.export.graphs import to_fp16
from naevus.runs.recipe import LESION, load_recipe
from naevus.taxonomy import ATTRIBUTES
from naevus.training.from_graph import check_loaded, load_graph
from naevus.training.networks import Preprocessed, build_classifier, build_segmenter
from naevus.training.onnx_graph import SampledNetwork, export_onnx
from naevus.training.tasks import build_network
from tests.helpers import ROOT

LITE0 = "tf_efficientnet_lite0"
ENCODER = "test_efficientnet"


@pytest.fixture(autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def lived(network: Preprocessed) -> Preprocessed:
    """Give a network the weights and statistics of one that was trained."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.GroupNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.2)
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    return network.eval()


def pixels(count: int, size: int, seed: int = 0) -> torch.Tensor:
    """Return images with structure, so that channels vary."""
    small = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return torch.from_numpy(small.repeat(size // 8, 1).repeat(size // 8, 2))


def small_densenet() -> DenseNet:
    """A network with batch norms before their convolutions, which no export can fold."""
    return DenseNet(growth_rate=8, block_config=(2, 2), num_classes=0)


NETWORKS: dict[str, Any] = {
    "test_resnet": lambda: build_classifier("test_resnet", weights="none"),
    "a dense layer": lambda: build_classifier("test_resnet", weights="none", hidden=8),
    "a densenet, some norms before": lambda: build_classifier(
        f"{__name__}:small_densenet", weights="none"
    ),
    "vgg11_bn, biases before norms": lambda: build_classifier("vgg11_bn", weights="none"),
    "plain-unet": lambda: build_segmenter("plain-unet", "", "none", {"channels": [4, 8]}),
    "fpn, group norms": lambda: build_segmenter(
        "fpn", "test_resnet", "none", outputs=(LESION, *ATTRIBUTES)
    ),
}


@pytest.mark.parametrize(
    ("name", "fp16"), [*((name, False) for name in NETWORKS), ("test_resnet", True)]
)
def test_a_graph_gives_the_network_its_weights_back(name: str, fp16: bool, tmp_path: Path) -> None:
    trained = lived(Preprocessed(NETWORKS[name]()))
    graph = tmp_path / "network.onnx"
    export_onnx(trained, graph, input_size=64)
    if fp16:
        onnx.save(to_fp16(onnx.load(graph)), graph)

    torch.manual_seed(1)
    network = Preprocessed(NETWORKS[name]())
    batches = [pixels(4, 64, seed) for seed in range(3)]
    load_graph(graph, network, batches, head=True)
    network.eval()
    unseen = pixels(3, 64, 9)
    with torch.no_grad():
        expected, found = trained(unseen).numpy(), network(unseen).numpy()
    assert distance(found, expected) < (0.02 if fp16 else 1e-3)

    # In training mode, layers that were folded know the statistics of these images.
    norms = [each for each in network.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    before = [each.running_mean.clone() for each in norms if each.running_mean is not None]
    assert not norms or any(float(each.abs().max()) > 0 for each in before)


def test_training_mode_keeps_what_a_folded_network_does(tmp_path: Path) -> None:
    trained = Preprocessed(build_segmenter("unet", LITE0))
    batches = [pixels(8, 64, seed) for seed in range(4)]
    trained.train()
    with torch.no_grad():
        for _ in range(15):  # the statistics settle at those of these images
            for batch in batches:
                trained(batch)
    trained.eval()
    graph = tmp_path / "network.onnx"
    export_onnx(trained, graph, input_size=64)
    network = Preprocessed(build_segmenter("unet", LITE0, "none"))
    load_graph(graph, network, batches, head=True)
    network.train()
    with torch.no_grad():
        expected, found = trained(batches[0]), network(batches[0])
    assert float(torch.corrcoef(torch.stack([expected.ravel(), found.ravel()]))[0, 1]) > 0.95


@pytest.mark.parametrize("name", ["segmentation", "attributes", "classification-lite3"])
def test_the_built_in_networks_can_be_started_from(name: str) -> None:
    recipe = load_recipe(ROOT / "recipes" / f"{name}.toml")
    bundle = Bundle.read(builtin())
    member = next(
        each
        for each in bundle.spec.members_of(recipe.task)
        if each.architecture == recipe.architecture
    )
    assert bundle.spec.sample is not None
    sample = read_sample(bundle.folder / bundle.spec.sample.file, {member.file: member.input_size})
    batch = torch.from_numpy(sample_batch(sample.pixels, member.input_size))
    network = build_network(recipe, 7, "none")
    graph = bundle.folder / member.file
    load_graph(graph, network, [batch], head=True)
    check_loaded(SampledNetwork(recipe.task, graph, network, member.input_size), sample)
    other = build_network(recipe, 7, "none").eval()
    with pytest.raises(WeightsError, match="do not give its predictions"):
        check_loaded(SampledNetwork(recipe.task, graph, other, member.input_size), sample)


def test_other_classes_get_a_new_head(tmp_path: Path) -> None:
    trained = lived(Preprocessed(build_classifier("test_resnet", 7, "none")))
    graph = tmp_path / "network.onnx"
    export_onnx(trained, graph, input_size=64)
    network = Preprocessed(build_classifier("test_resnet", 3, "none"))
    own = {name: each.clone() for name, each in network.state_dict().items() if ".head." in name}
    with pytest.raises(WeightsError, match=r"network\.head\.1\.weight is 7 x 96, not 3 x 96"):
        load_graph(graph, network, [pixels(4, 64)], head=True)
    load_graph(graph, network, [pixels(4, 64)], head=False)
    assert all(torch.equal(network.state_dict()[name], each) for name, each in own.items())
    batch = pixels(2, 64, 5)
    with torch.no_grad():
        pairs = [
            each.network.pool(each.network.features(each.prepared(batch)))  # type: ignore[operator]
            for each in (trained, network.eval())
        ]
    torch.testing.assert_close(*pairs, atol=1e-4, rtol=1e-3)


OTHERS: dict[str, tuple[Any, str]] = {
    "another decoder": (
        lambda: build_segmenter(
            "unet", ENCODER, "none", {"decoder_channels": [64, 32, 32, 16, 16]}
        ),
        r"give the recipe the settings of `network` that it was trained with",
    ),
    "another architecture": (
        lambda: build_segmenter("fpn", ENCODER, "none"),
        "does not name all weights of this network",
    ),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_graph_of_another_network_is_refused(other: str, tmp_path: Path) -> None:
    graph = tmp_path / "network.onnx"
    export_onnx(Preprocessed(build_segmenter("unet", ENCODER, "none")), graph, input_size=64)
    build, match = OTHERS[other]
    with pytest.raises(WeightsError, match=match):
        load_graph(graph, Preprocessed(build()), [pixels(2, 64)], head=True)
