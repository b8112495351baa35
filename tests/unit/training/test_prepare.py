"""The start of a run: what it needs before its folder is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from naevus.datasets.folds import Folds
from naevus.datasets.layouts import load
from naevus.errors import NaevusError
from naevus.runs.images import select_images
from naevus.runs.recipe import load_recipe
from naevus.runs.run import Run
from naevus.training.data import TrainingData
from naevus.training.prepare import start_run

SMALL: dict[str, Any] = {
    "sizes": [[0, 32]],
    "epochs": 1,
    "data.cache_size": 32,
    "network.pretrained": "none",
    "network.architecture": "plain-unet",
    "network.decoder": {"channels": [4, 8]},
}
FAULTS: dict[str, dict[str, Any]] = {
    "no such network": {"network.architecture": "unet", "network.encoder": "tu-resnet99"},
    "no weights": {"network.pretrained": "imagenet"},
    "wrong options": {"network.decoder": {"channels": [4]}},
    "no validation images": {"select": "best", "data.validation_fraction": 1e-9},
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_start_that_fails_writes_no_run(
    fault: dict[str, Any], synthetic_images: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(None, "segmentation", SMALL | fault)
    dataset = select_images(load(synthetic_images), recipe)
    folds = Folds(dataset.table[["image_id", "group_id"]].assign(fold="0"))
    folds.table.loc[0, "fold"] = "1"
    training_data = TrainingData(dataset, tmp_path / "cache")
    with pytest.raises(NaevusError):
        start_run(tmp_path / "run", recipe, folds, training_data, [0])
    assert not (tmp_path / "run").exists()
    good = load_recipe(None, "segmentation", SMALL)
    run = start_run(tmp_path / "run", good, folds, training_data, [0])
    assert Run.open(run.folder).recipe == good
