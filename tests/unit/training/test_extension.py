"""Runs that are extended: more epochs, more patience, and what a refusal names."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pandas as pd
import pytest

from naevus.bundles.bundle import find_bundles, runs_before
from naevus.datasets.folds import Folds
from naevus.errors import BundleError, NaevusError, RunError
from naevus.io.files import lock
from naevus.io.progress import SilentReporter
from naevus.runs.recipe import Recipe, load_recipe
from naevus.runs.run import WEIGHTS, Run, open_run
from naevus.training import extension
from naevus.training.callbacks import METRICS
from naevus.training.extension import EXTENDED, continued, extend, with_epochs
from naevus.training.loop import CHECKPOINT

FOLDS = Folds(pd.DataFrame({"image_id": ["a", "b"], "group_id": ["a", "b"], "fold": ["0", "1"]}))
INPUTS: dict[str, Any] = {
    "data": "photographs",
    "fingerprint": "abc",
    "layout": "manifest",
    "images": 2,
    "masks": None,
}
CONSTANT = {"optimiser.schedule": "constant", "optimiser.warm_up": 0.2, "epochs": 4}


class Notes(SilentReporter):
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str, label: str = "") -> None:
        self.lines.append(f"{label}: {text}")

    def warning(self, text: str, label: str = "note") -> None:
        self.lines.append(f"{label}: {text}")


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


def results(folder: Path, fold: int, text: str) -> None:
    """Write the files of a finished fold, and of its training."""
    place = folder / f"fold-{fold}"
    (place / "bundle").mkdir(parents=True, exist_ok=True)
    for name in (*RESULTS, CHECKPOINT, METRICS, "history.csv"):
        (place / name).write_text(f"{text}, {name}")


RESULTS = ("oof.parquet", WEIGHTS, "bundle/bundle.json")


def test_the_run_so_far_becomes_a_run_and_checkpoints_stay(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", recipe_of(CONSTANT))
    (run.folder / "oof.parquet").write_text("joined")
    for fold in (0, 1):
        results(run.folder, fold, "4 epochs")
    folder = run.fold_folder(1)
    longer = continued(run, recipe_of(CONSTANT, epochs=6))
    with lock(folder / ".lock"), pytest.raises(NaevusError, match="in use by another"):
        extend(run, longer)
    assert run.finished() == [0, 1]
    notes = Notes()
    extend(run, longer, notes)
    assert notes.lines == [
        f"extended: 4 epochs become 6; the run so far is in {run.folder / 'epochs-4'}"
    ]
    assert run.finished() == []
    assert not [name for name in (*RESULTS, "bundle") if (folder / name).exists()]
    assert (folder / CHECKPOINT).exists()
    assert (run.folder / EXTENDED).exists()
    assert not (run.folder / "oof.parquet").exists()
    (kept,) = runs_before(run.folder)
    before = Run.open(kept)
    assert before.recipe == run.recipe
    assert before.folds.sha256 == run.folds.sha256
    assert before.finished() == [0, 1]
    assert (kept / "oof.parquet").read_text() == "joined"
    for name in (*RESULTS, "history.csv"):
        assert (before.fold_folder(1) / name).read_text() == f"4 epochs, {name}"
    for name in (CHECKPOINT, METRICS):
        assert not (before.fold_folder(1) / name).exists()


def test_an_interrupted_extension_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it was interrupted before or after results were removed."""
    for number, name in enumerate(("link_fold", "write_json", "write_text")):
        run = run_of(tmp_path / f"{number}", recipe_of(CONSTANT))
        for fold in (0, 1):
            results(run.folder, fold, "4 epochs")
        longer = continued(run, recipe_of(CONSTANT, epochs=6))
        with monkeypatch.context() as patched:
            patched.setattr(extension, name, Mock(side_effect=KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                extend(run, longer)
        again = Run.open(run.folder)
        extend(again, continued(again, recipe_of(CONSTANT, epochs=6)))
        (kept,) = runs_before(run.folder)
        assert Run.open(kept).finished() == [0, 1]
        assert Run.open(run.folder).recipe == longer


def test_each_extension_keeps_another_run(tmp_path: Path) -> None:
    patient = {"select": "best", "epochs": 4, "optimiser.schedule": "constant"}
    run = run_of(tmp_path / "run", recipe_of(patient, early_stopping=1))
    steps = [{"early_stopping": 2}, {"early_stopping": 3}, {"early_stopping": 3, "epochs": 10}]
    for number, changes in enumerate(steps):
        results(run.folder, 0, f"{number}")
        extend(run, continued(run, recipe_of(patient | changes)))
        run = Run.open(run.folder)
    results(run.folder, 0, "last")
    longest = continued(run, recipe_of(patient | steps[-1] | {"epochs": 12}))
    extend(run, longest)
    (run.folder / "epochs-12-again").mkdir()  # where `naevus reproduce` writes to
    (run.folder / "epochs-12-again" / "run.toml").touch()
    assert [each.name for each in runs_before(run.folder)] == [
        "epochs-4",
        "epochs-4-2",
        "epochs-4-3",
        "epochs-10",
    ]
    texts = [(each / "fold-0" / WEIGHTS).read_text() for each in runs_before(run.folder)]
    assert [text.partition(",")[0] for text in texts] == ["0", "1", "2", "last"]


def test_nothing_is_kept_of_a_run_without_a_finished_fold(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", recipe_of(CONSTANT))
    notes = Notes()
    extend(run, continued(run, recipe_of(CONSTANT, epochs=6)), notes)
    assert notes.lines == ["extended: 4 epochs become 6"]
    assert runs_before(run.folder) == []


def test_messages_name_the_run_before_it_was_extended(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", recipe_of(CONSTANT))
    for fold in (0, 1):
        results(run.folder, fold, "4 epochs")
    extend(run, continued(run, recipe_of(CONSTANT, epochs=6)))
    kept = run.folder / "epochs-4"
    with pytest.raises(RunError, match=f"or name {kept}, the run before"):
        run.predictions()
    with pytest.raises(BundleError, match=f"; name {kept}, the run before"):
        find_bundles([run.folder])
    notes = Notes()
    open_run(run.folder, allow_missing=False, reporter=notes)
    assert notes.lines == [], "the error says it"
    results(run.folder, 1, "6 epochs")
    open_run(run.folder, allow_missing=False, reporter=notes)
    assert notes.lines == [f"note: {run.folder}: fold 0 is not trained again yet; {kept} has it"]
