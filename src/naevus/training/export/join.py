"""Finished folds of runs, of one or both tasks, joined into one bundle that was checked."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import onnx

from naevus.bundles.bundle import check_place, write_bundle
from naevus.bundles.spec import BundleSpec
from naevus.datasets.decoded import DecodedPictures
from naevus.errors import RunError
from naevus.training.export.average import average, estimate_statistics
from naevus.training.export.check import Agreement, compare, graph_answers, network_answers, require
from naevus.training.export.entries import member_entry, task_entry
from naevus.training.export.graph import export_onnx, write_onnx
from naevus.training.export.members import TrainedMember, open_member
from naevus.training.export.pictures import pictures_of, squares
from naevus.training.export.precision import to_fp16, to_int8
from naevus.training.export.provenance import SQUARE, licence, provenance, training_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from naevus.bundles.bundle import Bundle
    from naevus.bundles.spec import Precision, Task
    from naevus.training.export.pictures import Pictures
    from naevus.training.run import Run

CHECKED, CALIBRATED, ESTIMATED = 200, 300, 512
"""Pictures for the check, for the ranges of 8 bits, and for the statistics of averages."""
_ALIKE: Final[dict[Task, tuple[str, ...]]] = {
    "segmentation": ("colour_constancy",),
    "classification": ("crop_mode", "crop_margin", "colour_constancy"),
}


@dataclass(frozen=True)
class Wishes:
    """How a bundle is to be made.

    Attributes:
        folds: Which folds of each run; None: all that are finished.
        precision: How numbers are stored.
        average: Whether the networks of each task become one.
        data: The data set, where it is not where the runs found it.
        checked: On how many pictures each graph is compared with its network.
        calibrated: From how many pictures the ranges of 8 bits are taken.
    """

    folds: tuple[int, ...] | None = None
    precision: Precision = "fp32"
    average: bool = False
    data: Path | None = None
    checked: int = CHECKED
    calibrated: int = CALIBRATED


class Checked(NamedTuple):
    """How a member's graph agrees with its network: in 32 bits, and as it is stored.

    Attributes:
        file: Its name in the bundle.
        origin: The runs and folds it is from.
        heldout: Whether the network had never seen the pictures.
        size: Bytes of the file.
        graph: The 32-bit graph against the network.
        stored: The stored graph against the 32-bit one; None where they are the same.
    """

    file: str
    origin: str
    heldout: bool
    size: int
    graph: Agreement
    stored: Agreement | None


class Made(NamedTuple):
    """A member's graph as it is stored, and what ``bundle.json`` says of it."""

    path: Path
    spec: dict[str, Any]


def export_runs(
    runs: Sequence[Run], out: Path, wishes: Wishes, tell: Callable[[Checked], None]
) -> Bundle:
    """Join finished folds into one bundle.

    The graphs are made anew from the stored weights. Each is compared, in OpenVINO and 32 bits,
    with its network in torch, where possible on pictures that the network never saw; only when all
    agree is anything written.

    Args:
        runs: Runs of either task.
        out: The bundle's folder, or its file where the name ends in ``.naevus``.
        wishes: How it is to be made.
        tell: Told of every member, before it may be refused.

    Raises:
        RunError: No fold is finished, or the runs do not go together.
        DataError: The pictures for the check are not there.
        BundleError: A graph does not say what its network says, or ``out`` is something else.
    """
    check_place(out)
    tasks: tuple[Task, ...] = ("segmentation", "classification")
    by_task = {task: [run for run in runs if run.config.task == task] for task in tasks}
    for some in by_task.values():
        _check_together(some)
    learnt_from = training_data(runs)
    says: dict[str, Any] = {
        "training_data": learnt_from,
        "licence": licence(learnt_from),
        "provenance": provenance(runs),
        "limits": [],
    }
    files: dict[str, Path] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for task, some in by_task.items():
            if not some:
                continue
            sources = {run.folder: pictures_of(run, wishes.data) for run in some}
            members = _members(some, sources, wishes)
            made = [
                _make(
                    member,
                    Path(temporary) / f"{task}-{number}.onnx",
                    sources[member.run.folder],
                    wishes,
                    tell,
                )
                for number, member in enumerate(members)
            ]
            says |= task_entry(members[0].config, [each.spec for each in made], members[0].classes)
            files |= {each.path.name: each.path for each in made}
            if all(_square(member, sources[member.run.folder], wishes) for member in members):
                says["limits"].append(SQUARE.format(task=task))
        return write_bundle(out, BundleSpec.model_validate(says), files)


def _members(
    runs: Iterable[Run], sources: Mapping[Path, Pictures], wishes: Wishes
) -> list[TrainedMember]:
    members = []
    for run in runs:
        folds = wishes.folds or run.finished()
        if not folds:
            raise RunError(f"{run.folder}: no fold is finished", "train at least one fold")
        members += [open_member(run, fold) for fold in folds]
    if len({member.classes for member in members}) > 1:
        raise RunError("the runs know different diagnoses", "join runs of the same ones")
    if not wishes.average:
        return members
    whole = average(members)
    ids = whole.draw(whole.learnt(), ESTIMATED)
    pictures = sources[whole.run.folder]
    estimate_statistics(whole.network, squares(pictures, ids, whole.config.input_size))
    return [whole]


def _make(
    member: TrainedMember,
    path: Path,
    pictures: Pictures,
    wishes: Wishes,
    tell: Callable[[Checked], None],
) -> Made:
    size = member.config.input_size
    ids = _checking(member, wishes)
    pixels = squares(pictures, ids, size)
    export_onnx(member.network, path, input_size=size)
    plain = graph_answers(member, path, pixels)
    graph = compare(network_answers(member, pixels), plain)
    stored = None
    if wishes.precision != "fp32" and graph.holds:
        _reduce(member, path, pictures, ids, wishes)
        stored = compare(plain, graph_answers(member, path, pixels))
    heldout = bool(member.folds)
    tell(Checked(path.name, member.origin, heldout, path.stat().st_size, graph, stored))
    require(graph, member.origin)
    trained = {"weights": member.weights, "shares": member.shares} if member.classes else {}
    says = member_entry(
        member.config, path.name, member.folds, precision=wishes.precision, **trained
    )
    return Made(path, says)


def _reduce(
    member: TrainedMember, path: Path, pictures: Pictures, judged: list[str], wishes: Wishes
) -> None:
    """Put the graph with smaller numbers in the place of the 32-bit one."""
    model = onnx.load(path)
    if wishes.precision == "fp16":
        write_onnx(to_fp16(model), path)
        return
    ids = member.draw(member.learnt(), wishes.calibrated, without=judged)
    write_onnx(to_int8(model, squares(pictures, ids, member.config.input_size)), path)


def _checking(member: TrainedMember, wishes: Wishes) -> list[str]:
    """Return the pictures a member is checked on: held-out ones, where it has any."""
    return member.draw(member.held_out() or member.learnt(), wishes.checked)


def _square(member: TrainedMember, pictures: Pictures, wishes: Wishes) -> bool:
    """Tell whether all files looked at are known to be square."""
    return isinstance(pictures, DecodedPictures) and pictures.all_square(_checking(member, wishes))


def _check_together(runs: Sequence[Run]) -> None:
    for run in runs[1:]:
        first = runs[0]
        for name in _ALIKE[run.config.task]:
            if getattr(first.config.data, name) != getattr(run.config.data, name):
                raise RunError(
                    f"{first.folder} and {run.folder} differ in data.{name}",
                    "join runs that see pictures alike",
                )
        for what, same in (
            ("data", first.inputs["fingerprint"] == run.inputs["fingerprint"]),
            ("folds", first.folds.sha256 == run.folds.sha256),
        ):
            if not same:
                raise RunError(
                    f"{first.folder} and {run.folder} were trained on different {what}",
                    "join runs of the same data and folds",
                )
