"""Finished folds of runs, of one or both tasks, joined into one bundle that was checked."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from naevus.bundles.bundle import check_place, write_bundle
from naevus.bundles.ood import OOD_FILE
from naevus.bundles.sample import SAMPLE_FILE
from naevus.bundles.spec import BundleSpec
from naevus.datasets.sources import stack_images
from naevus.errors import RunError
from naevus.export.graphs import (
    Agreement,
    StoredGraphs,
    compare,
    graph_outputs,
    network_outputs,
    require,
)
from naevus.export.members import combine, judges, stored_entry
from naevus.export.ood import ood_entry
from naevus.export.precision import Measuring, Variant, choose, measured, oof_answers, variants
from naevus.inference.cam import cam_offset
from naevus.runs.evidence import attributes_entry, classification_entry, segmentation_entry
from naevus.runs.manifest import about, add, limits_of, task_entry
from naevus.runs.run import dataset_of
from naevus.training.sample import SampledNetwork, sample_entry
from naevus.types import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from naevus.bundles.bundle import Bundle
    from naevus.bundles.spec import Recommendation
    from naevus.export.members import TaskMembers, TrainedMember
    from naevus.runs.run import Run
    from naevus.types import Storage


CHECKED, CALIBRATED = 200, 300
"""Images for the check, and for the ranges of 8 bits."""


@dataclass(frozen=True)
class ExportOptions:
    """How a bundle is to be made.

    Attributes:
        folds: Which folds of each run; None: all that are finished.
        storage: How numbers are stored; None: as is recommended for each task where costs are
            measured, else fp32.
        average: Whether the networks of each task become one.
        data: The data set, where it is not where the runs found it.
        calibration: Answers of the combination of classifiers to images that none of them saw,
            like an ``oof.parquet``; None: an average's own, else the runs' out-of-fold answers.
        measure: Whether every precision's cost is measured on all held-out images.
        checked: On how many images each graph is compared with its network, and it is measured
            where its maps lie.
        calibrated: From how many images the ranges of 8 bits are taken.
    """

    folds: tuple[int, ...] | None = None
    storage: Storage | None = None
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
        held_out: Whether the network had never seen the images.
        size: Bytes of the file.
        storage: How its numbers are stored.
        graph: The 32-bit graph against the network.
        stored_agreement: The stored graph against the 32-bit one; None where they are the same.
    """

    file: str
    origin: str
    held_out: bool
    size: int
    storage: Storage
    graph: Agreement
    stored_agreement: Agreement | None


class ExportCallbacks(NamedTuple):
    """Who is told how an export goes.

    Attributes:
        checked: Of every member, before it may be refused.
        step: How many steps are done, of how many.
    """

    checked: Callable[[Checked], None]
    step: Callable[[int, int], None] = lambda _done, _total: None


def export_runs(
    runs: Sequence[Run], out: Path, options: ExportOptions, callbacks: ExportCallbacks
) -> Bundle:
    """Join finished folds into one bundle.

    The graphs are made anew from the stored weights. Each is compared, in OpenVINO and 32 bits,
    with its network in torch, where possible on images that the network never saw; only when all
    agree is anything written. Temperature, prediction sets and scores are from the runs' answers
    to held-out images, or from an average of classifiers' own where all held out the same ones;
    so is the threshold beyond which an image is flagged as no dermoscopy.

    Args:
        runs: Runs of either task.
        out: The bundle's folder, or its file where the name ends in ``.naevus``.
        options: How it is to be made.
        callbacks: Who is told how it goes.

    Raises:
        RunError: No fold is finished, or the runs do not go together.
        DataError: The images for the check are not there, or the calibration does not fit.
        BundleError: A graph does not say what its network says, or ``out`` is something else.
    """
    check_place(out)
    tasks: tuple[Task, ...] = get_args(Task)
    by_task = {task: [run for run in runs if run.recipe.task == task] for task in tasks}
    if options.calibration is not None and not by_task["classification"]:
        raise RunError("nothing here diagnoses, so there is nothing to calibrate", "leave it out")
    parts = [
        combine(task, some, folds=options.folds, averaged=options.average, data=options.data)
        for task, some in by_task.items()
        if some
    ]
    if len(by_task["attributes"]) > 1:
        raise RunError("thresholds of attributes are of one run", "name one run of attributes")
    to_measure = [
        judges(part) if options.measure and part.task != "attributes" else [] for part in parts
    ]
    steps = _Steps(callbacks.step, parts, to_measure)
    manifest, files = about(runs), dict[str, Path]()
    shipped: list[SampledNetwork] = []
    with tempfile.TemporaryDirectory() as temporary:
        for part, chosen in zip(parts, to_measure, strict=True):
            folder = Path(temporary) / part.task
            graphs = [
                _graphs(member, part, folder / str(number), options)
                for number, member in enumerate(part.members)
            ]
            judging = [
                _graphs_of(some, graphs, part, folder / f"run-{number}", options)
                for number, some in enumerate(chosen)
            ]
            costs = _costs(part, judging, options, steps)
            add(manifest, costs)
            storage = options.storage or _recommended(costs)
            add(manifest, _evidence(part, graphs, storage, options))
            steps.one()
            entries = []
            for number, each in enumerate(graphs):
                name = f"{part.task}-{number}.onnx"
                files[name] = folder / name
                ids, side = _checking(each.member, options), each.member.recipe.input_size
                pixels = stack_images(part.sources[each.member.run.folder], ids, side)
                checked = _make(each, files[name], pixels, storage)
                callbacks.checked(checked)
                require(checked.graph, checked.origin)
                entries.append(stored_entry(each.member, name, storage, **_measured(each, pixels)))
                shipped.append(_sampled(each.member, files[name], storage, costs))
                steps.one()
            classes = part.members[0].classes
            given = task_entry(part.members[0].recipe, entries, classes)
            if part.task == "attributes" and by_task["segmentation"]:
                given.pop("segmenter", None)  # lesions are segmented by the networks made for it
            add(manifest, given)
            if classes:
                place = folder / OOD_FILE
                add(manifest, ood_entry(graphs, part.sources, storage, place))
                files |= {place.name: place} if place.exists() else {}
                steps.one()
        place = Path(temporary) / SAMPLE_FILE
        add(manifest, sample_entry(shipped, place))
        files[place.name] = place
        return write_bundle(out, BundleSpec.model_validate(manifest), files)


def _sampled(
    member: TrainedMember, graph: Path, storage: Storage, costs: Mapping[str, Any]
) -> SampledNetwork:
    """Return a member as it is in the bundle, with what it was measured to bear."""
    choices: Sequence[Recommendation] = costs.get("recommended", ())
    computed = tuple(
        each.precision for each in choices if each.storage == storage and each.precision != "fp32"
    )
    recipe = member.recipe
    return SampledNetwork(recipe.task, graph, member.network, recipe.input_size, storage, computed)


class _Steps:
    """Counts what is done: a step a graph checked or measured, a table judged, a reference."""

    def __init__(
        self,
        report: Callable[[int, int], None],
        parts: Sequence[TaskMembers],
        to_measure: Sequence[Sequence[Sequence[TrainedMember]]],
    ) -> None:
        measured_graphs = sum(len(chosen) for runs in to_measure for chosen in runs)
        self._total = sum(len(part.members) + 1 + (part.task == "classification") for part in parts)
        self._total += measured_graphs * len(variants()) if measured_graphs else 0
        self._done, self._report = 0, report
        report(0, self._total)

    def one(self) -> None:
        self._done += 1
        self._report(self._done, self._total)


def _make(
    graphs: StoredGraphs, place: Path, pixels: NDArray[np.uint8], storage: Storage
) -> Checked:
    """Put a member's graph in its place, and compare it with its network on N images."""
    member = graphs.member
    plain = graph_outputs(member, graphs.path("fp32"), pixels)
    graph = compare(network_outputs(member, pixels), plain)
    # A graph that says something else is told of, but there is no use in making it smaller.
    kept: Storage = storage if graph.holds else "fp32"
    stored = None
    if kept != "fp32":
        stored = compare(plain, graph_outputs(member, graphs.path(kept), pixels))
    shutil.copyfile(graphs.path(kept), place)
    size = place.stat().st_size
    return Checked(place.name, member.origin, bool(member.folds), size, kept, graph, stored)


def _measured(graphs: StoredGraphs, pixels: NDArray[np.uint8]) -> dict[str, Any]:
    """Return what is measured on a classifier's graph: where its maps lie."""
    if not graphs.member.classes:
        return {}
    return {"cam_offset": cam_offset(graphs.path("fp32"), pixels)}


def _evidence(
    part: TaskMembers, graphs: Sequence[StoredGraphs], storage: Storage, options: ExportOptions
) -> dict[str, Any]:
    dataset = dataset_of(part.runs[0], options.data)
    examined = [name for member in part.members for name in _checking(member, options)]
    if part.task == "attributes":
        return attributes_entry(part.runs[0]) | limits_of(part.task, dataset, examined)
    if part.task == "segmentation":
        return segmentation_entry(part.runs) | limits_of(part.task, dataset, examined)
    own = options.calibration
    if own is None and part.composition.averaged and part.members[0].folds:
        # All of them held these images out: the average itself tells what it is worth.
        stored = Variant(storage, "fp32")
        own = oof_answers(_measuring(part, graphs[0], options), stored)
    found = classification_entry(part.runs, part.composition, dataset, own)
    return found | limits_of(part.task, dataset, examined)


def _graphs(
    member: TrainedMember, part: TaskMembers, folder: Path, options: ExportOptions
) -> StoredGraphs:
    return StoredGraphs(
        member,
        part.sources[member.run.folder],
        folder,
        calibrated=options.calibrated,
        without=_checking(member, options),
    )


def _graphs_of(
    members: Sequence[TrainedMember],
    made: Sequence[StoredGraphs],
    part: TaskMembers,
    folder: Path,
    options: ExportOptions,
) -> list[StoredGraphs]:
    """Return the graphs of networks: those that are made already, and else new ones."""
    there = {(graphs.member.run.folder, graphs.member.origin): graphs for graphs in made}
    return [
        there.get((member.run.folder, member.origin))
        or _graphs(member, part, folder / str(number), options)
        for number, member in enumerate(members)
    ]


def _measuring(part: TaskMembers, graphs: StoredGraphs, options: ExportOptions) -> Measuring:
    run = graphs.member.run
    return Measuring(graphs, part.sources[run.folder], dataset_of(run, options.data))


def _costs(
    part: TaskMembers,
    graphs: Sequence[Sequence[StoredGraphs]],
    options: ExportOptions,
    steps: _Steps,
) -> dict[str, Any]:
    if not graphs:
        return {}
    runs = [[_measuring(part, each, options) for each in some] for some in graphs]
    costs, refusals = measured(runs, steps.one)
    return {
        "storage_costs": list(costs),
        "storage_refusals": list(refusals),
        "recommended": [choose(costs, part.task, storage=options.storage)],
    }


def _recommended(costs: Mapping[str, Any]) -> Storage:
    choices: Sequence[Recommendation] = costs.get("recommended", ())
    return choices[0].storage if choices else "fp32"


def _checking(member: TrainedMember, options: ExportOptions) -> list[str]:
    """Return the images a member is checked on: held-out ones, where it has any."""
    return member.draw(member.held_out() or member.learnt(), options.checked)
