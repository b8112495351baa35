"""Finished folds of runs, of one or both tasks, joined into one bundle that was checked."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from naevus.bundles.bundle import check_place, write_bundle
from naevus.bundles.ood import REFERENCE_FILE
from naevus.bundles.sample import SAMPLE_FILE
from naevus.bundles.spec import BundleSpec
from naevus.datasets.sources import squares
from naevus.errors import RunError
from naevus.export.graphs import (
    Agreement,
    StoredGraphs,
    compare,
    graph_answers,
    network_answers,
    require,
)
from naevus.export.members import combine, judges, stored_entry
from naevus.export.ood import reference_entry
from naevus.export.precision import Measuring, Variant, choose, heldout_answers, measured, variants
from naevus.inference.cam import cell_offset
from naevus.runs.evidence import attributes_entry, diagnosing_entry, outlining_entry
from naevus.runs.manifest import about, add, limits_of, task_entry
from naevus.runs.run import dataset_of
from naevus.training.sample import Shipped, sample_entry
from naevus.types import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from naevus.bundles.bundle import Bundle
    from naevus.bundles.spec import PrecisionChoice
    from naevus.export.members import Combination, TrainedMember
    from naevus.runs.run import Run
    from naevus.types import Precision


CHECKED, CALIBRATED = 200, 300
"""Pictures for the check, and for the ranges of 8 bits."""


@dataclass(frozen=True)
class Wishes:
    """How a bundle is to be made.

    Attributes:
        folds: Which folds of each run; None: all that are finished.
        precision: How numbers are stored; None: as is recommended for each task where costs are
            measured, else fp32.
        average: Whether the networks of each task become one.
        data: The data set, where it is not where the runs found it.
        calibration: Answers of the combination of classifiers to pictures that none of them saw,
            like an ``oof.parquet``; None: an average's own, else the runs' out-of-fold answers.
        measure: Whether every precision's cost is measured on all held-out pictures.
        checked: On how many pictures each graph is compared with its network, and it is measured
            where its maps lie.
        calibrated: From how many pictures the ranges of 8 bits are taken.
    """

    folds: tuple[int, ...] | None = None
    precision: Precision | None = None
    average: bool = False
    data: Path | None = None
    calibration: pd.DataFrame | None = None
    measure: bool = False
    checked: int = CHECKED
    calibrated: int = CALIBRATED


class Checked(NamedTuple):
    """How a member's graph agrees with its network: in 32 bits, and as it is stored.

    Attributes:
        file: Its name in the bundle.
        origin: The runs and folds it is from.
        heldout: Whether the network had never seen the pictures.
        size: Bytes of the file.
        precision: How its numbers are stored.
        graph: The 32-bit graph against the network.
        stored: The stored graph against the 32-bit one; None where they are the same.
    """

    file: str
    origin: str
    heldout: bool
    size: int
    precision: Precision
    graph: Agreement
    stored: Agreement | None


class Told(NamedTuple):
    """Who is told how an export goes.

    Attributes:
        checked: Of every member, before it may be refused.
        step: How many steps are done, of how many.
    """

    checked: Callable[[Checked], None]
    step: Callable[[int, int], None] = lambda _done, _total: None


def export_runs(runs: Sequence[Run], out: Path, wishes: Wishes, told: Told) -> Bundle:
    """Join finished folds into one bundle.

    The graphs are made anew from the stored weights. Each is compared, in OpenVINO and 32 bits,
    with its network in torch, where possible on pictures that the network never saw; only when all
    agree is anything written. Temperature, prediction sets and scores are from the runs' answers
    to held-out pictures, or from an average of classifiers' own where all held out the same ones;
    so is the threshold beyond which a picture is flagged as no dermoscopy.

    Args:
        runs: Runs of either task.
        out: The bundle's folder, or its file where the name ends in ``.naevus``.
        wishes: How it is to be made.
        told: Who is told how it goes.

    Raises:
        RunError: No fold is finished, or the runs do not go together.
        DataError: The pictures for the check are not there, or the calibration does not fit.
        BundleError: A graph does not say what its network says, or ``out`` is something else.
    """
    check_place(out)
    tasks: tuple[Task, ...] = get_args(Task)
    by_task = {task: [run for run in runs if run.config.task == task] for task in tasks}
    if wishes.calibration is not None and not by_task["classification"]:
        raise RunError("nothing here diagnoses, so there is nothing to calibrate", "leave it out")
    parts = [
        combine(task, some, folds=wishes.folds, averaged=wishes.average, data=wishes.data)
        for task, some in by_task.items()
        if some
    ]
    if len(by_task["attributes"]) > 1:
        raise RunError("thresholds of attributes are of one run", "name one run of attributes")
    to_measure = [
        judges(part) if wishes.measure and part.task != "attributes" else [] for part in parts
    ]
    steps = _Steps(told.step, parts, to_measure)
    says, files = about(runs), dict[str, Path]()
    shipped: list[Shipped] = []
    with tempfile.TemporaryDirectory() as temporary:
        for part, chosen in zip(parts, to_measure, strict=True):
            folder = Path(temporary) / part.task
            graphs = [
                _graphs(member, part, folder / str(number), wishes)
                for number, member in enumerate(part.members)
            ]
            judging = [
                _graphs_of(some, graphs, part, folder / f"run-{number}", wishes)
                for number, some in enumerate(chosen)
            ]
            costs = _costs(part, judging, wishes, steps)
            add(says, costs)
            precision = wishes.precision or _recommended(costs)
            add(says, _evidence(part, graphs, precision, wishes))
            steps.one()
            entries = []
            for number, each in enumerate(graphs):
                name = f"{part.task}-{number}.onnx"
                files[name] = folder / name
                ids, side = _checking(each.member, wishes), each.member.config.input_size
                pixels = squares(part.sources[each.member.run.folder], ids, side)
                checked = _make(each, files[name], pixels, precision)
                told.checked(checked)
                require(checked.graph, checked.origin)
                entries.append(
                    stored_entry(each.member, name, precision, **_measured(each, pixels))
                )
                shipped.append(_shipped(each.member, files[name], precision, costs))
                steps.one()
            classes = part.members[0].classes
            given = task_entry(part.members[0].config, entries, classes)
            if part.task == "attributes" and by_task["segmentation"]:
                given.pop("segmenter", None)  # lesions are segmented by the networks made for it
            add(says, given)
            if classes:
                place = folder / REFERENCE_FILE
                add(says, reference_entry(graphs, part.sources, precision, place))
                files |= {place.name: place} if place.exists() else {}
                steps.one()
        place = Path(temporary) / SAMPLE_FILE
        add(says, sample_entry(shipped, place))
        files[place.name] = place
        return write_bundle(out, BundleSpec.model_validate(says), files)


def _shipped(
    member: TrainedMember, graph: Path, stored: Precision, costs: Mapping[str, Any]
) -> Shipped:
    """Return a member as it is in the bundle, with what it was measured to bear."""
    choices: Sequence[PrecisionChoice] = costs.get("precision_choices", ())
    computed = tuple(
        each.computed for each in choices if each.stored == stored and each.computed != "fp32"
    )
    config = member.config
    return Shipped(config.task, graph, member.network, config.input_size, stored, computed)


class _Steps:
    """Counts what is done: a step a graph checked or measured, a table judged, a reference."""

    def __init__(
        self,
        tell: Callable[[int, int], None],
        parts: Sequence[Combination],
        to_measure: Sequence[Sequence[Sequence[TrainedMember]]],
    ) -> None:
        measured_graphs = sum(len(chosen) for runs in to_measure for chosen in runs)
        self._total = sum(len(part.members) + 1 + (part.task == "classification") for part in parts)
        self._total += measured_graphs * len(variants()) if measured_graphs else 0
        self._done, self._tell = 0, tell
        tell(0, self._total)

    def one(self) -> None:
        self._done += 1
        self._tell(self._done, self._total)


def _make(
    graphs: StoredGraphs, place: Path, pixels: NDArray[np.uint8], precision: Precision
) -> Checked:
    """Put a member's graph in its place, and compare it with its network on N pictures."""
    member = graphs.member
    plain = graph_answers(member, graphs.path("fp32"), pixels)
    graph = compare(network_answers(member, pixels), plain)
    # A graph that says something else is told of, but there is no use in making it smaller.
    kept: Precision = precision if graph.holds else "fp32"
    stored = None
    if kept != "fp32":
        stored = compare(plain, graph_answers(member, graphs.path(kept), pixels))
    shutil.copyfile(graphs.path(kept), place)
    size = place.stat().st_size
    return Checked(place.name, member.origin, bool(member.folds), size, kept, graph, stored)


def _measured(graphs: StoredGraphs, pixels: NDArray[np.uint8]) -> dict[str, Any]:
    """Return what is measured on a classifier's graph: where its maps lie."""
    if not graphs.member.classes:
        return {}
    return {"cell_offset": cell_offset(graphs.path("fp32"), pixels)}


def _evidence(
    part: Combination, graphs: Sequence[StoredGraphs], precision: Precision, wishes: Wishes
) -> dict[str, Any]:
    dataset = dataset_of(part.runs[0], wishes.data)
    looked_at = [name for member in part.members for name in _checking(member, wishes)]
    if part.task == "attributes":
        return attributes_entry(part.runs[0]) | limits_of(part.task, dataset, looked_at)
    if part.task == "segmentation":
        return outlining_entry(part.runs) | limits_of(part.task, dataset, looked_at)
    own = wishes.calibration
    if own is None and part.shipped.averaged and part.members[0].folds:
        # All of them held these pictures out: the average itself tells what it is worth.
        stored = Variant(precision, "fp32")
        own = heldout_answers(_measuring(part, graphs[0], wishes), stored)
    found = diagnosing_entry(part.runs, part.shipped, dataset, own)
    return found | limits_of(part.task, dataset, looked_at)


def _graphs(member: TrainedMember, part: Combination, folder: Path, wishes: Wishes) -> StoredGraphs:
    return StoredGraphs(
        member,
        part.sources[member.run.folder],
        folder,
        calibrated=wishes.calibrated,
        without=_checking(member, wishes),
    )


def _graphs_of(
    members: Sequence[TrainedMember],
    made: Sequence[StoredGraphs],
    part: Combination,
    folder: Path,
    wishes: Wishes,
) -> list[StoredGraphs]:
    """Return the graphs of networks: those that are made already, and else new ones."""
    there = {(graphs.member.run.folder, graphs.member.origin): graphs for graphs in made}
    return [
        there.get((member.run.folder, member.origin))
        or _graphs(member, part, folder / str(number), wishes)
        for number, member in enumerate(members)
    ]


def _measuring(part: Combination, graphs: StoredGraphs, wishes: Wishes) -> Measuring:
    run = graphs.member.run
    return Measuring(graphs, part.sources[run.folder], dataset_of(run, wishes.data))


def _costs(
    part: Combination, graphs: Sequence[Sequence[StoredGraphs]], wishes: Wishes, steps: _Steps
) -> dict[str, Any]:
    if not graphs:
        return {}
    runs = [[_measuring(part, each, wishes) for each in some] for some in graphs]
    costs, refusals = measured(runs, steps.one)
    return {
        "precision_costs": list(costs),
        "precision_refusals": list(refusals),
        "precision_choices": [choose(costs, part.task, stored=wishes.precision)],
    }


def _recommended(costs: Mapping[str, Any]) -> Precision:
    choices: Sequence[PrecisionChoice] = costs.get("precision_choices", ())
    return choices[0].stored if choices else "fp32"


def _checking(member: TrainedMember, wishes: Wishes) -> list[str]:
    """Return the pictures a member is checked on: held-out ones, where it has any."""
    return member.draw(member.held_out() or member.learnt(), wishes.checked)
