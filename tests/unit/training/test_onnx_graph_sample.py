"""The sample of a bundle, with which engines are verified, and graphs for every engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from naevus.bundles.sample import SAMPLE_FILE, compared, distance, read_sample, sample_batch
from naevus.inference.engines import EngineName, open_engine
from naevus.training.networks import Preprocessed, build_classifier, build_segmenter
from naevus.training.onnx_graph import (
    OPSET,
    SampledNetwork,
    evaluated_graph,
    export_onnx,
    sample_entry,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

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
    networks = [each.network for each in shipped if each.network is not None]
    training = [network.training for network in networks]
    entry = sample_entry(shipped, path)["sample"]
    assert [network.training for network in networks] == training
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
def test_graphs_without_their_network_are_evaluated_by_onnx(
    shipped: list[SampledNetwork], tmp_path: Path
) -> None:
    sample_entry(shipped, tmp_path / "torch.npz")
    alone = [each._replace(network=None) for each in shipped]
    entry = sample_entry(alone, tmp_path / "onnx.npz")["sample"]
    assert entry["answered_by"].startswith("the reference evaluator of onnx")
    files = {each.graph.name: each.size for each in shipped}
    ours, theirs = (read_sample(tmp_path / name, files) for name in ("onnx.npz", "torch.npz"))
    np.testing.assert_array_equal(ours.pixels, theirs.pixels)
    for name in files:
        assert distance(ours.predictions[name], theirs.predictions[name]) < 1e-4


def test_8_bit_graphs_of_an_older_operator_set_are_evaluated(tmp_path: Path) -> None:
    """Weights and activations are multiples of the scales, so nothing is rounded."""
    scale, zero = np.array(0.5, np.float32), np.array(0, np.int8)
    weights = np.array([[2.0], [-1.0], [0.5]], np.float32)
    constants: dict[str, NDArray[Any]] = {
        "scale": scale, "zero": zero, "kernel": (weights / scale).astype(np.int8),
    }  # fmt: skip
    nodes = [
        helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
        helper.make_node("QuantizeLinear", ["mean", "scale", "zero"], ["small"]),
        helper.make_node("DequantizeLinear", ["small", "scale", "zero"], ["again"]),
        helper.make_node("DequantizeLinear", ["kernel", "scale", "zero"], ["weights"]),
        helper.make_node("MatMul", ["again", "weights"], ["logits"]),
    ]
    constants["axes"] = np.array([1, 2], np.int64)
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", 2, 2, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 1])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    path = tmp_path / "small.onnx"
    opset = [helper.make_opsetid("", OPSET)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    batch = np.array([[10, 20, 30], [60, 1, 0]], np.uint8)[:, None, None, :].repeat(2, 1)
    found = evaluated_graph(path, batch.repeat(2, 2))
    assert found["logits"].tolist() == [[15.0], [119.0]]


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
