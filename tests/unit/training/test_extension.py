"""Runs that are extended: more epochs, more patience, and what a refusal names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from naevus.datasets.folds import Folds
from naevus.errors import NaevusError, RunError
from naevus.io.files import lock
from naevus.runs.recipe import Recipe, load_recipe
from naevus.runs.run import WEIGHTS, Run
from naevus.training.extension import EXTENDED, continued, extend, with_epochs

FOLDS = Folds(pd.DataFrame({"image_id": ["a", "b"], "group_id": ["a", "b"], "fold": ["0", "1"]}))
INPUTS: dict[str, Any] = {
    "data": "photographs",
    "fingerprint": "abc",
    "layout": "manifest",
    "images": 2,
    "masks": None,
}
CONSTANT = {"optimiser.schedule": "constant", "optimiser.warm_up": 0.2, "epochs": 4}


def recipe_of(settings: dict[str, Any], **changes: Any) -> Recipe:
    return load_recipe(None, "segmentation", settings | changes)


def run_of(folder: Path, recipe: Recipe) -> Run:
    return Run.start(folder, recipe, FOLDS, INPUTS)


@pytest.mark.parametrize("schedule", ["constant", "plateau"])
def test_more_epochs_keep_the_warm_up_in_epochs(schedule: str, tmp_path: Path) -> None:
    settings = CONSTANT | {"optimiser.schedule": schedule}
    run = run_of(tmp_path / "run", recipe_of(settings))
    recipe = recipe_of(settings, epochs=8)
    longer = continued(run, recipe)
    assert (longer.epochs, longer.optimiser.warm_up) == (8, 0.1)
    extend(run, longer)
    again = Run.open(run.folder)
    assert again.recipe == longer
    assert continued(again, recipe) == longer, "the same command resumes"
    assert continued(again, recipe_of(settings, epochs=16)).optimiser.warm_up == 0.05
    assert continued(again, longer) == longer, "its own recipe resumes it"
    from_its_own = with_epochs(longer, 16, longer.optimiser.warm_up)
    assert continued(again, from_its_own).optimiser.warm_up == 0.05
    for shorter in (4, 6):
        with pytest.raises(RunError) as refused:
            continued(again, recipe_of(settings, epochs=shorter))
        assert refused.value.message == (
            f"{run.folder}: contains a run with other settings: epochs is 8 there, not {shorter}"
        )


def test_a_longer_run_may_name_its_warm_up_as_the_fraction_that_it_is(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", recipe_of(CONSTANT | {"optimiser.warm_up": 0.3}))
    longer = continued(run, recipe_of(CONSTANT | {"optimiser.warm_up": 0.1}, epochs=12))
    assert longer.optimiser.warm_up == pytest.approx(0.1)


@pytest.mark.parametrize("epochs", [4, 8])
def test_another_warm_up_is_refused_by_its_name_alone(epochs: int, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", recipe_of(CONSTANT))
    asked = recipe_of(CONSTANT | {"optimiser.warm_up": 0.5}, epochs=epochs)
    with pytest.raises(RunError) as refused:
        continued(run, asked)
    assert refused.value.message.endswith(
        f"other settings: optimiser.warm_up is {recipe_of(CONSTANT).optimiser.warm_up} there, "
        "not 0.5"
    )


def test_the_end_of_early_stopping_takes_back_the_weights_that_it_chose(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", recipe_of({"epochs": 5, "early_stopping": 2}))
    assert run.recipe.select == "best"
    assert continued(run, recipe_of({"epochs": 5})).select == "last"
    assert continued(run, recipe_of({"epochs": 5, "select": "best"})).select == "best"
    with pytest.raises(RunError, match='select is "best" there, not "last"'):
        continued(run, recipe_of({"epochs": 5, "early_stopping": 3, "select": "last"}))


def test_a_cosine_is_not_extended_and_the_message_says_what_to_do(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", recipe_of({"epochs": 4}))
    with pytest.raises(RunError, match=r"epochs is 4 there, not 8.*cosine.*--init-from .*run"):
        continued(run, recipe_of({"epochs": 8}))


@pytest.mark.parametrize(
    ("now", "continues"), [(3, True), (0, True), (1, False)], ids=["more", "off", "less"]
)
def test_patience_can_grow_with_any_schedule(now: int, continues: bool, tmp_path: Path) -> None:
    settings = {"select": "best", "epochs": 5}
    run = run_of(tmp_path / "run", recipe_of(settings, early_stopping=2))
    recipe = recipe_of(settings, early_stopping=now)
    if continues:
        assert continued(run, recipe) == run.recipe.model_copy(update={"early_stopping": now})
        return
    with pytest.raises(RunError, match="early_stopping is 2 there, not 1"):
        continued(run, recipe)


@pytest.mark.parametrize("change", [{"seed": 1}, {"augment.hue": 3}, {"optimiser.clip": 0}])
def test_other_settings_are_refused_with_more_epochs_too(
    change: dict[str, Any], tmp_path: Path
) -> None:
    run = run_of(tmp_path / "run", recipe_of(CONSTANT))
    with pytest.raises(RunError, match=f"other settings: {next(iter(change))} is [^,]* there, not"):
        continued(run, recipe_of(CONSTANT | change, epochs=8))


def test_results_so_far_are_moved_and_checkpoints_stay(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", recipe_of(CONSTANT))
    folder = run.fold_folder(1)
    (folder / "bundle").mkdir(parents=True)
    for name in ("oof.parquet", WEIGHTS, "bundle/bundle.json", "checkpoint.safetensors"):
        (folder / name).write_text(name)
    assert run.finished() == [1]
    longer = continued(run, recipe_of(CONSTANT, epochs=6))
    with lock(folder / ".lock"), pytest.raises(NaevusError, match="in use by another"):
        extend(run, longer)
    assert run.finished() == [1]
    extend(run, longer)
    assert run.finished() == []
    kept = folder / "epochs-4"
    assert {path.relative_to(kept).as_posix() for path in kept.rglob("*") if path.is_file()} == {
        "oof.parquet",
        WEIGHTS,
        "bundle/bundle.json",
    }
    assert (folder / "checkpoint.safetensors").exists()
    assert (run.folder / EXTENDED).exists()
