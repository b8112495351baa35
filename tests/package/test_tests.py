"""The tests themselves: their location, and limits of unit tests."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.helpers import ROOT

UNIT = ROOT / "tests" / "unit"
SOURCE = ROOT / "src" / "naevus"
OWN_PROCESS = frozenset({"multiprocessing", "subprocess", "typer.testing"})
FILES = sorted(path.relative_to(UNIT).as_posix() for path in UNIT.rglob("test_*.py"))


@pytest.mark.parametrize("name", FILES)
def test_unit_tests_are_named_after_a_module(name: str) -> None:
    package = SOURCE / Path(name).parent
    assert package.is_dir()
    modules = {package.name, *(path.stem for path in package.iterdir())}
    parts = Path(name).stem.split("_")[1:]
    assert modules & {"_".join(parts[:count]) for count in range(1, len(parts) + 1)}


@pytest.mark.parametrize("name", FILES)
def test_unit_tests_start_no_command_and_no_process(name: str) -> None:
    imported = set()
    for node in ast.walk(ast.parse((UNIT / name).read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    assert not imported & OWN_PROCESS, "it belongs into tests/integration"


def test_every_test_is_in_one_of_the_three_folders() -> None:
    folders = {path.relative_to(ROOT / "tests").parts[0] for path in UNIT.parent.rglob("test_*.py")}
    assert folders == {"integration", "package", "unit"}
