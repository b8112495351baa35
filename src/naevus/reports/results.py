"""What a report is made of: answers with their truth, and what is known of how they came about."""

from __future__ import annotations

import json
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from naevus.errors import DataError, RunError
from naevus.evaluation.outoffold import probabilities, taxonomy_of
from naevus.evaluation.scoring.folders import compare_folder
from naevus.files import sha256
from naevus.inference.outfolder import SETTINGS, OutFolder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from naevus.datasets.records import Dataset
    from naevus.taxonomy import Taxonomy

Facts = dict[str, dict[str, str]]
"""Names and values by the title they stand under."""


@dataclass(frozen=True)
class Diagnosed:
    """Pictures with their true diagnosis and probabilities.

    Attributes:
        table: ``image_id, group_id, truth``; maybe ``fold`` and ``members``.
        natural: N x C.
        balanced: N x C.
        taxonomy: The C diagnoses.
    """

    table: pd.DataFrame
    natural: NDArray[np.float64]
    balanced: NDArray[np.float64]
    taxonomy: Taxonomy


@dataclass(frozen=True)
class Results:
    """The answers of a run or of a prediction.

    Attributes:
        name: Of the folder.
        unseen: Whether the pictures are known to be new to the networks: held out by a fold.
        diagnosed: What is known of diagnoses, if anything.
        outlined: ``image_id, group_id`` and the fields of `MaskScore`, if there are masks.
        masks: The folder of predicted masks, if there is one.
        records: Rows of the data set by image id; None where it is not at hand.
        history: ``fold, epoch`` and what training noted; None for predictions.
        unanswered: ``image_id, why`` of the pictures without an answer.
        facts: Configuration, versions and hashes.
        command: What makes the same again.
    """

    name: str
    unseen: bool
    diagnosed: Diagnosed | None
    outlined: pd.DataFrame | None
    masks: Path | None
    records: pd.DataFrame | None
    history: pd.DataFrame | None
    unanswered: pd.DataFrame
    facts: Facts
    command: str

    @property
    def pictures(self) -> pd.DataFrame:
        """``image_id, group_id`` of every picture with an answer that can be judged."""
        tables = [self.outlined] if self.outlined is not None else []
        if self.diagnosed is not None:
            tables.append(self.diagnosed.table)
        both = pd.concat([table[["image_id", "group_id"]] for table in tables])
        return both.drop_duplicates("image_id", ignore_index=True)


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
        inputs, versions = (
            json.loads((folder / name).read_text(encoding="utf-8"))
            for name in ("inputs.json", "environment.json")
        )
        dealt = pd.read_csv(folder / "folds.csv", dtype={"image_id": "string"})
    except (OSError, ValueError) as error:
        raise RunError(f"{folder}: cannot be read: {error}", "name a run of train") from error
    segmentation = "jaccard" in table.columns
    masks = folder / "masks"
    due = dealt.loc[dealt["fold"].isin(table["fold"].unique()), "image_id"]
    silent = due[~due.isin(table["image_id"])]
    made = {
        "run": folder.name,
        "finished folds": ", ".join(map(str, sorted(table["fold"].unique()))),
        "pictures in the data set": f"{inputs['pictures']:,}",
        "SHA-256 of ids, groups and diagnoses": inputs["fingerprint"],
        "SHA-256 of folds.csv": sha256(folder / "folds.csv"),
        "SHA-256 of run.toml": sha256(folder / "run.toml"),
    }
    return Results(
        name=folder.name,
        unseen=True,
        diagnosed=None if segmentation else _diagnosed(table),
        outlined=table if segmentation else None,
        masks=masks if masks.is_dir() else None,
        records=_records(dataset, table["image_id"], recipe.get("data", {}).get("parts")),
        history=_history(folder),
        unanswered=pd.DataFrame({"image_id": silent, "why": "quarantined: it could not be used"}),
        facts={"Results": made, "Recipe": dict(_flat(recipe)), "Versions": versions},
        command=_training(recipe["task"], inputs),
    )


def of_predictions(folder: Path, dataset: Dataset) -> Results:
    """Return the results of a prediction, judged by a data set's truth.

    Raises:
        DataError: The data set has no truth for them.
        RunError: A file of the folder cannot be read.
    """
    out = OutFolder(folder)
    try:
        table = pd.read_parquet(out.table)
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        refused = pd.read_csv(out.refused) if out.refused.exists() else pd.DataFrame()
    except (OSError, ValueError) as error:
        raise RunError(f"{folder}: cannot be read: {error}", "name what predict wrote") from error
    records = _records(dataset, table["image_id"], None)
    assert records is not None
    table = table[table["image_id"].isin(records.index)].reset_index(drop=True)
    known = records.loc[table["image_id"]].reset_index(drop=True)
    table = table.assign(truth=known["diagnosis"], group_id=known["group_id"])
    told = {name: _told(value) for name, value in settings.items()}
    unanswered = pd.DataFrame({"image_id": [], "why": []})
    if len(refused):
        unanswered = refused.rename(columns={"problem": "why"})[["image_id", "why"]]
    results = Results(
        name=folder.name,
        unseen=False,
        diagnosed=_predicted(table, dataset.taxonomy),
        outlined=_compared(table, known, out.masks),
        masks=out.masks if out.masks.is_dir() else None,
        records=records,
        history=None,
        unanswered=unanswered,
        facts={"Prediction": told, "Hashes": {"SHA-256 of the table": sha256(out.table)}},
        command=shlex.join(["naevus", "predict", "PICTURES", "--bundle", "BUNDLE", "--out", "OUT"]),
    )
    if results.diagnosed is None and results.outlined is None:
        raise DataError(
            f"{dataset.root}: has no truth for the pictures of {folder}",
            "name the data set they are from",
        )
    return results


def _diagnosed(table: pd.DataFrame) -> Diagnosed:
    taxonomy = taxonomy_of(table)
    return Diagnosed(table, *probabilities(table, taxonomy), taxonomy)


def _predicted(table: pd.DataFrame, taxonomy: Taxonomy) -> Diagnosed | None:
    columns = {kind: [f"{kind}_{code}" for code in taxonomy.codes] for kind in "pb"}
    if not set(columns["p"] + columns["b"]) <= set(table.columns):
        return None
    there = table[table["truth"].notna() & table[columns["p"][0]].notna()].reset_index(drop=True)
    if there.empty:
        return None
    natural, balanced = (there[columns[kind]].to_numpy(float) for kind in "pb")
    return Diagnosed(there, natural, balanced, taxonomy)


def _compared(table: pd.DataFrame, known: pd.DataFrame, masks: Path) -> pd.DataFrame | None:
    with_mask = known["mask_path"].notna()
    if not masks.is_dir() or not with_mask.any():
        return None
    paths = map(Path, known.loc[with_mask, "mask_path"])
    truths = dict(zip(table.loc[with_mask, "image_id"], paths, strict=True))
    return compare_folder(truths, masks).merge(table[["image_id", "group_id"]], on="image_id")


def _records(
    dataset: Dataset | None, ids: pd.Series[str], parts: list[str] | None
) -> pd.DataFrame | None:
    """Return the data set's rows of some pictures; parts name those that were trained on."""
    if dataset is None:
        return None
    if parts and set(parts) <= set(dataset.parts):
        dataset = dataset.part(*parts)
    rows = dataset.table[dataset.table["image_id"].isin(ids)]
    return rows.drop_duplicates("image_id").set_index("image_id", drop=False)


def _history(folder: Path) -> pd.DataFrame | None:
    tables = [
        pd.read_csv(path).assign(fold=int(path.parent.name.removeprefix("fold-")))
        for path in sorted(folder.glob("fold-*/history.csv"))
    ]
    return pd.concat(tables, ignore_index=True) if tables else None


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + name, _told(value)


def _told(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _training(task: str, inputs: Mapping[str, Any]) -> str:
    """Return the command that trains the same again; folders go by their last name only."""
    words = ["naevus", "train", task, Path(inputs["data"]).name, "--recipe", "run.toml"]
    words += ["--folds", "folds.csv"]
    if inputs.get("masks"):
        words += ["--masks", Path(inputs["masks"]).name]
    for folder in inputs.get("copies") or ():
        words += ["--copies", Path(folder).name]
    if inputs.get("warm_start"):
        words += ["--from", Path(str(inputs["warm_start"])).name]
    return shlex.join([*words, "--out", "RUN"])
