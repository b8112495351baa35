"""A download from the ISIC Archive: ``metadata.csv`` and pictures, beside it or in folders.

https://github.com/ImageMarkup/isic-cli
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from naevus.datasets.layouts.draft import Draft, once, read_csv
from naevus.datasets.layouts.labels import known, taxonomy_of, to_codes
from naevus.datasets.layouts.scan import merged, pictures_in, subfolders
from naevus.datasets.records import Problem
from naevus.taxonomy import BINARY

if TYPE_CHECKING:
    from pathlib import Path

    from naevus.taxonomy import Taxonomy

NAME = "archive"
DESCRIPTION = "metadata.csv with a column isic_id, and pictures"

_METADATA = "metadata.csv"
# The archive's hierarchy: the third level is the one that names what the challenges tell apart,
# the second names vessels' lesions, the first says benign or malignant.
_LEVELS = ("diagnosis", "diagnosis_3", "diagnosis_4", "diagnosis_2")
_MALIGNANCY = ("benign_malignant", "diagnosis_1")
_COLUMNS = {
    "age_approx": "age",
    "sex": "sex",
    "anatom_site_general": "site",
    "diagnosis_confirm_type": "confirmation",
    "lesion_id": "lesion_id",
}


def matches(root: Path) -> bool:
    """Tell whether ``root`` has a metadata table of the archive."""
    path = root / _METADATA
    return path.is_file() and "isic_id" in read_csv(path).columns


def read(root: Path) -> Draft:
    """Read the table and the pictures; a patient is the group where no lesion is named."""
    problems: list[Problem] = []
    path = root / _METADATA
    table = once(read_csv(path, required=("isic_id",)), "isic_id", path, problems)
    folders = [root, *subfolders(root)]
    pictures = merged([pictures_in(folder, problems) for folder in folders], problems)
    rows = table.rename(columns=_COLUMNS)
    rows = rows[[name for name in _COLUMNS.values() if name in rows.columns]].copy()
    for name in ("sex", "site", "confirmation"):
        if name in rows.columns:
            rows[name] = known(rows[name])
    rows["diagnosis"], taxonomy = _diagnoses(table, problems)
    if "patient_id" in table.columns:
        lesion = table["lesion_id"] if "lesion_id" in table.columns else None
        patient = table["patient_id"]
        rows["group_id"] = patient if lesion is None else lesion.fillna(patient)
    strangers = sorted(pictures.keys() - set(rows.index))
    problems.extend(Problem("picture without row", name, pictures[name]) for name in strangers)
    absent = [name for name in rows.index if name not in pictures]
    problems.extend(Problem("row without picture", name, str(path)) for name in absent)
    frame = rows.rename_axis("image_id").reset_index()
    frame = pd.concat([frame, pd.DataFrame({"image_id": strangers})], ignore_index=True)
    frame["path"] = frame["image_id"].map(pictures)
    return Draft(frame, taxonomy, problems)


def _diagnoses(table: pd.DataFrame, problems: list[Problem]) -> tuple[pd.Series[str], Taxonomy]:
    """Return the codes of the first level of each row that one stands for, else benign or not."""
    none = pd.Series(pd.NA, index=table.index, dtype="string")
    levels = [table[name] for name in _LEVELS if name in table.columns]
    spelled = [to_codes(level, [], taxonomy=None) for level in levels]
    found = [code for codes, _ in spelled for code in codes.dropna()]
    if not found or taxonomy_of(found) is BINARY:
        malignancy = [table[name] for name in _MALIGNANCY if name in table.columns]
        return to_codes(malignancy[0], problems, BINARY) if malignancy else (none, BINARY)
    taxonomy = taxonomy_of(found)
    codes = none
    for level in levels:
        codes = codes.fillna(to_codes(level, [], taxonomy)[0])
    nameless = levels[0][codes.isna()]
    to_codes(nameless, problems, taxonomy)
    return codes, taxonomy
