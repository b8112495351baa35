"""Export finished folds of runs, for one or several tasks, as one verified bundle."""

from __future__ import annotations

import shutil
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
from naevus.export.members import combine, cost_members, leading, stored_entry
from naevus.export.ood import ood_entry
from naevus.export.precision import Measuring, Variant, choose, measured, oof_predictions, variants
from naevus.inference.cam import cam_offset
from naevus.io.files import workspace
from naevus.io.settings import check_choice
from naevus.runs.evidence import attributes_entry, classification_entry, segmentation_entry
from naevus.runs.images import dataset_of
from naevus.runs.manifest import about, add, limits_of, task_entry
from naevus.training.onnx_graph import SampledNetwork, sample_entry
from naevus.types import Storage, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from naevus.bundles.bundle import Bundle
    from naevus.bundles.figures import Recommendation
    from naevus.export.members import TaskMembers, TrainedMember
    from naevus.runs.run import Run


CHECKED, CALIBRATED = 200, 300
"""Number of images for the check, and for the calibration of int8 ranges."""


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export.

    Attributes:
        folds: Folds of each run; None: all finished ones.
        storage: Number format of the weights; None: the recommendation for each task if costs are
            measured, otherwise fp32.
        average: Whether the networks of each task are averaged into one.
        data: The data set, if it has moved since training.
        calibration: Predictions of the exported ensemble of classifiers on images that no member
            was trained on, like ``oof.parquet``; None: those of an average itself, otherwise the
            runs' out-of-fold predictions.
        measure: Whether to measure the cost of every precision on all held-out images.
        checked: Number of images on which each graph is compared with its network and the offset
            of its activation maps is measured.
        calibrated: Number of images for the calibration of int8 ranges.
        trust: Whether code outside naevus that a recipe names as its network may run.

    Raises:
        ConfigError: There is no such storage.
    """

    folds: tuple[int, ...] | None = None
    storage: Storage | None = None
    average: bool = False
    data: Path | None = None
    calibration: pd.DataFrame | None = None
    measure: bool = False
    checked: int = CHECKED
    calibrated: int = CALIBRATED
    trust: bool = False

    def __post_init__(self) -> None:
        """Check the number format."""
        if self.storage is not None:
            check_choice("storage", self.storage, get_args(Storage))


class Checked(NamedTuple):
    """The agreement of a member's graph with its network, in fp32 and as stored.

    Attributes:
        file: Its name in the bundle.
        origin: The runs and folds it comes from.
        held_out: Whether the images were held out from the network's training.
        size: Size of the file in bytes.
        storage: Number format of the stored weights.
        graph: Agreement of the fp32 graph with the network.
        stored_agreement: Agreement of the stored graph with the fp32 graph; None if it is the
            same graph.
    """

    file: str
    origin: str
    held_out: bool
    size: int
    storage: Storage
    graph: Agreement
    stored_agreement: Agreement | None


class ExportCallbacks(NamedTuple):
    """Functions that an export calls with its progress.

    Attributes:
        checked: Called with each checked member, before it may be rejected.
        step: Called with (done, total) steps.
    """

    checked: Callable[[Checked], None]
    step: Callable[[int, int], None] = lambda _done, _total: None


def export_runs(
    runs: Sequence[Run], out: Path, options: ExportOptions, callbacks: ExportCallbacks
) -> Bundle:
    """Join finished folds into one bundle.

    The graphs are exported again from the stored weights. Each is compared, in OpenVINO and fp32,
    with its network in torch, on held-out images if possible. Nothing is written unless all
    agree. Temperature, prediction sets, scores and the threshold of ``not_dermoscopy`` come from
    the runs' out-of-fold predictions, or from an average's own predictions if all of its
    classifiers held out the same images.

    Args:
        runs: Runs of any task.
        out: The bundle's folder, or its file if the name ends in ``.naevus``.
        options: Options of the export.
        callbacks: Functions to call with the progress.

    Raises:
        RunError: No fold is finished, the runs do not fit together, or one needs ``trust``.
        DataError: The images for the check are missing, or the calibration does not fit.
        BundleError: A graph does not agree with its network, or ``out`` is not a bundle.
    """
    check_place(out)
    _refuse_code(runs, options)
    tasks: tuple[Task, ...] = get_args(Task)
    by_task = {task: [run for run in runs if run.recipe.task == task] for task in tasks}
    if options.calibration is not None and not by_task["classification"]:
        raise RunError("--calibration needs a classification run", "leave it out")
    parts = [
        combine(task, some, folds=options.folds, averaged=options.average, data=options.data)
        for task, some in by_task.items()
        if some
    ]
    if len(by_task["attributes"]) > 1:
        raise RunError("a bundle can have only one attributes run", "name one attributes run")
    to_measure = [cost_members(part) if options.measure else [] for part in parts]
    steps = _Steps(callbacks.step, parts, to_measure)
    manifest, files = about(runs), dict[str, Path]()
    shipped: list[SampledNetwork] = []
    with workspace(out) as temporary:
        for part, chosen in zip(parts, to_measure, strict=True):
            folder = temporary / part.task
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
            entries, leader = [], leading(part.members)
            for number, each in enumerate(graphs):
                name = f"{part.task}-{number}.onnx"
                files[name] = folder / name
                ids, side = _checking(each.member, options), each.member.recipe.input_size
                pixels = stack_images(part.sources[each.member.run.folder], ids, side)
                checked = _make(each, files[name], pixels, storage)
                callbacks.checked(checked)
                require(checked.graph, checked.origin)
                entries.append(
                    stored_entry(each.member, name, storage, leader, **_measured(each, pixels))
                )
                shipped.append(_sampled(each.member, files[name], storage, costs))
                steps.one()
            classes = part.members[0].classes
            given = task_entry(leader.recipe, entries, classes)
            if part.task == "attributes" and by_task["segmentation"]:
                given.pop("segmenter", None)  # the segmentation networks segment the lesions
            add(manifest, given)
            if classes:
                place = folder / OOD_FILE
                add(manifest, ood_entry(graphs, part.sources, storage, place))
                files |= {place.name: place} if place.exists() else {}
                steps.one()
        place = temporary / SAMPLE_FILE
        add(manifest, sample_entry(shipped, place))
        files[place.name] = place
        return write_bundle(out, BundleSpec.model_validate(manifest), files)


def _refuse_code(runs: Sequence[Run], options: ExportOptions) -> None:
    """Refuse to import the networks of recipes that may come from elsewhere.

    Raises:
        RunError: A recipe names code outside naevus, and the options do not trust it.
    """
    for run in runs:
        if run.recipe.own_network and not options.trust:
            raise RunError(
                f"{run.folder}: its recipe names code outside naevus, {run.recipe.own_network}, "
                "which export would run",
                "pass --trust if you trust that code",
            )


def _sampled(
    member: TrainedMember, graph: Path, storage: Storage, costs: Mapping[str, Any]
) -> SampledNetwork:
    """Return a member as it is in the bundle, with the precisions recommended for it."""
    choices: Sequence[Recommendation] = costs.get("recommended", ())
    computed = tuple(
        each.precision for each in choices if each.storage == storage and each.precision != "fp32"
    )
    recipe = member.recipe
    return SampledNetwork(recipe.task, graph, member.network, recipe.input_size, storage, computed)


class _Steps:
    """Count steps: each graph checked or measured, each evaluation, each set of statistics."""

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
    """Write a member's graph, and compare it with its network on N images."""
    member = graphs.member
    plain = graph_outputs(member, graphs.path("fp32"), pixels)
    graph = compare(network_outputs(member, pixels), plain)
    # A graph that disagrees is reported; storing it in fewer bits would be pointless.
    kept: Storage = storage if graph.holds else "fp32"
    stored = None
    if kept != "fp32":
        stored = compare(plain, graph_outputs(member, graphs.path(kept), pixels))
    shutil.copyfile(graphs.path(kept), place)
    size = place.stat().st_size
    return Checked(place.name, member.origin, bool(member.folds), size, kept, graph, stored)


def _measured(graphs: StoredGraphs, pixels: NDArray[np.uint8]) -> dict[str, Any]:
    """Return the measurements on a classifier's graph: the offset of its activation maps."""
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
        # All of them held out the same images, so the average can be scored directly.
        stored = Variant(storage, "fp32")
        own = oof_predictions(_measuring(part, graphs[0], options), stored)
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
    """Return the graphs of networks, reusing existing ones."""
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
    """Return the images that a member is checked on: held-out ones if it has any."""
    return member.draw(member.held_out() or member.learnt(), options.checked)
