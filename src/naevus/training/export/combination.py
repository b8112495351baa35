"""The networks of one task that go into one bundle: finished folds, each or averaged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from naevus.datasets.sources import squares
from naevus.errors import RunError
from naevus.runs.evidence import Shipped
from naevus.runs.run import USUAL_PART
from naevus.training.export.average import average, estimate_statistics
from naevus.training.export.members import TrainedMember, open_member
from naevus.training.export.pictures import pictures_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from naevus.datasets.sources import Pictures
    from naevus.runs.run import Run
    from naevus.types import Task

ESTIMATED = 512
"""Pictures for an average's statistics of batch normalisation."""
_ALIKE: Final[dict[Task, tuple[str, ...]]] = {
    "segmentation": ("colour_constancy",),
    "classification": ("crop_mode", "crop_margin", "colour_constancy"),
}


class Combination(NamedTuple):
    """The networks of one task that go into one bundle.

    Attributes:
        task: The task.
        runs: The runs they are from.
        trained: Their networks.
        members: The networks that become members: these, or their average.
        shipped: What these are, in words.
        sources: Each run's pictures, by its folder.
    """

    task: Task
    runs: Sequence[Run]
    trained: Sequence[TrainedMember]
    members: Sequence[TrainedMember]
    shipped: Shipped
    sources: Mapping[Path, Pictures]


def combine(
    task: Task,
    runs: Sequence[Run],
    *,
    folds: Sequence[int] | None = None,
    averaged: bool = False,
    data: Path | None = None,
) -> Combination:
    """Take the networks of runs of one task together.

    Args:
        task: The task.
        runs: Its runs; one or more.
        folds: Which folds of each; None: all that are finished.
        averaged: Whether their weights become one network's.
        data: The data set, where it is not where the runs found it.

    Raises:
        RunError: No fold is finished, or the runs do not go together.
        DataError: Their pictures are not there.
    """
    _check_together(runs)
    sources = {run.folder: pictures_of(run, data) for run in runs}
    trained = _trained(runs, folds)
    shipped = Shipped(
        tuple(member.origin for member in trained),
        tuple(tuple(folds or run.finished()) for run in runs),
        averaged,
    )
    members = [_averaged(trained, sources)] if averaged else trained
    return Combination(task, runs, trained, members, shipped, sources)


def _trained(runs: Iterable[Run], wanted: Sequence[int] | None) -> list[TrainedMember]:
    members = []
    for run in runs:
        folds = wanted or run.finished()
        if not folds:
            raise RunError(f"{run.folder}: no fold is finished", "train at least one fold")
        members += [open_member(run, fold) for fold in folds]
    if len({member.classes for member in members}) > 1:
        raise RunError("the runs know different diagnoses", "join runs of the same ones")
    return members


def _averaged(trained: Sequence[TrainedMember], sources: Mapping[Path, Pictures]) -> TrainedMember:
    whole = average(trained)
    ids = whole.draw(whole.learnt(), ESTIMATED)
    pictures = sources[whole.run.folder]
    estimate_statistics(whole.network, squares(pictures, ids, whole.config.input_size))
    return whole


def judges(combination: Combination) -> list[list[TrainedMember]]:
    """Return the networks that tell what a precision costs, each on what it held out.

    There is a list for each run whose networks answer together, and in it a network for each fold
    that all runs have finished, whichever are shipped: a single fold's pictures hardly tell half a
    point from nothing. Masks of several runs are judged by the first run's. An average that held
    something out is judged by itself alone, and another by the networks that it was made of.
    """
    if combination.shipped.averaged:
        average = [member for member in combination.members if member.folds]
        return [average or _of_each_fold(combination.trained)]
    runs = combination.runs[:1] if combination.task == "segmentation" else combination.runs
    folds = sorted(set.intersection(*(set(run.finished()) for run in runs)))
    if not folds:
        raise RunError("the runs have finished no common fold", "train one, or do not measure")
    there = {(member.run.folder, member.folds): member for member in combination.members}
    return [
        [there.get((run.folder, (fold,))) or open_member(run, fold) for fold in folds]
        for run in runs
    ]


def _of_each_fold(members: Iterable[TrainedMember]) -> list[TrainedMember]:
    """Return the first network that held out each fold."""
    chosen: dict[tuple[int, ...], TrainedMember] = {}
    for member in members:
        chosen.setdefault(member.folds, member)
    return list(chosen.values())


def _check_together(runs: Sequence[Run]) -> None:
    for run in runs[1:]:
        first = runs[0]
        for name in _ALIKE[run.config.task]:
            if getattr(first.config.data, name) != getattr(run.config.data, name):
                raise RunError(
                    f"{first.folder} and {run.folder} differ in data.{name}",
                    "join runs that see pictures alike",
                )
        # One may have learnt from parts of the data besides, which no fold holds out.
        same_parts = (
            len(
                {each.config.data.parts or (USUAL_PART[each.config.task],) for each in (first, run)}
            )
            == 1
        )
        same_data = first.inputs["fingerprint"] == run.inputs["fingerprint"]
        for what, same in (
            ("data", same_data or not same_parts),
            ("folds", first.folds.hold_out_as(run.folds)),
        ):
            if not same:
                raise RunError(
                    f"{first.folder} and {run.folder} have different {what}",
                    "join runs of the same data and folds",
                )
