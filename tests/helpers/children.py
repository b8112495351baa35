"""Run naevus in child processes in which some packages cannot be imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.helpers import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence


FRAMEWORKS = [
    "lightning_fabric",
    "onnx",
    "onnxscript",
    "safetensors",
    "segmentation_models_pytorch",
    "timm",
    "torch",
    "torchmetrics",
    "torchvision",
]


class Answer(NamedTuple):
    """The exit code and output of a command."""

    code: int
    out: str
    error: str


def without(
    blocked: Sequence[str],
    commands: Sequence[Sequence[object]],
    *,
    modules: Sequence[str] = (),
    absent: Sequence[str] = (),
    folder: Path,
) -> tuple[list[Answer], set[str]]:
    """Run commands in a process without some packages; return results and imported modules."""
    job: dict[str, Any] = {"blocked": list(blocked), "modules": list(modules)}
    job["absent"] = list(absent)  # of the module os
    job["commands"] = [[str(word) for word in words] for words in commands]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "helpers" / "blocked.py"), json.dumps(job)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    output = json.loads(done.stdout)
    return [Answer(*answer) for answer in output["answers"]], set(output["imported"])
