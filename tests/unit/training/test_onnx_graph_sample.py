"""The sample of a bundle, with which engines are verified, and graphs for every engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch

from naevus.bundles.sample import SAMPLE_FILE, compared, distance, read_sample, sample_batch
from naevus.inference.engines import EngineName, open_engine
from naevus.training.networks import Preprocessed, build_classifier, build_segmenter
from naevus.training.onnx_graph import SampledNetwork, export_onnx, sample_entry

if TYPE_CHECKING:
    from pathlib import Path

SIZES = {"segmentation": 64, "classification": 32}
ENGINES: tuple[EngineName, ...] = ("openvino", "onnxruntime")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> list[SampledNetwork]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("shipped")
    contours = Preprocessed(
        build_segmenter("unet", "resnet18", "none", {"decoder_channels": [32, 16, 16, 8, 8]})
    )
    names = Preprocessed(build_classifier("test_resnet", weights="none"))
    found = []
    for task, network in (("segmentation", contours), ("classification", names)):
        path = folder / f"{task}-0.onnx"
        export_onnx(network, path, input_size=SIZES[task])
        found.append(SampledNetwork(task, path, network, SIZES[task]))  # type: ignore[arg-type]
    return found


@pytest.mark.slow
def test_engines_agree_with_torch_on_the_sample(
    shipped: list[SampledNetwork], tmp_path: Path
) -> None:
    path = tmp_path / SAMPLE_FILE
    training = [each.network.training for each in shipped]
    entry = sample_entry(shipped, path)["sample"]
    assert [each.network.training for each in shipped] == training
    assert "torch" in entry["answered_by"]
    sample = read_sample(path, {each.graph.name: each.size for each in shipped})
    assert sample.pixels.shape == (64, 64, 3)
    for each in shipped:
        right = sample.predictions[each.graph.name]
        allowed = entry["tolerances"][each.graph.name]
        assert allowed == {"fp32": 0.005}
        assert right.std() > 1e-3
        for engine in ENGINES:
            batch = sample_batch(sample.pixels, each.size)
            output = compared(open_engine(each.graph, engine, 1).run(batch))
            assert distance(output, right) <= allowed["fp32"]
            assert distance(output * np.float32(1.1), right) > allowed["fp32"]
    again = tmp_path / "again.npz"
    sample_entry(shipped, again)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_maps_are_resized_by_fixed_scales(shipped: list[SampledNetwork]) -> None:
    model = onnx.load(shipped[0].graph)
    resizes = [node for node in model.graph.node if node.op_type == "Resize"]
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    assert resizes
    for node in resizes:
        scales = onnx.numpy_helper.to_array(weights[node.input[2]])
        assert scales.tolist() == [1, 1, 2, 2]
        assert len(node.input) == 3
    used = {name for node in model.graph.node for name in node.input}
    assert weights.keys() <= used
