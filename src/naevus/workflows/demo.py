"""The demo: the built-in model, then checking, training, scoring and predicting, end to end.

The first part needs the base install only; what trains imports torch when it is called.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from naevus.bundles.bundle import find_bundles
from naevus.datasets.audit import audit
from naevus.datasets.cache import ImageCache
from naevus.datasets.dataset import unit_of
from naevus.datasets.folds import make_folds
from naevus.datasets.layouts import load
from naevus.datasets.synthetic import write_isic2018
from naevus.errors import DataError, NaevusError
from naevus.evaluation.intervals import balanced_accuracy_interval
from naevus.evaluation.shortcuts import guess_by_colour
from naevus.images.maskfile import read_mask
from naevus.images.preprocess import ImageFiles
from naevus.images.read import read
from naevus.inference.batch import predict
from naevus.inference.classifier import Classifier
from naevus.inference.options import OutputOptions
from naevus.inference.segmenter import Segmenter
from naevus.io.files import write_bytes
from naevus.io.outputs import check_free
from naevus.io.progress import SILENT, warn_all
from naevus.io.words import counted
from naevus.reports.contact_sheet import Tile, contact_sheet
from naevus.runs.evaluate import evaluate_results
from naevus.runs.images import select_images
from naevus.runs.prediction_tables import read_predictions
from naevus.runs.recipe import load_recipe
from naevus.runs.results import results_of_predictions, results_of_tables

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd

    from naevus.datasets.dataset import Dataset
    from naevus.datasets.folds import Folds
    from naevus.evaluation.intervals import Interval
    from naevus.io.progress import Reporter
    from naevus.runs.run import Run
    from naevus.types import Unit

# Small enough for two slow processors, large enough to learn from.
_COMMON: dict[str, Any] = {
    "data.cache_size": 160,
    "data.validation_fraction": 0.1,
    "optimiser.ema": 0.98,
    "workers": 0,
}
SEGMENTATION = {
    **_COMMON,
    "epochs": 16,
    "batch_size": 8,
    "sizes": [[0, 96]],
    "network.decoder": {"decoder_channels": [64, 32, 16, 16, 16]},
    "optimiser.learning_rate": 3e-3,
}
CLASSIFICATION = {
    **_COMMON,
    "epochs": 24,
    "batch_size": 16,
    "sizes": [[0, 128]],
    "data.crop_mode": "crop",
    "loss.label_smoothing": 0.05,
    "optimiser.learning_rate": 3e-3,
    "augment.hue": 5,
}
_FOLDS, _TEST_FRACTION = 3, 0.15
_IMAGES, _OWN_IMAGES = 160, 1000
_SHOWN = 12
"""Number of images that the built-in model predicts."""
_CAPTION = "diagnosis: balanced prediction, its probability"


class DemoResult(NamedTuple):
    """The results of a demo.

    Attributes:
        scores: Each metric with its interval and the images it was measured on.
        paths: Labels and paths of the outputs.
        unit: What the groups are that the intervals resample.
    """

    scores: dict[str, tuple[Interval, str]]
    paths: tuple[tuple[str, Path], ...]
    unit: Unit = "lesion"


def run_demo(
    out: Path,
    data: Path | None = None,
    *,
    images: int | None = None,
    seed: int = 2018,
    train: bool = True,
    reporter: Reporter = SILENT,
) -> DemoResult:
    """Predict with the built-in model; then check, train, score and predict with own networks.

    Args:
        out: Output folder; a finished step is not repeated.
        data: A data set in a known layout; by default a synthetic one is generated.
        images: Number of images to generate (160), or to use of ``data`` (1000).
        seed: Random seed.
        train: Whether to go on after the built-in model's predictions; needs the extra ``train``.
        reporter: Shows progress.

    Raises:
        NaevusError: The built-in networks cannot run on this machine, the images are not
            suitable for training, or ``out`` has other files.
    """
    check_free(out, "builtin", ("data",))
    reporter.message(plan(data, images, train=train))
    if data is None:
        data = out / "data"
        _generate(data, images or _IMAGES, seed, reporter)
    dataset = load(data)
    reporter.message(f"{data}: {counted(len(dataset.images()), 'image')}, layout {dataset.layout}")
    builtin = _show_builtin(dataset, out / "builtin", out / "builtin.png", reporter)
    if not train:
        return DemoResult({}, (("contact sheet", builtin), ("predictions", out / "builtin")))
    _audit(dataset, out / "check", reporter)
    segmented, classified = _select(dataset, images or _OWN_IMAGES, seed)

    segmentation = _train("segmentation", SEGMENTATION, segmented, out, seed, reporter)
    masks = _segment(segmentation, classified, out / "masks", reporter)
    classification = _train(
        "classification", CLASSIFICATION, classified, out, seed, reporter, masks=masks
    )
    unseen = classified.select(classification.folds.test())
    result = _predict([segmentation, classification], unseen, out / "predictions", reporter)

    scores = _scores(segmentation, classification, unseen, out, reporter)
    sheet = out / "results.png"
    _contact_sheet(unseen, result, sheet, f"Unseen images: {_CAPTION}")
    return DemoResult(
        scores,
        (
            ("built-in model", builtin),
            ("trained networks", sheet),
            ("findings", out / "check"),
            ("runs", segmentation.folder),
            ("", classification.folder),
            ("predictions", result),
        ),
        unit_of(dataset.table),
    )


def plan(data: Path | None, images: int | None, *, train: bool) -> str:
    """Return the steps of a demo and how long they take.

    >>> print(plan(None, None, train=False))
    This demo takes less than a minute:
      1. generate 160 synthetic images with known lesions and diagnoses
      2. predict 12 of them with the built-in model
    The same command resumes an interrupted demo.
    """
    source = (
        f"generate {images or _IMAGES} synthetic images with known lesions and diagnoses"
        if data is None
        else f"read {data}"
    )
    steps = [source, f"predict {_SHOWN} of them with the built-in model"]
    if train:
        steps += [
            "check the data set",
            f"train networks for both tasks on {_FOLDS} folds",
            "score them, and predict images that no fold has seen",
        ]
    lines = [f"  {number}. {step}" for number, step in enumerate(steps, start=1)]
    minutes = "about 5 minutes on 2 processors" if data is None else "longer the more images it has"
    duration = minutes if train else "less than a minute"
    return "\n".join(
        [f"This demo takes {duration}:", *lines, "The same command resumes an interrupted demo."]
    )


def _generate(folder: Path, images: int, seed: int, reporter: Reporter) -> None:
    with reporter.progress("generating images", images) as move:
        write_isic2018(folder, images=images, seed=seed, progress=move)


def _show_builtin(dataset: Dataset, out: Path, sheet: Path, reporter: Reporter) -> Path:
    """Predict some images with the built-in bundle and default settings; return a contact sheet.

    Runs ``naevus predict`` in a child process: the processor instructions that suit the built-in
    networks may not suit the networks that are trained later.
    """
    chosen = dataset.select([row.image_id for row in dataset.rows() if row.path][:_SHOWN])
    paths = [str(row.path) for row in chosen.rows()]
    command = [sys.executable, "-m", "naevus", "predict", *paths, "--out", str(out)]
    reporter.message(f"\n$ naevus predict {paths[0]} ... --out {out}")
    with reporter.status("predicting with the built-in model"):
        done = subprocess.run(  # noqa: S603
            command,
            capture_output=True,
            check=False,
            encoding="utf-8",
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise NaevusError(
            f"the built-in networks cannot run on this machine ({lines[-1] if lines else ''})",
            "see naevus info",
        )
    reporter.message(done.stdout)
    _contact_sheet(chosen, out, sheet, f"Built-in model: {_CAPTION}")
    return sheet


def _audit(dataset: Dataset, out: Path, reporter: Reporter) -> None:
    with reporter.progress("checking", len(dataset)) as move:
        found = audit(dataset, progress=move)
    found.write(out)
    reporter.message(f"check: {counted(len(found.findings), 'finding')} in {out}")


def _select(dataset: Dataset, most: int, seed: int) -> tuple[Dataset, Dataset]:
    """Return the images for segmentation and for classification, keeping groups whole."""
    segmented, classified = (
        _sample(select_images(dataset, load_recipe(None, task)), most, seed)
        for task in ("segmentation", "classification")
    )
    return segmented, classified


def _sample(dataset: Dataset, most: int, seed: int) -> Dataset:
    """Return about ``most`` images in whole groups, drawn regardless of diagnosis."""
    groups = dataset.table["group_id"]
    names = np.random.default_rng(seed).permutation(sorted(groups.unique()))
    sizes = groups.value_counts()[names].cumsum()
    kept = set(sizes.index[sizes <= max(most, sizes.iloc[0])])
    return dataset.select(dataset.table.loc[groups.isin(kept), "image_id"])


def _train(
    task: Any,
    settings: Mapping[str, Any],
    dataset: Dataset,
    out: Path,
    seed: int,
    reporter: Reporter,
    masks: Path | None = None,
) -> Run:
    from naevus.training.data import TrainingData  # noqa: PLC0415 (the first part needs no torch)
    from naevus.training.prepare import start_run  # noqa: PLC0415
    from naevus.training.train import train_folds  # noqa: PLC0415

    folds: Folds = make_folds(dataset, k=_FOLDS, seed=seed, test_fraction=_TEST_FRACTION)
    recipe = load_recipe(None, task, {**settings, "seed": seed})
    training_data = TrainingData(dataset, out / "cache", masks=masks)
    every = list(range(_FOLDS))
    run = start_run(out / task, recipe, folds, training_data, every, reporter)
    train_folds(run, every, training_data, reporter)
    return run


def _segment(run: Run, dataset: Dataset, out: Path, reporter: Reporter) -> Path:
    """Segment the images for classification with networks that never saw their lesions.

    If an image is in both tasks, that is the network of the fold that held it out.
    """
    groups = run.folds.table.set_index("image_id")["group_id"]
    unseen_by = {
        group: fold for fold in run.finished() for group in groups[run.folds.held_out(fold)]
    }
    jobs: dict[int | None, list[str]] = {}
    for row in dataset.rows():
        group = groups.get(row.image_id, row.group_id)
        jobs.setdefault(unseen_by.get(group), []).append(row.image_id)
    for fold, ids in jobs.items():
        models, name = (
            ([run.folder], "unseen")
            if fold is None
            else ([run.bundle_folder(fold)], f"fold-{fold}")
        )
        with reporter.progress(f"segmenting ({name})", len(ids)) as move:
            predict(
                _sources(dataset.select(ids)),
                out / name,
                OutputOptions(only="masks"),
                segmenter=Segmenter(find_bundles(models)),
                progress=move,
            )
    for mask in sorted(out.glob("*/masks/*.png")):
        write_bytes(out / "masks" / mask.name, mask.read_bytes())
    return out / "masks"


def _predict(runs: list[Run], dataset: Dataset, out: Path, reporter: Reporter) -> Path:
    segmentation, classification = (find_bundles([run.folder]) for run in runs)
    with reporter.progress("predicting unseen images", len(dataset)) as move:
        predict(
            _sources(dataset),
            out,
            segmenter=Segmenter(segmentation),
            classifier=Classifier(classification),
            progress=move,
        )
    return out


def _sources(dataset: Dataset) -> list[Any]:
    return [ImageFiles(row.image_id, row.path) for row in dataset.rows() if row.path is not None]


def _scores(
    segmentation: Run, classification: Run, unseen: Dataset, out: Path, reporter: Reporter
) -> dict[str, tuple[Interval, str]]:
    """Return each metric with its interval and the images it was measured on."""
    segmented, classified = segmentation.join(), classification.join()
    masks = evaluate_results(results_of_tables("masks", [segmented])).segmentation
    diagnoses = evaluate_results(results_of_tables("diagnoses", [classified])).classification
    predicted = results_of_predictions(out / "predictions", unseen, allow_missing=True)
    warn_all(reporter, predicted.notes)
    on_unseen = evaluate_results(predicted).classification
    assert masks is not None
    assert diagnoses is not None
    assert on_unseen is not None  # every unseen image has a diagnosis
    headline = diagnoses.as_predicted.intervals
    held_out = "images, out of fold"
    return {
        "mean Jaccard": (masks.metrics["jaccard"], f"{masks.images} {held_out}"),
        "thresholded Jaccard": (
            masks.metrics["thresholded_jaccard"],
            f"{masks.images} {held_out}",
        ),
        "balanced accuracy": (headline["balanced_accuracy"], f"{diagnoses.images} {held_out}"),
        "accuracy": (headline["accuracy"], f"{diagnoses.images} {held_out}"),
        "balanced accuracy, colour only": (
            _by_colour(classification, classified),
            f"the same {diagnoses.images}, by logistic regression",
        ),
        "balanced accuracy, unseen": (
            on_unseen.as_predicted.intervals["balanced_accuracy"],
            f"{on_unseen.images} test images, ensemble of all folds",
        ),
    }


def _by_colour(run: Run, classified: pd.DataFrame) -> Interval:
    """Return the score of colour histograms on the same folds."""
    cache = ImageCache.open(next((run.folder.parent / "cache").glob("crop-*")))
    truth = classified.set_index("image_id")["diagnosis"]
    guesses: dict[str, str] = {}
    for fold in run.finished():
        training = [image_id for image_id in run.folds.training(fold) if image_id in truth.index]
        held_out = [image_id for image_id in run.folds.held_out(fold) if image_id in truth.index]
        codes = guess_by_colour(
            [cache[image_id] for image_id in training],
            truth[training].tolist(),
            [cache[image_id] for image_id in held_out],
        )
        guesses.update(zip(held_out, codes, strict=True))
    return balanced_accuracy_interval(
        classified["diagnosis"].tolist(),
        [guesses[image_id] for image_id in classified["image_id"]],
        classified["group_id"].tolist(),
    )


def _contact_sheet(dataset: Dataset, predictions: Path, path: Path, title: str) -> None:
    """Draw images with ground-truth and predicted contours, diagnoses and predictions."""
    predicted = read_predictions(predictions / "predictions.parquet").set_index("image_id")
    tiles = []
    for row in list(dataset.rows())[:24]:
        if row.image_id not in predicted.index or row.path is None:
            continue
        found = predicted.loc[row.image_id]
        code = str(found["predicted_balanced"])
        tiles.append(
            Tile(
                read(row.path, shortest=256),
                read_mask(row.mask_path) if row.mask_path else None,
                read_mask(predictions / "masks" / f"{row.image_id}_segmentation.png"),
                f"{row.diagnosis or '?'}: {code} {found[f'balanced_prob_{code}']:.2f}",
                code == row.diagnosis,
            )
        )
    if not tiles:
        raise DataError(f"{dataset.root}: no image is left to predict", "use more images")
    contact_sheet(tiles, path, title=title)
