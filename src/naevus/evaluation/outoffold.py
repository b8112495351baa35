"""Scores of out-of-fold tables: what a recipe does on pictures its networks never saw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from naevus.errors import DataError
from naevus.evaluation.decisions import (
    balanced_log_probabilities,
    natural_log_probabilities,
    rebalance,
)
from naevus.evaluation.intervals import (
    Interval,
    balanced_accuracy_interval,
    mean_interval,
    wilson_interval,
)
from naevus.evaluation.pairing import AGREED, in_common
from naevus.evaluation.repeatable import repeatable
from naevus.evaluation.scoring.classification import ClassificationScores
from naevus.evaluation.scoring.segmentation import JACCARD_THRESHOLD, SegmentationScores
from naevus.evaluation.tables import check_finite
from naevus.taxonomy import taxonomy_with

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from naevus.taxonomy import Taxonomy


@repeatable
def segmentation_scores(table: pd.DataFrame) -> tuple[SegmentationScores, dict[str, Interval]]:
    """Score out-of-fold masks.

    Args:
        table: ``image_id``, ``group_id`` and the fields of `MaskScore`, one row a picture.

    Returns:
        The scores, and intervals by group of their means.
    """
    groups = table["group_id"].tolist()
    scores = SegmentationScores.from_table(table)
    failed = table["jaccard"] < JACCARD_THRESHOLD
    return scores, {
        "jaccard": mean_interval(table["jaccard"], groups),
        "thresholded_jaccard": mean_interval(table["thresholded"], groups),
        **{
            name: mean_interval(table[name], groups)
            for name in ("dice", "sensitivity", "specificity", "accuracy")
        },
        "below_threshold": Interval(*wilson_interval(failed, groups)[:3]),
    }


def taxonomy_of(table: pd.DataFrame) -> Taxonomy:
    """Return the diagnoses that a table of out-of-fold logits is about.

    Raises:
        DataError: There are no logits.
    """
    names = [str(name) for name in table.columns if str(name).startswith("logit_")]
    codes = tuple(name.removeprefix("logit_") for name in names)
    if not codes:
        raise DataError("the table has no logits", "use one made by `naevus train`")
    return taxonomy_with(codes)


def probabilities(
    table: pd.DataFrame, taxonomy: Taxonomy
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return natural and balanced probabilities, N x C each.

    Each row is freed of the weights and shares of the fold that predicted it.

    Args:
        table: ``logit_<code>``, ``share_<code>`` and ``weight_<code>`` for every code, and
            ``fold`` where several folds stand in one table.
        taxonomy: The diagnoses.

    Raises:
        DataError: A column is missing, or a value is no finite number.
    """
    columns = _columns(table, taxonomy)
    for names in columns.values():
        check_finite(table, names, "the table of answers")
    natural = np.empty((len(table), len(taxonomy)))
    balanced = np.empty_like(natural)
    for rows in _trained_alike(table, columns["share"] + columns["weight"]):
        logits = table[columns["logit"]].to_numpy(np.float64)[rows]
        shares, weights = (
            table[columns[kind]].to_numpy(np.float64)[rows[0]] for kind in ("share", "weight")
        )
        natural[rows] = np.exp(natural_log_probabilities(logits, weights))
        balanced[rows] = np.exp(balanced_log_probabilities(logits, weights, shares))
    return natural, balanced


def rebalanced(
    table: pd.DataFrame, natural: NDArray[np.float64], taxonomy: Taxonomy
) -> NDArray[np.float64]:
    """Return balanced probabilities from natural ones, such as these calibrated.

    Args:
        table: ``share_<code>`` for every code.
        natural: N x C natural probabilities of its pictures.
        taxonomy: The diagnoses.

    Raises:
        DataError: A column is missing.
    """
    columns = _columns(table, taxonomy)["share"]
    balanced = np.empty_like(natural)
    for rows in _trained_alike(table, columns):
        shares = table[columns].to_numpy(np.float64)[rows[0]]
        balanced[rows] = rebalance(natural[rows], shares)
    return balanced


def combined(
    tables: Sequence[pd.DataFrame],
    taxonomy: Taxonomy,
    names: Sequence[str] = (),
    *,
    allow_missing: bool = False,
) -> pd.DataFrame:
    """Return the table of networks that answer as one, each having held the picture out.

    As in an ensemble, natural log-probabilities are averaged, and shares geometrically with them.

    Args:
        tables: What :func:`probabilities` reads, of runs over the same folds.
        taxonomy: The diagnoses.
        names: What the runs are called; by default by their number.
        allow_missing: Whether pictures may be left out that are not in all tables.

    Returns:
        The pictures that are in all of them, sorted, with weights of 1.

    Raises:
        DataError: A column is missing, no picture is in all tables, some are not and that is not
            allowed, or they disagree on what one shows or on its group.
    """
    if len(tables) == 1:
        return tables[0]
    columns = _columns(tables[0], taxonomy)
    numbered = [f"run {number}" for number in range(1, len(tables) + 1)]
    same = in_common(tables, names or numbered, AGREED, allow_missing=allow_missing)
    logits = np.mean([_natural_logarithms(table, taxonomy) for table in same], axis=0)
    with np.errstate(divide="ignore"):
        shares = [table[_columns(table, taxonomy)["share"]].to_numpy(np.float64) for table in same]
        share = np.exp(np.mean(np.log(shares), axis=0))
    result = same[0].copy()
    result[columns["logit"]] = logits
    result[columns["share"]] = share / share.sum(axis=1, keepdims=True)
    result[columns["weight"]] = 1.0
    return result


def _natural_logarithms(table: pd.DataFrame, taxonomy: Taxonomy) -> NDArray[np.float64]:
    """Return natural log-probabilities, N x C: finite where a probability would come to 0."""
    columns = _columns(table, taxonomy)
    for names in columns.values():
        check_finite(table, names, "the table of answers")
    found = np.empty((len(table), len(taxonomy)))
    for rows in _trained_alike(table, columns["weight"]):
        logits = table[columns["logit"]].to_numpy(np.float64)[rows]
        weights = table[columns["weight"]].to_numpy(np.float64)[rows[0]]
        found[rows] = natural_log_probabilities(logits, weights)
    return found


def _columns(table: pd.DataFrame, taxonomy: Taxonomy) -> dict[str, list[str]]:
    codes = taxonomy.codes
    columns = {kind: [f"{kind}_{code}" for code in codes] for kind in ("logit", "share", "weight")}
    absent = [name for names in columns.values() for name in names if name not in table.columns]
    if absent:
        raise DataError(f"the table has no column {absent[0]}", "use one made by `naevus train`")
    return columns


def _trained_alike(table: pd.DataFrame, columns: list[str]) -> list[NDArray[np.intp]]:
    """Return the rows of each fold: those with the same values in ``columns``."""
    found = table.groupby(columns, sort=False, dropna=False).indices.values()
    return [np.asarray(rows, np.intp) for rows in found]


def classification_scores(
    table: pd.DataFrame, taxonomy: Taxonomy
) -> tuple[ClassificationScores, dict[str, Interval]]:
    """Score out-of-fold logits.

    Args:
        table: What :func:`probabilities` reads, with ``image_id``, ``group_id`` and ``truth``.
        taxonomy: The diagnoses.

    Returns:
        The scores, and intervals by group of the headline figures.
    """
    natural, balanced = probabilities(table, taxonomy)
    return scored(table, natural, balanced, taxonomy)


@repeatable
def scored(
    table: pd.DataFrame,
    natural: NDArray[np.float64],
    balanced: NDArray[np.float64],
    taxonomy: Taxonomy,
) -> tuple[ClassificationScores, dict[str, Interval]]:
    """Score probabilities of the pictures of ``table`` (``image_id, group_id, truth``).

    Returns:
        The scores, and intervals by group: ``balanced_accuracy`` of the balanced decision,
        ``accuracy`` of the probable one, and ``accuracy_balanced`` and
        ``balanced_accuracy_probable``, the other way round.
    """
    truth, groups = table["truth"].tolist(), table["group_id"].tolist()
    codes = np.array(taxonomy.codes, object)
    by_balanced, by_probable = codes[balanced.argmax(1)], codes[natural.argmax(1)]
    intervals: dict[str, Any] = {
        "balanced_accuracy": balanced_accuracy_interval(truth, by_balanced.tolist(), groups),
        "accuracy": mean_interval(by_probable == np.array(truth, object), groups, truth),
        "balanced_accuracy_probable": balanced_accuracy_interval(
            truth, by_probable.tolist(), groups
        ),
        "accuracy_balanced": mean_interval(by_balanced == np.array(truth, object), groups, truth),
    }
    scores = ClassificationScores.from_probabilities(
        table["image_id"].tolist(), truth, natural, balanced, taxonomy
    )
    return scores, intervals
