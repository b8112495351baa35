"""Random tables of predictions, with a seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from naevus.datasets.dataset import unit_of
from naevus.datasets.folds import make_folds
from naevus.datasets.layouts import load
from naevus.runs.images import select_images
from naevus.runs.recipe import Recipe
from naevus.runs.run import Run
from naevus.taxonomy import ISIC2018

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def diagnoses(sureness: float = 1.0, images: int = 240, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(0)  # the same images for every table
    truth = np.repeat(rng.integers(0, 3, images // 2), 2)  # four classes are absent
    noise = np.random.default_rng(seed).normal(size=(images, 7))
    logits = noise + sureness * np.eye(7)[truth]
    columns = {f"logit_{code}": logits[:, c] for c, code in enumerate(ISIC2018.codes)}
    return pd.DataFrame(
        {
            "image_id": [f"p{number:03}" for number in range(images)],
            "group_id": [f"g{number // 2}" for number in range(images)],
            "diagnosis": [ISIC2018.codes[c] for c in truth],
            **columns,
            **{f"class_prior_{code}": 1 / 7 for code in ISIC2018.codes},
            **{f"class_weight_{code}": 1.0 for code in ISIC2018.codes},
        }
    )


def classification_run(
    folder: Path, data: Path, seed: int = 0, parts: Sequence[str] = ("task3",)
) -> Run:
    """Make a run of two finished folds with random out-of-fold predictions; nothing is trained."""
    recipe = Recipe.model_validate({"task": "classification", "data": {"parts": parts}})
    dataset = select_images(load(data), recipe)
    inputs = {
        "data": str(data),
        "fingerprint": dataset.fingerprint(),
        "layout": dataset.layout,
        "images": len(dataset),
        "unit": unit_of(dataset.table),
        "masks": None,
    }
    run = Run.start(folder, recipe, make_folds(dataset, k=2), inputs)
    codes, rng = dataset.taxonomy.codes, np.random.default_rng(seed)
    for fold in range(run.folds.k):
        rows = dataset.select(run.folds.held_out(fold)).table
        right = np.array([codes.index(code) for code in rows["diagnosis"]])
        logits = rng.normal(size=(len(rows), len(codes))) + 2 * np.eye(len(codes))[right]
        table = rows[["image_id", "group_id", "diagnosis"]].assign(
            **{f"logit_{code}": logits[:, c] for c, code in enumerate(codes)},
            **{f"class_prior_{code}": 1 / len(codes) for code in codes},
            **{f"class_weight_{code}": 1.0 for code in codes},
        )
        run.fold_folder(fold).mkdir()
        table.to_parquet(run.fold_folder(fold) / "oof.parquet", index=False)
        history = pd.DataFrame({"epoch": [0, 1], "train_loss": [1.5, 1.1 - 0.1 * fold]})
        history.to_csv(run.fold_folder(fold) / "history.csv", index=False)
    return run


def masks(shift: float = 0.0) -> pd.DataFrame:
    jaccard = np.clip(np.random.default_rng(1).normal(0.78, 0.08, 100) + shift, 0, 1)
    return pd.DataFrame(
        {
            "image_id": [f"p{number:03}" for number in range(100)],
            "group_id": [f"g{number // 2}" for number in range(100)],
            "jaccard": jaccard,
            **dict.fromkeys(("dice", "sensitivity", "specificity", "accuracy"), 0.9),
            "thresholded_jaccard": np.where(jaccard >= 0.65, jaccard, 0),
        }
    )


def table_of_masks(images: int = 200) -> pd.DataFrame:
    """Two images per lesion; small lesions are segmented worse, large ones touch the border."""
    rng = np.random.default_rng(0)
    area = np.repeat(rng.uniform(0.01, 0.9, images // 2), 2)
    jaccard = np.clip(rng.normal(0.5 + 0.5 * np.sqrt(area), 0.1), 0, 1)
    return pd.DataFrame(
        {
            "image_id": [f"p{n:03d}" for n in range(images)],
            "group_id": [f"g{n // 2}" for n in range(images)],
            "jaccard": jaccard,
            "thresholded_jaccard": np.where(jaccard < 0.65, 0, jaccard),
            "sensitivity": np.clip(jaccard + 0.05, 0, 1),
            **dict.fromkeys(("dice", "specificity", "accuracy"), jaccard),
            "surface_distance": (1 - jaccard) / 10,
            "hausdorff_95": (1 - jaccard) / 4,
            "lesion_area": area,
            "contrast": np.where(area < 0.03, np.nan, 30.0),
            "hair": 0.0,
            "border": np.where(area > 0.6, 0.3, 0.0),
        }
    )
