"""The results of a run: what its folds answered to the pictures they held out."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from naevus import __version__
from naevus.bundles.bundle import Bundle
from naevus.bundles.spec import MANIFEST
from naevus.datasets.folds import Folds
from naevus.errors import RunError
from naevus.evaluation.tables import heldout_diagnosed
from naevus.inference.classifier import Classifier
from naevus.io.files import sha256
from naevus.io.formats import read_csv, read_json
from naevus.reports.results import Count, Results, flat, in_lines, records_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from naevus.datasets.dataset import Dataset

_RUN = "name a run of train"


def of_run(folder: Path, table: pd.DataFrame, dataset: Dataset | None) -> Results:
    """Return the results of a run.

    Args:
        folder: The run's, with ``run.toml``, ``inputs.json``, ``environment.json``.
        table: Its out-of-fold table.
        dataset: Where its pictures are; None: there are no pictures to show.

    Raises:
        RunError: A file of the run cannot be read.
        DataError: The table is not one of a run.
    """
    try:
        recipe = tomllib.loads((folder / "run.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{folder}: cannot be read: {error}", "name a run of train") from error
    inputs = read_json(
        folder / "inputs.json",
        _RUN,
        members={"data": (str,), "fingerprint": (str,)},
        optional={"masks": (str, type(None)), "copies": (list, type(None))},
        error=RunError,
    )
    versions = read_json(folder / "environment.json", _RUN, error=RunError)
    dealt = Folds.read(folder / "folds.csv").table
    segmentation = "jaccard" in table.columns
    masks = folder / "masks" if segmentation else _folder(inputs.get("masks"))
    folds = sorted(table["fold"].unique())
    due = dealt[dealt["fold"].astype(str).isin(map(str, folds))]  # others are kept for testing
    silent = due.loc[~due["image_id"].isin(table["image_id"]), "image_id"]
    bundles = {fold: folder / f"fold-{fold}" / "bundle" for fold in folds}
    made = {
        "run": folder.name,
        "finished folds": ", ".join(map(str, folds)),
        "SHA-256 of ids, groups and diagnoses": inputs["fingerprint"],
        **{f"SHA-256 of {name}": sha256(folder / name) for name in ("folds.csv", "run.toml")},
        **{
            f"SHA-256 of the bundle of fold {fold}": sha256(bundle / MANIFEST)
            for fold, bundle in bundles.items()
            if (bundle / MANIFEST).exists()
        },
        "reported by": f"naevus {__version__}",
    }
    return Results(
        name=folder.name,
        unseen=True,
        diagnosed=None if segmentation else heldout_diagnosed(table),
        outlined=table if segmentation else None,
        masks=masks if masks is not None and masks.is_dir() else None,
        own_masks=masks is not None,
        records=records_of(dataset, table["image_id"], recipe.get("data", {}).get("parts")),
        history=_history(folder, folds),
        counts=(
            Count("dealt into folds, or kept for testing", len(dealt), dealt["group_id"].nunique()),
            Count("held out by finished folds", len(due), due["group_id"].nunique()),
            Count("judged", len(table), table["group_id"].nunique()),
        ),
        unanswered=pd.DataFrame({"image_id": silent, "why": "quarantined: it could not be used"}),
        facts={"Results": made, "Recipe": dict(flat(recipe)), "Versions": versions},
        command=_training(recipe["task"], inputs),
        classifier_of=_of_folds(table, {} if segmentation else bundles),
        notes=(f"{len(silent):,} held-out pictures have no answer and do not count.",)
        if len(silent)
        else (),
    )


def _of_folds(table: pd.DataFrame, bundles: Mapping[int, Path]) -> Callable[[str], Any]:
    """Return what gives the classifier of the fold that held a picture out; loaded when asked."""
    folds = dict(zip(table["image_id"], table["fold"], strict=True))

    @cache
    def of_fold(fold: int) -> Classifier | None:
        there = fold in bundles and bundles[fold].is_dir()
        return Classifier(Bundle.read(bundles[fold])) if there else None

    return lambda image_id: of_fold(folds[image_id])


def _folder(named: str | None) -> Path | None:
    return None if named is None else Path(named)


def _history(folder: Path, folds: Sequence[int]) -> pd.DataFrame | None:
    paths = {fold: folder / f"fold-{fold}" / "history.csv" for fold in folds}
    tables = [
        read_csv(path, "delete it: it is shown, and not needed", error=RunError).assign(fold=k)
        for k, path in paths.items()
        if path.exists()
    ]
    return pd.concat(tables, ignore_index=True) if tables else None


def _training(task: str, inputs: Mapping[str, Any]) -> str:
    """Return the commands that train and report the same again; folders by their last name."""
    data = Path(inputs["data"]).name
    words = ["naevus", "train", task, data, "--recipe", "run.toml", "--folds", "folds.csv"]
    if inputs.get("masks"):
        words += ["--masks", Path(inputs["masks"]).name]
    for folder in inputs.get("copies") or ():
        words += ["--copies", Path(folder).name]
    if inputs.get("warm_start"):
        words += ["--from", Path(str(inputs["warm_start"])).name]
    return in_lines([*words, "--out", "RUN"], ["naevus", "report", "RUN", "--data", data])
