"""``*_Groups.csv`` beside any layout: which pictures must never be parted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.datasets.layouts.draft import Draft, fill
from naevus.datasets.layouts.labels import to_codes
from naevus.datasets.records import Problem
from naevus.errors import DataError
from naevus.io.formats import read_table

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

PATTERN = "*_Groups.csv"


def apply_groups(draft: Draft, root: Path) -> None:
    """Take groups, and diagnoses not yet known, from the ``*_Groups.csv`` files of ``root``.

    Each file has the columns ``image``, ``group_id`` and, if it likes, ``diagnosis``. Its groups
    are joined with the lesions, patients and groups that are known already.

    Raises:
        DataError: A file lacks a column, or gives one picture two groups.
    """
    folder = root if root.is_dir() else root.parent
    for path in sorted(folder.glob(PATTERN)):
        _apply(draft, path)


def _apply(draft: Draft, path: Path) -> None:
    table = read_table(path, required=("image", "group_id")).dropna(subset=["image", "group_id"])
    table["image"] = table["image"].str.replace(r"(?i)\.(jpe?g|png|bmp|tiff?)$", "", regex=True)
    table = table.drop_duplicates()
    twice = table.loc[table.duplicated("image"), "image"]
    if len(twice):
        raise DataError(
            f"{path}: {twice.iloc[0]} has two groups or diagnoses", "keep one row a picture"
        )
    table = table.set_index("image")
    frame = draft.frame
    named = frame["image_id"].map(table["group_id"]).astype("string")
    if "group_id" in frame.columns:
        draft.ties.append(frame.set_index("image_id")["group_id"].groupby(level=0).first())
        named = named.fillna(frame["group_id"])
    frame["group_id"] = named
    _note_strangers(draft, table.index, path)
    if "diagnosis" in table.columns:
        codes, _ = to_codes(table["diagnosis"], draft.problems, draft.taxonomy)
        fill(frame, "diagnosis", codes)


def _note_strangers(draft: Draft, named: pd.Index[str], path: Path) -> None:
    strangers = named.difference(draft.frame["image_id"].drop_duplicates().tolist())
    if len(strangers):
        draft.problems.append(
            Problem(
                "row without picture",
                path.name,
                f"{len(strangers)} of its {len(named)} pictures are not here, "
                f"the first is {strangers[0]}",
            )
        )
