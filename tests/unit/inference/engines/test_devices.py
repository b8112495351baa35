"""Devices of the engines; ONNX Runtime with CUDA is replaced by one that has none."""

from __future__ import annotations

import logging
import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from naevus.errors import BundleError, ConfigError
from naevus.inference.engines import onnxruntime as ort
from naevus.inference.engines import open_engine
from naevus.inference.engines.automatic import choose
from naevus.inference.engines.devices import parse_device
from naevus.inference.networks import open_networks
from naevus.types import EngineChoice
from tests.helpers.onnx_graphs import segmentation_bundle, write_classifier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Fake = Callable[..., list[list[str]]]

BOTH = (ort.CUDA, ort.CPU)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Replace ONNX Runtime: with these providers, of which only some start."""

    def replace(available: Sequence[str] = BOTH, starts: Sequence[str] = BOTH,
                problem: str = "") -> list[list[str]]:  # fmt: skip
        asked = []

        class Session:
            def __init__(
                self, content: bytes, options: Any, providers: Sequence[Any], enable_fallback: int
            ) -> None:
                assert content
                assert not enable_fallback
                names = [each if isinstance(each, str) else each[0] for each in providers]
                asked.append(names)
                if problem and names[0] == ort.CUDA:
                    raise RuntimeError(problem)
                self._names = [name for name in names if name in starts]

            def get_providers(self) -> list[str]:
                return self._names

            def get_inputs(self) -> list[Any]:
                return [SimpleNamespace(name="pixels", type="tensor(uint8)")]

            def get_outputs(self) -> list[Any]:
                return [SimpleNamespace(name="logits")]

        module: Any = ModuleType("onnxruntime")
        module.get_available_providers = lambda: list(available)
        module.InferenceSession, module.SessionOptions = Session, SimpleNamespace
        monkeypatch.setitem(sys.modules, "onnxruntime", module)
        ort._warn.cache_clear()
        return asked

    return replace


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return write_classifier(tmp_path / "g.onnx", size=32)


@pytest.mark.parametrize(
    ("device", "expected"),
    [("auto", ("auto", None)), ("cpu", ("cpu", None)), ("cuda", ("cuda", None)),
     ("cuda:0", ("cuda", 0)), ("cuda:12", ("cuda", 12))],
)  # fmt: skip
def test_names_of_devices(device: str, expected: tuple[str, int | None]) -> None:
    assert parse_device(device) == expected


@pytest.mark.parametrize("device", ["gpu", "auto:0", "cpu:0", "cuda:", "cuda:x", "cuda:-1", ""])
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_other_names_are_refused(graph: Path, device: str, engine: Any) -> None:
    with pytest.raises(ConfigError, match=r"no device is called .*; use auto, cpu, cuda or cuda:N"):
        open_engine(graph, engine, device=device)


@pytest.mark.parametrize(
    ("available", "device", "expected"),
    [
        ((ort.CPU,), "auto", None),
        ((ort.CPU,), "cpu", None),
        (BOTH, "auto", "0"),
        (BOTH, "cpu", None),
        (BOTH, "cuda", "0"),
        (BOTH, "cuda:3", "3"),
    ],
)
def test_providers_of_each_device(
    available: Sequence[str], device: str, expected: str | None
) -> None:
    first = [] if expected is None else [(ort.CUDA, {"device_id": expected, "use_tf32": "0"})]
    assert ort.providers(available, device) == [*first, ort.CPU]


@pytest.mark.parametrize(
    ("device", "taken"),
    [("auto", "cuda:0"), ("cpu", "cpu"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1")],
)
def test_the_device_taken_is_known(fake: Fake, graph: Path, device: str, taken: str) -> None:
    fake()
    assert open_engine(graph, "onnxruntime", device=device).device == taken


def test_openvino_is_on_the_cpu(graph: Path) -> None:
    for device in ("auto", "cpu"):
        assert open_engine(graph, "openvino", 1, device=device).device == "cpu"
    with pytest.raises(ConfigError, match="cuda needs the engine onnxruntime"):
        open_engine(graph, "openvino", device="cuda")


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_build_without_cuda_is_refused(fake: Fake, graph: Path, device: str) -> None:
    asked = fake(available=[ort.CPU])
    with pytest.raises(ConfigError, match=f"{device}: .*; install onnxruntime-gpu in place of"):
        open_engine(graph, "onnxruntime", device=device)
    assert not asked


def test_without_any_build_the_one_with_cuda_is_named(
    graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match="install onnxruntime-gpu in place of onnxruntime"):
        open_engine(graph, "onnxruntime", device="cuda")


@pytest.mark.parametrize(
    "fault", [{"starts": [ort.CPU]}, {"problem": "invalid device\nordinal"}], ids=["falls", "fails"]
)
def test_a_gpu_that_does_not_start(
    fake: Fake, graph: Path, caplog: pytest.LogCaptureFixture, fault: dict[str, Any]
) -> None:
    asked = fake(**fault)
    with pytest.raises(ConfigError, match="does not run on cuda:1: ") as caught:
        open_engine(graph, "onnxruntime", device="cuda:1")
    assert "\n" not in str(caught.value)
    assert asked == [[*BOTH]]
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert open_engine(graph, "onnxruntime").device == "cpu"
    assert asked[1:] == [[*BOTH], [ort.CPU]] * 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_graph_that_fails_everywhere_is_no_fault_of_the_device(fake: Fake, graph: Path) -> None:
    fake()
    module = sys.modules["onnxruntime"]

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("bad node")

    module.InferenceSession = fails  # type: ignore[attr-defined]
    for device in ("auto", "cpu"):
        ort._warn.cache_clear()
        with pytest.raises(BundleError, match="bad node"):
            open_engine(graph, "onnxruntime", device=device)


def test_the_choice_carries_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAEVUS_CACHE", "off")
    bundles = [segmentation_bundle(tmp_path / "s")]
    gpu = EngineChoice("onnxruntime", why="named", device="cuda:1")
    assert choose(bundles, device="cuda:1", report=pytest.fail) == gpu
    assert str(gpu) == "onnxruntime in fp32 on cuda:1"
    cpu = choose(bundles, device="cpu", report=pytest.fail)
    assert (cpu.engine, cpu.device) == ("openvino", "cpu")
    named = choose(bundles, engine="onnxruntime", device="cpu", report=pytest.fail)
    assert (named.engine, named.device, named.tried) == ("onnxruntime", "cpu", False)
    with pytest.raises(ConfigError, match="needs the engine onnxruntime"):
        choose(bundles, engine="openvino", device="cuda", report=pytest.fail)


def test_networks_know_their_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAEVUS_CACHE", "off")
    bundles = [segmentation_bundle(tmp_path / "s")]
    for device in ("auto", "cpu"):
        segmenter, _ = open_networks(bundles, engine="onnxruntime", device=device)
        assert segmenter is not None
        assert segmenter.settings()["device"] == "cpu"
