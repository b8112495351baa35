"""``*_Groups.csv`` beside any layout: which pictures must never be parted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from naevus.datasets.layouts.draft import Draft, fill, read_csv
from naevus.datasets.layouts.labels import to_codes
from naevus.datasets.records import Problem
from naevus.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

PATTERN = "*_Groups.csv"


def apply_groups(draft: Draft, root: Path) -> None:
    """Take groups, and diagnoses not yet known, from the ``*_Groups.csv`` files of ``root``.

    Each file has the columns ``image``, ``group_id`` and, if it likes, ``diagnosis``. A group
    from such a file goes before the lesion id.

    Raises:
        DataError: A file lacks a column, or gives one picture two groups.
    """
    folder = root if root.is_dir() else root.parent
    for path in sorted(folder.glob(PATTERN)):
        _apply(draft, path)


def _apply(draft: Draft, path: Path) -> None:
    table = read_csv(path, required=("image", "group_id")).dropna(subset=["image", "group_id"])
    table["image"] = table["image"].str.removesuffix(".jpg")
    table = table.drop_duplicates()
    twice = table.loc[table.duplicated("image"), "image"]
    if len(twice):
        raise DataError(
            f"{path}: {twice.iloc[0]} has two groups or diagnoses", "keep one row a picture"
        )
    table = table.set_index("image")
    frame = draft.frame
    known = frame["image_id"].map(table["group_id"]).astype("string")
    if "group_id" in frame.columns:
        known = known.fillna(frame["group_id"])
    frame["group_id"] = known
    _note_strangers(draft, table.index, path)
    _note_parted_lesions(draft, path)
    if "diagnosis" in table.columns:
        codes, _ = to_codes(table["diagnosis"], draft.problems, draft.taxonomy)
        fill(frame, "diagnosis", codes)


def _note_strangers(draft: Draft, named: pd.Index[str], path: Path) -> None:
    strangers = named.difference(pd.Index(draft.frame["image_id"]))
    if len(strangers):
        draft.problems.append(
            Problem(
                "row without picture",
                path.name,
                f"{len(strangers)} of its {len(named)} pictures are not here, "
                f"the first is {strangers[0]}",
            )
        )


def _note_parted_lesions(draft: Draft, path: Path) -> None:
    if "lesion_id" not in draft.frame.columns:
        return
    frame = draft.frame.dropna(subset=["lesion_id"])
    groups = frame["group_id"].fillna(frame["lesion_id"]).groupby(frame["lesion_id"]).nunique()
    draft.problems.extend(
        Problem("lesion in several groups", str(lesion), f"{path.name} puts it in {count} groups")
        for lesion, count in groups[groups > 1].items()
    )
