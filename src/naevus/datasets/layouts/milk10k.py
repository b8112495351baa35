"""MILK10k: a clinical close-up and a dermoscopic image per lesion, with labels by lesion.

https://doi.org/10.34970/648456
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pandas as pd

from naevus.datasets.layouts.images import Images
from naevus.datasets.layouts.labels import to_codes
from naevus.datasets.layouts.tabular import class_columns, from_classes, parsed_layout_of
from naevus.io.formats import read_table, tables_in
from naevus.taxonomy import MILK10K

if TYPE_CHECKING:
    from pathlib import Path

    from naevus.datasets.dataset import Problem
    from naevus.datasets.layouts.parsing import ParsedLayout
    from naevus.taxonomy import Taxonomy

NAME = "milk10k"
DESCRIPTION = "MILK10k_Training_Metadata.csv and folders of images"

_METADATA = r"(?i)MILK10k_(Training|Test)_Metadata"
_TRUTH = r"(?i)MILK10k_(Training|Test)_GroundTruth"


def matches(root: Path) -> bool:
    """Return whether the metadata of MILK10k is in ``root``."""
    return bool(_tables(root, _METADATA))


def read(root: Path, taxonomy: Taxonomy | None = None) -> ParsedLayout:
    """Read both images of each lesion, with the lesion's diagnosis."""
    problems: list[Problem] = []
    tables = [
        (read_table(path, ("isic_id", "lesion_id")), path) for path in _tables(root, _METADATA)
    ]
    parsed = parsed_layout_of(tables, Images(root), taxonomy=taxonomy)
    truths = []
    for path in _tables(root, _TRUTH):
        table = read_table(path, ("lesion_id",)).dropna(subset=["lesion_id"])
        table = table.drop_duplicates("lesion_id").set_index("lesion_id")
        labels = from_classes(table, class_columns(table), path, problems)
        truths.append(to_codes(labels, problems, taxonomy or MILK10K, source=path)[0])
    frame = parsed.frame
    if truths and "lesion_id" in frame.columns:  # absent if no table has a row
        frame["diagnosis"] = frame["lesion_id"].map(pd.concat(truths)).astype("string")
    parsed.taxonomy = taxonomy or MILK10K
    parsed.problems.extend(problems)
    return parsed


def _tables(root: Path, pattern: str) -> list[Path]:
    return [path for path in tables_in(root) if re.fullmatch(pattern, path.stem)]
