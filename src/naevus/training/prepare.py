"""Prepare a job: check weights and masks, build the image caches, start or extend its run."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from naevus.datasets.cache import ImageCache
from naevus.datasets.dataset import unit_of
from naevus.datasets.masksurvey import check_masks, implausible_problem, refuse
from naevus.errors import DataError
from naevus.images.masks import PLAUSIBLE_FRACTIONS
from naevus.images.preprocess import ImageFiles, InputSpec
from naevus.images.read import IMAGE_SUFFIXES
from naevus.io.files import sha256_of, write_json, write_list
from naevus.io.progress import SILENT, warn_all
from naevus.runs.images import images_of_parts, load_for
from naevus.runs.recipe import LESION
from naevus.runs.run import Run, held
from naevus.runs.start import BundleStart, check_start, noted
from naevus.taxonomy import ATTRIBUTES
from naevus.training.data import ImageCopies
from naevus.training.extension import continued, extend
from naevus.training.from_graph import check_graph
from naevus.training.parts import note_origins, origins_of
from naevus.training.pretrained import check_pretrained, weights_of
from naevus.training.splits import check_validation, split_of
from naevus.training.tasks import (
    TrainingTask,
    _make_training_task,
    build_network,
    check_network,
    training_task_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from naevus.datasets.dataset import Dataset
    from naevus.datasets.folds import Folds
    from naevus.io.progress import Reporter
    from naevus.runs.recipe import Recipe
    from naevus.training.data import TrainingData
    from naevus.training.pretrained import Weights

_REMEDY = "name masks of a model that did not train on them with --masks, or pass --force"


class CropCounts(NamedTuple):
    """The number of crops and centre squares in a cache.

    Attributes:
        images: Number of images.
        cropped: Number of images that were cropped around their lesion.
        without_mask: Ids without a mask file, kept as centre squares.
        implausible_mask: Ids with an (almost) empty or full mask, kept as centre squares.
    """

    images: int
    cropped: int
    without_mask: tuple[str, ...]
    implausible_mask: tuple[str, ...]

    @classmethod
    def of(cls, cache: ImageCache, sources: Sequence[ImageFiles]) -> CropCounts:
        """Count the crops of a cache made from these sources."""
        segmented = {source.image_id for source in sources if source.mask_path is not None}
        full = [name for name in cache.ids if cache.modes[name] == "full"]
        return cls(
            len(cache.ids),
            len(cache.ids) - len(full),
            tuple(name for name in full if name not in segmented),
            tuple(name for name in full if name in segmented),
        )

    def __str__(self) -> str:
        return (
            f"{self.cropped} of {self.images} images cropped around the lesion; centre squares: "
            f"{len(self.without_mask)} without a mask, {len(self.implausible_mask)} with an "
            "implausible mask"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the counts for JSON."""
        return self._asdict()


def check_before(
    sources: Sequence[ImageFiles], recipe: Recipe, where: Path, *, force: bool, arm: str = ""
) -> list[str]:
    """Reject masks that a job cannot use, before caching; checks a sample of them.

    Args:
        sources: The images with the masks that the job will use.
        recipe: The recipe.
        where: Folder of the masks, for messages.
        force: Return problems as warnings instead of raising.
        arm: The arm of an ablation that uses the masks.

    Returns:
        The problems that ``force`` ignored.

    Raises:
        DataError: Most images to be cropped have no mask, or most masks are empty, full, inverted
            or unreadable.
    """
    crops = recipe.task == "classification" and recipe.data.crop_mode != "full"
    if recipe.task == "classification" and not crops:
        return []
    masks = [source.mask_path for source in sources if source.mask_path is not None]
    lacking = len(sources) - len(masks)
    notes = []
    if crops and 2 * lacking > len(sources):
        what = f"{lacking} of {len(sources)} images have no mask"
        problem = (f"{what} for arm {arm}" if arm else f"{what} to be cropped by", _REMEDY)
        notes.append(refuse(problem, where, force=force))
    notes.append(check_masks(masks, where, force=force))
    return [note for note in notes if note is not None]


def check_cropped(counts: CropCounts, where: Path, *, force: bool) -> list[str]:
    """Reject a cache of crops in which most are centre squares.

    Raises:
        DataError: Most are, and ``force`` is not set.
    """
    if 2 * counts.cropped >= counts.images:
        return []
    note = refuse((str(counts), _REMEDY), where, force=force)
    return [] if note is None else [note]


def check_learnt(cache: ImageCache, where: Path, *, force: bool) -> list[str]:
    """Reject a cache of masks in which most are empty or full.

    Raises:
        DataError: Most are and ``force`` is not set, or there is no mask at all.
    """
    fractions = _fractions(cache, where)
    empty = int((fractions < PLAUSIBLE_FRACTIONS[0]).sum())
    full = int((fractions > PLAUSIBLE_FRACTIONS[1]).sum())
    note = refuse(implausible_problem(len(fractions), empty, full), where, force=force)
    return [] if note is None else [note]


def _fractions(cache: ImageCache, where: Path, output: str = "") -> NDArray[np.float64]:
    """Return the fraction of each image that its mask covers; refuse a cache without masks."""
    if not cache.ids:
        first = next(iter(cache.failed.values()), "there are none")
        of = f" of {output}" if output else ""
        raise DataError(f"{where}: no mask{of} can be used: {first}", "run `naevus data check`")
    areas = np.array([np.count_nonzero(cache[name] > 127) for name in cache.ids])
    fractions: NDArray[np.float64] = areas / cache.pixels[0].size
    return fractions


# What is checked before a run's folder is created, so that a failed start blocks no other.


def check_training_data(
    training_data: TrainingData, recipe: Recipe, reporter: Reporter = SILENT, arm: str = ""
) -> None:
    """Check the weights and masks of a job before its images are cached.

    The network is built with its initial weights, because only that shows whether it can be.

    Raises:
        ConfigError: The network cannot be built.
        DataError: See `check_before`.
        WeightsError: The weights are not available, or do not fit.
    """
    weights: Weights = "none"
    if training_data.init_from is None:
        check_pretrained(recipe, training_data.pretrained)
        weights = weights_of(recipe.network.pretrained, training_data.pretrained)
    classes = len(training_data.dataset.taxonomy)
    check_network(build_network(recipe, classes, weights), recipe, classes)
    where = training_data.masks or training_data.dataset.root
    notes = check_before(training_data.sources(), recipe, where, force=training_data.force, arm=arm)
    warn_all(reporter, notes)


def check_starts(
    training_data: TrainingData,
    recipe: Recipe,
    folds: Folds,
    chosen: Sequence[int],
    inputs: Mapping[str, Any],
    reporter: Reporter = SILENT,
) -> None:
    """Check that each fold can start from its run or bundle; report what a bundle has learnt.

    Raises:
        BundleError: A bundle is missing or damaged.
        RunError: See `naevus.runs.start.check_start`.
        WeightsError: A bundle's network differs from the recipe's.
    """
    start, taxonomy = training_data.init_from, training_data.dataset.taxonomy
    assert start is not None
    learnt = [check_start(start, recipe, folds, fold, inputs) for fold in chosen]
    for text in filter(None, dict.fromkeys(learnt)):
        reporter.warning(f"{text}; if images of these are held out, their scores are too good")
    if isinstance(start, BundleStart):
        network, unlike = build_network(recipe, len(taxonomy), "none"), set()
        for fold in chosen:
            there = start.network(recipe, fold)
            head = there.has_classes(taxonomy.codes)
            check_graph(there.graph, network, recipe.input_size, head=head)
            if (other := there.other_input(recipe)) is not None:
                unlike.add(
                    f"{start.name}: {there.member.file} has learnt on another input: {other}"
                )
        for text in sorted(unlike):
            reporter.warning(text)


def prepare_reported(
    training_data: TrainingData, recipe: Recipe, out: Path, reporter: Reporter = SILENT
) -> Mapping[str, str]:
    """Build and check the caches of a job; report failed images and the number of crops.

    Args:
        training_data: The images; its ``caches`` are filled.
        recipe: The recipe.
        out: The run's folder, for messages; nothing is written there.
        reporter: Receives progress and notes.

    Returns:
        The reason why each failed image was left out, by id.

    Raises:
        DataError: Most masks or crops look wrong.
    """

    def wait() -> None:
        reporter.message(f"waiting for another job to prepare the images of {out}")

    with ExitStack() as stack:
        failed = prepare(
            training_data, recipe, lambda what: stack.enter_context(reporter.progress(what)), wait
        )
    warn_all(reporter, check_cached(training_data, recipe))
    for name, counted in crop_counts(training_data, recipe).items():
        reporter.message(f"crops ({name}): {counted}")
    for image_id, why in failed.items():
        reporter.warning(f"{image_id}: {why}", "left out")
    return failed


def crop_counts(training_data: TrainingData, recipe: Recipe) -> dict[str, CropCounts]:
    """Return how many images of each cache were cropped; nothing if the recipe crops none."""
    if recipe.task != "classification" or recipe.data.crop_mode == "full":
        return {}
    sources = training_data.sources()
    return {name: CropCounts.of(cache, sources) for name, cache in training_data.caches.items()}


# Image caches.


def prepare(
    training_data: TrainingData,
    recipe: Recipe,
    progress: Callable[[str], Callable[[int, int], None]],
    waiting: Callable[[], None] | None = None,
) -> Mapping[str, str]:
    """Build or open the caches of a job.

    Args:
        training_data: The images; its ``caches`` are filled.
        recipe: The recipe.
        progress: Takes a description, returns a function to call with (done, total).
        waiting: Called if another process builds one of the caches, before waiting for it. None:
            that is an error.

    Returns:
        The reason why each failed image was left out, by id.

    Raises:
        DataError: A folder of copies is missing or has none of the images.
    """

    def cache(
        sources: list[ImageFiles], input_spec: InputSpec, title: str, output: str = ""
    ) -> ImageCache:
        place = _cache_folder(training_data, sources, input_spec, output)
        return ImageCache.build(
            sources, input_spec, place, progress=progress(title), waiting=waiting
        )

    if recipe.task == "attributes":
        _prepare_outputs(training_data, recipe, cache)
        return _unusable(training_data)
    sources = training_data.sources()
    for name, input_spec in training_task_of(recipe).input_specs(recipe).items():
        training_data.caches[name] = cache(sources, input_spec, f"caching {name}")
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
        training_data.caches[f"copies-{number}"] = cache(copied, input_spec, "caching copies")
    return _unusable(training_data)


def _unusable(training_data: TrainingData) -> dict[str, str]:
    return {
        image_id: why
        for cache in training_data.caches.values()
        for image_id, why in cache.failed.items()
    }


def _prepare_outputs(
    training_data: TrainingData, recipe: Recipe, cache: Callable[..., ImageCache]
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
            made[name] = cache(sources, input_spec, f"caching {prefix}{name}", name)
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
    """Reject attributes whose masks are unreadable or mostly full; most may be empty."""
    notes = []
    for number, copy in enumerate(training_data.outputs):
        where = (training_data.dataset, *training_data.further)[number].root
        for output, cache in copy.masks.items():
            if output == LESION:
                notes += check_learnt(cache, where, force=training_data.force)
                continue
            fractions = _fractions(cache, where, output)
            full = int((fractions > PLAUSIBLE_FRACTIONS[1]).sum())
            problem = implausible_problem(len(fractions), 0, full)
            note = refuse(problem, where, force=training_data.force)
            notes += [] if note is None else [note]
    return notes


def _cache_folder(
    training_data: TrainingData, sources: list[ImageFiles], input_spec: InputSpec, output: str
) -> Path:
    """Return the folder of a cache, named after the images' location and input spec."""
    first = sources[0]
    places = (str(first.path.parent), str(first.mask_path and first.mask_path.parent))
    # Masks of all attributes are in one folder.
    mask = (output,) if input_spec.mode == "mask" and output else ()
    wider = () if input_spec.context == 1 else (str(input_spec.context),)
    key = sha256_of(*places, str(len(sources)), repr(input_spec), *mask, *wider)[:16]
    return training_data.cache / f"{input_spec.mode}-{input_spec.size}-{key}"


# The start of a run. Its folder is written last.


def start_run(
    out: Path,
    recipe: Recipe,
    folds: Folds,
    training_data: TrainingData,
    chosen: Sequence[int],
    reporter: Reporter = SILENT,
    arm: str = "",
) -> Run:
    """Start a run, or resume the one in the folder, once everything it needs is there.

    Until weights, images, masks and labels are checked and the caches are built, nothing is
    written to the folder: a failed start blocks no other.

    Args:
        out: The run's folder.
        recipe: The recipe; more epochs than the run has extend it, see `continued`.
        folds: The folds.
        training_data: The images; their caches are built.
        chosen: The folds that are trained next.
        reporter: Shows progress and what is left out.
        arm: The arm of an ablation that is trained, for messages.

    Raises:
        ConfigError: The network cannot be built.
        DataError: The images, masks or labels cannot be used.
        RunError: The folder contains a run with other settings, folds or data.
        WeightsError: The initial weights are not available, or do not fit.
    """
    for fold in chosen:
        folds.held_out(fold)  # refuses an unknown fold
    inputs = inputs_of(training_data.dataset, training_data)
    recipe = recipe.with_pretrained_hash()
    _, recipe = _continued(out, recipe, folds, inputs)
    origins = origins_of(recipe.own_parts)
    for name, origin in origins.items():
        reporter.message(f"{name} ({origin})", "runs code of")
    if training_data.init_from is not None:
        check_starts(training_data, recipe, folds, chosen, inputs, reporter)
    check_training_data(training_data, recipe, reporter, arm)
    failed = prepare_reported(training_data, recipe, out, reporter)
    for fold in chosen:
        task_of_fold(recipe, folds, fold, training_data)
        held_out_of(recipe, folds, fold, training_data)
    with held(out, lambda: reporter.message(f"waiting for another job to prepare {out}")):
        # Another job may have started or extended the run meanwhile, and train it already.
        there, recipe = _continued(out, recipe, folds, inputs)
        if there is not None and there.recipe != recipe:
            extend(there, recipe, reporter)
        run = Run.start(out, recipe, folds, inputs)
        note_origins(run.folder / "environment.json", origins, reporter)
        caches = training_data.caches
        run.hold_to(
            {name: cache.key for name, cache in caches.items()},
            {name: cache.contents for name, cache in caches.items()},
        )
        counts = crop_counts(training_data, recipe)
        if counts:
            crops = {name: each.to_json() for name, each in counts.items()}
            write_json(run.folder / "crops.json", crops)
        write_list(run.folder / "failed.csv", ("image_id", "problem"), sorted(failed.items()))
    return run


def _continued(
    out: Path, recipe: Recipe, folds: Folds, inputs: Mapping[str, Any]
) -> tuple[Run | None, Recipe]:
    """Return the run in a folder, if there is one, and the recipe with which it continues.

    Raises:
        RunError: It has other settings, folds or data.
    """
    if not (out / "run.toml").exists():
        return None, recipe
    there = Run.open(out)
    recipe = continued(there, recipe)
    replace(there, recipe=recipe).refuse_other(recipe, folds, inputs)  # folds and data
    return there, recipe


def inputs_of(dataset: Dataset, training_data: TrainingData) -> dict[str, Any]:
    """Return the sources of a run's images; a run resumes only with the same ones."""
    return {
        "data": str(dataset.root.resolve()),
        "layout": dataset.layout,
        "images": len(dataset),
        "fingerprint": dataset.fingerprint(),
        "unit": unit_of(dataset.table),
        "masks": str(training_data.masks.resolve()) if training_data.masks else None,
        "copies": [str(folder.resolve()) for folder in training_data.copies],
        "init_from": noted(training_data.init_from),
    }


def copies_in(folder: Path, dataset: Dataset, recipe: Recipe) -> Dataset:
    """Return alternative copies of a data set's images, from the data set in another folder.

    Images are joined by id. Each copy keeps its own masks, as it may show another section of the
    photograph or have another shape.

    Raises:
        DataError: The folder contains no data set, or no copy of any of the images.
    """
    there = images_of_parts(load_for(folder, recipe), recipe)
    shared = set(dataset.ids).intersection(there.ids)
    if not shared:
        raise DataError(
            f"{folder}: holds no copy of any image of {dataset.root}",
            "name a data set with the same image ids",
        )
    return there.select(shared)


def task_of_fold(
    recipe: Recipe, folds: Folds, fold: int, training_data: TrainingData
) -> TrainingTask:
    """Return the training and validation images of a fold.

    Raises:
        DataError: There are none of a class, or no validation images although they are needed.
    """
    split = split_of(recipe, folds, fold, training_data.dataset)
    training_task = _make_training_task(recipe, training_data, split.training, split.validation)
    check_validation(recipe, fold, training_task.validation.ids)
    return training_task


def held_out_of(recipe: Recipe, folds: Folds, fold: int, training_data: TrainingData) -> set[str]:
    """Return the held-out images that can be used; folds may have more than the data set.

    Attributes are compared with the data set's own masks of all of them, not with those of copies.

    Raises:
        DataError: There are none.
    """
    needed: dict[str, Collection[str]]
    if recipe.task == "attributes":
        masks = training_data.outputs[0].masks
        all_of = "with usable masks of all attributes"
        needed = {
            f"{all_of}: {name} is lacking": masks[name].ids if name in masks else ()
            for name in ATTRIBUTES
        }
        remedy = "use a data set with the masks of all attributes, or other folds"
    else:
        segments = recipe.task == "segmentation"
        cache = training_data.caches["masks" if segments else "images"]
        needed = {"with a usable mask" if segments else "that can be used": cache.ids}
        remedy = "run `naevus data check`, or name other folds"
    found = set(folds.held_out(fold))
    for what, ids in needed.items():
        found = found.intersection(ids)
        if not found:
            raise DataError(
                f"{training_data.dataset.root}: fold {fold} holds out no image {what}", remedy
            )
    return found
