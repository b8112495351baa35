"""Runs whose folds count as finished, made without training: random weights, small networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from naevus.datasets.folds import make_folds
from naevus.datasets.layouts import load
from naevus.taxonomy import ISIC2018
from naevus.training.checkpoint import save_tensors
from naevus.training.config import TrainConfig
from naevus.training.job import WEIGHTS
from naevus.training.networks import Preprocessed, build_classifier, build_segmenter
from naevus.training.run import Run
from naevus.training.selection import select_pictures

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SHARES = (0.11, 0.67, 0.05, 0.03, 0.11, 0.01, 0.02)
WEIGHTS_OF_CLASSES = (1.2, 0.5, 2.0, 2.4, 1.2, 4.0, 3.5)
SETTINGS: dict[str, dict[str, Any]] = {
    "segmentation": {
        "task": "segmentation",
        "sizes": [[0, 32]],
        "data": {"parts": ["task1"], "cache_size": 40},
        "network": {
            "weights": "none",
            "architecture": "plain-unet",
            "decoder": {"channels": [4, 8]},
        },
    },
    "classification": {
        "task": "classification",
        "sizes": [[0, 32]],
        "data": {"parts": ["task3"], "cache_size": 40},
        "network": {"weights": "none", "backbone": "test_resnet"},
    },
}


def network_of(config: TrainConfig) -> Preprocessed:
    """Build a recipe's network, with other random weights each time."""
    settings = config.network
    if config.task == "segmentation":
        return Preprocessed(build_segmenter("plain-unet", "", "none", settings.decoder))
    return Preprocessed(build_classifier(settings.backbone, weights="none"))


def finished_run(
    folder: Path, task: str, root: Path, folds: Sequence[int] = (0,), **changed: Any
) -> Run:
    """Make a run with some finished folds; ``changed`` are settings of the recipe."""
    config = TrainConfig.model_validate(SETTINGS[task] | changed)
    dataset = select_pictures(load(root), config)
    inputs = {
        "data": str(root),
        "layout": dataset.layout,
        "pictures": len(dataset),
        "fingerprint": dataset.fingerprint(),
        "masks": None,
        "copies": [],
        "warm_start": None,
    }
    run = Run.start(folder, config, make_folds(dataset, k=3), inputs)
    for fold in folds:
        save_tensors(run.fold_folder(fold) / WEIGHTS, network_of(config).state_dict(), {})
        _heldout(run, fold)
    return run


def _heldout(run: Run, fold: int) -> None:
    table = pd.DataFrame({"image_id": run.folds.held_out(fold)})
    if run.config.task == "classification":
        for code, share, weight in zip(ISIC2018.codes, SHARES, WEIGHTS_OF_CLASSES, strict=True):
            table[f"logit_{code}"] = 0.0
            table[f"share_{code}"] = share
            table[f"weight_{code}"] = weight
    table.to_parquet(run.fold_folder(fold) / "heldout.parquet", index=False)
    torch.manual_seed(fold)
