"""A CSV manifest: one row per image, with paths relative to the manifest or absolute."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pandas as pd

from naevus.datasets.dataset import COLUMNS, PATHS, Problem
from naevus.datasets.layouts.parsing import ParsedLayout
from naevus.datasets.layouts.tabular import diagnoses_of, ignored_columns
from naevus.datasets.layouts.values import READERS, refuse_unknown_splits
from naevus.datasets.listing import ids_of
from naevus.io.files import TABLE_SUFFIXES
from naevus.io.formats import known_columns, read_table

if TYPE_CHECKING:
    from pathlib import Path

    from naevus.taxonomy import Taxonomy

NAME = "manifest"
DESCRIPTION = "a CSV file, or a folder with manifest.csv, with a column path"

_FILE = "manifest.csv"


def matches(root: Path) -> bool:
    """Return whether ``root`` is a CSV file, or has a manifest with a column ``path``."""
    path = root if root.is_file() else root / _FILE
    if not path.is_file() or path.suffix.lower() not in TABLE_SUFFIXES:
        return False
    return "path" in known_columns(read_table(path))


def read(root: Path, taxonomy: Taxonomy | None = None) -> ParsedLayout:
    """Read the rows; only the column ``path`` is required, others are read as in any table."""
    path = root if root.is_file() else root / _FILE
    table = read_table(path, required=("path",))
    problems = ignored_columns(table, path)
    columns = known_columns(table)
    frame = pd.DataFrame({name: table[own] for name, own in columns.items() if name in COLUMNS})
    if "image_id" not in frame.columns:
        frame["image_id"] = pd.NA
    named = frame["path"].dropna().str.replace("\\", "/", regex=False)
    ids = pd.Series(ids_of([PurePosixPath(name) for name in named]), named.index, dtype="string")
    frame["image_id"] = frame["image_id"].astype("string").fillna(ids)
    for column, values in READERS.items():
        if column in frame.columns and column not in PATHS:
            frame[column] = values(frame[column])
    if "split" in frame.columns:
        refuse_unknown_splits(frame["split"].set_axis(frame["path"]), path)
    _find_files(frame, path, problems)
    parsed = ParsedLayout(frame, problems=problems)
    codes, found = diagnoses_of(table, columns, path, problems, taxonomy)
    if codes is not None and found is not None:
        frame["diagnosis"], parsed.taxonomy = codes, found
    return parsed


def _find_files(frame: pd.DataFrame, table: Path, problems: list[Problem]) -> None:
    """Replace the names of files by absolute paths, in place."""
    for column in PATHS:
        kind = "row without image" if column == "path" else "row without mask"
        if column in frame.columns:
            files, ids = frame[column], frame["image_id"]
            found = [_found(table.parent, name) for name in files]
            problems.extend(
                Problem(kind, str(image_id), str(name))
                for image_id, name, file in zip(ids, files, found, strict=True)
                if file is None and not pd.isna(name)
            )
            frame[column] = pd.Series(found, index=frame.index, dtype="string")


def _found(folder: Path, name: str | None) -> str | None:
    """Return the absolute path of a file if it exists."""
    if name is None or pd.isna(name):
        return None
    for spelled in (name, name.replace("\\", "/")):
        path = (folder / spelled).absolute()
        if path.is_file():
            return str(path)
    return None
