"""Finished runs without training: small networks with random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from naevus.datasets.folds import make_folds
from naevus.datasets.layouts import load
from naevus.runs.images import select_images
from naevus.runs.recipe import Recipe
from naevus.runs.run import WEIGHTS, Run
from naevus.taxonomy import ISIC2018
from naevus.training.loop import save_tensors
from naevus.training.networks import Preprocessed, build_classifier, build_segmenter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from naevus.datasets.dataset import Dataset

CLASS_PRIORS = (0.11, 0.67, 0.05, 0.03, 0.11, 0.01, 0.02)
WEIGHTS_OF_CLASSES = (1.2, 0.5, 2.0, 2.4, 1.2, 4.0, 3.5)
SETTINGS: dict[str, dict[str, Any]] = {
    "segmentation": {
        "task": "segmentation",
        "sizes": [[0, 32]],
        "data": {"parts": ["task1"], "cache_size": 40},
        "network": {
            "pretrained": "none",
            "architecture": "plain-unet",
            "decoder": {"channels": [4, 8]},
        },
    },
    "classification": {
        "task": "classification",
        "sizes": [[0, 32]],
        "data": {"parts": ["task3"], "cache_size": 40},
        "network": {"pretrained": "none", "backbone": "test_resnet"},
    },
}


def network_of(recipe: Recipe) -> Preprocessed:
    """Build a recipe's network, with new random weights each time."""
    settings = recipe.network
    if recipe.task == "segmentation":
        return Preprocessed(build_segmenter("plain-unet", "", "none", settings.decoder))
    return Preprocessed(build_classifier(settings.backbone, weights="none"))


def finished_run(
    folder: Path, task: str, root: Path, folds: Sequence[int] = (0,), **changed: Any
) -> Run:
    """Make a run with some finished folds; ``changed`` are settings of the recipe."""
    recipe = Recipe.model_validate(SETTINGS[task] | changed)
    dataset = select_images(load(root), recipe)
    inputs = {
        "data": str(root),
        "layout": dataset.layout,
        "images": len(dataset),
        "fingerprint": dataset.fingerprint(),
        "masks": None,
        "copies": [],
        "init_from": None,
    }
    run = Run.start(folder, recipe, make_folds(dataset, k=3), inputs)
    for fold in folds:
        save_tensors(run.fold_folder(fold) / WEIGHTS, network_of(recipe).state_dict(), {})
        _oof(run, fold, dataset)
    return run


def _oof(run: Run, fold: int, dataset: Dataset) -> None:
    """Write random predictions, with a seed, that are mostly correct."""
    rows = dataset.table.set_index("image_id").loc[run.folds.held_out(fold)]
    table = pd.DataFrame({"image_id": rows.index.astype("string")})
    rng = np.random.default_rng(fold)
    if run.recipe.task == "classification":
        truth = rows["diagnosis"].tolist()
        logits = rng.normal(size=(len(rows), len(ISIC2018.codes)))
        logits[np.arange(len(rows)), [ISIC2018.index(code) for code in truth]] += 2
        for place, code in enumerate(ISIC2018.codes):
            table[f"logit_{code}"] = logits[:, place].astype(np.float32)
            table[f"class_prior_{code}"] = CLASS_PRIORS[place]
            table[f"class_weight_{code}"] = WEIGHTS_OF_CLASSES[place]
        table["diagnosis"] = pd.Series(truth, dtype="string")
    else:
        jaccard = rng.uniform(0.5, 1, len(rows))
        table["jaccard"], table["thresholded_jaccard"] = (
            jaccard,
            np.where(jaccard < 0.65, 0, jaccard),
        )
        for name in ("dice", "sensitivity", "specificity", "accuracy"):
            table[name] = 1.0
    groups = run.folds.table.set_index("image_id")["group_id"]
    table["group_id"] = table["image_id"].map(groups)
    table.to_parquet(run.fold_folder(fold) / "oof.parquet", index=False)
    torch.manual_seed(fold)
