"""Derm7pt: a clinical and a dermoscopic image of each case; splits are by row of ``meta/meta.csv``.

https://derm.cs.sfu.ca (Kawahara et al., IEEE J. Biomed. Health Inform. 2019)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from naevus.datasets.layouts.images import Images, stem_of
from naevus.datasets.layouts.tabular import parsed_layout_of
from naevus.errors import DataError
from naevus.io.formats import read_table

if TYPE_CHECKING:
    from pathlib import Path

    from naevus.datasets.layouts.parsing import ParsedLayout
    from naevus.taxonomy import Taxonomy

NAME = "derm7pt"
DESCRIPTION = "meta/meta.csv with columns clinic and derm, and a folder images"

_SPLITS = {"train": "train", "valid": "validation", "test": "test"}
_TYPES = {"derm": "dermoscopic", "clinic": "clinical"}


def matches(root: Path) -> bool:
    """Return whether ``root`` has the table of cases."""
    path = _table(root)
    return path is not None and {"clinic", "derm"} <= set(read_table(path).columns)


def read(root: Path, taxonomy: Taxonomy | None = None) -> ParsedLayout:
    """Read both images of each case; a case is a lesion."""
    path = _table(root)
    assert path is not None
    cases = read_table(path, ("case_num", "diagnosis", "clinic", "derm"))
    cases = cases.assign(split=_splits(cases, path))
    kept = {"diagnosis": "diagnosis", "location": "location", "sex": "sex", "split": "split"}
    rows = [
        cases[[name for name in kept if name in cases.columns]].assign(
            path=cases[column],
            image_type=image_type,
            lesion_id="case " + cases["case_num"],
            **({"patient_id": cases["case_id"]} if "case_id" in cases.columns else {}),
        )
        for column, image_type in _TYPES.items()
    ]
    table = pd.concat(rows, ignore_index=True)
    # Images are called as published, also those whose names differ in case alone.
    stems = table["path"].map(stem_of, na_action="ignore")
    table["image_id"] = stems.mask(stems.duplicated(keep=False))
    return parsed_layout_of([(table, path)], Images(root), taxonomy=taxonomy)


def _table(root: Path) -> Path | None:
    places = (root / "meta" / "meta.csv", root / "meta.csv", root / "release_v0/meta/meta.csv")
    return next((path for path in places if path.is_file()), None)


def _splits(cases: pd.DataFrame, path: Path) -> pd.Series[str]:
    """Return the split of each case; the index tables count the cases from 0."""
    splits = pd.Series(pd.NA, index=cases.index, dtype="string")
    for name, split in _SPLITS.items():
        source = path.with_name(f"{name}_indexes.csv")
        if not source.is_file():
            continue
        numbers = pd.to_numeric(read_table(source, ("indexes",))["indexes"], errors="coerce")
        if numbers.isna().any() or not numbers.isin(cases.index).all():
            raise DataError(f"{source}: an index is not a row of {path.name}", "correct the file")
        splits.loc[numbers.astype(int)] = split
    return splits
