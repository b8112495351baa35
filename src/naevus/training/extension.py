"""Extend a run: more epochs or more patience than it was started with."""

from __future__ import annotations

import math
import shutil
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain, count
from typing import TYPE_CHECKING, Final

from naevus.errors import RunError
from naevus.io.files import link, write_json, write_text
from naevus.io.formats import read_json
from naevus.io.progress import SILENT
from naevus.runs.gather import OF_RUN, link_fold
from naevus.runs.recipe import to_toml
from naevus.runs.run import WEIGHTS, Run, held
from naevus.training.callbacks import METRICS
from naevus.training.loop import BEST, CHECKPOINT

if TYPE_CHECKING:
    from pathlib import Path

    from naevus.io.progress import Reporter
    from naevus.runs.recipe import Recipe

EXTENDED: Final = "extended.json"
"""The file with the epochs and the warm-up that an extended run started with."""

_GOES_ON: Final = (CHECKPOINT, BEST, METRICS)
"""The files of a fold that more epochs continue."""
_BEGUN: Final = {"epochs": (int,), "warm_up": (float, int)}


def continued(there: Run, recipe: Recipe) -> Recipe:
    """Return the recipe with which a run continues, if more epochs or patience are asked for.

    A run is extended only if its epochs so far are those that the longer run would have had. The
    warm-up keeps its length in epochs: as a fraction of more epochs it becomes smaller, although
    nobody has changed it. ``epochs`` can grow unless the learning rate follows a cosine, which
    ends at 0. ``early_stopping`` can grow, or end with 0; ``select``, whose default depends on it,
    may then be ``last``.

    Args:
        there: The run.
        recipe: The recipe that is asked for: with the warm-up of the first or of the last start.

    Raises:
        RunError: Other settings differ, or the schedule does not allow it.
    """
    ours, begun, epochs = there.recipe, _begun(there), recipe.epochs
    asked, started = recipe.optimiser.warm_up, begun.optimiser.warm_up
    grown = max(epochs, begun.epochs)
    warm_up = started * begun.epochs / grown
    if asked in (started, ours.optimiser.warm_up) or math.isclose(asked, warm_up):
        recipe = with_epochs(recipe, epochs, warm_up)
    update: dict[str, object] = {}
    patience = recipe.early_stopping
    if ours.early_stopping and (patience == 0 or patience > ours.early_stopping):
        update["early_stopping"] = patience
        if patience == 0 and recipe.select == "last":
            update["select"] = "last"
    longer = with_epochs(ours, max(epochs, ours.epochs), warm_up).model_copy(update=update)
    if longer.fingerprint() != recipe.fingerprint():
        # What may change, and the warm-up that nobody has changed, are not named.
        changed = recipe.optimiser.warm_up != warm_up
        named = with_epochs(longer, longer.epochs, ours.optimiser.warm_up if changed else warm_up)
        replace(there, recipe=named).refuse_other(recipe, there.folds, there.inputs)
    if epochs > ours.epochs and recipe.optimiser.schedule == "cosine":
        raise RunError(
            f"{there.folder}: epochs is {ours.epochs} there, not {epochs}, and its cosine "
            "schedule has ended the learning rate at 0 after those",
            f"continue from its weights in another folder with --init-from {there.folder}; only "
            "runs with optimiser.schedule = constant or plateau can be extended",
        )
    return recipe


def _begun(there: Run) -> Recipe:
    """Return a run's recipe with the epochs and the warm-up that it was started with."""
    path = there.folder / EXTENDED
    if not path.exists():
        return there.recipe
    first = read_json(path, "train into another folder", members=_BEGUN, error=RunError)
    return with_epochs(there.recipe, first["epochs"], first["warm_up"])


def with_epochs(recipe: Recipe, epochs: int, warm_up: float) -> Recipe:
    """Return a recipe with other epochs, and a warm-up that is another fraction of them."""
    optimiser = recipe.optimiser.model_copy(update={"warm_up": warm_up})
    return recipe.model_copy(update={"epochs": epochs, "optimiser": optimiser})


def extend(there: Run, recipe: Recipe, reporter: Reporter = SILENT) -> None:
    """Prepare a run for more epochs: its finished folds become unfinished.

    They become a run of their own, ``epochs-N``, and their checkpoints stay. The run's folder must
    be locked.

    Args:
        there: The run as it is.
        recipe: The recipe with which it continues, from `continued`.
        reporter: Receives a message.

    Raises:
        NaevusError: Another process trains a fold of the run.
    """
    before = there.recipe
    with ExitStack() as stack:
        folders = [path for k in range(there.folds.k) if (path := there.fold_folder(k)).is_dir()]
        for folder in folders:
            stack.enter_context(held(folder))
        kept = _keep(there) if there.finished() else None
        (there.folder / "oof.parquet").unlink(missing_ok=True)
        for folder in folders:
            for name in ("oof.parquet", "lesions.parquet", WEIGHTS):
                (folder / name).unlink(missing_ok=True)
            shutil.rmtree(folder / "bundle", ignore_errors=True)
        if not (there.folder / EXTENDED).exists():
            first = {"epochs": before.epochs, "warm_up": before.optimiser.warm_up}
            write_json(there.folder / EXTENDED, first)
        write_text(there.folder / "run.toml", to_toml(recipe))
    what = f"{before.epochs} epochs become {recipe.epochs}"
    if recipe.epochs == before.epochs:
        what = f"early_stopping {before.early_stopping} becomes {recipe.early_stopping}"
    reporter.message(what if kept is None else f"{what}; the run so far is in {kept}", "extended")


def _keep(run: Run) -> Path:
    """Make a run of the finished folds, which can be used until they are trained again."""
    kept = _place(run)
    for name in (*OF_RUN, "oof.parquet"):
        if (run.folder / name).exists():
            link(run.folder / name, kept / name)
    for fold in run.finished():
        shutil.rmtree(kept / run.fold_folder(fold).name, ignore_errors=True)
        link_fold(run, fold, kept, without=_GOES_ON)
    return kept


def _place(run: Run) -> Path:
    """Return the folder of the run so far, or of what an interrupted extension has kept of it."""
    first = run.folder / f"epochs-{run.recipe.epochs}"
    places = chain([first], (first.with_name(f"{first.name}-{number}") for number in count(2)))
    return next(
        place
        for place in places
        if not (place / "run.toml").exists() or Run.open(place).recipe == run.recipe
    )
