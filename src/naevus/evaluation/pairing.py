"""Two tables brought to the pictures they have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd


def in_common(
    a: pd.DataFrame, b: pd.DataFrame, names: tuple[str, str], agreed: Mapping[str, str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of the pictures that are in both tables, in the order of their ids.

    Args:
        a: One row a picture, with ``image_id`` and the columns of ``agreed``.
        b: Likewise.
        names: What A and B are called.
        agreed: Columns that must say the same in both, each with what it is called.

    Raises:
        DataError: A table holds an id twice or none, no picture is in both, or they disagree.
    """
    for table, name in zip((a, b), names, strict=True):
        _check_ids(table, name)
    common = sorted(set(a["image_id"]) & set(b["image_id"]))
    if not common:
        raise DataError(
            f"{names[0]} and {names[1]} have no picture in common",
            "compare runs over the same data and folds",
        )
    ours, theirs = (table.set_index("image_id").loc[common].reset_index() for table in (a, b))
    for column, what in agreed.items():
        differ = ours[column].astype(object) != theirs[column].astype(object)
        if differ.any():
            raise DataError(
                f"{int(differ.sum())} pictures have another {what} in {names[0]} than in "
                f"{names[1]}, such as {ours.loc[differ, 'image_id'].iloc[0]}",
                "compare runs over the same data and folds",
            )
    return ours, theirs


def _check_ids(table: pd.DataFrame, name: str) -> None:
    if table["image_id"].isna().any():
        raise DataError(f"{name}: has a row without image_id", "join its folds again")
    twice = table.loc[table["image_id"].duplicated(), "image_id"]
    if len(twice):
        raise DataError(f"{name}: {twice.iloc[0]} stands twice", "keep one row a picture")
