"""Engines: the output of commands, and the processes of trials."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.testing import CliRunner

from naevus.bundles.bundle import Bundle
from naevus.cli.info import info
from naevus.errors import ConfigError
from naevus.inference.engines import (
    automatic,
    instructions,
    survey,
    trial,
)
from naevus.inference.engines.automatic import trial_networks
from naevus.inference.engines.openvino import SWITCH
from naevus.inference.engines.trial import EngineSetup, Result
from tests.helpers.onnx_graphs import (
    sampled,
    whole_bundle,
)

if TYPE_CHECKING:
    from pathlib import Path


F32, BF16, HELD = (
    EngineSetup("openvino", "fp32"),
    EngineSetup("openvino", "bf16"),
    EngineSetup("openvino", "fp32", "AVX2"),
)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of stored trials."""
    monkeypatch.delenv(SWITCH, raising=False)
    monkeypatch.delenv(instructions.SWITCH, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # Here OpenVINO is imported; in a process that begins it is not.
    monkeypatch.setattr(instructions, "_READERS", frozenset({"not imported"}))
    return tmp_path / "cache" / "naevus" / "compiled"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A tiny bundle of both tasks with a sample."""
    folder = tmp_path_factory.mktemp("sampled")
    return sampled(whole_bundle(folder / "plain"), folder / "bundle")


def test_child_processes_end(bundle: Bundle, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    popen = subprocess.Popen

    def start(*args: Any, **kwargs: Any) -> Any:
        process = popen(*args, **kwargs)
        started.append(process.pid)
        return process

    monkeypatch.setattr(subprocess, "Popen", start)
    trial.tried([F32], automatic.trial_networks(bundle), limit_s=60, patience_s=60, rounds=1)
    assert started
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


ORT = EngineSetup("onnxruntime", "fp32")


def test_the_command_prints_all_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(info)
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
    assert "Processor instructions: all" in result.output
    # OpenVINO's setups, and ONNX Runtime.
    assert len(list(tmp_path.rglob("choice-*.json"))) == 2


def test_it_fails_only_if_no_engine_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    app = typer.Typer()
    app.command()(info)
    monkeypatch.setenv("NAEVUS_CACHE", "off")

    def trials(problem: str | None) -> object:
        return lambda bundle, **_: {
            way: [Result(output, 0.0, (1.0,) * 3)] * len(trial_networks(bundle))
            for way, output in ((EngineSetup("openvino", "fp32"), "refused"), (ORT, problem))
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
