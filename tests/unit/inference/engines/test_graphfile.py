from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from naevus.bundles.bundle import builtin
from naevus.errors import BundleError
from naevus.inference.engines import EngineName, base, graphfile, open_engine
from naevus.inference.engines.graphfile import check_graph
from tests.helpers.onnx_graphs import write_classifier

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ENGINES: tuple[EngineName, ...] = ("openvino", "onnxruntime")


def test_the_built_in_graphs_pass() -> None:
    graphs = sorted(builtin().glob("*.onnx"))
    assert graphs
    for path in graphs:
        check_graph(path, path.read_bytes())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("absolute", [False, True])
def test_weights_in_another_file_are_refused_even_if_it_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: EngineName, absolute: bool
) -> None:
    graph = write_classifier(tmp_path / "g.onnx", size=32)
    model = onnx.load(graph)
    onnx.save(model, graph, save_as_external_data=True, location="weights.data", size_threshold=0)
    if absolute:
        model = onnx.load(graph, load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = str(tmp_path / "weights.data")
        graph.write_bytes(model.SerializeToString())
    monkeypatch.chdir(tmp_path)  # where engines look
    with pytest.raises(BundleError, match="weights are in another file"):
        open_engine(graph, engine)


def test_the_cache_is_not_used_for_such_a_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from naevus.inference.engines.openvino import CompiledCache

    graph = write_classifier(tmp_path / "g.onnx", size=32)
    onnx.save(onnx.load(graph), graph, save_as_external_data=True, location="w", size_threshold=0)
    monkeypatch.delenv("NAEVUS_CACHE", raising=False)
    monkeypatch.setattr(CompiledCache, "load", lambda *_: pytest.fail("asked"))
    with pytest.raises(BundleError, match="another file"):
        open_engine(graph)


def _external() -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "w.data"
    return tensor


def _with_constant(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=_external()))


def _with_loop(model: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["", ""], ["x"], body=body))


def _with_branch(model: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(
        helper.make_node("If", ["c"], ["x"], then_branch=body, else_branch=body)
    )


def _with_function(model: onnx.ModelProto) -> None:
    model.functions.append(
        helper.make_function("d", "f", [], [], [], [helper.make_opsetid("", 18)])
    )


def _with_sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add().dims.append(4)


def _with_huge_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 2**40


def _with_outputs(model: onnx.ModelProto) -> None:
    for number in range(40):
        model.graph.output.append(
            helper.make_tensor_value_info(f"o{number}", TensorProto.FLOAT, [1])
        )


@pytest.mark.parametrize(
    ("change", "output"),
    [
        (_with_constant, "another file"),
        (_with_loop, "Loop"),
        (_with_branch, "If"),
        (_with_function, "functions"),
        (_with_sparse, "sparse"),
        (_with_huge_output, "an output with"),
        (_with_outputs, "outputs"),
    ],
)
def test_operators_that_networks_do_not_need_are_refused(
    tmp_path: Path, change: object, output: str
) -> None:
    graph = write_classifier(tmp_path / "g.onnx", size=32)
    model = onnx.load(graph)
    change(model)  # type: ignore[operator]
    with pytest.raises(BundleError, match=output) as raised:
        check_graph(graph, model.SerializeToString())
    assert "\n" not in str(raised.value)


def test_bounds_on_layers_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = write_classifier(tmp_path / "g.onnx", size=32)
    content = graph.read_bytes()
    monkeypatch.setattr(graphfile, "NODES", 3)
    with pytest.raises(BundleError, match="layers"):
        check_graph(graph, content)
    monkeypatch.setattr(graphfile, "LARGEST", 100)
    with pytest.raises(BundleError, match="larger than"):
        check_graph(graph, content)


def test_damaged_files_are_refused_in_one_line(tmp_path: Path) -> None:
    graph = write_classifier(tmp_path / "g.onnx", size=32)
    content = graph.read_bytes()
    for cut in (1, 10, len(content) // 2, len(content) - 1):
        with pytest.raises(BundleError, match=r"g\.onnx"):
            check_graph(graph, content[:cut])
    rng = np.random.default_rng(0)
    for _ in range(200):
        noise = rng.bytes(int(rng.integers(1, 200)))
        with pytest.raises(BundleError):
            check_graph(graph, noise + os.urandom(0))


KINDS: dict[int, Any] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.DOUBLE: np.float64,
    TensorProto.FLOAT16: np.float16,
}


def _weights(value: float, kind: int, values: int = 3000, *, raw: bool = True) -> TensorProto:
    """Return a tensor whose last number has a value."""
    numbers = np.linspace(-1, 1, values).tolist()
    numbers[-1] = value
    if raw and kind in KINDS:
        return numpy_helper.from_array(np.array(numbers, KINDS[kind]), "odd")
    return helper.make_tensor("odd", kind, [values], numbers)


def _with(graph: Path, change: Callable[[onnx.GraphProto], object]) -> bytes:
    model = onnx.load(graph)
    change(model.graph)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("kind", [*KINDS, TensorProto.BFLOAT16])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused_wherever_they_are(
    tmp_path: Path, kind: int, value: float, raw: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphfile, "_BLOCK", 1000)
    graph = write_classifier(tmp_path / "g.onnx", size=32)
    odd = _weights(value, kind, raw=raw)
    places: list[Callable[[onnx.GraphProto], object]] = [
        lambda graph: graph.initializer.append(odd),
        lambda graph: graph.node.append(helper.make_node("Constant", [], ["c"], value=odd)),
    ]
    for change in places:
        with pytest.raises(BundleError, match=r"g\.onnx: .*(NaN|infinity) in weights") as raised:
            check_graph(graph, _with(graph, change))
        assert "\n" not in str(raised.value)
    fine = _weights(3e4, kind, raw=raw)
    check_graph(graph, _with(graph, lambda graph: graph.initializer.append(fine)))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_network_with_nan_that_an_engine_would_hide_is_refused(
    tmp_path: Path, engine: EngineName
) -> None:
    graph = write_classifier(tmp_path / "g.onnx", size=32)
    model = onnx.load(graph)
    first = next(each for each in model.graph.initializer if each.data_type == TensorProto.FLOAT)
    values = numpy_helper.to_array(first).copy()
    values.flat[0] = np.nan
    first.CopyFrom(numpy_helper.from_array(values, first.name))
    onnx.save(model, graph)
    with pytest.raises(BundleError, match="NaN in weights"):
        open_engine(graph, engine)


@pytest.mark.parametrize("constant", ["initialiser", "tensor", "number"])
@pytest.mark.parametrize("operator", ["QuantizeLinear", "DequantizeLinear", "Clip"])
def test_infinity_bounds_numbers_and_scales_none(
    tmp_path: Path, operator: str, constant: str
) -> None:
    graph = write_classifier(tmp_path / "g.onnx", size=32)
    infinite = helper.make_tensor("s", TensorProto.FLOAT, [], [np.inf])

    def change(graph: onnx.GraphProto) -> None:
        if constant == "initialiser":
            graph.initializer.append(infinite)
        elif constant == "tensor":
            graph.node.append(helper.make_node("Constant", [], ["s"], value=infinite))
        else:
            graph.node.append(helper.make_node("Constant", [], ["s"], value_float=np.inf))
        graph.node.append(helper.make_node(operator, ["x", "s"], ["y"]))

    content = _with(graph, change)
    if operator == "Clip":
        check_graph(graph, content)
        return
    with pytest.raises(BundleError, match="the scale s is infinite"):
        check_graph(graph, content)


@pytest.mark.parametrize("values", [{"value_float": np.nan}, {"value_floats": [0.0, np.nan]}])
def test_settings_that_are_no_numbers_are_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    graph = write_classifier(tmp_path / "g.onnx", size=32)
    node = helper.make_node("Constant", [], ["c"], **values)
    with pytest.raises(BundleError, match=r"NaN in weights \(Constant\)"):
        check_graph(graph, _with(graph, lambda graph: graph.node.append(node)))


@pytest.mark.parametrize("dims", [[2**40], [2**62] * 400, [-1]])
def test_oversized_weights_and_outputs_are_refused(tmp_path: Path, dims: list[int]) -> None:
    graph = write_classifier(tmp_path / "g.onnx", size=32)
    tensor = TensorProto(data_type=TensorProto.INT8, name="w", dims=dims)
    with pytest.raises(BundleError, match=r"more than .* values in one weight"):
        check_graph(graph, _with(graph, lambda graph: graph.initializer.append(tensor)))
    if min(dims) > 0:
        output = helper.make_tensor_value_info("o", TensorProto.FLOAT, dims)
        with pytest.raises(BundleError, match=r"more than .* values per image"):
            check_graph(graph, _with(graph, lambda graph: graph.output.append(output)))


def test_a_graph_file_is_not_read_beyond_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = write_classifier(tmp_path / "g.onnx", size=32)
    monkeypatch.setattr(base, "LARGEST", 100)
    with pytest.raises(BundleError, match=r"g\.onnx: .*larger than"):
        base.graph_bytes(graph)
