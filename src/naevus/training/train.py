"""Train the folds of a run: training, fold bundles and out-of-fold predictions."""

from __future__ import annotations

import logging
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from naevus import __version__
from naevus.bundles.bundle import Bundle, runs_before, write_bundle
from naevus.bundles.sample import SAMPLE_FILE, read_sample
from naevus.bundles.spec import BundleSpec
from naevus.datasets.sources import stack_images
from naevus.inference.cam import cam_offset
from naevus.inference.out_of_fold import oof_attributes, oof_logits, oof_scores
from naevus.io.files import atomic, workspace, write_text
from naevus.io.progress import SILENT, duration, logged
from naevus.io.words import counted
from naevus.runs.manifest import member_entry, task_entry
from naevus.runs.recipe import LESION, Recipe
from naevus.runs.run import WEIGHTS, Run, held
from naevus.runs.start import BundleStart, check_start
from naevus.training.callbacks import (
    Callback,
    Callbacks,
    CostEstimate,
    History,
    Job,
    ProgressBar,
)
from naevus.training.data import BatchLoader, TrainingData
from naevus.training.distributed import Processes, make_fabric, synchronise
from naevus.training.from_graph import IMAGES, check_loaded, load_graph
from naevus.training.loop import CHECKPOINT, Trainer, load_network, save_tensors
from naevus.training.networks import Preprocessed, layer_summary
from naevus.training.onnx_graph import SampledNetwork, export_onnx, sample_entry
from naevus.training.performance import kept_memory, prepare_network, resolve
from naevus.training.prepare import held_out_of, task_of_fold
from naevus.training.pretrained import weights_of
from naevus.training.tasks import (
    AttributesTask,
    ClassificationTask,
    TrainingTask,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from naevus.io.progress import Reporter


_log = logging.getLogger(__name__)
_MEASURED = 200
"""Number of images on which the offset of the activation maps is measured."""


def train_folds(
    run: Run,
    folds: Sequence[int],
    training_data: TrainingData,
    reporter: Reporter = SILENT,
    callbacks: Iterable[Callback] = (),
    processes: Processes | None = None,
) -> None:
    """Train folds of a run one after the other.

    Other jobs can train other folds of the run at the same time.

    Args:
        run: The run, from `start_run`; the log goes to its ``train.log``.
        folds: The folds to train.
        training_data: The images, with their caches.
        reporter: Shows progress.
        callbacks: Called with the progress of each fold.
        processes: The processes that train together; None: this one alone.

    Raises:
        DataError: A fold has no training images of a class, or no validation images.
        NaevusError: Another process trains one of these folds.
    """
    processes = processes or Processes(make_fabric(run.recipe))
    if not processes.is_first:
        for fold in folds:
            train_fold(run, fold, training_data, Callback(), processes)
        return
    left = [fold for fold in folds if fold not in run.finished()]
    several = (CostEstimate(len(left), reporter), *callbacks)
    with logged(run.folder / "train.log"):
        for fold in folds:
            with (
                held(run.fold_folder(fold)),
                reporter.progress(f"{run.recipe.task} fold {fold}") as move,
                reporter.interruptible(partial(_left, run, fold)),
            ):
                called = Callbacks([ProgressBar(move), *several])
                train_fold(run, fold, training_data, called, processes)
        with held(run.folder, lambda: reporter.message(f"waiting to join {run.folder}")):
            run.join()
    reporter.message(f"run: {run.folder}")


def _left(run: Run, fold: int) -> str:
    """Say what an interruption leaves: nothing yet, or the run before it was extended."""
    folder = run.fold_folder(fold)
    if not (folder / CHECKPOINT).exists():
        return (
            f"nothing of fold {fold} is kept yet, because its first checkpoint comes after an "
            f"epoch or {duration(run.recipe.checkpoint_seconds)} of training"
        )
    for before in runs_before(run.folder)[-1:]:
        if (before / folder.name / "oof.parquet").exists():
            return f"fold {fold} as it was before the run was extended is in {before}"
    return ""


def train_fold(
    run: Run,
    fold: int,
    training_data: TrainingData,
    callback: Callback,
    processes: Processes | None = None,
) -> None:
    """Train one fold, export its bundle, and predict what it held out.

    A finished fold is not trained again; an interrupted one is resumed.

    Args:
        run: The run.
        fold: The held-out fold.
        training_data: The images, with caches built by :func:`prepare`.
        callback: Called with the progress, after the history is written.
        processes: The processes that train together; None: this one alone.
    """
    processes = processes or Processes(make_fabric(run.recipe))
    folder = run.fold_folder(fold)
    if processes.of_first((folder / "oof.parquet").exists()):
        return
    recipe = run.recipe
    training_task = task_of_fold(recipe, run.folds, fold, training_data)
    network = _initialised(run, fold, training_task, training_data)
    kind = processes.fabric.device.type
    precision = resolve(recipe.precision, kind)
    if processes.is_first:
        write_text(folder / "network.txt", layer_summary(network.network, recipe.input_size))
    prepare_network(network, precision, kind)
    synchronise(network, recipe)
    held_out = held_out_of(recipe, run.folds, fold, training_data)
    _log.info(
        "fold %d: %d training images, %d validation, %d held out, precision %s%s",
        fold,
        len(training_task.training.ids),
        len(training_task.validation.ids),
        len(held_out),
        precision,
        ", resumed" if (folder / CHECKPOINT).exists() else "",
    )
    batches = BatchLoader(
        training_task.training,
        recipe,
        training_task.draw,
        rank=processes.rank,
        world=processes.world,
        pin=processes.fabric.device.type == "cuda",
    )
    trainer = Trainer(network, training_task, batches, recipe, processes.fabric, folder)
    sizes = (training_task.training.ids, training_task.validation.ids, held_out)
    job = Job(recipe, run.folder, fold, batches.steps, trainer.state.epoch, *map(len, sizes))
    called = Callbacks([History(), callback]) if processes.is_first else Callback()
    with called.around(job):
        with kept_memory():
            trainer.fit(called)
        _log.info("fold %d: %s", fold, trainer.ending())
        trained = trainer.used
        assert isinstance(trained, Preprocessed)
        if processes.is_first:
            save_tensors(folder / WEIGHTS, trained.state_dict(), {"fold": fold})
            export_fold(run, fold, training_task, trained, training_data)
        processes.wait()
        predict_held_out(run, fold, training_data, processes)


def _initialised(
    run: Run, fold: int, training_task: TrainingTask, training_data: TrainingData
) -> Preprocessed:
    """Return the network of a fold with its initial weights."""
    torch.manual_seed(run.recipe.network.init_seed)  # for the initialisation only
    start, recipe = training_data.init_from, run.recipe
    if start is None:
        return training_task.network(
            weights_of(recipe.network.pretrained, training_data.pretrained)
        )
    check_start(start, recipe, run.folds, fold, run.inputs)
    network = training_task.network("none")
    if isinstance(start, Run):
        _init_from(network, start, recipe, fold)
        return network
    _from_bundle(network, start, training_task, recipe, fold)
    return network


def _from_bundle(
    network: Preprocessed,
    start: BundleStart,
    training_task: TrainingTask,
    recipe: Recipe,
    fold: int,
) -> None:
    there = start.network(recipe, fold)
    bundle, member = there
    codes = training_task.taxonomy.codes if isinstance(training_task, ClassificationTask) else ()
    head = not codes or there.has_classes(codes)
    batches = BatchLoader(training_task.training, recipe, training_task.draw).epoch(0)
    some = [pixels for pixels, _ in islice(batches, -(-IMAGES // recipe.batch_size))]
    load_graph(there.graph, network, some, head=head)
    if head and bundle.spec.sample:
        place, sizes = bundle.folder / bundle.spec.sample.file, {member.file: member.input_size}
        sampled = SampledNetwork(recipe.task, there.graph, network, member.input_size)
        check_loaded(sampled, read_sample(place, sizes))
    _log.info(
        "fold %d: starts from %s of %s%s",
        fold,
        member.file,
        start.name,
        "" if head else ", with a new head for other classes",
    )


def export_fold(
    run: Run,
    fold: int,
    training_task: TrainingTask,
    network: Preprocessed,
    training_data: TrainingData,
) -> Bundle:
    """Write a fold's bundle: the graph with its preprocessing, and its manifest."""
    with workspace(run.bundle_folder(fold)) as folder:
        graph = folder / "network.onnx"
        return _write_fold(run, fold, training_task, network, training_data, graph)


def _write_fold(
    run: Run,
    fold: int,
    training_task: TrainingTask,
    network: Preprocessed,
    training_data: TrainingData,
    graph: Path,
) -> Bundle:
    recipe = run.recipe
    export_onnx(network, graph, input_size=recipe.input_size)
    codes: tuple[str, ...] = ()
    trained: dict[str, Any] = {}
    if isinstance(training_task, ClassificationTask):
        codes = training_task.taxonomy.codes
        cache, side = training_data.caches["images"], recipe.input_size
        there = sorted(held_out_of(run.recipe, run.folds, fold, training_data))
        ids = there[:: -(-len(there) // _MEASURED) or 1]  # spread over the fold
        trained = {
            "class_weights": training_task.class_weights.tolist(),
            "class_priors": training_task.class_priors.tolist(),
            "cam_offset": cam_offset(graph, stack_images(cache, ids, side)) if ids else (0.0, 0.0),
        }
    member = member_entry(recipe, "network.onnx", (fold,), **trained)
    provenance = {
        "naevus": __version__,
        "recipe": recipe.fingerprint(),
        "data": run.inputs["fingerprint"],
        "folds": run.folds.sha256,
        "training images": len(training_task.training.ids),
    }
    does = task_entry(recipe, [member], codes)
    if isinstance(training_task, AttributesTask):
        counts = training_task.counts(network, recipe.input_size)
        if counts is not None:
            does["attributes"] |= {
                "thresholds": counts.best_thresholds(),
                "chosen_on": f"{counted(len(counts.true), 'image')} of the validation split",
            }
    place = graph.with_name(SAMPLE_FILE)
    sampled = SampledNetwork(recipe.task, graph, network, recipe.input_size)
    sample = sample_entry([sampled], place)
    spec = BundleSpec.model_validate({**does, **sample, "provenance": provenance})
    files = {"network.onnx": graph, place.name: place}
    return write_bundle(run.bundle_folder(fold), spec, files)


def _init_from(network: Preprocessed, source: Run, recipe: Recipe, fold: int) -> None:
    """Load the weights of another run's fold."""
    kinds = [
        each.outputs if each.task != "classification" else () for each in (source.recipe, recipe)
    ]
    renamed = None if kinds[0] == kinds[1] else (kinds[0], kinds[1])
    load_network(source.fold_folder(fold) / WEIGHTS, network, renamed)


def _predict_lesions(
    run: Run, fold: int, training_data: TrainingData, bundle: Bundle, processes: Processes
) -> None:
    """Score the lesion masks of an attributes fold against the ground truth, if there is any.

    Each copy of an image with its own mask has a row, with the name of its folder.
    """
    if bundle.spec.segmenter is None:
        return
    held_out = set(run.folds.held_out(fold))
    tables = []
    datasets = (training_data.dataset, *training_data.further)
    for dataset, copy in zip(datasets, training_data.outputs, strict=True):
        usable = copy.masks[LESION].index.keys() if LESION in copy.masks else set()
        sources = sorted(
            (row.image_id, row.path, row.mask_path)
            for row in dataset.rows()
            if row.image_id in held_out.intersection(usable) and row.path and row.mask_path
        )
        if sources:
            score = partial(oof_scores, bundle, threads=processes.threads)
            found = processes.table(sources, score)
            tables.append(found.assign(copy=dataset.root.name, fold=fold))
    if not tables or not processes.is_first:
        return
    table = pd.concat(tables, ignore_index=True)
    table["group_id"] = table["image_id"].map(run.folds.table.set_index("image_id")["group_id"])
    with atomic(run.fold_folder(fold) / "lesions.parquet") as temporary:
        table.to_parquet(temporary, index=False)


def predict_held_out(
    run: Run, fold: int, training_data: TrainingData, processes: Processes | None = None
) -> None:
    """Predict the held-out images of a fold with its exported bundle.

    Several processes divide the images; the first one writes the tables. Each mask is written by
    the process that predicts it.

    Segmentation writes masks of the images' sizes and their scores. Attributes write counts at
    every threshold, and scores of lesion masks in ``lesions.parquet``. Classification writes
    logits. ``oof.parquet`` is written last and marks the fold as finished.
    """
    processes = processes or Processes(make_fabric(run.recipe))
    threads = processes.threads
    bundle = Bundle.read(run.bundle_folder(fold))
    held_out = held_out_of(run.recipe, run.folds, fold, training_data)
    if run.recipe.task == "segmentation":
        sources = sorted(
            (row.image_id, row.path, row.mask_path)
            for row in training_data.dataset.rows()
            if row.image_id in held_out and row.path and row.mask_path
        )
        score = partial(oof_scores, bundle, out=run.folder / "masks", threads=threads)
        table = processes.table(sources, score)
    elif run.recipe.task == "attributes":
        _predict_lesions(run, fold, training_data, bundle, processes)
        shown = [
            (row.image_id, row.path, row.attributes)
            for row in sorted(training_data.dataset.rows(), key=lambda row: row.image_id)
            if row.image_id in held_out and row.path is not None
        ]
        table = processes.table(shown, partial(oof_attributes, bundle, threads=threads))
    else:
        cache = training_data.caches["images"]
        table = processes.table(
            sorted(held_out), partial(oof_logits, bundle, cache, threads=threads)
        )
        (member,) = bundle.classifier.members
        truth = training_data.dataset.table.set_index("image_id")["diagnosis"]
        table["diagnosis"] = table["image_id"].map(truth)
        for column, values in (
            ("class_prior", member.class_priors),
            ("class_weight", member.class_weights),
        ):
            for code, value in zip(bundle.classifier.classes, values, strict=True):
                table[f"{column}_{code}"] = value
    table["group_id"] = table["image_id"].map(run.folds.table.set_index("image_id")["group_id"])
    if processes.is_first:
        with atomic(run.fold_folder(fold) / "oof.parquet") as temporary:
            table.to_parquet(temporary, index=False)
    processes.wait()
