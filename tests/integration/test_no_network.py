"""The telemetry of libraries is disabled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from naevus.inference.engines import (
    EngineName,
)
from naevus.inference.engines.openvino import SWITCH
from naevus.training.networks import Preprocessed, build_classifier
from naevus.training.onnx_graph import export_onnx
from tests.helpers.onnx_graphs import write_classifier

if TYPE_CHECKING:
    from pathlib import Path


SIZE = 32


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("exported") / "network.onnx"
    export_onnx(
        Preprocessed(build_classifier("test_resnet", weights="none")), path, input_size=SIZE
    )
    return path


@pytest.mark.slow
def test_quantising_opens_no_socket(exported: Path, tmp_path: Path) -> None:
    """Run in a separate process, since NNCF sends nothing under pytest."""
    program = f"""
import sys
opened = []
sys.addaudithook(lambda event, _: opened.append(event) if event.startswith("socket.") else None)
import numpy as np, onnx
from naevus.export.graphs import to_int8
pixels = np.random.default_rng(0).integers(0, 256, (8, {SIZE}, {SIZE}, 3), dtype=np.uint8)
quantised = to_int8(onnx.load({str(exported)!r}), pixels)
assert any(node.op_type == "QuantizeLinear" for node in quantised.graph.node)
assert "pytest" not in sys.modules and "nncf" in sys.modules
print(sorted(set(opened)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines() == ["[]"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of compiled graphs."""
    monkeypatch.delenv(SWITCH)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "naevus" / "compiled"


NO_NETWORK = """
import socket, sys, pathlib

def refuse(*args, **kwargs):
    pathlib.Path(sys.argv[3]).write_text("a socket was opened")
    raise OSError("no network")

socket.socket = socket.create_connection = socket.getaddrinfo = refuse
from naevus.inference.engines import open_engine
import numpy as np
engine = open_engine(pathlib.Path(sys.argv[1]), sys.argv[2])
engine.run(np.zeros((1, 32, 32, 3), np.uint8))
telemetry = sys.modules.get("openvino_telemetry")
assert telemetry is None, telemetry
"""


HUSHING = {"CI", "TF_BUILD", "GITHUB_ACTIONS", "ORT_RUNNING_UNIT_TESTS", "ORT_DISABLE_TELEMETRY"}
"""Variables that keep ONNX Runtime quiet by themselves."""


@pytest.mark.parametrize(
    ("engine", "left"), [("openvino", {".cache/naevus/compiled"}), ("onnxruntime", set())]
)
def test_no_library_sends_telemetry(tmp_path: Path, engine: EngineName, left: set[str]) -> None:
    graph = write_classifier(tmp_path / "g.onnx", size=32)
    home = tmp_path / "home"
    home.mkdir()
    reported = tmp_path / "sent"
    quiet = {*HUSHING, SWITCH, "XDG_CACHE_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in quiet}
    subprocess.run(
        [sys.executable, "-c", NO_NETWORK, str(graph), engine, str(reported)],
        check=True,
        env={**environment, "HOME": str(home)},
    )
    assert not reported.exists()
    # Telemetry would store identifiers there; it must contain only naevus's own cache.
    files = [path.relative_to(home) for path in home.rglob("*") if path.is_file()]
    assert {path.parent.as_posix() for path in files} == left
