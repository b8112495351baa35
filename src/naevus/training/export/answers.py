"""What runs are known to be worth: their folds' answers to pictures they never saw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from naevus.bundles.evidence import counted, diagnosing, outlining
from naevus.errors import DataError
from naevus.evaluation.tables import combined, taxonomy_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from naevus.datasets.dataset import Dataset
    from naevus.training.run import Run

RECIPE = "of the recipe, out of fold"
"""Whose figures out-of-fold answers give: never those of the networks in the bundle, together."""
COMBINATION = "of this combination, on pictures that none of its networks saw"


class Shipped(NamedTuple):
    """What a bundle has of a task.

    Attributes:
        origins: Run and fold of each network.
        folds: The folds that networks held out, by run.
        averaged: Whether the networks' weights became one network's.
    """

    origins: tuple[str, ...]
    folds: tuple[tuple[int, ...], ...]
    averaged: bool = False

    def __str__(self) -> str:
        if self.averaged:
            return f"one network, the average of the weights of {len(self.origins)}"
        return f"the mean of {len(self.origins)} networks" if len(self.origins) > 1 else "a network"


def outlining_entry(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the entries of ``bundle.json`` about runs that outline: ``scores``.

    Raises:
        RunError: A run's answers do not belong together.
    """
    several = len(runs) > 1
    return {
        "scores": [
            score
            for run in runs
            for score in outlining(run.answers(), RECIPE + (f" ({run.folder.name})" * several))
        ]
    }


def diagnosing_entry(
    runs: Sequence[Run],
    shipped: Shipped,
    dataset: Dataset | None,
    calibration: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """Return the entries about runs that diagnose.

    Args:
        runs: Runs over the same folds; what each says of a picture it held out is averaged, as
            in an ensemble.
        shipped: What is in the bundle.
        dataset: The runs' data set, for subgroups; None where it is not there.
        calibration: Answers of exactly this combination to pictures that none of its networks
            saw: they take the place of the runs' own.

    Returns:
        ``scores``, ``by_class`` and ``subgroups``; and under ``classifier`` the scaling, the
        prediction sets, and what these were fitted on.

    Raises:
        RunError: A run's answers do not belong together.
        DataError: A table is not one of held-out logits, or there are too few lesions.
        NaevusError: SciPy or scikit-learn is not installed.
    """
    if calibration is None:
        tables = [run.answers() for run in runs]
        taxonomy = taxonomy_of(tables[0])
        names, allowed = [str(run.folder) for run in runs], any(run.allow_missing for run in runs)
        table, whose = combined(tables, taxonomy, names, allow_missing=allowed), RECIPE
        source = f"out-of-fold answers: {_source(table, len(runs), shipped)}"
    else:
        table, whose = calibration, COMBINATION
        taxonomy = taxonomy_of(table)
        _check(table, runs)
        source = f"answers {COMBINATION}: {counted(table)}"
    if len(runs) > 1 and calibration is None:
        whose += f", as the mean of {len(runs)} networks, one a run"
    records = None if dataset is None else dataset.table.set_index("image_id")
    found = diagnosing(table, taxonomy, whose, records)
    return {
        "scores": list(found.scores),
        "by_class": found.by_class,
        "subgroups": found.subgroups,
        "classifier": {
            "temperature": found.scaling.temperature,
            "offsets": found.scaling.offsets,
            "conformal": found.conformal.to_dict(),
            "calibrated_on": source,
        },
    }


def _source(table: pd.DataFrame, runs: int, shipped: Shipped) -> str:
    """Say whose answers these are, and how that differs from what is shipped."""
    one = "the one network" if runs == 1 else f"the mean of the {runs} networks"
    said = f"{counted(table)}, each by {one} that had not seen its lesion"
    folds = {*table["fold"].unique().tolist()}
    if not shipped.averaged and all({*each} == folds and len(each) == 1 for each in shipped.folds):
        return f"{said}, which is what is shipped"
    return f"{said}; what is shipped is {shipped}, whose own temperature may differ"


def _check(table: pd.DataFrame, runs: Sequence[Run]) -> None:
    absent = [name for name in ("image_id", "group_id", "truth") if name not in table.columns]
    if absent:
        raise DataError(
            f"the table of answers has no column {absent[0]}",
            "give one like the oof.parquet of train",
        )
    strangers = set(table["image_id"]) - set(runs[0].folds.table["image_id"])
    if strangers:
        raise DataError(
            f"{min(strangers)} of the table of answers is not in the folds of {runs[0].folder}",
            "give answers to pictures of the same data",
        )
    ours, theirs = taxonomy_of(runs[0].answers()), taxonomy_of(table)
    if ours != theirs:
        raise DataError("the table of answers is about other classes", "give one of the same")
