"""The examples in docstrings say what the code does."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
MODULES = sorted(
    ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    for path in SOURCE.rglob("*.py")
    if ">>> " in path.read_text()
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_show(name: str) -> None:
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for example in doctest.DocTestFinder().find(import_module(name)):
        runner.run(example, out=said.append)
    assert runner.tries > 0
    assert not runner.failures, "".join(said)


def test_central_modules_have_examples() -> None:
    assert {
        "naevus.datasets.folds",
        "naevus.evaluation.decisions",
        "naevus.evaluation.intervals",
        "naevus.images.crops",
        "naevus.images.geometry",
        "naevus.taxonomy",
    } <= set(MODULES)
