"""Smaller graphs: file size, inputs, outputs, and agreement with fp32."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from naevus.errors import BundleError, ConfigError
from naevus.export.graphs import FEWEST, _delicate, to_fp16, to_int8
from naevus.inference.engines import Engine, OnnxRuntimeEngine, OpenVINOEngine, Outputs
from naevus.training.networks import Preprocessed, build_classifier
from naevus.training.onnx_graph import export_onnx, write_onnx

SIZE = 32
PIXELS = np.random.default_rng(5).integers(0, 256, (12, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("exported") / "network.onnx"
    export_onnx(
        Preprocessed(build_classifier("test_resnet", weights="none")), path, input_size=SIZE
    )
    return path


def predictions(path: Path) -> list[Outputs]:
    engines: list[Engine] = [OnnxRuntimeEngine(path, threads=1), OpenVINOEngine(path, threads=1)]
    return [engine.run(PIXELS) for engine in engines]


def described(model: onnx.ModelProto) -> list[tuple[str, int]]:
    values = [*model.graph.input, *model.graph.output]
    return [(value.name, value.type.tensor_type.elem_type) for value in values]


def test_fp16_halves_the_file_and_keeps_the_predictions(exported: Path, tmp_path: Path) -> None:
    model = onnx.load(exported)
    before = model.SerializeToString(deterministic=True)
    half = tmp_path / "half.onnx"
    write_onnx(to_fp16(model), half)
    assert model.SerializeToString(deterministic=True) == before
    assert half.stat().st_size < 0.6 * exported.stat().st_size
    assert described(onnx.load(half)) == described(model)
    for one, other in zip(predictions(exported), predictions(half), strict=True):
        for name, values in one.items():
            np.testing.assert_allclose(other[name], values, atol=0.01 * np.abs(values).max())


def test_fp16_computes_with_exactly_the_rounded_weights(exported: Path, tmp_path: Path) -> None:
    model = onnx.load(exported)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type == TensorProto.FLOAT and values.ndim > 1 and values.size >= FEWEST:
            rounded = values.astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
    write_onnx(model, tmp_path / "rounded.onnx")
    write_onnx(to_fp16(onnx.load(exported)), tmp_path / "half.onnx")
    pairs = zip(
        predictions(tmp_path / "rounded.onnx"), predictions(tmp_path / "half.onnx"), strict=True
    )
    for rounded_predictions, half in pairs:
        for name, values in rounded_predictions.items():
            np.testing.assert_allclose(half[name], values, atol=1e-6)


def test_weights_beyond_fp16_are_refused(exported: Path) -> None:
    model = onnx.load(exported)
    large = next(
        tensor
        for tensor in model.graph.initializer
        if len(tensor.dims) > 1 and np.prod(tensor.dims) >= FEWEST
    )
    values = numpy_helper.to_array(large).copy()
    values.flat[0] = 7e4
    large.CopyFrom(numpy_helper.from_array(values, large.name))
    with pytest.raises(BundleError, match="too large for fp16"):
        to_fp16(model)


def test_int8_without_nncf_names_the_extra(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(ConfigError, match=r"pip install .*\[quantise\]"):
        to_int8(onnx.load(exported), PIXELS)


def test_input_joined_and_output_layers_stay_in_fp32() -> None:
    steps = [
        ("Conv", "first", ["pixels", "w"], "a"),
        ("Conv", "second", ["a", "w"], "b"),
        ("Concat", "join", ["a", "b"], "c"),
        ("Conv", "of joined", ["c", "w"], "d"),
        ("Conv", "third", ["d", "w"], "e"),
        ("Gemm", "head", ["e", "w"], "logits"),
        ("Gemm", "beside", ["e", "w"], "f"),
    ]
    nodes = [helper.make_node(kind, given, [out], name) for kind, name, given, out in steps]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "network", [], [logits])
    assert _delicate(graph) == ["first", "of joined", "head"]


@pytest.mark.slow
def test_int8_keeps_input_and_output_layers_in_fp32(exported: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.onnx"
    model = onnx.load(exported)
    quantised = to_int8(model, PIXELS)
    weights = [
        numpy_helper.to_array(tensor)
        for tensor in quantised.graph.initializer
        if tensor.data_type == TensorProto.INT8 and tensor.dims
    ]
    # 7 bits: two products with 8-bit activations never overflow 16 bits.
    assert any(each.size >= FEWEST for each in weights)
    assert max(np.abs(each.astype(int)).max() for each in weights) <= 64
    write_onnx(quantised, small)
    quantised = onnx.load(small)
    assert described(quantised) == described(model)
    assert small.stat().st_size < 0.45 * exported.stat().st_size
    stored = {
        tensor.name
        for tensor in quantised.graph.initializer
        if tensor.data_type == TensorProto.INT8
    }
    assert stored
    # The layers in fp32 have weights of fp16; biases and the scales of int8 keep 32 bits.
    for tensor in quantised.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            assert len(tensor.dims) < 2 or np.prod(tensor.dims) < FEWEST
    assert any(tensor.data_type == TensorProto.FLOAT16 for tensor in quantised.graph.initializer)
    makers = {name: node for node in quantised.graph.node for name in node.output}
    for node in quantised.graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            assert node.input[1] not in makers
    for name in ("logits", "cam"):
        assert all(
            value not in makers or makers[value].op_type != "DequantizeLinear"
            for value in makers[name].input[1:]
        )
    (first, *later) = (node for node in quantised.graph.node if node.op_type == "Conv")
    assert all(
        value not in makers or makers[value].op_type != "DequantizeLinear" for value in first.input
    )
    assert any(makers[node.input[1]].op_type == "DequantizeLinear" for node in later)
    for one, other in zip(predictions(exported), predictions(small), strict=True):
        spread = np.abs(one["embedding"]).max()
        np.testing.assert_allclose(other["embedding"], one["embedding"], atol=0.2 * spread)
        means = other["cam"].mean((2, 3))
        np.testing.assert_allclose(means, other["logits"], atol=0.02)
