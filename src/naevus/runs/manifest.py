"""The ``bundle.json`` entries of a run: members, training data, licence and provenance."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from naevus import __version__
from naevus.bundles.bundle import Bundle
from naevus.bundles.spec import BundleSpec, TrainingData
from naevus.errors import BundleError, ImageError
from naevus.images.read import probe
from naevus.io.parallel import BATCH
from naevus.runs.evidence import (
    Composition,
    attributes_entry,
    classification_entry,
    segmentation_entry,
)
from naevus.runs.images import USUAL_PART, dataset_of
from naevus.runs.start import BundleStart, bundle_behind, learnt_by, runs_behind
from naevus.taxonomy import ATTRIBUTES, known_taxonomy

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from naevus.datasets.dataset import Dataset
    from naevus.runs.recipe import Recipe
    from naevus.runs.run import Run
    from naevus.types import Task


# Entries of ``bundle.json`` that both training and export write.


def member_entry(recipe: Recipe, file: str, folds: Sequence[int], **more: Any) -> dict[str, Any]:
    """Return the entry of one network.

    Args:
        recipe: Its recipe.
        file: Its graph in the bundle.
        folds: The folds it did not train on.
        more: The storage; for a classifier also class weights, class priors, ``cam_offset``, and a
            crop mode of its own.
    """
    return {
        "file": file,
        "folds": tuple(folds),
        "architecture": recipe.architecture,
        "input_size": recipe.input_size,
        **more,
    }


def task_entry(
    recipe: Recipe, members: Sequence[dict[str, Any]], codes: tuple[str, ...]
) -> dict[str, Any]:
    """Return the entry of a task, under its key in ``bundle.json``.

    Args:
        recipe: The recipe of a member. All members have the same input, except those whose entry
            names another crop mode.
        members: The members' entries.
        codes: A classifier's classes in the order of its logits.
    """
    data = recipe.data
    segmenter = {"members": members, "colour_constancy": data.colour_constancy}
    if recipe.task == "segmentation":
        return {"segmenter": segmenter}
    if recipe.task == "attributes":
        found = {"attributes": {**segmenter, "names": tuple(ATTRIBUTES)}}
        return found | ({"segmenter": segmenter} if recipe.data.lesion else {})
    return {
        "classifier": {
            "members": members,
            "taxonomy": known_taxonomy(codes),
            "classes": codes,
            "crop_mode": data.crop_mode,
            "crop_margin": data.crop_margin,
            "colour_constancy": data.colour_constancy,
        }
    }


SQUARE = (
    "All {task} images that were checked are square. The bundle was neither trained nor evaluated "
    "on images with other aspect ratios."
)
"""A limit of bundles whose training images were all square."""


_NETWORKS = (
    "The networks are under CC BY-NC 4.0 (https://creativecommons.org/licenses/by-nc/4.0/), for "
    "non-commercial use, with attribution of the training data"
)


class _Source(NamedTuple):
    """Published images, which have ids of their own: a layout alone proves no source."""

    name: str
    licence: str | None
    ids: tuple[str, str]
    """The first and the last id."""

    def has(self, image_id: str) -> bool:
        first, last = self.ids
        return len(image_id) == len(first) and first <= image_id <= last


_HAM = _Source(
    "HAM10000 (ViDIR Group, Medical University of Vienna; Tschandl, Rosendahl & Kittler, "
    "Scientific Data 5, 180161, 2018, https://doi.org/10.1038/sdata.2018.161)",
    "CC BY-NC 4.0",
    ("ISIC_0024306", "ISIC_0034320"),
)
_TASK1 = _Source(
    "ISIC 2018 Task 1 (Codella et al. 2019)",
    "terms of the ISIC Archive, non-commercial",
    ("ISIC_0000000", "ISIC_0016072"),
)
_TASK2 = _TASK1._replace(name="ISIC 2018 Task 2 (Codella et al. 2019)")
_SYNTHETIC = _Source(
    "synthetic images (`naevus data synthetic`)", None, ("ISIC_9000000", "ISIC_9999999")
)
_SOURCES = {
    ("isic2018", "task1"): _TASK1,
    ("isic2018", "task2"): _TASK2,
    ("isic2018", "task3"): _HAM,
    ("ham10000", "segmentation"): _HAM,
    ("ham10000", "classification"): _HAM,
}


def trial_notes(runs: Sequence[Run]) -> list[str]:
    """Return a sentence for each run that was limited to some images."""
    return [
        f"{run.folder.name}: trained for a trial on at most {run.recipe.data.limit:,} images "
        "(data.limit), and evaluated on those."
        for run in runs
        if run.recipe.data.limit
    ]


def about(runs: Sequence[Run]) -> dict[str, Any]:
    """Return a manifest with the origin of the networks; `add` completes it with figures."""
    learnt_from = training_data(runs)
    return {
        "training_data": learnt_from,
        "licence": licence(learnt_from),
        "provenance": provenance(runs),
        "limits": trial_notes(runs),
        "scores": [],
        "storage_costs": [],
        "recommended": [],
        "storage_refusals": [],
    }


def add(manifest: dict[str, Any], entries: Mapping[str, Any]) -> None:
    """Add entries to a manifest: extend lists, update tables, set the rest.

    Where the groups of one task are lesions and those of another patients, both are called groups.
    """
    for name, value in entries.items():
        there = manifest.get(name)
        if isinstance(there, list):
            there += value
        elif isinstance(there, dict):
            there |= value
        else:
            mixed = name == "unit" and there not in {None, value}
            manifest[name] = "group" if mixed else value


def limits_of(task: Task, dataset: Dataset | None, ids: Collection[str]) -> dict[str, list[str]]:
    """Return the entry ``limits`` that follows from the training images of a task.

    Args:
        task: The task.
        dataset: The training data; without it there are no limits to report.
        ids: The images to check.
    """
    if dataset is None or task == "attributes":  # attribute inputs may be whole resized frames
        return {"limits": []}
    rows = dataset.table[dataset.table["image_id"].isin(ids)]
    return {"limits": [SQUARE.format(task=task)] if _all_square(rows["path"]) else []}


def _all_square(paths: Iterable[str]) -> bool:
    """Report whether all readable image files are square."""
    for path in paths:
        try:
            header = probe(Path(path))
        except ImageError:
            continue
        if header.width != header.height:
            return False
    return True


def _learnt_from(run: Run) -> Iterator[_Source]:
    """Yield the sources of what a run learnt from: its own, then of the runs it started from."""
    for each in runs_behind(run):
        recipe, layout = each.recipe, each.inputs["layout"]
        parts = recipe.data.parts or (USUAL_PART[recipe.task],)
        if recipe.task == "attributes":
            parts = ("task2", "task1") if recipe.data.lesion else ("task2",)
        keys = parts if layout == "isic2018" else (recipe.task,)
        sources = [_SOURCES[layout, key] for key in keys if (layout, key) in _SOURCES]
        sources.append(_SYNTHETIC)
        ids = each.folds.table["image_id"]
        yield from (source for source in sources if any(map(source.has, ids)))
        if not all(any(source.has(image_id) for source in sources) for image_id in ids):
            yield _Source(f"images in the layout {layout}", None, ("", ""))


def _taught_before(run: Run) -> Iterator[TrainingData]:
    """Yield the data that the bundles learnt from with which a run, or one behind it, began."""
    behind = bundle_behind(run)
    if behind is not None:
        first, name = behind
        with suppress(BundleError):  # moved since
            for fold in run.finished():
                yield from learnt_by(BundleStart(name).bundle(fold), first.recipe.task)


def training_data(runs: Iterable[Run]) -> list[TrainingData]:
    """List the training data of runs, each data set once per task."""
    found: dict[tuple[str, str], TrainingData] = {}
    for run in runs:
        sources = list(dict.fromkeys(_learnt_from(run)))
        licences = [source.licence for source in sources if source.licence]
        found[run.recipe.task, run.inputs["fingerprint"]] = TrainingData(
            task=run.recipe.task,
            name=" and ".join(source.name for source in sources),
            images=run.inputs["images"],
            licence="; ".join(licences) or None,
        )
        for earlier in _taught_before(run):
            if all(each.name != earlier.name for each in found.values()):
                found[run.recipe.task, earlier.name] = earlier
    return list(found.values())


def licence(data: Sequence[TrainingData]) -> str | None:
    """Return the licence of networks trained on this data, if known."""
    named = [f"{each.name}, licence: {each.licence}" for each in data if each.licence]
    if not named:
        return None
    return f"{_NETWORKS}: {'; '.join(dict.fromkeys(named))}."


def provenance(runs: Iterable[Run]) -> dict[str, str | int | float]:
    """Return the version and the hashes of recipes, data and folds; no path and no time."""
    found: dict[str, set[str]] = {}
    for run in runs:
        for what, value in (
            ("recipe", run.recipe.fingerprint()),
            ("data", run.inputs["fingerprint"]),
            ("folds", run.folds.sha256),
        ):
            found.setdefault(f"{run.recipe.task} {what}", set()).add(value)
    return {
        "naevus": __version__,
        **{name: ", ".join(sorted(each)) for name, each in found.items()},
    }


# The specification of a bundle of all finished folds, without an export.

EXAMINED = 200
"""How many images are checked for their aspect ratio."""


def spec_of_run(run: Run, data: Path | None = None) -> BundleSpec:
    """Return the specification of all finished folds as one ensemble, with its figures.

    Args:
        run: The run.
        data: The data set, if it has moved since training. Without a data set there are no
            subgroups.

    Raises:
        RunError: No fold is finished.
        BundleError: A fold's bundle is damaged.
        DataError: ``data`` is another data set.
    """
    folds = run.finished()
    if not folds:
        raise run.unfinished()
    task = run.recipe.task
    bundles = [Bundle.read(run.bundle_folder(fold)).spec for fold in folds]
    manifest: dict[str, Any] = about([run])
    for part in ("segmenter", "classifier", "attributes"):
        specs = [getattr(spec, part) for spec in bundles]
        if specs[0] is not None:
            members = [
                member.model_dump() | {"file": f"fold-{fold}.onnx"}
                for fold, spec in zip(folds, specs, strict=True)
                for member in spec.members
            ]
            manifest[part] = specs[0].model_dump() | {"members": members}
    dataset = dataset_of(run, data)
    if task == "segmentation":
        add(manifest, segmentation_entry([run]))
    elif task == "attributes":
        add(manifest, attributes_entry(run))
    else:
        origins = tuple(f"{run.folder.name} fold {fold}" for fold in folds)
        add(manifest, classification_entry([run], Composition(origins, (tuple(folds),)), dataset))
    examined = run.predictions()["image_id"].tolist()[:EXAMINED]
    add(manifest, limits_of(task, dataset, examined))
    return BundleSpec.model_validate(manifest)


# The commands that make results again.


def training_command(task: str, inputs: Mapping[str, Any]) -> str:
    """Return the commands that train and report the same again; folders by their last name."""
    data = Path(inputs["data"]).name
    words = ["naevus", "train", task, data, "--recipe", "run.toml", "--folds", "folds.csv"]
    if inputs.get("masks"):
        words += ["--masks", Path(inputs["masks"]).name]
    for folder in inputs.get("copies") or ():
        words += ["--copies", Path(folder).name]
    if inputs.get("init_from"):
        words += ["--init-from", Path(str(inputs["init_from"])).name]
    return _lines([*words, "--out", "RUN"], ["naevus", "report", "RUN", "--data", data])


def prediction_command(
    settings: Mapping[str, Any], dataset: Dataset, *, lesions: bool = False
) -> str:
    """Return the commands that predict and report the same again.

    Args:
        settings: Those of the predictions.
        dataset: The data set with the ground truth.
        lesions: Whether lesions of the predictions count, which the data set does not know.
    """
    words = ["naevus", "predict", "IMAGES"]
    chosen: dict[str, set[str]] = {}
    names = ("tta", "engine", "precision", "device")
    parts = [settings.get(part) or {} for part in ("segmenter", "classifier")]
    bundles = {bundle for part in parts for bundle in part.get("bundles", ())}
    words += ["--bundle", "BUNDLE"] * len(bundles)
    for made_with in parts:
        for name in names:
            if name in made_with and (name, made_with[name]) != ("device", "cpu"):
                chosen.setdefault(f"--{name}", set()).add(str(made_with[name]))
    words += _changed_odds(settings)
    kept = (settings.get("metadata") or {}).get("columns", ())
    words += ["--lesions", "LESIONS"] if lesions and "lesion_id" not in kept else []
    for option, values in chosen.items():
        if len(values) == 1:  # by default each task uses its bundle's recommended precision
            words += [option, *values]
    words += _outputs(settings)
    return _lines(
        [*words, "--out", "OUT"], ["naevus", "report", "OUT", "--data", dataset.root.name]
    )


def _changed_odds(settings: Mapping[str, Any]) -> list[str]:
    """Return the options about patients, their population and the scale of their images."""
    classifier, metadata = (settings.get(name) or {} for name in ("classifier", "metadata"))
    words = [] if classifier.get("prevalence") is None else ["--prevalence", "PREVALENCE"]
    scale = metadata.get("mm_per_pixel")
    if "known" in metadata or isinstance(scale, str):  # others are the data set's own
        words += ["--metadata", "METADATA"]
    return words + (["--mm-per-pixel", f"{scale}"] if isinstance(scale, float) else [])


def _outputs(settings: Mapping[str, Any]) -> list[str]:
    """Return the options about what is written."""
    segmenter, classifier = (settings.get(part) for part in ("segmenter", "classifier"))
    masks, crops = settings.get("masks"), settings.get("write_crops", True)
    words = ["--no-masks"] if segmenter and classifier and not masks else []
    if segmenter and not classifier and not masks:
        words += ["--only", "crops"]
    elif segmenter and not classifier and crops and settings.get("crops") == []:
        words += ["--only", "masks"]
    words += [] if crops else ["--no-crops"]
    heatmaps = settings.get("heatmaps")
    words += ["--heatmaps-of", heatmaps] if isinstance(heatmaps, str) else []
    words += ["--heatmaps"] if heatmaps is True else []
    words += [f"--{name}" for name in ("embeddings", "nested") if settings.get(name)]
    words += ["--no-attributes"] if segmenter and segmenter.get("attributes") is False else []
    if settings.get("batch", BATCH) != BATCH:
        words += ["--batch-size", str(settings["batch"])]
    return words + (["--shard", settings["shard"]] if settings.get("shard") else [])


def _lines(*commands: list[str]) -> str:
    """Return commands as they are typed, one a line."""
    return "\n".join(map(shlex.join, commands))
