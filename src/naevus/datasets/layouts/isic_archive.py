"""A download from the ISIC Archive: ``metadata.csv`` and images, next to it or in folders.

https://github.com/ImageMarkup/isic-cli
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from naevus.datasets.layouts.images import Images
from naevus.datasets.layouts.labels import (
    code_of,
    in_taxonomy,
    taxonomy_of,
    to_codes,
    with_ham_classes,
)
from naevus.datasets.layouts.tabular import parsed_layout_of
from naevus.io.formats import read_table, tables_in
from naevus.taxonomy import BINARY

if TYPE_CHECKING:
    from pathlib import Path

    from naevus.datasets.dataset import Problem
    from naevus.datasets.layouts.parsing import ParsedLayout
    from naevus.taxonomy import Taxonomy


NAME = "archive"
DESCRIPTION = "metadata.csv (or another name) with a column isic_id, and images"

_METADATA = "metadata.csv"
# The archive's hierarchy: the third level has the classes of the challenges, the fourth and fifth
# their subtypes; vascular lesions are named in the second level only.
_LEVELS = ("diagnosis", "diagnosis_3", "diagnosis_4", "diagnosis_5", "diagnosis_2")
_MALIGNANCY = ("benign_malignant", "diagnosis_1")


def matches(root: Path) -> bool:
    """Return whether ``root`` has a metadata table of the archive."""
    return _table(root) is not None


def read(root: Path, taxonomy: Taxonomy | None = None) -> ParsedLayout:
    """Read the table and the images."""
    problems: list[Problem] = []
    path = _table(root)
    assert path is not None
    table = read_table(path, required=("isic_id",))
    codes, taxonomy = _diagnoses(table, path, problems, taxonomy)
    others = [*_LEVELS, *_MALIGNANCY]
    plain = table.drop(columns=[name for name in others if name in table.columns])
    parsed = parsed_layout_of([(plain, path)], Images(root))
    by_id = pd.Series(codes.to_numpy(), index=table["isic_id"], dtype="string")
    by_id = by_id[~by_id.index.duplicated()]
    parsed.frame["diagnosis"] = parsed.frame["image_id"].map(by_id).astype("string")
    parsed.taxonomy = taxonomy
    parsed.problems.extend(problems)
    return parsed


def _table(root: Path) -> Path | None:
    """Return the metadata, named ``metadata.csv`` by isic-cli and otherwise by the website."""
    found = [path for path in tables_in(root) if path.suffix.lower() == ".csv"]
    found.sort(key=lambda path: path.name.lower() != _METADATA)
    for path in found:
        columns = set(read_table(path).columns)
        if "isic_id" in columns and columns & {*_LEVELS, *_MALIGNANCY, "copyright_license"}:
            return path
    return None


def _diagnoses(
    table: pd.DataFrame, path: Path, problems: list[Problem], taxonomy: Taxonomy | None
) -> tuple[pd.Series[str], Taxonomy]:
    """Return each row's code from the first level that has one, otherwise benign or malignant."""
    levels = [table[name] for name in _LEVELS if name in table.columns]
    malignancy = [table[name] for name in _MALIGNANCY if name in table.columns]
    none = pd.Series(pd.NA, index=table.index, dtype="string")
    named = none
    for level in levels:
        spelled = level.map(code_of, na_action="ignore").astype("string")
        named = named.fillna(spelled.mask(spelled == ""))
    named = with_ham_classes(named, table["isic_id"])
    fine = named[~named.isin(BINARY.codes)].dropna()
    if taxonomy is None and len(fine):
        taxonomy = taxonomy_of(fine)
    if taxonomy is None or taxonomy is BINARY:
        if not malignancy:
            return none, BINARY
        codes = none
        for level in malignancy:
            codes = codes.fillna(to_codes(level, problems, BINARY)[0])
        return codes, BINARY
    if taxonomy.name == "own" and levels:
        texts = levels[0]
        for level in levels[1:]:
            texts = texts.fillna(level)
        return to_codes(texts, problems, taxonomy)
    chosen = taxonomy
    codes = named.map(lambda code: in_taxonomy(code, chosen), na_action="ignore").astype("string")
    first = none
    for level in levels:
        first = first.fillna(level)
    strange = first[codes.isna()].dropna()
    _refuse_unknown_ids(strange, codes, path)
    to_codes(strange, problems, chosen)
    return codes, chosen


def _refuse_unknown_ids(strange: pd.Series[str], codes: pd.Series[str], path: Path) -> None:
    """Refuse a table most of whose diagnoses are not understood."""
    if len(strange) > int(codes.notna().sum()):
        to_codes(strange, [], source=path)
