"""The folds of a run: caches, training, each fold's bundle and its held-out predictions."""

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
from naevus.datasets.cache import PixelStore
from naevus.datasets.folds import inner_split
from naevus.datasets.masksurvey import implausible_problem, refuse
from naevus.datasets.sources import squares
from naevus.errors import DataError, RunError
from naevus.images.masks import PLAUSIBLE_SHARES
from naevus.images.preprocess import Form, Source
from naevus.images.read import PICTURE_SUFFIXES
from naevus.inference.cam import cell_offset
from naevus.inference.out_of_fold import heldout_attributes, heldout_logits, heldout_scores
from naevus.io.files import atomic, sha256_of, write_json, write_list, write_text
from naevus.io.progress import SILENT, logged, warn_all
from naevus.runs.manifest import member_entry, task_entry
from naevus.runs.recipe import LESION
from naevus.runs.run import WEIGHTS, held
from naevus.taxonomy import ATTRIBUTES
from naevus.training.checkpoint import load_network, save_tensors
from naevus.training.data import BatchMaker, ImageCopies
from naevus.training.loop import CHECKPOINT, Trainer, Watch
from naevus.training.masks import CropCounts, check_before, check_cropped, check_learnt
from naevus.training.networks import Preprocessed, layer_summary
from naevus.training.onnx_graph import export_onnx
from naevus.training.performance import fabric_for, kept_memory, resolve
from naevus.training.pretrained import check_pretrained
from naevus.training.sample import Shipped, sample_entry
from naevus.training.tasks import (
    AttributesLearning,
    ClassificationLearning,
    Learning,
    _make_learning,
    learning_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from naevus.datasets.dataset import Dataset
    from naevus.io.progress import Reporter
    from naevus.runs.recipe import TrainConfig
    from naevus.runs.run import Run
    from naevus.training.data import Material
    from naevus.training.loop import Metrics


_log = logging.getLogger(__name__)
_MEASURED = 200
"""Pictures that tell how far a network's activation maps lie beside what they show."""


def check_material(
    material: Material, config: TrainConfig, reporter: Reporter = SILENT, arm: str = ""
) -> None:
    """Look at the masks and weights that a job will use, before a folder is made for it.

    Raises:
        DataError: As `naevus.training.masks.check_before`.
        WeightsError: As `naevus.training.pretrained.check_pretrained`.
    """
    check_pretrained(config, material.pretrained)
    where = material.masks or material.dataset.root
    notes = check_before(material.sources(), config, where, force=material.force, arm=arm)
    warn_all(reporter, notes)


def train_folds(
    run: Run, folds: Sequence[int], material: Material, reporter: Reporter = SILENT
) -> None:
    """Build the caches, then train the folds one after the other.

    Other processes may train other folds of the run meanwhile; while one builds the caches the
    others wait.

    Args:
        run: The run; its ``train.log`` gets what is logged.
        folds: Which folds.
        material: The images.
        reporter: Shows how it goes, and is told what is left out.

    Raises:
        DataError: Most masks or crops cannot be right, or a fold has nothing to learn from.
        RunError: The caches are not those that the run began with.
        NaevusError: Another process trains one of these folds.
    """
    with logged(run.folder / "train.log"):
        _train_folds(run, folds, material, reporter)


def _train_folds(run: Run, folds: Sequence[int], material: Material, reporter: Reporter) -> None:
    def wait() -> None:
        reporter.message(f"waiting for another training to prepare {run.folder}")

    with held(run.folder, wait):
        _prepare_run(run, material, reporter)
    for fold in folds:
        with (
            held(run.fold_folder(fold)),
            reporter.progress(f"{run.config.task} fold {fold}") as move,
        ):
            train_fold(run, fold, material, Watch(move, lambda _: None))
    with held(run.folder, wait):
        run.join()
    reporter.message(f"run: {run.folder}")


def _prepare_run(run: Run, material: Material, reporter: Reporter) -> None:
    """Build the caches and write down what they are of."""
    with ExitStack() as stack:
        refused = prepare(
            material, run.config, lambda what: stack.enter_context(reporter.progress(what))
        )
    warn_all(reporter, check_cached(material, run.config))
    stores = material.stores
    run.hold_to(
        {name: store.key for name, store in stores.items()},
        {name: store.contents for name, store in stores.items()},
    )
    _count_crops(run, material, reporter)
    for image_id, why in refused.items():
        reporter.warning(f"{image_id}: {why}", "left out")
    write_list(run.folder / "refused.csv", ("image_id", "problem"), sorted(refused.items()))


def _count_crops(run: Run, material: Material, reporter: Reporter) -> None:
    """Report what became of crops, and keep it in the run's folder."""
    if run.config.task == "segmentation" or run.config.data.crop_mode == "full":
        return
    sources = material.sources()
    counts = {name: CropCounts.of(store, sources) for name, store in material.stores.items()}
    for name, counted in counts.items():
        reporter.message(f"crops ({name}): {counted}")
    write_json(run.folder / "crops.json", {name: each.to_json() for name, each in counts.items()})


def inputs_of(dataset: Dataset, material: Material) -> dict[str, Any]:
    """Return where a run's pictures come from; a run goes on only with the same."""
    return {
        "data": str(dataset.root.resolve()),
        "layout": dataset.layout,
        "pictures": len(dataset),
        "fingerprint": dataset.fingerprint(),
        "masks": str(material.masks.resolve()) if material.masks else None,
        "copies": [str(folder.resolve()) for folder in material.copies],
        "warm_start": str(material.warm_start.folder.resolve()) if material.warm_start else None,
    }


def prepare(
    material: Material, config: TrainConfig, progress: Callable[[str], Callable[[int, int], None]]
) -> Mapping[str, str]:
    """Build or open the caches a job needs.

    Args:
        material: What is to be cached; its ``stores`` are filled.
        config: The recipe.
        progress: Given what is being done, returns what is told (done, total).

    Returns:
        Why each unusable picture was left out, by id.

    Raises:
        DataError: A folder of copies is absent or has none of the pictures.
    """
    kind = learning_of(config)
    if config.task == "attributes":
        _prepare_outputs(material, config, progress)
        return _unusable(material)
    sources = material.sources()
    for name, form in kind.forms(config).items():
        material.stores[name] = _store(material, sources, form, progress(f"caching {name}"))
    for number, folder in enumerate(material.copies):
        if not folder.is_dir():
            raise DataError(f"{folder}: is not a folder", "name a folder of copies")
        by_id = {
            path.stem: path
            for path in sorted(folder.iterdir())
            if path.suffix.lower() in PICTURE_SUFFIXES
        }
        copied = [
            source._replace(path=by_id[source.image_id], scaled=True)
            for source in sources
            if source.image_id in by_id
        ]
        if not copied:
            raise DataError(f"{folder}: holds no copy of any picture", "name files by image id")
        form = Form(
            config.data.crop_mode,
            config.data.copies_size,
            margin=config.data.crop_margin,
            colour_constancy=config.data.colour_constancy,
        ).wider(config.data.context)
        material.stores[f"copies-{number}"] = _store(
            material, copied, form, progress("caching copies")
        )
    return _unusable(material)


def _unusable(material: Material) -> dict[str, str]:
    return {
        image_id: why
        for store in material.stores.values()
        for image_id, why in store.quarantined.items()
    }


def _prepare_outputs(
    material: Material, config: TrainConfig, progress: Callable[[str], Callable[[int, int], None]]
) -> None:
    """Cache the copies of the images, each with its own masks of every output."""
    forms = learning_of(config).forms(config)
    material.outputs.clear()
    for number, dataset in enumerate((material.dataset, *material.further)):
        prefix = f"copies-{number - 1} " if number else ""
        rows = [row for row in dataset.rows() if row.path is not None]
        wanted: dict[str, list[Source]] = {"pictures": []}
        for row in rows:
            assert row.path is not None
            wanted["pictures"].append(Source(row.image_id, row.path))
            masks = {**({LESION: row.mask_path} if row.mask_path else {}), **row.attributes}
            for output in (each for each in config.outputs if each in masks):
                source = Source(row.image_id, row.path, masks[output])
                wanted.setdefault(output, []).append(source)
        made = {}
        for name, sources in wanted.items():
            form = forms["pictures" if name == "pictures" else "masks"]
            told = progress(f"caching {prefix}{name}")
            made[name] = _store(material, sources, form, told, name)
            material.stores[f"{prefix}{name}"] = made[name]
        material.outputs.append(ImageCopies(made.pop("pictures"), made))


def check_cached(material: Material, config: TrainConfig) -> list[str]:
    """Look at what `prepare` has cached.

    Returns:
        What would have been refused, were it not forced.

    Raises:
        DataError: Most crops are centre squares, or most masks to be learnt are empty or full.
    """
    where = material.masks or material.dataset.root
    if config.task == "segmentation":
        return check_learnt(material.stores["masks"], where, force=material.force)
    if config.task == "attributes":
        return _check_attributes(material)
    if config.data.crop_mode == "full":
        return []
    counts = CropCounts.of(material.stores["pictures"], material.sources())
    return check_cropped(counts, where, force=material.force)


def _check_attributes(material: Material) -> list[str]:
    """Refuse masks most of which cover everything; most of an attribute may well be empty."""
    notes = []
    for number, copy in enumerate(material.outputs):
        where = (material.dataset, *material.further)[number].root
        for output, store in copy.masks.items():
            if output == LESION:
                notes += check_learnt(store, where, force=material.force)
                continue
            shares = np.array([np.count_nonzero(store[name] > 127) for name in store.ids])
            full = int((shares > PLAUSIBLE_SHARES[1] * store.pixels[0].size).sum())
            problem = implausible_problem(len(shares), 0, full)
            note = refuse(problem, where, force=material.force)
            notes += [] if note is None else [note]
    return notes


def train_fold(run: Run, fold: int, material: Material, watch: Watch) -> None:
    """Train one fold, export its bundle, and predict what it held out.

    A fold that is finished is left as it is; one that was interrupted goes on.

    Args:
        run: The run.
        fold: Which fold is held out.
        material: The pictures, their caches built by :func:`prepare`.
        watch: Who is told how it goes.
    """
    folder = run.fold_folder(fold)
    if (folder / "heldout.parquet").exists():
        return
    config = run.config
    training, inner = inner_split(
        run.folds, fold, material.dataset, config.data.inner_share, config.seed
    )
    learning = _make_learning(config, material, training, inner)
    if not learning.inner.ids and config.watches:
        raise DataError(
            f"{run.folder}: fold {fold} has no images to watch training by, for {config.watches}",
            "raise data.inner_share, or do without",
        )
    torch.manual_seed(config.network.init_seed)  # what comes after the start has the job's seed
    network = learning.network(material.pretrained)
    if material.warm_start is not None:
        _warm_start(network, material.warm_start, run, fold)
    precision = resolve(config.precision)
    fabric = fabric_for(network, precision)
    fabric.launch()
    write_text(folder / "network.txt", layer_summary(network.network, config.input_size))
    _log.info(
        "fold %d: %d training pictures, %d watched, %d held out, precision %s%s",
        fold,
        len(learning.training.ids),
        len(learning.inner.ids),
        len(run.folds.held_out(fold)),
        precision,
        ", going on" if (folder / CHECKPOINT).exists() else "",
    )
    batches = BatchMaker(
        learning.training,
        config,
        learning.draw,
        rank=fabric.global_rank,
        world=fabric.world_size,
    )

    def tell(history: list[Metrics]) -> None:
        with atomic(folder / "history.csv") as temporary:
            pd.json_normalize(history).to_csv(temporary, index=False)
        row = history[-1]
        _log.info(
            "fold %d epoch %d: loss %.4f, inner score %.4f, %.1f pictures/s",
            fold,
            row["epoch"],
            row["loss"],
            row["inner_score"],
            row["pictures_per_second"],
        )
        watch.epoch(history)

    trainer = Trainer(network, learning, batches, config, fabric, folder)
    with kept_memory():
        trainer.fit(Watch(watch.step, tell))
    if fabric.is_global_zero:
        save_tensors(folder / WEIGHTS, trainer.used.state_dict(), {"fold": fold})
        assert isinstance(trainer.used, Preprocessed)
        export_fold(run, fold, learning, trainer.used, material)
        predict_held_out(run, fold, material)


def export_fold(
    run: Run,
    fold: int,
    learning: Learning,
    network: Preprocessed,
    material: Material,
) -> Bundle:
    """Write a fold's bundle: the graph with its preprocessing, and what it needs to be used."""
    config = run.config
    graph = run.fold_folder(fold) / "network.onnx"
    export_onnx(network, graph, input_size=config.input_size)
    codes: tuple[str, ...] = ()
    trained: dict[str, Any] = {}
    if isinstance(learning, ClassificationLearning):
        codes = learning.taxonomy.codes
        store, side = material.stores["pictures"], config.input_size
        there = sorted(set(run.folds.held_out(fold)).intersection(store.ids))
        ids = there[:: -(-len(there) // _MEASURED) or 1]  # spread over the fold
        trained = {
            "weights": learning.weights.tolist(),
            "shares": learning.shares.tolist(),
            "cell_offset": cell_offset(graph, squares(store, ids, side)) if ids else (0.0, 0.0),
        }
    member = member_entry(config, "network.onnx", (fold,), **trained)
    provenance = {
        "naevus": __version__,
        "recipe": config.fingerprint(),
        "data": run.inputs["fingerprint"],
        "folds": run.folds.sha256,
        "training pictures": len(learning.training.ids),
    }
    does = task_entry(config, [member], codes)
    if isinstance(learning, AttributesLearning):
        counts = learning.counts(network, config.input_size)
        if counts is not None:
            does["attributes"] |= {
                "thresholds": counts.best_thresholds(),
                "chosen_on": f"{len(counts.true)} images of the training part, kept apart",
            }
    place = graph.with_name(SAMPLE_FILE)
    shipped = Shipped(config.task, graph, network, config.input_size)
    sample = sample_entry([shipped], place)
    spec = BundleSpec.model_validate({**does, **sample, "provenance": provenance})
    files = {"network.onnx": graph, place.name: place}
    bundle = write_bundle(run.bundle_folder(fold), spec, files)
    for path in files.values():
        path.unlink()
    return bundle


def _store(
    material: Material,
    sources: list[Source],
    form: Form,
    progress: Callable[[int, int], None],
    output: str = "",
) -> PixelStore:
    """Build a store in a folder named by where its pictures lie and what they look like."""
    first = sources[0]
    places = (str(first.path.parent), str(first.mask_path and first.mask_path.parent))
    # Masks of all attributes lie in one folder.
    mask = (output,) if form.mode == "mask" and output else ()
    wider = () if form.context == 1 else (str(form.context),)
    key = sha256_of(*places, str(len(sources)), repr(form), *mask, *wider)[:16]
    return PixelStore.build(
        sources, form, material.cache / f"{form.mode}-{form.size}-{key}", progress=progress
    )


def _warm_start(network: Preprocessed, source: Run, run: Run, fold: int) -> None:
    """Take over another run's weights, of the fold that held out the same pictures.

    Raises:
        RunError: That run trained on what this fold holds out, or has not finished the fold.
    """
    theirs, ours = source.folds.table, run.folds.table
    unseen = {*source.folds.held_out(fold), *source.folds.test()}
    seen = theirs[~theirs["image_id"].isin(unseen)]
    kept = ours[ours["image_id"].isin([*run.folds.held_out(fold), *run.folds.test()])]
    leaked = kept["image_id"].isin(seen["image_id"]) | kept["group_id"].isin(seen["group_id"])
    if leaked.any():
        first = kept.loc[leaked, "image_id"].min()
        raise RunError(
            f"{source.folder}: its fold {fold} trained on the lesion of {first}, "
            "which is held out here",
            "start from a run over the same folds",
        )
    weights = source.fold_folder(fold) / WEIGHTS
    if not weights.exists():
        raise RunError(f"{source.folder}: fold {fold} is not finished", "train it first")
    kinds = [
        config.outputs if config.task != "classification" else ()
        for config in (source.config, run.config)
    ]
    load_network(weights, network, None if kinds[0] == kinds[1] else (kinds[0], kinds[1]))


def _predict_lesions(run: Run, fold: int, material: Material, bundle: Bundle) -> None:
    """Compare lesion masks of a fold of attributes with the true ones, where there are some.

    Each copy of an image that has a mask of its own has a row, with the folder it is from.
    """
    if bundle.spec.segmenter is None:
        return
    held_out = set(run.folds.held_out(fold))
    tables = []
    for dataset in (material.dataset, *material.further):
        sources = [
            (row.image_id, row.path, row.mask_path)
            for row in dataset.rows()
            if row.image_id in held_out and row.path and row.mask_path
        ]
        if sources:
            found = heldout_scores(bundle, sources)
            tables.append(found.assign(copy=dataset.root.name, fold=fold))
    if not tables:
        return
    table = pd.concat(tables, ignore_index=True)
    table["group_id"] = table["image_id"].map(run.folds.table.set_index("image_id")["group_id"])
    with atomic(run.fold_folder(fold) / "lesions.parquet") as temporary:
        table.to_parquet(temporary, index=False)


def predict_held_out(run: Run, fold: int, material: Material) -> None:
    """Predict, from the fold's exported bundle, the pictures that it never saw.

    Segmentation gives masks at the pictures' sizes and how they compare with the truth; attributes
    give counts at every threshold, and how masks of lesions compare in ``lesions.parquet``;
    classification gives logits. ``heldout.parquet``, written last, says that the fold is finished.
    """
    bundle = Bundle.read(run.bundle_folder(fold))
    held_out = set(run.folds.held_out(fold))
    if run.config.task == "segmentation":
        store = material.stores["masks"]
        sources = [
            (row.image_id, row.path, row.mask_path)
            for row in material.dataset.rows()
            if row.image_id in held_out.intersection(store.ids) and row.path and row.mask_path
        ]
        table = heldout_scores(bundle, sources, out=run.folder / "masks")
    elif run.config.task == "attributes":
        _predict_lesions(run, fold, material, bundle)
        table = heldout_attributes(
            bundle,
            [
                (row.image_id, row.path, row.attributes)
                for row in material.dataset.rows()
                if row.image_id in held_out and row.path and len(row.attributes) == len(ATTRIBUTES)
            ],
        )
    else:
        store = material.stores["pictures"]
        ids = sorted(held_out.intersection(store.ids))
        table = heldout_logits(bundle, store, ids)
        (member,) = bundle.classifier.members
        truth = material.dataset.table.set_index("image_id")["diagnosis"]
        table["truth"] = table["image_id"].map(truth)
        for column, values in (("share", member.shares), ("weight", member.weights)):
            for code, value in zip(bundle.classifier.classes, values, strict=True):
                table[f"{column}_{code}"] = value
    table["group_id"] = table["image_id"].map(run.folds.table.set_index("image_id")["group_id"])
    with atomic(run.fold_folder(fold) / "heldout.parquet") as temporary:
        table.to_parquet(temporary, index=False)
