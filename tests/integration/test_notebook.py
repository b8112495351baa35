"""The outputs that the documentation's notebook stores are what it gives."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.helpers import ROOT

if TYPE_CHECKING:
    from types import ModuleType


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The tool that stores the outputs."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    import run_notebook

    return run_notebook


@pytest.mark.slow
def test_the_notebook_s_outputs_are_current(tool: ModuleType) -> None:
    pytest.importorskip("matplotlib", reason="the extra report is not installed")
    stored = json.loads(tool.NOTEBOOK.read_text(encoding="utf-8"))
    made = tool.run(stored)
    found = tool.differences(tool.text_of(stored), tool.text_of(made))
    assert found == [], "run tools/run_notebook.py"


@pytest.mark.parametrize(
    ("stored", "made", "count"),
    [
        (["MEL 83.8 %"], ["MEL 83.9 %"], 0),
        (["MEL 83.8 %"], ["MEL 90.1 %"], 1),
        (["MEL 0.84"], ["MEL 0.849"], 0),
        (["MEL 0.84"], ["MEL 0.86"], 1),
        (["MEL 0.84"], ["NV 0.84"], 1),
        (["MEL 84 % ███"], ["MEL 84 % ████"], 0),
        (["36 images"], ["36 images", "of 35 lesions"], 1),
        ([], [], 0),
    ],
)
def test_other_words_and_other_numbers_are_found(
    tool: ModuleType, stored: list[str], made: list[str], count: int
) -> None:
    assert len(tool.differences(stored, made)) == count
