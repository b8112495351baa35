"""Evaluate runs, tables of predictions, and folders of predictions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naevus.datasets.masksurvey import check_areas
from naevus.errors import ConfigError, DataError
from naevus.evaluation.evaluate import evaluate
from naevus.evaluation.subgroups import attributes_of
from naevus.io.progress import SILENT, warn_all
from naevus.runs.comparison import read_out_of_fold, unit_of_results
from naevus.runs.images import dataset_of
from naevus.runs.manifest import trial_notes
from naevus.runs.predictions import is_run
from naevus.runs.run import Run, open_runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from naevus.datasets.dataset import Dataset
    from naevus.evaluation.evaluate import Evaluation
    from naevus.io.progress import Reporter
from naevus.runs.results import (
    Results,
    ground_truth,
    results_of_predictions,
    results_of_tables,
    with_dataset,
    with_lesion_masks,
)


def evaluate_results(results: Results, appearance: pd.DataFrame | None = None) -> Evaluation:
    """Evaluate results, with subgroups by the attributes in the data set.

    Args:
        results: Predictions with ground truth.
        appearance: ``tone, quality`` by image id, measured on the images.

    Raises:
        DataError: The predictions are inconsistent.
        NaevusError: SciPy or scikit-learn is not installed.
    """
    return evaluate(
        results.name,
        labelled=results.labelled,
        masks=results.mask_scores,
        attribute_counts=results.attribute_counts,
        attributes=_attributes(results, appearance),
        out_of_fold=results.out_of_fold,
        unit=results.unit,
    )


def _attributes(results: Results, appearance: pd.DataFrame | None) -> dict[str, list[Any]]:
    if results.records is None or results.labelled is None:
        return {}
    ids = results.labelled.table["image_id"]
    attributes = attributes_of(results.records.reindex(ids), results.labelled.table)
    if appearance is not None:
        decoded = appearance.reindex(ids)
        attributes["skin (proxy)"] = decoded["tone"].tolist()
        attributes["image"] = decoded["quality"].tolist()
    return attributes


def given_for_predictions(
    benign: Sequence[str] | None,
    taxonomy: str,
    image_type: str,
    part: str | None,
    split: str | None,
) -> list[str]:
    """Return which of the options are given that apply to predictions only."""
    own = {"benign": benign, "taxonomy": taxonomy not in (None, "auto"),
           "image_type": image_type != "auto", "part": part, "split": split}  # fmt: skip
    return [name for name, value in own.items() if value]


def evaluate_folders(
    first: str | Path,
    *others: str | Path,
    data: str | Path | None = None,
    benign: Sequence[str] = (),
    taxonomy: str = "auto",
    image_type: str = "auto",
    part: str | None = None,
    split: str | None = None,
    allow_missing: bool = False,
    force: bool = False,
    reporter: Reporter = SILENT,
) -> Evaluation:
    """Evaluate a run, several classifiers' runs as one ensemble, or predictions.

    Args:
        first: A run, a table of out-of-fold predictions (``oof.parquet``), or a folder that
            predict wrote.
        others: More runs or tables over the same folds, evaluated with it as one ensemble.
        data: The data set with the ground truth of a predictions folder; for runs and tables,
            the data set that knows lesions and attributes (by default a run's own).
        benign: Classes that count as benign when diagnoses are merged into two.
        taxonomy: The taxonomy of the data set's diagnoses, or ``auto``.
        image_type: The type of images to evaluate, or ``auto``.
        part: Evaluate only this part of the data set.
        split: Evaluate only this split of the data set.
        allow_missing: Whether images may lack a prediction or a ground truth.
        force: Whether to accept ground truth whose masks are implausible as a whole.
        reporter: Receives notes on excluded images.

    Raises:
        ConfigError: An option applies to predictions only.
        RunError: A folder is neither a run nor predictions, or is incomplete.
        DataError: The folders cannot be evaluated together, or there is no ground truth.
        NaevusError: SciPy or scikit-learn is not installed.

    Examples:
        >>> evaluation = evaluate_folders("runs/cls")
        >>> evaluation.subject.images, evaluation.subject.out_of_fold
        (24, True)
        >>> print(evaluation)  # doctest: +ELLIPSIS
        cls: 24 images of ... lesions, out-of-fold...
    """
    paths = [Path(each) for each in (first, *others)]
    if any(path.is_file() or is_run(path) for path in paths):
        for option in given_for_predictions(benign, taxonomy, image_type, part, split):
            raise ConfigError(f"{option} applies to predictions only", f"leave out {option}")
    if any(path.is_file() for path in paths):
        if not all(path.is_file() for path in paths):
            raise DataError(
                "tables of out-of-fold predictions are evaluated without other inputs",
                "name only such tables",
            )
        found = results_of_tables(
            paths[0].stem if len(paths) == 1 else f"mean of {len(paths)} tables",
            [read_out_of_fold(path) for path in paths],
            list(map(str, paths)),
            allow_missing=allow_missing,
        )
        found = replace(found, unit=unit_of_results(paths[0]))
        if data is not None:
            dataset = ground_truth(paths[0], Path(data), reporter=reporter)
            found = with_dataset(found, dataset)
        return evaluate_reported(found, paths[0], force=force, reporter=reporter)
    runs = [path for path in paths if is_run(path)]
    if runs and len(runs) < len(paths):
        raise DataError(
            "runs and predictions cannot be evaluated together", "name one or the other"
        )
    if runs:
        opened = open_runs(runs, allow_missing=allow_missing, reporter=reporter)
        name = runs[0].name if len(runs) == 1 else f"mean of {len(runs)} runs"
        tables, names = [run.predictions() for run in opened], list(map(str, runs))
        found = results_of_tables(name, tables, names, allow_missing=allow_missing)
        found = with_lesion_masks(found, opened[0])
        found = replace(found, unit=opened[0].unit, notes=(*found.notes, *trial_notes(opened)))
        found = with_dataset(found, _dataset_of(opened[0], data))
        return evaluate_reported(found, runs[0], force=force, reporter=reporter)
    if len(paths) != 1:
        raise DataError(
            "several predictions folders cannot be evaluated together",
            "predict with all bundles at once",
        )
    (path,) = paths
    dataset = ground_truth(
        path,
        None if data is None else Path(data),
        taxonomy,
        image_type,
        part=part,
        split=split,
        reporter=reporter,
    )
    found = results_of_predictions(path, dataset, benign, allow_missing=allow_missing)
    return evaluate_reported(found, dataset.root, force=force, reporter=reporter)


def _dataset_of(run: Run, data: str | Path | None) -> Dataset | None:
    """Return a run's data set for its lesions; None if it is not there or has changed."""
    try:
        return dataset_of(run, None if data is None else Path(data))
    except DataError:
        if data is not None:
            raise
        return None


def evaluate_reported(
    results: Results, where: Path, *, force: bool = False, reporter: Reporter = SILENT
) -> Evaluation:
    """Evaluate results and report what is excluded.

    Args:
        results: Predictions with ground truth.
        where: Path of the ground truth, for messages.
        force: Whether to accept ground truth whose masks are implausible as a whole.
        reporter: Receives notes on excluded images.

    Raises:
        DataError: Most ground-truth masks are empty or full.
    """
    warn_all(reporter, results.notes)
    if results.mask_scores is not None:
        check_areas(results.mask_scores, where, force=force, reporter=reporter)
    with reporter.status(f"evaluating {len(results.images):,} predictions"):
        return evaluate_results(results)
