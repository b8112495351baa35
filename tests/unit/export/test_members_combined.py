"""The networks on which costs are measured."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from naevus.errors import RunError
from naevus.export import members
from naevus.export.members import cost_members


def member(run: Any, *folds: int) -> Any:
    return SimpleNamespace(run=run, folds=folds)


def made_of(task: str, runs: Any, members: Any, trained: Any = (), averaged: bool = False) -> Any:
    composition = SimpleNamespace(averaged=averaged)
    return SimpleNamespace(
        task=task, runs=runs, members=members, trained=trained, composition=composition
    )


def run_of(name: str, *folds: int) -> Any:
    return SimpleNamespace(folder=Path(name), finished=lambda: list(folds))


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "open_member", member)


def folds_of(found: list[list[Any]]) -> list[list[tuple[str, tuple[int, ...]]]]:
    return [[(str(each.run.folder), each.folds) for each in some] for some in found]


def test_costs_use_every_fold_finished_by_all_runs() -> None:
    one, other = run_of("one", 0, 1, 2), run_of("other", 0, 2)
    composition = [member(one, 0), member(other, 0)]
    found = cost_members(made_of("classification", [one, other], composition))
    assert folds_of(found) == [[("one", (0,)), ("one", (2,))], [("other", (0,)), ("other", (2,))]]
    assert [found[0][0], found[1][0]] == composition  # exported networks are not opened again
    masks = cost_members(made_of("segmentation", [one, other], composition))
    assert folds_of(masks) == [[("one", (0,)), ("one", (1,)), ("one", (2,))]]
    with pytest.raises(RunError, match="no finished fold in common"):
        cost_members(made_of("classification", [one, run_of("last", 3)], composition))


def test_an_average_with_held_out_images_is_measured_itself() -> None:
    run = run_of("run", 0, 1)
    trained = [member(run, 0), member(run_of("again", 0), 0), member(run, 1)]
    mean = member(run, 0)
    assert cost_members(made_of("classification", [run], [mean], trained, averaged=True)) == [
        [mean]
    ]
    blind = member(run)
    found = cost_members(made_of("classification", [run], [blind], trained, averaged=True))
    assert found == [[trained[0], trained[2]]]
