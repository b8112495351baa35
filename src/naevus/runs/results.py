"""Results: predictions of a run or a folder, joined with the ground truth."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from naevus import __version__
from naevus.bundles.spec import MANIFEST
from naevus.datasets.dataset import ATTRIBUTE_COLUMNS, unit_of
from naevus.datasets.folds import Folds
from naevus.datasets.layouts import load, report_types
from naevus.datasets.sources import mask_file
from naevus.errors import DataError, RunError
from naevus.evaluation.attributes import is_attributes_table
from naevus.evaluation.labelled import evaluated, oof_classified, with_truth
from naevus.evaluation.out_of_fold import combined, taxonomy_of
from naevus.io.files import sha256, stored
from naevus.io.formats import read_json
from naevus.io.progress import SILENT
from naevus.io.settings import read_toml
from naevus.runs.manifest import prediction_command, training_command, trial_notes
from naevus.runs.owners import OWNERS, with_owners
from naevus.runs.prediction_tables import Conditions, read_predictions
from naevus.runs.predictions import SETTINGS, PredictionsFolder
from naevus.runs.run import Run, lesions_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from naevus.datasets.dataset import Dataset
    from naevus.evaluation.labelled import LabelledPredictions
    from naevus.io.progress import Reporter
    from naevus.types import Unit

Facts = dict[str, dict[str, str]]
"""Names and values, by the title of their table."""

_RUN = "name a run of train"
_ONE_RUN = "only classification runs can be evaluated together"


class Count(NamedTuple):
    """A number of images, and of groups if known."""

    what: str
    images: int
    groups: int | None = None


def _nothing() -> pd.DataFrame:
    return pd.DataFrame({"image_id": [], "why": []})


@dataclass(frozen=True)
class Results:
    """The predictions of a run or a folder, joined with the ground truth by id.

    Attributes:
        name: Name of the folder or the ensemble.
        out_of_fold: Whether the predictions are out-of-fold.
        labelled: Images with diagnosis and probabilities, if there are any.
        mask_scores: ``image_id, group_id`` and the fields of `MaskScore`, if there are masks.
        attribute_counts: Table for `AttributesEvaluation.of`, if there are attribute masks.
        mask_folder: The folder of predicted masks, if there is one.
        attribute_folder: The folder of predicted attribute masks, if there is one.
        own_masks: Whether the classifier got these masks instead of the data set's.
        records: Rows of the data set by image id; None without a data set.
        history: ``fold, epoch`` and the training log; None for predictions.
        counts: Numbers of images, from all to those that are evaluated.
        unanswered: ``image_id, why`` of the images without a prediction.
        facts: Configuration, versions and hashes.
        command: The commands that reproduce the results.
        fold_bundles: Bundle folder of each fold of a classification run.
        classified_with: Settings of the predictions: ``bundles`` (SHA-256), ``tta``.
        notes: Sentences about excluded images.
        unit: What the groups are.
    """

    name: str
    out_of_fold: bool
    labelled: LabelledPredictions | None
    mask_scores: pd.DataFrame | None
    attribute_counts: pd.DataFrame | None = None
    mask_folder: Path | None = None
    attribute_folder: Path | None = None
    own_masks: bool = False
    records: pd.DataFrame | None = None
    history: pd.DataFrame | None = None
    counts: tuple[Count, ...] = ()
    unanswered: pd.DataFrame = field(default_factory=_nothing)
    facts: Facts = field(default_factory=dict)
    command: str = ""
    fold_bundles: Mapping[int, Path] = field(default_factory=dict)
    classified_with: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    unit: Unit = "lesion"

    @property
    def images(self) -> pd.DataFrame:
        """``image_id, group_id`` of every image that can be evaluated."""
        given = (self.mask_scores, self.attribute_counts)
        tables = [table for table in given if table is not None]
        if self.labelled is not None:
            tables.append(self.labelled.table)
        both = pd.concat([table[["image_id", "group_id"]] for table in tables])
        return both.drop_duplicates("image_id", ignore_index=True)

    def predicted_mask(self, image_id: str) -> Path | None:
        """Return the file of an image's predicted mask, if there is one."""
        file = self.mask_folder and stored(mask_file(self.mask_folder, image_id), image_id)
        return file if file and file.exists() else None


# Results of runs: out-of-fold predictions.


def results_of_tables(
    name: str,
    tables: Sequence[pd.DataFrame],
    runs: Sequence[str] = (),
    *,
    allow_missing: bool = False,
) -> Results:
    """Return the results of out-of-fold tables; several tables count as one ensemble.

    Args:
        name: Name of the results.
        tables: Of one run, or of several classification runs over the same folds.
        runs: Names of the runs in error messages.
        allow_missing: Whether to leave out images that are not in all tables.

    Raises:
        DataError: A table is not out-of-fold, or several are not of classifiers or disagree.
    """
    if any(map(is_attributes_table, tables)):
        if len(tables) > 1:
            raise DataError(_ONE_RUN, "name one run")
        return Results(
            name, out_of_fold=True, labelled=None, mask_scores=None, attribute_counts=tables[0]
        )
    if any("jaccard" in table.columns for table in tables):
        if len(tables) > 1:
            raise DataError(_ONE_RUN, "name one run")
        return Results(name, out_of_fold=True, labelled=None, mask_scores=tables[0])
    table = combined(tables, taxonomy_of(tables[0]), runs, allow_missing=allow_missing)
    every = {image_id for each in tables for image_id in each["image_id"]}
    lacking = len(every) - len(table)
    notes = (f"{lacking:,} images are not in all runs: left out",) if lacking else ()
    labelled = oof_classified(table)
    return Results(name, out_of_fold=True, labelled=labelled, mask_scores=None, notes=notes)


def with_lesion_masks(results: Results, run: Run) -> Results:
    """Add the scores of an attribute run's lesion masks to its results."""
    if results.attribute_counts is None:
        return results
    return replace(results, mask_scores=lesions_of(run))


def with_dataset(
    results: Results, dataset: Dataset | None, parts: list[str] | None = None
) -> Results:
    """Add what a data set knows of the images: lesions, groups, and attributes for subgroups.

    Args:
        results: Those of a run, or of tables.
        dataset: None: it is not at hand, and groups are what the run recorded.
        parts: Only these parts of it; None: all.

    Raises:
        DataError: The data set has none of the images.
    """
    if dataset is None:
        return results
    images = results.images
    records = _records(dataset, images["image_id"], parts)
    if records.empty:
        raise DataError(f"{dataset.root}: has none of these images", "name the data set of the run")
    owned = images.assign(patient_id=images["image_id"].map(records["patient_id"]))
    results = replace(results, unit=unit_of(owned), records=records)
    if results.labelled is None:
        return results
    table = results.labelled.table
    table = table.assign(lesion_id=table["image_id"].map(records["lesion_id"]))
    return replace(results, labelled=results.labelled._replace(table=table))


def results_of_run(folder: Path, table: pd.DataFrame, dataset: Dataset | None) -> Results:
    """Return the results of a run with its settings, versions and training history.

    Args:
        folder: The run's folder, with ``run.toml``, ``inputs.json``, ``environment.json``.
        table: Its out-of-fold table.
        dataset: The data set; without one there are no images to show, and no subgroups.

    Raises:
        RunError: A file of the run cannot be read.
        DataError: The table is not an out-of-fold table.
    """
    try:
        recipe = read_toml(folder / "run.toml")
    except (OSError, ValueError) as error:
        raise RunError(f"{folder}: cannot be read: {error}", _RUN) from error
    inputs = read_json(
        folder / "inputs.json",
        _RUN,
        members={"data": (str,), "fingerprint": (str,)},
        optional={"masks": (str, type(None)), "copies": (list, type(None))},
        error=RunError,
    )
    versions = read_json(folder / "environment.json", _RUN, error=RunError)
    found = results_of_tables(folder.name, [table])
    segmentation = found.labelled is None
    run = Run.open(folder, allow_missing=True)
    found = replace(with_lesion_masks(found, run), unit=run.unit)
    found = with_dataset(found, dataset, recipe.get("data", {}).get("parts"))
    given = inputs.get("masks")
    masks = folder / "masks" if segmentation else given and Path(given)
    split = Folds.read(folder / "folds.csv").table
    folds = sorted(table["fold"].unique())
    due = split[split["fold"].astype(str).isin(map(str, folds))]  # others are kept for testing
    silent = due.loc[~due["image_id"].isin(table["image_id"]), "image_id"]
    bundles = {fold: folder / f"fold-{fold}" / "bundle" for fold in folds}
    return replace(
        found,
        mask_folder=masks if masks is not None and masks.is_dir() else None,
        own_masks=masks is not None,
        history=run.history(folds),
        counts=(
            Count(
                "assigned to folds, or kept for testing", len(split), split["group_id"].nunique()
            ),
            Count("held out by finished folds", len(due), due["group_id"].nunique()),
            Count("evaluated", len(table), table["group_id"].nunique()),
        ),
        unanswered=pd.DataFrame({"image_id": silent, "why": "failed: it could not be used"}),
        facts={
            "Results": _made(folder, bundles, inputs["fingerprint"]),
            "Recipe": dict(_flat(recipe)),
            "Versions": versions,
        },
        command=training_command(recipe["task"], inputs),
        fold_bundles={} if segmentation else bundles,
        notes=(
            *(
                [f"{len(silent):,} held-out images have no prediction and are left out."]
                if len(silent)
                else []
            ),
            *trial_notes([run]),
        ),
    )


def _made(folder: Path, bundles: Mapping[int, Path], fingerprint: str) -> dict[str, str]:
    manifests = {fold: bundle / MANIFEST for fold, bundle in bundles.items()}
    return {
        "run": folder.name,
        "finished folds": ", ".join(map(str, bundles)),
        "SHA-256 of ids, groups and diagnoses": fingerprint,
        **{f"SHA-256 of {name}": sha256(folder / name) for name in ("folds.csv", "run.toml")},
        **{
            f"SHA-256 of the bundle of fold {fold}": sha256(manifest)
            for fold, manifest in manifests.items()
            if manifest.exists()
        },
        "reported by": f"naevus {__version__}",
    }


# Results of a predictions folder, with the ground truth of a data set.


def ground_truth(
    folder: Path,
    data: Path | None,
    taxonomy: str = "auto",
    image_type: str = "auto",
    *,
    part: str | None = None,
    split: str | None = None,
    reporter: Reporter = SILENT,
) -> Dataset:
    """Return the data set with the ground truth of predictions, or a part of it.

    Args:
        folder: The predictions, for the message.
        data: The data set's folder.
        taxonomy: The taxonomy of its diagnoses (`naevus.taxonomy`), or ``auto``.
        image_type: The type of images to evaluate, or ``auto``.
        part: Only this part of the data set.
        split: Only this split of the data set.
        reporter: Receives notes on excluded images.

    Raises:
        DataError: No data set is given, it cannot be read, or has no such part or split.
    """
    if data is None:
        raise DataError(f"{folder}: needs ground truth", "name its data set with --data")
    named = load(data, taxonomy=None if taxonomy == "auto" else taxonomy)
    report_types(named, image_type, reporter)
    dataset = named.of_type(image_type)
    if part is not None:
        dataset = dataset.part(part)
    if split is not None:
        dataset = dataset.split(split)
    return dataset


def results_of_predictions(
    folder: Path,
    dataset: Dataset,
    benign: Sequence[str] = (),
    *,
    allow_missing: bool = False,
) -> Results:
    """Return the results of a predictions folder with the ground truth of a data set.

    Lesions and patients that the data set does not know are those of the predictions.

    Args:
        folder: The predictions folder.
        dataset: The data set with the ground truth.
        benign: Classes that count as benign when diagnoses are merged into two.
        allow_missing: Whether images may lack a prediction or a ground truth.

    Raises:
        DataError: The data set has no ground truth for them, or lacks some without permission.
        RunError: A file of the folder cannot be read.
    """
    out = PredictionsFolder(folder)
    predictions = read_predictions(out.table)
    _check_labelled(dataset)
    settings = _settings(folder)
    joined = with_truth(
        predictions, dataset.table, allow_missing=allow_missing, name=str(out.table)
    )
    owned = with_owners(joined.table, predictions)
    table = owned.table
    coverage = out.coverage()
    there = evaluated(table, dataset.taxonomy, out.masks, benign, out.attributes, coverage)
    absent = [name for each in joined.left_out if each.without_prediction for name in each.ids]
    why = {**dict.fromkeys(absent, "it was not predicted"), **out.problems()}
    folded = there.classified.folded if there.classified else ""
    results = Results(
        name=folder.name,
        out_of_fold=False,
        labelled=there.classified,
        mask_scores=there.segmented,
        attribute_counts=there.attributes,
        mask_folder=out.masks if out.masks.is_dir() else None,
        attribute_folder=out.attributes if out.attributes.is_dir() else None,
        own_masks=True,
        records=_records_of(dataset, table),
        counts=(
            Count("predicted", len(predictions)),
            *(Count(f"left out: {each.what}", len(each.ids)) for each in joined.left_out),
            Count("known to the data set", len(table), table["group_id"].nunique()),
        ),
        unanswered=pd.DataFrame({"image_id": list(why), "why": list(why.values())}),
        facts={
            "Prediction": dict(_flat(settings)),
            "Hashes": {
                "SHA-256 of the table": sha256(out.table),
                "reported by": f"naevus {__version__}",
            },
        },
        command=prediction_command(settings, dataset, lesions="lesion_id" in owned.used),
        classified_with=settings.get("classifier") or {},
        unit=unit_of(table),
        notes=(
            *joined.notes(),
            *owned.notes,
            *there.notes(table),
            *([f"diagnoses: {folded}"] if folded else []),
            *filter(None, Conditions.of(settings, out.table)[:2] if there.classified else ()),
            *([] if settings else [f"{SETTINGS} is absent: settings are unknown"]),
        ),
    )
    count = Count("evaluated", len(results.images), results.images["group_id"].nunique())
    return replace(results, counts=(*results.counts, count))


def _check_labelled(dataset: Dataset) -> None:
    """Check that there is anything to score predictions against.

    Raises:
        DataError: No image has a diagnosis or a mask.
    """
    truth = ["diagnosis", "mask_path", *ATTRIBUTE_COLUMNS.values()]
    if dataset.table[truth].isna().all(axis=None):
        raise DataError(
            f"{dataset.root}: has no diagnoses and no masks, so nothing can be scored",
            "add a table with a column diagnosis, or a folder masks; without --data, naevus report "
            "shows the predictions without scores",
        )


def _settings(folder: Path) -> dict[str, Any]:
    if not (folder / SETTINGS).exists():
        return {}
    part = (dict, type(None))
    settings: dict[str, Any] = read_json(
        folder / SETTINGS,
        "predict again into another folder",
        optional={"segmenter": part, "classifier": part},
        error=RunError,
    )
    return settings


def _records(dataset: Dataset, ids: pd.Series[str], parts: list[str] | None = None) -> pd.DataFrame:
    """Return the data set's rows of some images, by image id.

    Args:
        dataset: The data set.
        ids: The images.
        parts: Only these parts; None: all. For an image in several parts, each column has its
            first known value.
    """
    if parts and set(parts) <= set(dataset.parts):
        dataset = dataset.part(*parts)
    rows = dataset.table[dataset.table["image_id"].isin(ids)]
    return rows.groupby("image_id").first()


def _records_of(dataset: Dataset, table: pd.DataFrame) -> pd.DataFrame:
    """Return the data set's rows of predicted images, with their lesions and patients."""
    records = _records(dataset, table["image_id"])
    known = table.set_index("image_id").reindex(records.index)
    return records.assign(**{column: known[column] for column in OWNERS})


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Yield the settings of nested tables with dotted names."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + name, value if isinstance(value, str) else json.dumps(value)
