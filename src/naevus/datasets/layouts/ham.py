"""``HAM10000_metadata.csv`` and the masks beside it, used by two layouts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.datasets.layouts.draft import Draft, fill, once
from naevus.datasets.layouts.labels import known, to_codes, to_confirmations
from naevus.datasets.records import Problem
from naevus.io.formats import read_table
from naevus.taxonomy import ISIC2018, Taxonomy

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

METADATA = ("HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab")
"""The names under which the metadata file is published."""

MASKS = "HAM10000_segmentations_lesion_tschandl"


def find_metadata(root: Path) -> Path | None:
    """Return the metadata file of ``root``, if there is one."""
    return next((root / name for name in METADATA if (root / name).is_file()), None)


def read_metadata(
    path: Path, problems: list[Problem], taxonomy: Taxonomy = ISIC2018
) -> pd.DataFrame:
    """Return the metadata, indexed by image id, with the columns of a `Record`."""
    table = read_table(path, required=("lesion_id", "image_id", "dx"))
    table = once(table, "image_id", path, problems)
    codes, _ = to_codes(table["dx"], problems, taxonomy, source=path)
    result = table[["lesion_id"]].assign(diagnosis=codes)
    for source, column in (("sex", "sex"), ("localization", "site")):
        if source in table.columns:
            result[column] = known(table[source])
    if "dx_type" in table.columns:
        result["confirmation"] = to_confirmations(table["dx_type"])
    if "age" in table.columns:
        result["age"] = table["age"]
    return result


def join_metadata(draft: Draft, metadata: pd.DataFrame, only: pd.Series[bool]) -> None:
    """Fill what the rows ``only`` do not yet know from the metadata, by image id."""
    frame = draft.frame
    rows = frame[only].copy()
    if "lesion_id" in rows.columns:
        draft.ties.append(metadata["lesion_id"])
    for column in metadata.columns:
        fill(rows, column, metadata[column])
        frame.loc[only, column] = rows[column]


def note_masks(masks: dict[str, str], ids: set[str], problems: list[Problem]) -> None:
    """Note masks that belong to none of ``ids``."""
    problems.extend(
        Problem("mask without picture", image_id, masks[image_id])
        for image_id in sorted(masks.keys() - ids)
    )
