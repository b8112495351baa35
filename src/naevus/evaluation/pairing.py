"""Tables brought to the pictures they have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from naevus.errors import DataError
from naevus.evaluation.tables import check_ids, left_out, refuse_left_out

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

_REMEDY: Final = "name runs over the same data and folds"
AGREED: Final = {"truth": "diagnosis", "group_id": "group"}
"""What tables of diagnoses must agree on."""


def in_common(
    tables: Sequence[pd.DataFrame],
    names: Sequence[str],
    agreed: Mapping[str, str],
    *,
    allow_missing: bool = False,
) -> list[pd.DataFrame]:
    """Return the rows of the pictures that are in all tables, in the order of their ids.

    Args:
        tables: One row a picture each, with ``image_id`` and the columns of ``agreed``.
        names: What the tables are called.
        agreed: Columns that must say the same in all, each with what it is called.
        allow_missing: Whether pictures may be left out that are not in all tables.

    Raises:
        DataError: A table holds an id twice or none, no picture is in all, some are not in all
            and that is not allowed, or they disagree.
    """
    for table, name in zip(tables, names, strict=True):
        check_ids(table, name)
    each = [set(table["image_id"]) for table in tables]
    shared, every = set.intersection(*each), set.union(*each)
    if not shared:
        raise DataError(f"{' and '.join(names)} have no picture in common", _REMEDY)
    absent = left_out(
        *(
            (f"images have no answer in {name}", every - ids)
            for name, ids in zip(names, each, strict=True)
        )
    )
    refuse_left_out(absent, " and ".join(names), allow_missing=allow_missing)
    common = sorted(shared)
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
