"""Everything end to end, on synthetic images or on one's own: check, train, score, predict."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from naevus.bundles.bundle import find_bundles
from naevus.datasets.audit import audit
from naevus.datasets.cache import ImageCache
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
from naevus.inference.segmenter import Segmenter
from naevus.io.files import write_bytes
from naevus.io.progress import SILENT, warn_all
from naevus.reports.contact_sheet import Tile, contact_sheet
from naevus.runs.predictions import read_predictions
from naevus.runs.recipe import load_recipe
from naevus.runs.results import evaluate_results, results_of_predictions, results_of_tables
from naevus.runs.run import Run, held, select_images
from naevus.training.data import TrainingData
from naevus.training.train import check_training_data, inputs_of, train_folds

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd

    from naevus.datasets.dataset import Dataset
    from naevus.datasets.folds import Folds
    from naevus.evaluation.intervals import Interval
    from naevus.io.progress import Reporter

# Small enough for two slow processors, large enough to learn something.
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


class Demonstrated(NamedTuple):
    """What a demo made.

    Attributes:
        scores: Each metric with its interval and what it was measured on.
        paths: What was written where.
    """

    scores: dict[str, tuple[Interval, str]]
    paths: tuple[tuple[str, Path], ...]


def run_demo(
    out: Path,
    data: Path | None = None,
    *,
    images: int | None = None,
    seed: int = 2018,
    reporter: Reporter = SILENT,
) -> Demonstrated:
    """Check images, train both tasks over folds, score them, and predict unseen images.

    Args:
        out: Folder for everything; what is there is not made again.
        data: Images in a known layout; without it, synthetic ones are drawn.
        images: How many to draw (160), or to take from ``data`` (1000).
        seed: Of the drawing and of all randomness.
        reporter: Shows how it goes.

    Raises:
        NaevusError: The built-in networks do not run here, or the images cannot be learnt from.
    """
    if data is None:
        data = out / "data"
        _draw(data, images or 160, seed, reporter)
    dataset = load(data)
    reporter.message(f"{data}: {len(dataset)} images, layout {dataset.layout}")
    first = next(row.path for row in dataset.rows() if row.path is not None)
    _try_shipped(first, out / "shipped", reporter)
    _audit(dataset, out / "check", reporter)
    segmented, classified = _chosen(dataset, images or 1000, seed)

    segmentation = _train("segmentation", SEGMENTATION, segmented, out, seed, reporter)
    masks = _contour(segmentation, classified, out / "masks", reporter)
    classification = _train(
        "classification", CLASSIFICATION, classified, out, seed, reporter, masks=masks
    )
    unseen = classified.select(classification.folds.test())
    result = _predict([segmentation, classification], unseen, out / "predictions", reporter)

    scores = _scores(segmentation, classification, unseen, out, reporter)
    sheet = out / "results.png"
    _contact_sheet(unseen, result, sheet)
    return Demonstrated(
        scores,
        (
            ("contact sheet", sheet),
            ("findings", out / "check"),
            ("runs", segmentation.folder),
            ("", classification.folder),
            ("predictions", result),
        ),
    )


def _draw(folder: Path, images: int, seed: int, reporter: Reporter) -> None:
    with reporter.progress("drawing images", images) as move:
        write_isic2018(folder, images=images, seed=seed, progress=move)


def _try_shipped(image: Path, out: Path, reporter: Reporter) -> None:
    """See that the networks that come with naevus answer here, with all settings as they are.

    In a process of its own: which instructions suit them may not suit what is trained afterwards.
    """
    command = [sys.executable, "-m", "naevus", "predict", str(image), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise NaevusError(
            f"the networks that come with naevus do not run here ({lines[-1] if lines else ''})",
            "see naevus info",
        )
    reporter.message(f"the networks that come with naevus answer here: {out}")


def _audit(dataset: Dataset, out: Path, reporter: Reporter) -> None:
    with reporter.progress("checking", len(dataset)) as move:
        found = audit(dataset, progress=move)
    found.write(out)
    reporter.message(f"check: {len(found.findings)} findings in {out}")


def _chosen(dataset: Dataset, most: int, seed: int) -> tuple[Dataset, Dataset]:
    """Return the images to contour and the images to diagnose, whole groups of each."""
    segmented, classified = (
        _sample(select_images(dataset, load_recipe(None, task)), most, seed)
        for task in ("segmentation", "classification")
    )
    return segmented, classified


def _sample(dataset: Dataset, most: int, seed: int) -> Dataset:
    """Return about ``most`` images, whole groups, the diagnoses' shares as they are."""
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
    folds: Folds = make_folds(dataset, k=_FOLDS, seed=seed, test_fraction=_TEST_FRACTION)
    recipe = load_recipe(None, task, {**settings, "seed": seed})
    training_data = TrainingData(dataset, out / "cache", masks=masks)
    check_training_data(training_data, recipe, reporter)
    with held(out / task):
        run = Run.start(out / task, recipe, folds, inputs_of(dataset, training_data))
    train_folds(run, list(range(_FOLDS)), training_data, reporter)
    return run


def _contour(run: Run, dataset: Dataset, out: Path, reporter: Reporter) -> Path:
    """Contour the images to be diagnosed, each by fold models that never saw its lesion.

    Where both tasks have the same images, that is the model of the fold that held it out.
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
                segmenter=Segmenter(find_bundles(models)),
                only="masks",
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
    """Return each figure with its interval and what it was measured on."""
    segmented, classified = segmentation.join(), classification.join()
    masks = evaluate_results(results_of_tables("masks", [segmented])).segmentation
    diagnoses = evaluate_results(results_of_tables("diagnoses", [classified])).classification
    predicted = results_of_predictions(out / "predictions", unseen, allow_missing=True)
    warn_all(reporter, predicted.notes)
    on_unseen = evaluate_results(predicted).classification
    assert masks is not None
    assert diagnoses is not None
    assert on_unseen is not None  # all that is unseen has a diagnosis
    headline = diagnoses.as_predicted.intervals
    held_out = "images of lesions each fold never saw"
    return {
        "mean Jaccard": (masks.metrics["jaccard"], f"{masks.images} {held_out}"),
        "thresholded Jaccard": (
            masks.metrics["thresholded_jaccard"],
            f"{masks.images} {held_out}",
        ),
        "balanced accuracy": (headline["balanced_accuracy"], f"{diagnoses.images} {held_out}"),
        "accuracy": (headline["accuracy"], f"{diagnoses.images} {held_out}"),
        "balanced accuracy, colours alone": (
            _by_colour(classification, classified),
            f"the same {diagnoses.images}, by logistic regression",
        ),
        "balanced accuracy, unseen": (
            on_unseen.as_predicted.intervals["balanced_accuracy"],
            f"{on_unseen.images} images no fold saw, all folds together",
        ),
    }


def _by_colour(run: Run, classified: pd.DataFrame) -> Interval:
    """Return what colour histograms reach on the same folds."""
    cache = ImageCache.open(next((run.folder.parent / "cache").glob("crop-*")))
    truth = classified.set_index("image_id")["diagnosis"]
    guesses: dict[str, str] = {}
    for fold in run.finished():
        seen = [image_id for image_id in run.folds.training(fold) if image_id in truth.index]
        held_out = [image_id for image_id in run.folds.held_out(fold) if image_id in truth.index]
        codes = guess_by_colour(
            [cache[image_id] for image_id in seen],
            truth[seen].tolist(),
            [cache[image_id] for image_id in held_out],
        )
        guesses.update(zip(held_out, codes, strict=True))
    return balanced_accuracy_interval(
        classified["diagnosis"].tolist(),
        [guesses[image_id] for image_id in classified["image_id"]],
        classified["group_id"].tolist(),
    )


def _contact_sheet(dataset: Dataset, predictions: Path, path: Path) -> None:
    """Draw unseen images with true and predicted contours and what was answered."""
    predicted = read_predictions(predictions / "predictions.parquet").set_index("image_id")
    tiles = []
    for row in list(dataset.rows())[:24]:
        if row.image_id not in predicted.index or row.path is None:
            continue
        answer = predicted.loc[row.image_id]
        code = str(answer["predicted_balanced"])
        tiles.append(
            Tile(
                read(row.path, shortest=256),
                read_mask(row.mask_path) if row.mask_path else None,
                read_mask(predictions / "masks" / f"{row.image_id}_segmentation.png"),
                f"{row.diagnosis}: {code} {answer[f'prob_{code}']:.2f}",
                code == row.diagnosis,
            )
        )
    if not tiles:
        raise DataError(f"{dataset.root}: no image was left for predictions", "use more images")
    contact_sheet(tiles, path, title="Unseen images: truth: answer, probability")
