"""Whole groups: joining them, dealing them into folds, drawing a share of them.

Tables here have the columns ``image_id, group_id, stratum``; a stratum is what should be equally
common everywhere (the diagnosis).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from naevus.errors import FoldsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd
    from numpy.typing import NDArray


def deal_groups(table: pd.DataFrame, k: int, random: np.random.Generator) -> NDArray[np.object_]:
    """Deal whole groups into ``k`` folds with alike strata (``StratifiedGroupKFold``).

    Args:
        table: The pictures.
        k: How many folds, at least 2.
        random: Settles which of several alike groups goes where.

    Returns:
        The fold of each row, ``"0"`` to ``"k-1"``.

    Raises:
        FoldsError: scikit-learn is not installed.
    """
    try:
        from sklearn.model_selection import StratifiedGroupKFold  # noqa: PLC0415
    except ImportError:
        raise FoldsError(
            "making folds needs scikit-learn", 'install it with pip install "naevus[evaluate]"'
        ) from None
    strata = _coarse(table["stratum"], k)
    # Groups are shuffled here, by shuffled names, and not by the splitter: up to scikit-learn 1.7
    # its own shuffling undoes the stratification (github.com/scikit-learn/scikit-learn/pull/32540).
    names, inverse = np.unique(table["group_id"].to_numpy(dtype=str), return_inverse=True)
    groups = random.permutation(len(names))[inverse]
    fold = np.empty(len(table), dtype=object)
    for number, (_, held_out) in enumerate(StratifiedGroupKFold(k).split(table, strata, groups)):
        fold[held_out] = str(number)
    return fold


def sample_groups(
    table: pd.DataFrame, share: float, random: np.random.Generator
) -> NDArray[np.bool_]:
    """Draw whole groups until each stratum has given about ``share`` of its pictures.

    A group belongs to the stratum that most of its pictures have.

    Returns:
        For each row, whether it was drawn.
    """
    summary = _summary(table)
    drawn: list[str] = []
    for _, stratum in summary.groupby("stratum", sort=True):
        shuffled = stratum.iloc[random.permutation(len(stratum))]
        middle = shuffled["size"].cumsum() - shuffled["size"] / 2
        drawn.extend(shuffled.index[middle <= share * stratum["size"].sum()])
    return table["group_id"].isin(drawn).to_numpy(dtype=bool)


def joined(names: pd.Series[str], ties: Iterable[pd.Series[str]]) -> list[str]:
    """Return each row's group where rows that share a value of any of ``ties`` are one group.

    Args:
        names: What each row's group is called by itself; rows of one name are one group too.
        ties: Values by row, as long as ``names``; absent ones tie nothing.

    Returns:
        For each row the first, in alphabetical order, of the names that were joined.
    """
    places, ordered = names.astype(object).factorize(sort=True)
    group = np.asarray(places, np.int64)
    shared = [group.copy()]
    shared += [np.asarray(tie.astype(object).factorize()[0], np.int64) for tie in ties]
    before = None
    while before is None or not np.array_equal(before, group):
        before = group
        for values in shared:
            there = values >= 0
            least = np.full(values.max(initial=-1) + 1, len(ordered), np.int64)
            np.minimum.at(least, values[there], group[there])
            group = group.copy()
            group[there] = least[values[there]]
    return [str(ordered[place]) for place in group]


def join_groups(table: pd.DataFrame, groups: Mapping[str, str]) -> list[str]:
    """Return each row's group when pictures that share either group are kept together.

    Args:
        table: The pictures with the groups they have.
        groups: Image id → a further grouping; pictures that are not in it keep what they have.

    Returns:
        For each row the first, in alphabetical order, of the groups that were joined.
    """
    leader: dict[tuple[int, str], tuple[int, str]] = {}

    def find(name: tuple[int, str]) -> tuple[int, str]:
        while leader.setdefault(name, name) != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    own = [(0, group) for group in table["group_id"]]
    for name, image_id in zip(own, table["image_id"], strict=True):
        if image_id in groups:
            first, second = sorted((find(name), find((1, groups[image_id]))))
            leader[second] = first
    return [find(name)[1] for name in own]


def _coarse(strata: pd.Series[str], k: int) -> NDArray[np.object_]:
    """Count strata with fewer pictures than folds to the largest: they cannot be stratified."""
    sizes = strata.value_counts()
    return strata.where(strata.map(sizes) >= k, sizes.index[0]).to_numpy(dtype=object)


def _summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return the size and the commonest stratum of each group, sorted by group."""
    counts = table.groupby(["group_id", "stratum"]).size().rename("size").reset_index()
    order = ["group_id", "size", "stratum"]
    counts = counts.sort_values(order, ascending=[True, False, True])
    first = counts.drop_duplicates("group_id").set_index("group_id")
    return first.assign(size=counts.groupby("group_id")["size"].sum())
