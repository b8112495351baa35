from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from naevus.errors import BundleError, ConfigError
from naevus.inference.engines import EngineName, OpenVINOEngine, open_engine
from tests.onnx_graphs import write_classifier, write_segmenter

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

ENGINES: tuple[EngineName, ...] = ("openvino", "onnxruntime")


def pixels(count: int, size: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["classifier", "segmenter"])
def test_both_engines_agree(tmp_path: Path, kind: str) -> None:
    write = write_classifier if kind == "classifier" else write_segmenter
    graph = write(tmp_path / "g.onnx", size=32)
    batch = pixels(5, 32)
    name = "logits" if kind == "classifier" else "logit"
    first, second = (open_engine(graph, engine).run(batch)[name] for engine in ENGINES)
    assert first.shape == ((5, 7) if kind == "classifier" else (5, 32, 32))
    assert first.dtype == second.dtype == np.float32
    assert np.ptp(first) > 0.1
    np.testing.assert_allclose(first, second, atol=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_any_number_of_pictures_and_results_of_their_own(
    tmp_path: Path, engine: EngineName
) -> None:
    loaded = open_engine(write_classifier(tmp_path / "g.onnx", size=32), engine, threads=1)
    assert loaded.outputs == ("logits",)

    def runs(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        return loaded.run(batch)["logits"]

    batch = pixels(6, 32)
    whole = runs(batch)
    kept = whole.copy()
    pieces = np.concatenate([runs(batch[:1]), runs(batch[1:6:2]), runs(batch[2:6:2])])
    np.testing.assert_allclose(pieces, whole[[0, 1, 3, 5, 2, 4]], atol=1e-5)
    np.testing.assert_array_equal(whole, kept)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("content", [None, b"", b"no graph at all", b"\x08\x08"])
def test_what_is_no_graph_is_refused_in_one_line(
    tmp_path: Path, engine: EngineName, content: bytes | None
) -> None:
    path = tmp_path / "g.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BundleError, match=r"g\.onnx") as raised:
        open_engine(path, engine)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("engine", ENGINES)
def test_pictures_of_another_size_are_refused(tmp_path: Path, engine: EngineName) -> None:
    runs = open_engine(write_classifier(tmp_path / "g.onnx", size=32), engine).run
    with pytest.raises(BundleError, match="fails on pixels"):
        runs(pixels(1, 40))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_graph_of_floats_is_refused(tmp_path: Path, engine: EngineName) -> None:
    import onnx
    from onnx import TensorProto

    graph = write_segmenter(tmp_path / "g.onnx", size=8)
    model = onnx.load(graph)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    onnx.save(model, graph)
    with pytest.raises(BundleError, match="must be uint8"):
        open_engine(graph, engine)


def test_weights_outside_the_graph_are_never_followed(tmp_path: Path) -> None:
    import onnx

    graph = write_classifier(tmp_path / "g.onnx", size=32)
    onnx.save(
        onnx.load(graph),
        graph,
        save_as_external_data=True,
        location="weights.data",
        size_threshold=0,
    )
    for engine in ENGINES:
        with pytest.raises(BundleError):
            open_engine(graph, engine)


def test_an_unknown_engine_is_refused(tmp_path: Path) -> None:
    graph = write_classifier(tmp_path / "g.onnx", size=32)
    with pytest.raises(ConfigError, match="openvino or onnxruntime"):
        open_engine(graph, "tensorrt")  # type: ignore[arg-type]


def test_openvino_is_held_to_float32(tmp_path: Path) -> None:
    engine = OpenVINOEngine(write_classifier(tmp_path / "g.onnx", size=32), threads=1)
    precision = engine._compiled.get_property("INFERENCE_PRECISION_HINT")
    assert precision.get_type_name() == "f32"
    assert engine._compiled.get_property("INFERENCE_NUM_THREADS") == 1


NO_NETWORK = """
import socket, sys, pathlib

def refuse(*args, **kwargs):
    pathlib.Path(sys.argv[2]).write_text("a socket was opened")
    raise OSError("no network")

socket.socket = socket.create_connection = socket.getaddrinfo = refuse
from naevus.inference.engines import open_engine
import numpy as np
engine = open_engine(pathlib.Path(sys.argv[1]))
engine.run(np.zeros((1, 32, 32, 3), np.uint8))
telemetry = sys.modules.get("openvino_telemetry")
assert telemetry is None, telemetry
"""


def test_nothing_is_told_to_anybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = write_classifier(tmp_path / "g.onnx", size=32)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    told = tmp_path / "told"
    subprocess.run([sys.executable, "-c", NO_NETWORK, str(graph), str(told)], check=True)
    assert not told.exists()
    assert list(home.iterdir()) == []  # its telemetry leaves an identifier there
