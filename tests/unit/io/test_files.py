"""Names that other systems cannot use are refused in one line."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from naevus.datasets.listing import problem_of_id
from naevus.errors import ImageError
from naevus.images.read import read
from naevus.io import files

if TYPE_CHECKING:
    from pathlib import Path


def test_names_that_windows_reserves_are_refused_there(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = ("CON", "nul", "Aux.2", "com1", "LPT9", "lesion.", "lesion ", "a?b")
    fine = ("console", "com10", "nullo", "a.con", "lesion")
    assert not any(problem_of_id(name) for name in (*bad, *fine) if os.name != "nt")
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        reported = [problem_of_id(name) for name in bad]
        untold = [problem_of_id(name) for name in fine]
    assert all(reported)
    assert not any(untold)


def test_paths_too_long_for_windows_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a-long-name.png"
    monkeypatch.setattr(files, "LONGEST_PATH", 20)
    with pytest.raises(ImageError, match="characters, and Windows allows 19: choose a shorter"):
        read(path)
    monkeypatch.setattr(files, "LONGEST_PATH", len(str(path)) + 1)
    with pytest.raises(ImageError, match="check the name and the folder"):
        read(path)
