"""Every file and function in the walks of the architecture page exists."""

from __future__ import annotations

import re
from importlib import import_module

import pytest

from tests.helpers import ROOT

PAGE = ROOT / "docs" / "explanation" / "architecture.md"
STEP = re.compile(r"`((?:\w+/)*\w+)\.py`: `([\w.]+)`")


def walks() -> dict[str, list[tuple[str, str]]]:
    """Return the (module, function) pairs of each walk, in order, by its name."""
    section = PAGE.read_text(encoding="utf-8").partition("## Four walks")[2].partition("\n## ")[0]
    parts = section.split("\n### ")[1:]
    return {part.partition("\n")[0]: STEP.findall(part) for part in parts}


STEPS = sorted({step for steps in walks().values() for step in steps})


def test_every_walk_has_several_steps() -> None:
    assert list(walks()) == ["Predict", "Train", "Export", "Report"]
    assert all(len(steps) >= 6 for steps in walks().values())


@pytest.mark.parametrize(("path", "name"), STEPS)
def test_functions_named_in_walks_exist(path: str, name: str) -> None:
    assert (ROOT / "src" / "naevus" / f"{path}.py").is_file()
    found = import_module("naevus." + path.removesuffix("/__init__").replace("/", "."))
    for part in name.split("."):
        found = getattr(found, part)
    assert callable(found)
