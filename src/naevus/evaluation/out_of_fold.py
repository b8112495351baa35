"""Out-of-fold tables of logits: their diagnoses, probabilities and ensembles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from naevus.errors import DataError
from naevus.evaluation.priors import balanced_log_probabilities, natural_log_probabilities
from naevus.evaluation.tables import AGREED, check_finite, in_common
from naevus.taxonomy import taxonomy_with

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from naevus.taxonomy import Taxonomy


def taxonomy_of(table: pd.DataFrame) -> Taxonomy:
    """Return the diagnoses in a table of out-of-fold logits.

    Raises:
        DataError: There are no logits.
    """
    names = [str(name) for name in table.columns if str(name).startswith("logit_")]
    codes = tuple(name.removeprefix("logit_") for name in names)
    if not codes:
        raise DataError("the table has no logits", "use one from `naevus train`")
    return taxonomy_with(codes)


def probabilities(
    table: pd.DataFrame, taxonomy: Taxonomy
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return natural and balanced probabilities, N x C each.

    Each row is corrected for the class weights and priors of the fold that predicted it.

    Args:
        table: ``logit_<code>``, ``class_prior_<code>`` and ``class_weight_<code>`` for every
            code, and ``fold`` if the table has several folds.
        taxonomy: The diagnoses.

    Raises:
        DataError: A column is missing, or a value is not a finite number.
    """
    columns = _columns(table, taxonomy)
    for names in columns.values():
        check_finite(table, names, "the table of predictions")
    natural = np.empty((len(table), len(taxonomy)))
    balanced = np.empty_like(natural)
    for rows in _trained_alike(table, columns["class_prior"] + columns["class_weight"]):
        logits = table[columns["logit"]].to_numpy(np.float64)[rows]
        class_priors, weights = (
            table[columns[kind]].to_numpy(np.float64)[rows[0]]
            for kind in ("class_prior", "class_weight")
        )
        natural[rows] = np.exp(natural_log_probabilities(logits, weights))
        balanced[rows] = np.exp(balanced_log_probabilities(logits, weights, class_priors))
    return natural, balanced


def combined(
    tables: Sequence[pd.DataFrame],
    taxonomy: Taxonomy,
    names: Sequence[str] = (),
    *,
    allow_missing: bool = False,
) -> pd.DataFrame:
    """Return the out-of-fold table of an ensemble of networks that all held out the images.

    Natural log-probabilities are averaged, as in an ensemble, and class priors geometrically.

    Args:
        tables: Tables for :func:`probabilities`, of runs over the same folds.
        taxonomy: The diagnoses.
        names: The names of the runs; by default their numbers.
        allow_missing: Whether to leave out images that are missing in some table.

    Returns:
        The images that are in all tables, sorted by id, with class weights of 1.

    Raises:
        DataError: A column is missing, no image is in all tables, some are not and
            ``allow_missing`` is false, or diagnoses or groups disagree.
    """
    if len(tables) == 1:
        return tables[0]
    columns = _columns(tables[0], taxonomy)
    numbered = [f"run {number}" for number in range(1, len(tables) + 1)]
    same = in_common(tables, names or numbered, AGREED, allow_missing=allow_missing)
    logits = np.mean([_natural_logarithms(table, taxonomy) for table in same], axis=0)
    with np.errstate(divide="ignore"):
        class_priors = [
            table[_columns(table, taxonomy)["class_prior"]].to_numpy(np.float64) for table in same
        ]
        fraction = np.exp(np.mean(np.log(class_priors), axis=0))
    result = same[0].copy()
    result[columns["logit"]] = logits
    result[columns["class_prior"]] = fraction / fraction.sum(axis=1, keepdims=True)
    result[columns["class_weight"]] = 1.0
    return result


def _natural_logarithms(table: pd.DataFrame, taxonomy: Taxonomy) -> NDArray[np.float64]:
    """Return natural log-probabilities, N x C: finite even where a probability underflows."""
    columns = _columns(table, taxonomy)
    for names in columns.values():
        check_finite(table, names, "the table of predictions")
    found = np.empty((len(table), len(taxonomy)))
    for rows in _trained_alike(table, columns["class_weight"]):
        logits = table[columns["logit"]].to_numpy(np.float64)[rows]
        weights = table[columns["class_weight"]].to_numpy(np.float64)[rows[0]]
        found[rows] = natural_log_probabilities(logits, weights)
    return found


def _columns(table: pd.DataFrame, taxonomy: Taxonomy) -> dict[str, list[str]]:
    codes = taxonomy.codes
    columns = {
        kind: [f"{kind}_{code}" for code in codes]
        for kind in ("logit", "class_prior", "class_weight")
    }
    absent = [name for names in columns.values() for name in names if name not in table.columns]
    if absent:
        raise DataError(f"the table has no column {absent[0]}", "use one from `naevus train`")
    return columns


def _trained_alike(table: pd.DataFrame, columns: list[str]) -> list[NDArray[np.intp]]:
    """Return the rows of each set of equal values in ``columns``, such as one fold."""
    found = table.groupby(columns, sort=False, dropna=False).indices.values()
    return [np.asarray(rows, np.intp) for rows in found]
