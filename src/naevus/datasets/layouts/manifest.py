"""A CSV manifest: one row a picture, with paths beside or below the manifest (or absolute)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from naevus.datasets.layouts.draft import Draft, read_csv
from naevus.datasets.layouts.labels import to_codes
from naevus.datasets.records import COLUMNS, Problem

NAME = "manifest"
DESCRIPTION = "a CSV file, or a folder with manifest.csv, with a column path"

_FILE = "manifest.csv"
_SYNONYMS = {"image": "image_id", "isic_id": "image_id", "mask": "mask_path"}


def matches(root: Path) -> bool:
    """Tell whether ``root`` is a CSV file, or has a manifest with a column ``path``."""
    if root.is_file():
        return root.suffix.lower() == ".csv"
    path = root / _FILE
    return path.is_file() and "path" in read_csv(path).columns


def read(root: Path) -> Draft:
    """Read the rows; columns are those of a record, and any may be absent but ``path``."""
    problems: list[Problem] = []
    path = root if root.is_file() else root / _FILE
    table = read_csv(path, required=("path",)).rename(columns=_SYNONYMS)
    frame = table[[name for name in COLUMNS if name in table.columns]].copy()
    if "image_id" not in frame.columns:
        frame["image_id"] = pd.NA
    stems = frame["path"].map(lambda name: Path(name).stem, na_action="ignore")
    frame["image_id"] = frame["image_id"].astype("string").fillna(stems.astype("string"))
    for column, kind in (("path", "row without picture"), ("mask_path", "row without mask")):
        if column in frame.columns:
            files, ids = frame[column], frame["image_id"]
            found = [_found(path.parent, name) for name in files]
            problems.extend(
                Problem(kind, str(image_id), str(name))
                for image_id, name, file in zip(ids, files, found, strict=True)
                if file is None and not pd.isna(name)
            )
            frame[column] = pd.Series(found, index=frame.index, dtype="string")
    draft = Draft(frame, problems=problems)
    if "diagnosis" in frame.columns:
        frame["diagnosis"], draft.taxonomy = to_codes(frame["diagnosis"], problems)
    return draft


def _found(folder: Path, name: str | None) -> str | None:
    """Return the absolute path of a file that is there."""
    if name is None or pd.isna(name):
        return None
    path = (folder / name).absolute()
    return str(path) if path.is_file() else None
