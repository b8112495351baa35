"""Three seeds of one fold share their initialisation, and can be averaged into one network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from naevus.export.export import Checked, ExportCallbacks, ExportOptions, export_runs
from naevus.runs.recipe import Recipe
from naevus.training.augment import rng_for
from naevus.training.data import order
from tests.helpers.finished_runs import finished_run

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SEEDS = (2018, 1, 2)


def test_seeds_change_order_and_augmentation() -> None:
    orders, chances = set(), set()
    for seed in SEEDS:
        recipe = Recipe(task="classification", seed=seed)
        orders.add(order(recipe, 0, 50, np.full(50, 0.02)).tobytes())
        chances.add(rng_for(seed, 0, "ISIC_0000001").random())
    assert len(orders) == len(chances) == len(SEEDS)


def test_they_are_averaged_into_one_that_never_saw_the_fold(
    synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    runs = [
        finished_run(tmp_path / f"seed-{seed}", "classification", synthetic, (0,), seed=seed)
        for seed in SEEDS
    ]
    reported: list[Checked] = []
    options = ExportOptions(folds=(0,), checked=6, average=True)
    bundle = export_runs(runs, tmp_path / "mean", options, ExportCallbacks(reported.append))
    assert [member.folds for member in bundle.spec.members] == [(0,)]
    assert [(each.origin, each.held_out) for each in reported] == [
        ("seed-2018 fold 0 + seed-1 fold 0 + seed-2 fold 0", True)
    ]
