from __future__ import annotations

import sys
from importlib.metadata import version
from types import SimpleNamespace
from typing import TYPE_CHECKING, get_args

import pytest
import typer
from typer.testing import CliRunner

from naevus.cli.info import engines
from naevus.errors import ConfigError
from naevus.inference.engines import (
    DEFAULT,
    EngineName,
    OnnxRuntimeEngine,
    OpenVINOEngine,
    automatic,
    open_engine,
    survey,
)
from naevus.inference.engines.automatic import judged_of
from naevus.inference.engines.trial import Result, Way
from tests.helpers.onnx_graphs import write_classifier

if TYPE_CHECKING:
    from pathlib import Path

ORT = Way("onnxruntime", "f32")


def test_every_engine_is_looked_at_and_one_is_chosen() -> None:
    found = {each.name: each for each in survey()}
    assert tuple(found) == get_args(EngineName)
    assert [each.name for each in survey() if each.chosen] == [DEFAULT]
    assert found["openvino"].precisions[0] == "f32"
    assert found["openvino"].devices[0].startswith("CPU")
    assert found["onnxruntime"].version == version("onnxruntime")
    assert found["onnxruntime"].precisions == ("f32",)


def test_what_bf16_would_bring_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for computes, told in ((("f32", "bf16"), "measured to bear"), (("f32",), "no instructions")):
        monkeypatch.setattr("naevus.inference.engines.precisions", lambda it=computes: it)
        found = survey()[0]
        assert found.precisions == computes
        assert told in found.why


def test_the_chosen_engine_is_the_one_that_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAEVUS_CACHE", "off")
    kinds = {"openvino": OpenVINOEngine, "onnxruntime": OnnxRuntimeEngine}
    assert isinstance(open_engine(write_classifier(tmp_path / "g.onnx", size=32)), kinds[DEFAULT])


def test_an_absent_engine_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    absent = survey()[1]
    assert (absent.version, absent.devices, absent.precisions) == (None, (), ())
    assert "pip install 'naevus[onnxruntime]'" in absent.why


def test_a_gpu_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    module = SimpleNamespace(__version__="9", get_available_providers=lambda: names)
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    found = survey()[1]
    assert found.devices == ("CUDA", "CPU")
    assert "--engine onnxruntime" in found.why


def test_the_command_prints_all_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(engines)
    monkeypatch.delenv("NAEVUS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 0, result.output
    for found in survey():
        assert found.name in result.output
        assert str(found.version) in result.output
    assert str(tmp_path) in result.output.replace("\n", "")
    for member in ("segmentation-0", "classification-2"):
        assert f"{member} " in result.output
    assert "Networks run in openvino" in result.output
    assert "Instructions: all" in result.output
    # OpenVINO's ways, and ONNX Runtime.
    assert len(list(tmp_path.rglob("choice-*.json"))) == 2


def test_only_where_nothing_runs_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    app = typer.Typer()
    app.command()(engines)
    monkeypatch.setenv("NAEVUS_CACHE", "off")

    def trials(problem: str | None) -> object:
        return lambda bundle, **_: {
            way: [Result(said, 0.0, (1.0,) * 3)] * len(judged_of(bundle))
            for way, said in ((Way("openvino", "f32"), "refused"), (ORT, problem))
        }

    monkeypatch.setattr(automatic, "trials_of", trials(None))
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 0
    assert "refused" in result.output
    assert "NAEVUS_CACHE=off" in result.output
    monkeypatch.setattr(automatic, "trials_of", trials("refused too"))
    failed = CliRunner().invoke(app, [])
    assert isinstance(failed.exception, ConfigError)  # exit code 2, see cli.main
    assert "do not run here" in str(failed.exception)
