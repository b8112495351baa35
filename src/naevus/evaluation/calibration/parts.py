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
    return _halves(groups, seed)


def _folds(folds: pd.Series[int], groups: Groups) -> NDArray[np.intp]:
    if folds.isna().any():
        raise DataError(f"{int(folds.isna().sum())} pictures have no fold", "give each one")
    parts: NDArray[np.intp] = pd.factorize(folds, sort=True)[0]
    pairs = np.unique(np.stack([groups.codes, parts]), axis=1)
    if pairs.shape[1] > len(groups):
        raise DataError("a group is in two folds", "use a table made over folds of whole groups")
    return parts


def _halves(groups: Groups, seed: int) -> NDArray[np.intp]:
    random = np.random.default_rng(seed)
    half = np.empty(len(groups), np.intp)
    dealt = 0  # odd groups go to either half in turn, over all diagnoses
    for members in groups.strata:
        half[random.permutation(members)] = (dealt + np.arange(len(members))) % 2
        dealt += len(members)
    return half[groups.codes]
