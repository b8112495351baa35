"""The ISIC 2020 challenge: ``train.csv`` (or the ground truth as published) and JPEG images.

Most diagnoses are ``unknown``, so benign and malignant are read. Images of one patient are one
group, and so are pairs in ``..._Duplicates.csv``.
https://challenge2020.isic-archive.com
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pandas as pd

from naevus.datasets.layouts.images import Images
from naevus.datasets.layouts.tabular import parsed_layout_of
from naevus.io.formats import read_table, tables_in
from naevus.taxonomy import BINARY

if TYPE_CHECKING:
    from pathlib import Path

    from naevus.datasets.layouts.parsing import ParsedLayout
    from naevus.taxonomy import Taxonomy

NAME = "isic2020"
DESCRIPTION = "train.csv or ISIC_2020_Training_GroundTruth.csv with a column image_name, and images"

_TABLES = r"(?i)(train|test|ISIC_2020_(Training|Test)_(GroundTruth|Metadata)(_v\d+)?)"
_DUPLICATES = r"(?i)ISIC_2020_Training_Duplicates"


def matches(root: Path) -> bool:
    """Return whether a table of the challenge is in ``root``."""
    return any(_is_truth(path) for path in _tables(root))


def read(root: Path, taxonomy: Taxonomy | None = None) -> ParsedLayout:
    """Read images, benign or malignant labels, patients and metadata."""
    tables = [(read_table(path), path) for path in _tables(root)]
    tables.sort(key=lambda each: "target" not in each[0].columns)
    parsed = parsed_layout_of(tables, Images(root), taxonomy=taxonomy or BINARY)
    for table, path in tables:
        if "test" in re.split(r"[^a-z]+", path.stem.lower()):
            of_test = parsed.frame["image_id"].isin(table["image_name"])
            parsed.frame["split"] = parsed.frame["split"].mask(of_test, "test")
    for path in tables_in(root):
        if re.fullmatch(_DUPLICATES, path.stem):
            parsed.ties += _ties(read_table(path).iloc[:, :2])
    return parsed


def _ties(pairs: pd.DataFrame) -> list[pd.Series[str]]:
    """Return groupings by image id that join each pair; an id occurs once in each grouping."""
    names = [f"pair {number}" for number in range(len(pairs))]
    both = pd.DataFrame(
        {"id": [*pairs.iloc[:, 0], *pairs.iloc[:, 1]], "pair": [*names, *names]}, dtype="string"
    )
    both["turn"] = both.groupby("id").cumcount()
    return [rows.set_index("id")["pair"] for _, rows in both.groupby("turn")]


def _tables(root: Path) -> list[Path]:
    found = [path for path in tables_in(root) if re.fullmatch(_TABLES, path.stem)]
    return [path for path in found if "image_name" in read_table(path).columns]


def _is_truth(path: Path) -> bool:
    columns = set(read_table(path).columns)
    return bool(columns & {"benign_malignant", "target", "anatom_site_general_challenge"})
