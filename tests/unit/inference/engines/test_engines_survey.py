from __future__ import annotations

import sys
from importlib.metadata import version
from types import SimpleNamespace
from typing import TYPE_CHECKING, get_args

import pytest

from naevus.inference.engines import (
    DEFAULT,
    EngineName,
    OnnxRuntimeEngine,
    OpenVINOEngine,
    open_engine,
    survey,
)
from tests.helpers.onnx_graphs import write_classifier

if TYPE_CHECKING:
    from pathlib import Path


def test_every_engine_is_checked_and_one_is_chosen() -> None:
    found = {each.name: each for each in survey()}
    assert tuple(found) == get_args(EngineName)
    assert [each.name for each in survey() if each.chosen] == [DEFAULT]
    assert found["openvino"].precisions[0] == "fp32"
    assert found["openvino"].devices[0].startswith("CPU")
    assert found["onnxruntime"].version == version("onnxruntime")
    assert found["onnxruntime"].precisions == ("fp32",)


def test_the_gain_by_bf16_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    for computes, reported in (
        (("fp32", "bf16"), "if the bundle recommends it"),
        (("fp32",), "no instructions"),
    ):
        monkeypatch.setattr("naevus.inference.engines.precisions", lambda it=computes: it)
        found = survey()[0]
        assert found.precisions == computes
        assert reported in found.why


def test_the_chosen_engine_is_the_one_that_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAEVUS_CACHE", "off")
    kinds = {"openvino": OpenVINOEngine, "onnxruntime": OnnxRuntimeEngine}
    assert isinstance(open_engine(write_classifier(tmp_path / "g.onnx", size=32)), kinds[DEFAULT])


def test_a_missing_engine_is_reported_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    absent = survey()[1]
    assert (absent.version, absent.devices, absent.precisions) == (None, (), ())
    assert "pip install 'naevus[onnxruntime]'" in absent.why


def test_a_gpu_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    module = SimpleNamespace(__version__="9", get_available_providers=lambda: names)
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    found = survey()[1]
    assert found.devices == ("CUDA", "CPU")
    assert "--engine onnxruntime" in found.why
