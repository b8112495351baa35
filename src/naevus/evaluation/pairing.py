"""Tables brought to the pictures they have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from naevus.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

_REMEDY: Final = "name runs over the same data and folds"
AGREED: Final = {"truth": "diagnosis", "group_id": "group"}
"""What tables of diagnoses must agree on."""


def in_common(
    tables: Sequence[pd.DataFrame], names: Sequence[str], agreed: Mapping[str, str]
) -> list[pd.DataFrame]:
    """Return the rows of the pictures that are in all tables, in the order of their ids.

    Args:
        tables: One row a picture each, with ``image_id`` and the columns of ``agreed``.
        names: What the tables are called.
        agreed: Columns that must say the same in all, each with what it is called.

    Raises:
        DataError: A table holds an id twice or none, no picture is in all, or they disagree.
    """
    for table, name in zip(tables, names, strict=True):
        _check_ids(table, name)
    common = sorted(set.intersection(*(set(table["image_id"]) for table in tables)))
    if not common:
        raise DataError(f"{' and '.join(names)} have no picture in common", _REMEDY)
    first, *others = (table.set_index("image_id").loc[common].reset_index() for table in tables)
    for other, name in zip(others, names[1:], strict=True):
        for column, what in agreed.items():
            differ = first[column].astype(object) != other[column].astype(object)
            if differ.any():
                raise DataError(
                    f"{int(differ.sum())} pictures have another {what} in {names[0]} than in "
                    f"{name}, such as {first.loc[differ, 'image_id'].iloc[0]}",
                    _REMEDY,
                )
    return [first, *others]


def _check_ids(table: pd.DataFrame, name: str) -> None:
    if table["image_id"].isna().any():
        raise DataError(f"{name}: has a row without image_id", "join its folds again")
    twice = table.loc[table["image_id"].duplicated(), "image_id"]
    if len(twice):
        raise DataError(f"{name}: {twice.iloc[0]} stands twice", "keep one row a picture")
