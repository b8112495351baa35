from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from naevus.errors import BundleError, ConfigError
from naevus.inference.engines import (
    EngineName,
    OpenVINOEngine,
    open_engine,
    openvino,
    streams_for,
)
from naevus.inference.engines import onnxruntime as ort
from naevus.inference.engines.openvino import SWITCH, CompiledCache
from tests.helpers.onnx_graphs import write_classifier, write_segmenter

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


ENGINES: tuple[EngineName, ...] = ("openvino", "onnxruntime")


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "off")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of compiled graphs."""
    monkeypatch.delenv(SWITCH)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "naevus" / "compiled"


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
def test_batches_of_any_size_give_independent_results(tmp_path: Path, engine: EngineName) -> None:
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
def test_a_file_that_is_not_a_graph_is_refused_in_one_line(
    tmp_path: Path, engine: EngineName, content: bytes | None
) -> None:
    path = tmp_path / "g.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BundleError, match=r"g\.onnx") as raised:
        open_engine(path, engine)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("engine", ENGINES)
def test_images_of_another_size_are_refused(tmp_path: Path, engine: EngineName) -> None:
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
    with pytest.raises(ConfigError, match="openvino, onnxruntime"):
        open_engine(graph, "tensorrt")  # type: ignore[arg-type]


def test_openvino_computes_in_float32(tmp_path: Path) -> None:
    engine = OpenVINOEngine(write_classifier(tmp_path / "g.onnx", size=32), threads=1)
    precision = engine._compiled.get_property("INFERENCE_PRECISION_HINT")
    assert precision.get_type_name() == "f32"
    assert engine._compiled.get_property("INFERENCE_NUM_THREADS") == 1


def test_without_a_cache_no_file_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    open_engine(write_classifier(tmp_path / "g.onnx", size=32))
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("kind", ["classifier", "segmenter"])
def test_streams_and_threads_do_not_change_a_byte(tmp_path: Path, kind: str) -> None:
    write = write_classifier if kind == "classifier" else write_segmenter
    graph = write(tmp_path / "g.onnx", size=32)
    batch = pixels(2 * openvino.PIECE + 3, 32)
    name = "logits" if kind == "classifier" else "logit"
    predictions = [
        OpenVINOEngine(graph, threads, streams=streams).run(batch)[name]
        for threads, streams in ((1, 1), (2, 1), (2, 2), (3, 3), (2, 8))
    ]
    assert len(predictions[0]) == len(batch)
    for answer in predictions[1:]:
        np.testing.assert_array_equal(answer, predictions[0])


def test_streams_are_no_more_than_threads(tmp_path: Path) -> None:
    engine = OpenVINOEngine(write_classifier(tmp_path / "g.onnx", size=32), 2, streams=5)
    assert engine._compiled.get_property("NUM_STREAMS") == 2


def test_threads_are_bound_to_no_processor(tmp_path: Path) -> None:
    """They share the processors with decoding and with other processes."""
    engine = OpenVINOEngine(write_classifier(tmp_path / "g.onnx", size=32), 2, streams=2)
    assert engine._compiled.get_property("ENABLE_CPU_PINNING") is False


def test_an_engine_works_after_images_it_rejected(tmp_path: Path) -> None:
    engine = OpenVINOEngine(write_classifier(tmp_path / "g.onnx", size=32), 2, streams=2)
    before = engine.run(pixels(20, 32))["logits"]
    with pytest.raises(BundleError, match="fails on pixels"):
        engine.run(pixels(20, 40))
    np.testing.assert_array_equal(engine.run(pixels(20, 32))["logits"], before)


def test_few_images_share_one_stream_and_many_get_more() -> None:
    assert streams_for(1, 16) == streams_for(openvino.PIECE, 16) == 1
    assert streams_for(1000, 2) == 2
    assert streams_for(1000, 64) == 4


def test_bf16_is_refused_if_the_processor_lacks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = write_classifier(tmp_path / "g.onnx", size=32)
    monkeypatch.setattr(openvino, "precisions", lambda: ("fp32",))
    with pytest.raises(ConfigError, match="does not support bf16") as raised:
        open_engine(graph, precision="bf16")
    assert "\n" not in str(raised.value)
    with pytest.raises(ConfigError, match="ONNX Runtime does not compute in bf16"):
        open_engine(graph, "onnxruntime", precision="bf16")


def test_bf16_differs_from_fp32_by_its_rounding(tmp_path: Path) -> None:
    if "bf16" not in openvino.precisions():
        pytest.skip("this processor has no bf16")
    graph = write_classifier(tmp_path / "g.onnx", size=32)
    half, whole = (open_engine(graph, precision=each) for each in ("bf16", "fp32"))
    assert half.precision == "bf16"
    batch = pixels(4, 32)
    first, second = half.run(batch)["logits"], whole.run(batch)["logits"]
    assert (first != second).any()
    np.testing.assert_allclose(first, second, atol=0.1)


def test_cuda_comes_first_without_tf32() -> None:
    assert ort.providers([ort.CPU]) == [ort.CPU]
    assert ort.providers(["TensorrtExecutionProvider", ort.CUDA, ort.CPU]) == [
        (ort.CUDA, {"device_id": "0", "use_tf32": "0"}),
        ort.CPU,
    ]


def test_compiled_graphs_are_reused_with_equal_outputs(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = write_classifier(tmp_path / "g.onnx", size=32)
    batch = pixels(5, 32)
    first = OpenVINOEngine(graph, threads=1)
    (kept,) = cache.iterdir()
    assert kept.parent.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(CompiledCache, "store", lambda *_: pytest.fail("compiled again"))
    second = OpenVINOEngine(graph, threads=2, streams=2)
    assert second.outputs == first.outputs
    assert second._compiled.get_property("NUM_STREAMS") == 2
    np.testing.assert_array_equal(second.run(batch)["logits"], first.run(batch)["logits"])


def test_another_graph_never_uses_the_cached_one(tmp_path: Path, cache: Path) -> None:
    batch = pixels(5, 32)
    graphs = [write_classifier(tmp_path / f"{seed}.onnx", size=32, seed=seed) for seed in (0, 1)]
    one, other = (OpenVINOEngine(graph).run(batch)["logits"] for graph in graphs)
    assert (one != other).any()
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("where", [0, 40, 0.5, 0.9, None])
def test_a_damaged_cache_is_rebuilt(tmp_path: Path, cache: Path, where: float | None) -> None:
    """OpenVINO's own cache would load damaged weights."""
    graph = write_classifier(tmp_path / "g.onnx", size=32)
    batch = pixels(5, 32)
    right = OpenVINOEngine(graph).run(batch)["logits"]
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    if where is None:
        kept.write_bytes(whole[: len(whole) // 2])
    else:
        damaged = bytearray(whole)
        place = int(where * len(whole)) if where < 1 else int(where)
        damaged[place : place + 16] = bytes(255 - byte for byte in damaged[place : place + 16])
        kept.write_bytes(damaged)
    np.testing.assert_array_equal(OpenVINOEngine(graph).run(batch)["logits"], right)
    assert kept.read_bytes()[:32] == CompiledCache.digest(kept.read_bytes()[32:])


def test_cached_graphs_that_openvino_refuses_are_compiled_again(
    tmp_path: Path, cache: Path
) -> None:
    graph = write_classifier(tmp_path / "g.onnx", size=32)
    OpenVINOEngine(graph)
    (kept,) = cache.iterdir()
    CompiledCache(cache).store(kept.stem, b"whole, but of no use")
    assert OpenVINOEngine(graph).run(pixels(2, 32))["logits"].shape == (2, 7)


def test_an_unwritable_cache_is_not_an_error(tmp_path: Path, cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("a file in the folder's place")
    engine = OpenVINOEngine(write_classifier(tmp_path / "g.onnx", size=32))
    assert engine.run(pixels(1, 32))["logits"].shape == (1, 7)


def test_the_cache_drops_the_least_recently_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("naevus.inference.engines.openvino.LIMIT", 3 * (32 + 10))
    cache = CompiledCache(tmp_path / "cache")
    for number, key in enumerate("abc"):
        cache.store(key, bytes(10))
        os.utime(cache.folder / f"{key}.blob", (number, number))
    assert cache.load("a") == bytes(10)  # and is now the newest
    cache.store("d", bytes(10))
    assert {key for key in "abcd" if cache.load(key)} == {"a", "c", "d"}


def test_a_relative_cache_folder_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SWITCH)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert CompiledCache.of_user() == CompiledCache(tmp_path / ".cache" / "naevus" / "compiled")
