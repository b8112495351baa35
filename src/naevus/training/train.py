"""Train the folds of a run: caches, training, fold bundles and out-of-fold predictions."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from naevus import __version__
from naevus.bundles.bundle import Bundle, write_bundle
from naevus.bundles.sample import SAMPLE_FILE
from naevus.bundles.spec import BundleSpec
from naevus.datasets.cache import ImageCache
from naevus.datasets.folds import validation_split
from naevus.datasets.masksurvey import implausible_problem, refuse
from naevus.datasets.sources import stack_images
from naevus.errors import DataError, RunError
from naevus.images.masks import PLAUSIBLE_FRACTIONS
from naevus.images.preprocess import ImageFiles, InputSpec
from naevus.images.read import IMAGE_SUFFIXES
from naevus.inference.cam import cam_offset
from naevus.inference.out_of_fold import oof_attributes, oof_logits, oof_scores
from naevus.io.files import atomic, sha256_of, write_json, write_list, write_text
from naevus.io.progress import SILENT, logged, warn_all
from naevus.runs.manifest import member_entry, task_entry
from naevus.runs.recipe import LESION
from naevus.runs.run import WEIGHTS, held
from naevus.taxonomy import ATTRIBUTES
from naevus.training.checkpoint import load_network, save_tensors
from naevus.training.data import BatchLoader, ImageCopies
from naevus.training.loop import CHECKPOINT, Callbacks, Trainer
from naevus.training.masks import CropCounts, check_before, check_cropped, check_learnt
from naevus.training.networks import Preprocessed, layer_summary
from naevus.training.onnx_graph import export_onnx
from naevus.training.performance import fabric_for, kept_memory, resolve
from naevus.training.pretrained import check_pretrained
from naevus.training.sample import SampledNetwork, sample_entry
from naevus.training.tasks import (
    AttributesTask,
    ClassificationTask,
    TrainingTask,
    _make_training_task,
    training_task_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from naevus.datasets.dataset import Dataset
    from naevus.io.progress import Reporter
    from naevus.runs.recipe import Recipe
    from naevus.runs.run import Run
    from naevus.training.data import TrainingData
    from naevus.training.loop import Metrics


_log = logging.getLogger(__name__)
_MEASURED = 200
"""Number of images on which the offset of the activation maps is measured."""


def check_training_data(
    training_data: TrainingData, recipe: Recipe, reporter: Reporter = SILENT, arm: str = ""
) -> None:
    """Check the masks and weights of a job before creating its folder.

    Raises:
        DataError: See `naevus.training.masks.check_before`.
        WeightsError: See `naevus.training.pretrained.check_pretrained`.
    """
    check_pretrained(recipe, training_data.pretrained)
    where = training_data.masks or training_data.dataset.root
    notes = check_before(training_data.sources(), recipe, where, force=training_data.force, arm=arm)
    warn_all(reporter, notes)


def train_folds(
    run: Run, folds: Sequence[int], training_data: TrainingData, reporter: Reporter = SILENT
) -> None:
    """Build the caches, then train the folds one after the other.

    Other processes can train other folds of the run at the same time; they wait while one of
    them builds the caches.

    Args:
        run: The run; the log goes to its ``train.log``.
        folds: The folds to train.
        training_data: The images.
        reporter: Shows progress and what is left out.

    Raises:
        DataError: Most masks or crops look wrong, or a fold has no training images.
        RunError: The caches differ from those that the run started with.
        NaevusError: Another process trains one of these folds.
    """
    with logged(run.folder / "train.log"):
        _train_folds(run, folds, training_data, reporter)


def _train_folds(
    run: Run, folds: Sequence[int], training_data: TrainingData, reporter: Reporter
) -> None:
    def wait() -> None:
        reporter.message(f"waiting for another job to prepare {run.folder}")

    with held(run.folder, wait):
        _prepare_run(run, training_data, reporter)
    for fold in folds:
        with (
            held(run.fold_folder(fold)),
            reporter.progress(f"{run.recipe.task} fold {fold}") as move,
        ):
            train_fold(run, fold, training_data, Callbacks(move, lambda _: None))
    with held(run.folder, wait):
        run.join()
    reporter.message(f"run: {run.folder}")


def _prepare_run(run: Run, training_data: TrainingData, reporter: Reporter) -> None:
    """Build the caches, and record them in the run's folder."""
    with ExitStack() as stack:
        refused = prepare(
            training_data, run.recipe, lambda what: stack.enter_context(reporter.progress(what))
        )
    warn_all(reporter, check_cached(training_data, run.recipe))
    caches = training_data.caches
    run.hold_to(
        {name: cache.key for name, cache in caches.items()},
        {name: cache.contents for name, cache in caches.items()},
    )
    _count_crops(run, training_data, reporter)
    for image_id, why in refused.items():
        reporter.warning(f"{image_id}: {why}", "left out")
    write_list(run.folder / "failed.csv", ("image_id", "problem"), sorted(refused.items()))


def _count_crops(run: Run, training_data: TrainingData, reporter: Reporter) -> None:
    """Report how many images were cropped, and record it in the run's folder."""
    if run.recipe.task == "segmentation" or run.recipe.data.crop_mode == "full":
        return
    sources = training_data.sources()
    counts = {name: CropCounts.of(cache, sources) for name, cache in training_data.caches.items()}
    for name, counted in counts.items():
        reporter.message(f"crops ({name}): {counted}")
    write_json(run.folder / "crops.json", {name: each.to_json() for name, each in counts.items()})


def inputs_of(dataset: Dataset, training_data: TrainingData) -> dict[str, Any]:
    """Return the sources of a run's images; a run resumes only with the same ones."""
    return {
        "data": str(dataset.root.resolve()),
        "layout": dataset.layout,
        "images": len(dataset),
        "fingerprint": dataset.fingerprint(),
        "masks": str(training_data.masks.resolve()) if training_data.masks else None,
        "copies": [str(folder.resolve()) for folder in training_data.copies],
        "init_from": str(training_data.init_from.folder.resolve())
        if training_data.init_from
        else None,
    }


def prepare(
    training_data: TrainingData,
    recipe: Recipe,
    progress: Callable[[str], Callable[[int, int], None]],
) -> Mapping[str, str]:
    """Build or open the caches of a job.

    Args:
        training_data: The images; its ``caches`` are filled.
        recipe: The recipe.
        progress: Takes a description, returns a function to call with (done, total).

    Returns:
        The reason why each failed image was left out, by id.

    Raises:
        DataError: A folder of copies is missing or has none of the images.
    """
    kind = training_task_of(recipe)
    if recipe.task == "attributes":
        _prepare_outputs(training_data, recipe, progress)
        return _unusable(training_data)
    sources = training_data.sources()
    for name, input_spec in kind.input_specs(recipe).items():
        training_data.caches[name] = _cache(
            training_data, sources, input_spec, progress(f"caching {name}")
        )
    for number, folder in enumerate(training_data.copies):
        if not folder.is_dir():
            raise DataError(f"{folder}: not a folder", "name a folder of copies")
        by_id = {
            path.stem: path
            for path in sorted(folder.iterdir())
            if path.suffix.lower() in IMAGE_SUFFIXES
        }
        copied = [
            source._replace(path=by_id[source.image_id], scaled=True)
            for source in sources
            if source.image_id in by_id
        ]
        if not copied:
            raise DataError(f"{folder}: contains no copy of any image", "name files by image id")
        input_spec = InputSpec(
            recipe.data.crop_mode,
            recipe.data.copies_size,
            margin=recipe.data.crop_margin,
            colour_constancy=recipe.data.colour_constancy,
        ).wider(recipe.data.context)
        training_data.caches[f"copies-{number}"] = _cache(
            training_data, copied, input_spec, progress("caching copies")
        )
    return _unusable(training_data)


def _unusable(training_data: TrainingData) -> dict[str, str]:
    return {
        image_id: why
        for cache in training_data.caches.values()
        for image_id, why in cache.failed.items()
    }


def _prepare_outputs(
    training_data: TrainingData,
    recipe: Recipe,
    progress: Callable[[str], Callable[[int, int], None]],
) -> None:
    """Cache the copies of the images, each with its own masks of every output."""
    input_specs = training_task_of(recipe).input_specs(recipe)
    training_data.outputs.clear()
    for number, dataset in enumerate((training_data.dataset, *training_data.further)):
        prefix = f"copies-{number - 1} " if number else ""
        rows = [row for row in dataset.rows() if row.path is not None]
        wanted: dict[str, list[ImageFiles]] = {"images": []}
        for row in rows:
            assert row.path is not None
            wanted["images"].append(ImageFiles(row.image_id, row.path))
            masks = {**({LESION: row.mask_path} if row.mask_path else {}), **row.attributes}
            for output in (each for each in recipe.outputs if each in masks):
                source = ImageFiles(row.image_id, row.path, masks[output])
                wanted.setdefault(output, []).append(source)
        made = {}
        for name, sources in wanted.items():
            input_spec = input_specs["images" if name == "images" else "masks"]
            move = progress(f"caching {prefix}{name}")
            made[name] = _cache(training_data, sources, input_spec, move, name)
            training_data.caches[f"{prefix}{name}"] = made[name]
        training_data.outputs.append(ImageCopies(made.pop("images"), made))


def check_cached(training_data: TrainingData, recipe: Recipe) -> list[str]:
    """Check the caches that `prepare` has built.

    Returns:
        The problems that ``force`` ignored.

    Raises:
        DataError: Most crops are centre squares, or most masks to learn are empty or full.
    """
    where = training_data.masks or training_data.dataset.root
    if recipe.task == "segmentation":
        return check_learnt(training_data.caches["masks"], where, force=training_data.force)
    if recipe.task == "attributes":
        return _check_attributes(training_data)
    if recipe.data.crop_mode == "full":
        return []
    counts = CropCounts.of(training_data.caches["images"], training_data.sources())
    return check_cropped(counts, where, force=training_data.force)


def _check_attributes(training_data: TrainingData) -> list[str]:
    """Reject attributes whose masks are mostly full; most may be empty."""
    notes = []
    for number, copy in enumerate(training_data.outputs):
        where = (training_data.dataset, *training_data.further)[number].root
        for output, cache in copy.masks.items():
            if output == LESION:
                notes += check_learnt(cache, where, force=training_data.force)
                continue
            areas = np.array([np.count_nonzero(cache[name] > 127) for name in cache.ids])
            full = int((areas > PLAUSIBLE_FRACTIONS[1] * cache.pixels[0].size).sum())
            problem = implausible_problem(len(areas), 0, full)
            note = refuse(problem, where, force=training_data.force)
            notes += [] if note is None else [note]
    return notes


def train_fold(run: Run, fold: int, training_data: TrainingData, callbacks: Callbacks) -> None:
    """Train one fold, export its bundle, and predict what it held out.

    A finished fold is not trained again; an interrupted one is resumed.

    Args:
        run: The run.
        fold: The held-out fold.
        training_data: The images, with caches built by :func:`prepare`.
        callbacks: Functions to call with the progress.
    """
    folder = run.fold_folder(fold)
    if (folder / "oof.parquet").exists():
        return
    recipe = run.recipe
    training, validation = validation_split(
        run.folds, fold, training_data.dataset, recipe.data.validation_fraction, recipe.seed
    )
    training_task = _make_training_task(recipe, training_data, training, validation)
    if not training_task.validation.ids and recipe.monitors:
        raise DataError(
            f"{run.folder}: fold {fold} has no validation images, which {recipe.monitors} needs",
            f"raise data.validation_fraction, or leave out {recipe.monitors}",
        )
    torch.manual_seed(recipe.network.init_seed)  # for the initialisation only
    network = training_task.network(training_data.pretrained)
    if training_data.init_from is not None:
        _init_from(network, training_data.init_from, run, fold)
    precision = resolve(recipe.precision)
    fabric = fabric_for(network, precision)
    fabric.launch()
    write_text(folder / "network.txt", layer_summary(network.network, recipe.input_size))
    _log.info(
        "fold %d: %d training images, %d validation, %d held out, precision %s%s",
        fold,
        len(training_task.training.ids),
        len(training_task.validation.ids),
        len(run.folds.held_out(fold)),
        precision,
        ", resumed" if (folder / CHECKPOINT).exists() else "",
    )
    batches = BatchLoader(
        training_task.training,
        recipe,
        training_task.draw,
        rank=fabric.global_rank,
        world=fabric.world_size,
    )

    def report(history: list[Metrics]) -> None:
        with atomic(folder / "history.csv") as temporary:
            pd.json_normalize(history).to_csv(temporary, index=False)
        row = history[-1]
        _log.info(
            "fold %d epoch %d: loss %.4f, validation score %.4f, %.1f images/s",
            fold,
            row["epoch"],
            row["train_loss"],
            row["val_score"],
            row["images_per_second"],
        )
        callbacks.epoch(history)

    trainer = Trainer(network, training_task, batches, recipe, fabric, folder)
    with kept_memory():
        trainer.fit(Callbacks(callbacks.step, report))
    if fabric.is_global_zero:
        save_tensors(folder / WEIGHTS, trainer.used.state_dict(), {"fold": fold})
        assert isinstance(trainer.used, Preprocessed)
        export_fold(run, fold, training_task, trainer.used, training_data)
        predict_held_out(run, fold, training_data)


def export_fold(
    run: Run,
    fold: int,
    training_task: TrainingTask,
    network: Preprocessed,
    training_data: TrainingData,
) -> Bundle:
    """Write a fold's bundle: the graph with its preprocessing, and its manifest."""
    recipe = run.recipe
    graph = run.fold_folder(fold) / "network.onnx"
    export_onnx(network, graph, input_size=recipe.input_size)
    codes: tuple[str, ...] = ()
    trained: dict[str, Any] = {}
    if isinstance(training_task, ClassificationTask):
        codes = training_task.taxonomy.codes
        cache, side = training_data.caches["images"], recipe.input_size
        there = sorted(set(run.folds.held_out(fold)).intersection(cache.ids))
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
                "chosen_on": f"{len(counts.true)} images of the validation split",
            }
    place = graph.with_name(SAMPLE_FILE)
    sampled = SampledNetwork(recipe.task, graph, network, recipe.input_size)
    sample = sample_entry([sampled], place)
    spec = BundleSpec.model_validate({**does, **sample, "provenance": provenance})
    files = {"network.onnx": graph, place.name: place}
    bundle = write_bundle(run.bundle_folder(fold), spec, files)
    for path in files.values():
        path.unlink()
    return bundle


def _cache(
    training_data: TrainingData,
    sources: list[ImageFiles],
    input_spec: InputSpec,
    progress: Callable[[int, int], None],
    output: str = "",
) -> ImageCache:
    """Build a cache in a folder named after the images' location and input spec."""
    first = sources[0]
    places = (str(first.path.parent), str(first.mask_path and first.mask_path.parent))
    # Masks of all attributes are in one folder.
    mask = (output,) if input_spec.mode == "mask" and output else ()
    wider = () if input_spec.context == 1 else (str(input_spec.context),)
    key = sha256_of(*places, str(len(sources)), repr(input_spec), *mask, *wider)[:16]
    return ImageCache.build(
        sources,
        input_spec,
        training_data.cache / f"{input_spec.mode}-{input_spec.size}-{key}",
        progress=progress,
    )


def _init_from(network: Preprocessed, source: Run, run: Run, fold: int) -> None:
    """Load another run's weights, from the fold that held out the same images.

    Raises:
        RunError: That run was trained on images that this fold holds out, or has not finished
            the fold.
    """
    theirs, ours = source.folds.table, run.folds.table
    unseen = {*source.folds.held_out(fold), *source.folds.test()}
    seen = theirs[~theirs["image_id"].isin(unseen)]
    kept = ours[ours["image_id"].isin([*run.folds.held_out(fold), *run.folds.test()])]
    leaked = kept["image_id"].isin(seen["image_id"]) | kept["group_id"].isin(seen["group_id"])
    if leaked.any():
        first = kept.loc[leaked, "image_id"].min()
        raise RunError(
            f"{source.folder}: its fold {fold} was trained on the lesion of {first}, "
            "which is held out here",
            "start from a run with the same folds",
        )
    weights = source.fold_folder(fold) / WEIGHTS
    if not weights.exists():
        raise RunError(f"{source.folder}: fold {fold} is not finished", "train it first")
    kinds = [
        recipe.outputs if recipe.task != "classification" else ()
        for recipe in (source.recipe, run.recipe)
    ]
    load_network(weights, network, None if kinds[0] == kinds[1] else (kinds[0], kinds[1]))


def _predict_lesions(run: Run, fold: int, training_data: TrainingData, bundle: Bundle) -> None:
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
        sources = [
            (row.image_id, row.path, row.mask_path)
            for row in dataset.rows()
            if row.image_id in held_out.intersection(usable) and row.path and row.mask_path
        ]
        if sources:
            found = oof_scores(bundle, sources)
            tables.append(found.assign(copy=dataset.root.name, fold=fold))
    if not tables:
        return
    table = pd.concat(tables, ignore_index=True)
    table["group_id"] = table["image_id"].map(run.folds.table.set_index("image_id")["group_id"])
    with atomic(run.fold_folder(fold) / "lesions.parquet") as temporary:
        table.to_parquet(temporary, index=False)


def predict_held_out(run: Run, fold: int, training_data: TrainingData) -> None:
    """Predict the held-out images of a fold with its exported bundle.

    Segmentation writes masks of the images' sizes and their scores. Attributes write counts at
    every threshold, and scores of lesion masks in ``lesions.parquet``. Classification writes
    logits. ``oof.parquet`` is written last and marks the fold as finished.
    """
    bundle = Bundle.read(run.bundle_folder(fold))
    held_out = set(run.folds.held_out(fold))
    if run.recipe.task == "segmentation":
        cache = training_data.caches["masks"]
        sources = [
            (row.image_id, row.path, row.mask_path)
            for row in training_data.dataset.rows()
            if row.image_id in held_out.intersection(cache.ids) and row.path and row.mask_path
        ]
        table = oof_scores(bundle, sources, out=run.folder / "masks")
    elif run.recipe.task == "attributes":
        _predict_lesions(run, fold, training_data, bundle)
        masks = training_data.outputs[0].masks
        known = held_out.intersection(*(masks[name].index for name in ATTRIBUTES))
        table = oof_attributes(
            bundle,
            [
                (row.image_id, row.path, row.attributes)
                for row in training_data.dataset.rows()
                if row.image_id in known and row.path is not None
            ],
        )
    else:
        cache = training_data.caches["images"]
        ids = sorted(held_out.intersection(cache.ids))
        table = oof_logits(bundle, cache, ids)
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
    with atomic(run.fold_folder(fold) / "oof.parquet") as temporary:
        table.to_parquet(temporary, index=False)
