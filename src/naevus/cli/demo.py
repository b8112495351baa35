"""``naevus demo``: the whole road in a few minutes, on drawn pictures or on one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from naevus.cli.answers import tell
from naevus.cli.console import console, progress
from naevus.errors import DataError, NaevusError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from naevus.datasets.dataset import Dataset
    from naevus.datasets.folds import Folds
    from naevus.evaluation.intervals import Interval
    from naevus.runs.run import Run

# Small enough for two slow processors, large enough to learn something.
_COMMON: dict[str, Any] = {
    "data.cache_size": 160,
    "data.inner_share": 0.1,
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
_FOLDS, _TEST_SHARE = 3, 0.15


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("demo"),
    data: Annotated[
        Path | None, typer.Option(help="Walk the same road on these pictures; none draws some.")
    ] = None,
    pictures: Annotated[
        int | None,
        typer.Option(min=100, help="How many to draw (160), or to take from --data (1000)."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the drawing and of all chance.")] = 2018,
) -> None:
    """Draw, check, cache, fold, train both tasks, score, and predict unseen pictures.

    About 5 minutes on 2 processors. Started again, it goes on where it was interrupted.

    Examples:
      naevus demo
      naevus demo --data ISIC2018 --out real
    """
    from naevus.datasets.layouts import load

    if data is None:
        data = out / "data"
        _draw(data, pictures or 160, seed)
    dataset = load(data)
    console.print(f"{data}: {len(dataset)} pictures, layout {dataset.layout}")
    _try_shipped(next(row.path for row in dataset.rows() if row.path is not None), out / "shipped")
    _audit(dataset, out / "check")
    outlined, diagnosed = _chosen(dataset, pictures or 1000, seed)

    segmentation = _train("segmentation", SEGMENTATION, outlined, out, seed)
    masks = _outline(segmentation, diagnosed, out / "masks")
    classification = _train("classification", CLASSIFICATION, diagnosed, out, seed, masks=masks)
    unseen = diagnosed.select(classification.folds.test())
    outcome = _predict([segmentation, classification], unseen, out / "predictions")

    scores = _scores(segmentation, classification, unseen, out)
    console.print(_table(scores))
    sheet = out / "results.png"
    _contact_sheet(unseen, outcome, sheet)
    console.print(f"contact sheet  {sheet}")
    for what, path in (
        ("findings", out / "check"),
        ("runs", segmentation.folder),
        ("", classification.folder),
        ("predictions", outcome),
    ):
        console.print(f"{what:<14} {path}")
    console.print("Research use only, never a diagnosis.", style="dim")


def _draw(folder: Path, pictures: int, seed: int) -> None:
    from naevus.datasets.synthetic import write_isic2018

    with progress("drawing pictures", pictures) as move:
        write_isic2018(folder, pictures=pictures, seed=seed, progress=move)


def _try_shipped(picture: Path, out: Path) -> None:
    """See that the networks that come with naevus answer here, with all settings as they are.

    In a process of its own: which instructions suit them may not suit what is trained afterwards.
    """
    import subprocess
    import sys

    command = [sys.executable, "-m", "naevus", "predict", str(picture), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise NaevusError(
            f"the networks that come with naevus do not run here ({said[-1] if said else ''})",
            "see naevus engines",
        )
    console.print(f"the networks that come with naevus answer here: {out}")


def _audit(dataset: Dataset, out: Path) -> None:
    from naevus.datasets.audit import audit

    with progress("checking", len(dataset)) as move:
        found = audit(dataset, progress=move)
    found.write(out)
    console.print(f"check: {len(found.findings)} findings in {out}")


def _chosen(dataset: Dataset, most: int, seed: int) -> tuple[Dataset, Dataset]:
    """Return the pictures to outline and the pictures to diagnose, whole groups of each."""
    from naevus.runs.recipe import load_config
    from naevus.runs.run import select_pictures

    outlined, diagnosed = (
        _sample(select_pictures(dataset, load_config(None, task)), most, seed)
        for task in ("segmentation", "classification")
    )
    return outlined, diagnosed


def _sample(dataset: Dataset, most: int, seed: int) -> Dataset:
    """Return about ``most`` pictures, whole groups, the diagnoses' shares as they are."""
    import numpy as np

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
    masks: Path | None = None,
) -> Run:
    from naevus.cli.console import logged
    from naevus.cli.train import check_material, inputs_of, train_folds
    from naevus.datasets.folds import make_folds
    from naevus.runs.recipe import load_config
    from naevus.runs.run import Run, held
    from naevus.training.data import Material

    folds: Folds = make_folds(dataset, k=_FOLDS, seed=seed, test_share=_TEST_SHARE)
    config = load_config(None, task, {**settings, "seed": seed})
    material = Material(dataset, out / "cache", masks=masks)
    check_material(material, config)
    with held(out / task):
        run = Run.start(out / task, config, folds, inputs_of(dataset, material))
        with logged(run.folder / "train.log", screen=False):
            train_folds(run, list(range(_FOLDS)), material)
    return run


def _outline(run: Run, dataset: Dataset, out: Path) -> Path:
    """Outline the pictures to be diagnosed, each by fold models that never saw its lesion.

    Where both tasks have the same pictures, that is the model of the fold that held it out.
    """
    from naevus.bundles.bundle import find_bundles
    from naevus.inference.batch import predict
    from naevus.inference.segmenter import Segmenter
    from naevus.io.files import write_bytes

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
        with progress(f"outlining ({name})", len(ids)) as move:
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


def _predict(runs: list[Run], dataset: Dataset, out: Path) -> Path:
    from naevus.bundles.bundle import find_bundles
    from naevus.inference.batch import predict
    from naevus.inference.classifier import Classifier
    from naevus.inference.segmenter import Segmenter

    segmentation, classification = (find_bundles([run.folder]) for run in runs)
    with progress("predicting unseen pictures", len(dataset)) as move:
        predict(
            _sources(dataset),
            out,
            segmenter=Segmenter(segmentation),
            classifier=Classifier(classification),
            progress=move,
        )
    return out


def _sources(dataset: Dataset) -> list[Any]:
    from naevus.images.preprocess import Source

    return [Source(row.image_id, row.path) for row in dataset.rows() if row.path is not None]


def _scores(
    segmentation: Run, classification: Run, unseen: Dataset, out: Path
) -> dict[str, tuple[Interval, str]]:
    """Return each figure with its interval and what it was measured on."""
    from naevus.evaluation.evaluate import classification_scores, scored
    from naevus.evaluation.segmentation import segmentation_scores
    from naevus.evaluation.tables import judged, with_truth
    from naevus.runs.predictions import read_predictions

    outlined, diagnosed = segmentation.join(), classification.join()
    _, masks = segmentation_scores(outlined)
    taxonomy = unseen.taxonomy
    _, diagnoses = classification_scores(diagnosed, taxonomy)
    held_out = "pictures of lesions each fold never saw"
    figures = {
        "mean Jaccard": (masks["jaccard"], f"{len(outlined)} {held_out}"),
        "thresholded Jaccard": (masks["thresholded_jaccard"], f"{len(outlined)} {held_out}"),
        "balanced accuracy": (diagnoses["balanced_accuracy"], f"{len(diagnosed)} {held_out}"),
        "accuracy": (diagnoses["accuracy"], f"{len(diagnosed)} {held_out}"),
        "balanced accuracy, colours alone": (
            _by_colour(classification, diagnosed),
            f"the same {len(diagnosed)}, by logistic regression",
        ),
    }
    table = read_predictions(out / "predictions" / "predictions.parquet")
    joined = with_truth(table, unseen.table, allow_missing=True)
    tell(joined.notes())
    answers = judged(joined.table, taxonomy, out / "predictions" / "masks")
    assert answers.diagnosed is not None  # all that is unseen has a diagnosis
    _, on_unseen = scored(*answers.diagnosed)
    figures["balanced accuracy, unseen"] = (
        on_unseen["balanced_accuracy"],
        f"{len(table)} pictures no fold saw, all folds together",
    )
    return figures


def _by_colour(run: Run, diagnosed: pd.DataFrame) -> Interval:
    """Return what colour histograms reach on the same folds."""
    from naevus.datasets.cache import PixelStore
    from naevus.evaluation.intervals import balanced_accuracy_interval
    from naevus.evaluation.shortcuts import guess_by_colour

    store = PixelStore.open(next((run.folder.parent / "cache").glob("crop-*")))
    truth = diagnosed.set_index("image_id")["truth"]
    guesses: dict[str, str] = {}
    for fold in run.finished():
        seen = [image_id for image_id in run.folds.training(fold) if image_id in truth.index]
        held_out = [image_id for image_id in run.folds.held_out(fold) if image_id in truth.index]
        codes = guess_by_colour(
            [store[image_id] for image_id in seen],
            truth[seen].tolist(),
            [store[image_id] for image_id in held_out],
        )
        guesses.update(zip(held_out, codes, strict=True))
    return balanced_accuracy_interval(
        diagnosed["truth"].tolist(),
        [guesses[image_id] for image_id in diagnosed["image_id"]],
        diagnosed["group_id"].tolist(),
    )


def _table(scores: Mapping[str, tuple[Interval, str]]) -> Any:
    from rich.table import Table

    table = Table("score", title="What was learnt", title_style="bold")
    table.add_column("value (95 % interval by lesion)", justify="right")
    table.add_column("on")
    for name, (interval, where) in scores.items():
        table.add_row(name, str(interval), where)
    return table


def _contact_sheet(dataset: Dataset, predictions: Path, path: Path) -> None:
    """Draw unseen pictures with true and predicted outlines and what was answered."""
    from naevus.images.maskfile import read_mask
    from naevus.images.read import read
    from naevus.reports.contact_sheet import Tile, contact_sheet
    from naevus.runs.predictions import read_predictions

    answers = read_predictions(predictions / "predictions.parquet").set_index("image_id")
    tiles = []
    for row in list(dataset.rows())[:24]:
        if row.image_id not in answers.index or row.path is None:
            continue
        answer = answers.loc[row.image_id]
        code = str(answer["decision_balanced"])
        tiles.append(
            Tile(
                read(row.path, shortest=256),
                read_mask(row.mask_path) if row.mask_path else None,
                read_mask(predictions / "masks" / f"{row.image_id}_segmentation.png"),
                f"{row.diagnosis}: {code} {answer[f'p_{code}']:.2f}",
                code == row.diagnosis,
            )
        )
    if not tiles:
        raise DataError(f"{dataset.root}: no picture was left for predictions", "use more pictures")
    contact_sheet(tiles, path, title="Unseen pictures: truth: answer, probability")
