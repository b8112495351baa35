"""Parts of a table that are fitted without one another: folds, or halves of the groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from naevus.errors import DataError
from naevus.evaluation.resampling import SEED, Groups

if TYPE_CHECKING:
    from numpy.typing import NDArray


def parts_of(table: pd.DataFrame, *, seed: int = SEED) -> NDArray[np.intp]:
    """Return each picture's part; what judges a part is fitted on the others alone.

    The parts are the folds of the table. Where there is but one, they are two halves of its groups,
    drawn within each diagnosis.

    Args:
        table: ``group_id`` and ``truth``, and ``fold`` where there is more than one.
        seed: Of the draw.

    Returns:
        N numbers from 0.

    Raises:
        DataError: There is no picture, one has no group or no fold, or a group is in two folds.
    """
    groups = Groups.of(table["group_id"].tolist(), table["truth"].tolist())
    if "fold" in table.columns and len(table["fold"].unique()) > 1:
        return _folds(table["fold"], groups)
    return dealt(groups, 2, seed)


def dealt(groups: Groups, parts: int, seed: int = SEED) -> NDArray[np.intp]:
    """Deal whole groups out to parts as even as can be, within each stratum and over all.

    Args:
        groups: The groups of N pictures, with their diagnoses as strata.
        parts: How many parts.
        seed: Of the deal.

    Returns:
        N numbers from 0.
    """
    random = np.random.default_rng(seed)
    part = np.empty(len(groups), np.intp)
    done = 0  # the rest of a stratum goes to the parts in turn, over all strata
    for members in groups.strata:
        part[random.permutation(members)] = (done + np.arange(len(members))) % parts
        done += len(members)
    return part[groups.codes]


def _folds(folds: pd.Series[int], groups: Groups) -> NDArray[np.intp]:
    if folds.isna().any():
        raise DataError(f"{int(folds.isna().sum())} pictures have no fold", "give each one")
    parts: NDArray[np.intp] = pd.factorize(folds, sort=True)[0]
    pairs = np.unique(np.stack([groups.codes, parts]), axis=1)
    if pairs.shape[1] > len(groups):
        raise DataError("a group is in two folds", "use a table made over folds of whole groups")
    return parts
