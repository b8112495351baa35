"""Tables of answers: sound ids, finite numbers, and what a join leaves out, which is said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from naevus.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    import pandas as pd

ALLOW: Final = "allow it with --allow-missing (from Python allow_missing=True): they are left out"

REMAKE: Final = "predict or train again, or take such rows out and say so"


class LeftOut(NamedTuple):
    """Images that a join leaves out: in words what they are, and their ids (at least one)."""

    what: str
    ids: tuple[str, ...]

    @property
    def answerless(self) -> bool:
        """Whether these are images without an answer."""
        return "no answer" in self.what

    def __str__(self) -> str:
        """Tell how many there are, and one of them."""
        if len(self.ids) == 1:
            one = self.what.replace("images", "image", 1)
            for many, single in (("have", "has"), ("are", "is")):
                one = one.replace(f" {many} ", f" {single} ", 1)
            return f"1 {one}: {self.ids[0]}"
        return f"{len(self.ids):,} {self.what}, such as {self.ids[0]}"


def left_out(*found: tuple[str, Collection[str]]) -> tuple[LeftOut, ...]:
    """Return what is left out of a join, in words and sorted ids, without what there is none of."""
    return tuple(LeftOut(what, tuple(sorted(ids))) for what, ids in found if ids)


def refuse_left_out(found: Sequence[LeftOut], where: str, *, allow_missing: bool) -> None:
    """Refuse a join that leaves images out.

    Args:
        found: What it leaves out.
        where: The file or folder, for the message.
        allow_missing: Whether that is allowed.

    Raises:
        DataError: It does, and it is not allowed.

    Examples:
        >>> found = left_out(("images have no answer", {"b", "a"}), ("others", ()))
        >>> refuse_left_out(found, "answers", allow_missing=True)
        >>> print(*found)
        2 images have no answer, such as a
    """
    if found and not allow_missing:
        raise DataError(f"{where}: {'; '.join(map(str, found))}", ALLOW)


def check_ids(table: pd.DataFrame, name: str) -> None:
    """Refuse a table without image ids, or with one twice.

    Raises:
        DataError: It is one.
    """
    if "image_id" not in table.columns:
        raise DataError(f"{name}: has no column image_id", "name a table of answers")
    if table["image_id"].isna().any():
        raise DataError(f"{name}: has a row without image_id", "make it again")
    twice = table.loc[table["image_id"].duplicated(), "image_id"]
    if len(twice):
        raise DataError(f"{name}: {twice.iloc[0]} stands twice", "keep one row a picture")


def check_finite(table: pd.DataFrame, columns: Iterable[str], name: str) -> None:
    """Refuse a table with an empty, NaN or infinite number: it can neither count nor be dropped.

    Args:
        table: One row a picture, with ``image_id``.
        columns: Those that must be finite numbers; all of them are there.
        name: The file, for the message.

    Raises:
        DataError: A value is none; the message names the file, the image and the column.
    """
    for column in columns:
        try:
            values = table[column].to_numpy(np.float64, na_value=np.nan)
        except (TypeError, ValueError):
            raise DataError(f"{name}: column {column} does not hold numbers", REMAKE) from None
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            row = wrong[0]
            image = table["image_id"].iloc[row] if "image_id" in table.columns else f"row {row}"
            more = f" (and so for {len(wrong) - 1:,} more)" if len(wrong) > 1 else ""
            raise DataError(
                f"{name}: {image}: {column} is {values[row]:g}, no finite number{more}", REMAKE
            )


def numbers_of(table: pd.DataFrame, kinds: Iterable[str]) -> list[str]:
    """Return the columns of some kinds, such as ``logit_MEL`` and ``logit_NV`` of ``logit``."""
    return [name for name in map(str, table.columns) if name.partition("_")[0] in set(kinds)]
