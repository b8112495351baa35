"""Tables of predictions: checks of ids and numbers, and joins that report what they leave out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from naevus.errors import DataError
from naevus.io.formats import is_kind
from naevus.io.words import counted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import pandas as pd


ALLOW: Final = "allow it with --allow-missing (allow_missing=True in Python): they are left out"

REMAKE: Final = "predict or train again, or delete these rows and report it"


class LeftOut(NamedTuple):
    """Images that a join leaves out: a description and their ids (at least one)."""

    what: str
    ids: tuple[str, ...]

    @property
    def without_prediction(self) -> bool:
        """Whether these are images without a prediction."""
        return "no prediction" in self.what

    def __str__(self) -> str:
        """Return how many images there are, and an example."""
        if len(self.ids) == 1:
            one = self.what.replace("images", "image", 1)
            for many, single in (("have", "has"), ("are", "is")):
                one = one.replace(f" {many} ", f" {single} ", 1)
            return f"1 {one}: {self.ids[0]}"
        return f"{len(self.ids):,} {self.what}, such as {self.ids[0]}"


def left_out(*found: tuple[str, Collection[str]]) -> tuple[LeftOut, ...]:
    """Return what a join leaves out, as descriptions with sorted ids; empty entries are dropped."""
    return tuple(LeftOut(what, tuple(sorted(ids))) for what, ids in found if ids)


def refuse_left_out(found: Sequence[LeftOut], where: str, *, allow_missing: bool) -> None:
    """Raise an error if a join leaves images out, unless this is allowed.

    Args:
        found: The images left out.
        where: The file or folder, for the message.
        allow_missing: Whether images may be left out.

    Raises:
        DataError: Images are left out and ``allow_missing`` is false.

    Examples:
        >>> found = left_out(("images have no prediction", {"b", "a"}), ("others", ()))
        >>> refuse_left_out(found, "predictions", allow_missing=True)
        >>> print(*found)
        2 images have no prediction, such as a
    """
    if found and not allow_missing:
        raise DataError(f"{where}: {'; '.join(map(str, found))}", ALLOW)


def check_ids(table: pd.DataFrame, name: str) -> None:
    """Raise an error if a table has no image ids, or an id twice.

    Raises:
        DataError: A column or an id is missing, or an id occurs twice.
    """
    if "image_id" not in table.columns:
        raise DataError(f"{name}: has no column image_id", "name a table of predictions")
    if table["image_id"].isna().any():
        raise DataError(f"{name}: has a row without image_id", "create it again")
    twice = table.loc[table["image_id"].duplicated(), "image_id"]
    if len(twice):
        raise DataError(f"{name}: {twice.iloc[0]} occurs twice", "keep one row per image")


def check_finite(table: pd.DataFrame, columns: Iterable[str], name: str) -> None:
    """Raise an error if a table has an empty, NaN or infinite number.

    Args:
        table: One row per image, with ``image_id``.
        columns: The columns that must contain finite numbers; all must exist.
        name: The file, for the message.

    Raises:
        DataError: A value is not finite; the message names the file, the image and the column.
    """
    for column in columns:
        try:
            values = table[column].to_numpy(np.float64, na_value=np.nan)
        except (TypeError, ValueError):
            raise DataError(f"{name}: column {column} is not numeric", REMAKE) from None
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            row = wrong[0]
            image = table["image_id"].iloc[row] if "image_id" in table.columns else f"row {row}"
            more = f" (and so for {len(wrong) - 1:,} more)" if len(wrong) > 1 else ""
            raise DataError(
                f"{name}: {image}: {column} is {values[row]:g}, not a finite number{more}", REMAKE
            )


def numbers_of(table: pd.DataFrame, kinds: Iterable[str]) -> list[str]:
    """Return the columns of some kinds, such as ``logit_MEL`` and ``logit_NV`` for ``logit``."""
    return [name for name in map(str, table.columns) if is_kind(name, kinds)]


def has_values(table: pd.DataFrame, column: str) -> bool:
    """Return whether a table has a column with at least one value."""
    return column in table.columns and bool(table[column].notna().any())


# Tables restricted to the images they have in common.

_REMEDY: Final = "name runs over the same data and folds"
AGREED: Final = {"diagnosis": "diagnosis", "group_id": "group"}
"""The columns that tables of diagnoses must agree on, with their names in messages."""


def in_common(
    tables: Sequence[pd.DataFrame],
    names: Sequence[str],
    agreed: Mapping[str, str],
    *,
    allow_missing: bool = False,
) -> list[pd.DataFrame]:
    """Return the rows of the images that are in all tables, sorted by id.

    Args:
        tables: One row per image, with ``image_id`` and the columns of ``agreed``.
        names: The names of the tables.
        agreed: Columns whose values must be the same in all tables, each with its name.
        allow_missing: Whether to leave out images that are missing in some table.

    Raises:
        DataError: An id is missing or occurs twice, no image is in all tables, some are not
            and ``allow_missing`` is false, or values disagree.
    """
    for table, name in zip(tables, names, strict=True):
        check_ids(table, name)
    each = [set(table["image_id"]) for table in tables]
    shared, every = set.intersection(*each), set.union(*each)
    if not shared:
        described = (f"{name} ({_extent(one)})" for name, one in zip(names, tables, strict=True))
        raise DataError(f"{' and '.join(described)} have no image in common", _REMEDY)
    absent = left_out(
        *(
            (f"images have no prediction in {name}", every - ids)
            for name, ids in zip(names, each, strict=True)
        )
    )
    together = f"{' and '.join(names)} have {counted(len(shared), 'image')} in common"
    refuse_left_out(absent, together, allow_missing=allow_missing)
    common = sorted(shared)
    first, *others = (table.set_index("image_id").loc[common].reset_index() for table in tables)
    for other, name in zip(others, names[1:], strict=True):
        for column, what in agreed.items():
            differ = first[column].astype(object) != other[column].astype(object)
            if differ.any():
                example = first.loc[differ, "image_id"].iloc[0]
                raise DataError(
                    f"{int(differ.sum()):,} of the {len(common):,} images in common have another "
                    f"{what} in {names[0]} than in {name}, such as {example}",
                    _REMEDY,
                )
    return [first, *others]


def _extent(table: pd.DataFrame) -> str:
    """Return how many images a table has, and the folds that held them out, if it knows them."""
    images = counted(len(table), "image")
    if "fold" not in table.columns:
        return images
    folds = sorted(table["fold"].unique().tolist(), key=str)
    return f"{images} of {'fold' if len(folds) == 1 else 'folds'} {', '.join(map(str, folds))}"


def same_folds(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Return whether two tables of the same images, in one order, divide them in the same way.

    Folds may have other numbers. Tables that do not know their folds count as the same.
    """
    if "fold" not in one.columns or "fold" not in other.columns:
        return True
    pairs = set(zip(one["fold"], other["fold"], strict=True))
    return len(pairs) == one["fold"].nunique() == other["fold"].nunique()
