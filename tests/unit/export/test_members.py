"""Averaged weights: compatible networks, statistics, and errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from naevus.errors import RunError
from naevus.export.members import TrainedMember, average, open_member
from tests.helpers.finished_runs import WEIGHTS_OF_CLASSES, finished_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, synthetic: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs")
    return {
        name: finished_run(folder / name, task, synthetic, (0, 1), **changed)
        for name, task, changed in (
            ("one", "classification", {"seed": 1}),
            ("two", "classification", {"seed": 2}),
            ("longer", "classification", {"epochs": 99}),
            (
                "other start",
                "classification",
                {"network": {"backbone": "test_resnet", "init_seed": 1}},
            ),
            ("contours", "segmentation", {}),
        )
    }


def members(runs: dict[str, Any], *named: tuple[str, int]) -> list[TrainedMember]:
    return [open_member(runs[name], fold) for name, fold in named]


def test_every_weight_is_the_mean(runs: dict[str, Any]) -> None:
    both = members(runs, ("one", 0), ("two", 0))
    states = [member.network.state_dict() for member in both]
    found = average(both).network.state_dict()
    assert any(not torch.equal(*pair) for pair in zip(*(s.values() for s in states), strict=True))
    for name, value in found.items():
        if value.is_floating_point():
            expected = (states[0][name] + states[1][name]) / 2
            torch.testing.assert_close(value, expected, atol=1e-6, rtol=0)
    assert not average(both).network.training
    for member, state in zip(both, states, strict=True):
        assert all(torch.equal(state[k], v) for k, v in member.network.state_dict().items())


def test_an_average_holds_out_the_common_folds_of_its_members(runs: dict[str, Any]) -> None:
    same = average(members(runs, ("one", 0), ("two", 0)))
    assert same.folds == (0,)
    assert set(same.held_out()) == set(same.run.folds.held_out(0))
    assert set(same.learnt()) == set(same.run.folds.training(0))
    mixed = average(members(runs, ("one", 0), ("one", 1)))
    assert mixed.folds == ()
    assert mixed.held_out() == []
    assert set(mixed.learnt()) == set(mixed.run.folds.table["image_id"])


def test_class_weights_are_averaged_in_logarithms(runs: dict[str, Any]) -> None:
    one, two = members(runs, ("one", 0), ("two", 0))
    doubled = replace(two, class_weights=tuple(4 * weight for weight in two.class_weights))
    found = average([one, doubled])
    np.testing.assert_allclose(found.class_weights, 2 * np.array(WEIGHTS_OF_CLASSES))
    assert sum(found.class_priors) == pytest.approx(1)


@pytest.mark.parametrize(
    ("named", "output"),
    [
        ([("one", 0)], "averaging needs two"),
        ([("one", 0), ("longer", 0)], "different recipes"),
        ([("one", 0), ("other start", 0)], "different recipes"),
        ([("one", 0), ("contours", 0)], "different recipes"),
    ],
)
def test_members_of_different_recipes_are_not_averaged(
    runs: dict[str, Any], named: list[tuple[str, int]], output: str
) -> None:
    with pytest.raises(RunError, match=output):
        average(members(runs, *named))


def test_members_must_have_the_same_initialisation(runs: dict[str, Any]) -> None:
    def started(name: str, fold: int, source: str) -> TrainedMember:
        member = open_member(runs[name], fold)
        inputs = member.run.inputs | {"init_from": source}
        return replace(member, run=replace(member.run, inputs=inputs))

    average([started("one", 0, "a"), started("two", 0, "a")])
    for other in (started("two", 0, "b"), started("two", 1, "a")):
        with pytest.raises(RunError, match="different starts"):
            average([started("one", 0, "a"), other])


def test_at_most_one_image_per_group_is_drawn(runs: dict[str, Any]) -> None:
    (member,) = members(runs, ("one", 0))
    groups = member.run.folds.table.set_index("image_id")["group_id"]
    evaluated = member.draw(member.held_out(), 10)
    learnt = member.draw(member.learnt(), 1000)
    assert len(evaluated) == 10
    for synthetic, pool in ((evaluated, member.held_out()), (learnt, member.learnt())):
        assert set(synthetic) <= set(pool)
        assert groups[synthetic].is_unique
    assert set(groups[learnt]) == set(groups[member.learnt()])
    assert member.draw(member.learnt(), 1000) == learnt
    without = member.draw(member.learnt(), 1000, without=learnt[:3])
    assert set(groups[without]) == set(groups[learnt[3:]])
