from __future__ import annotations

import sys
from importlib.metadata import version
from types import SimpleNamespace
from typing import TYPE_CHECKING, get_args

import pytest

from naevus.inference.engines import (
    EngineName,
    OpenVINOEngine,
    open_engine,
    survey,
)
from tests.helpers.onnx_graphs import write_classifier

if TYPE_CHECKING:
    from pathlib import Path


def test_every_engine_is_listed() -> None:
    found = {each.name: each for each in survey()}
    assert tuple(found) == get_args(EngineName)
    assert found["openvino"].precisions[0] == "fp32"
    assert found["openvino"].devices[0].startswith("CPU")
    assert found["onnxruntime"].version == version("onnxruntime")
    assert found["onnxruntime"].precisions == ("fp32",)


def test_the_precisions_are_those_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    for computes in (("fp32", "bf16"), ("fp32",)):
        monkeypatch.setattr("naevus.inference.engines.precisions", lambda it=computes: it)
        assert survey()[0].precisions == computes


def test_openvino_opens_where_no_engine_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAEVUS_CACHE", "off")
    assert isinstance(open_engine(write_classifier(tmp_path / "g.onnx", size=32)), OpenVINOEngine)


def test_a_missing_engine_is_reported_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    absent = survey()[1]
    assert (absent.version, absent.devices, absent.precisions) == (None, (), ())
    assert "[onnxruntime]" in absent.use


def test_a_gpu_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    module = SimpleNamespace(__version__="9", get_available_providers=lambda: names)
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    found = survey()[1]
    assert found.devices == ("CUDA", "CPU")
    assert "--engine onnxruntime" in found.use
