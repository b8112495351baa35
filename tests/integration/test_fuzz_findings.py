"""What fuzzing found stays mended; the seeds of fuzzing are read without an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fuzz import targets
from tests.helpers import ROOT

if TYPE_CHECKING:
    from pathlib import Path

FINDINGS = sorted((ROOT / "tests" / "data" / "fuzz").glob("*/*"))


@pytest.mark.parametrize("name", targets.TARGETS)
def test_the_seeds_cause_no_crash(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = list(targets.seeds(name))
    assert len(found) > 2
    for seed in found:
        targets.run(name, seed)
        targets.run(name, seed[: len(seed) // 2])


@pytest.mark.parametrize("path", FINDINGS, ids=lambda path: f"{path.parent.name}-{path.name[:20]}")
def test_an_input_that_fuzzing_found_causes_no_crash(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    targets.run(path.parent.name, path.read_bytes())
