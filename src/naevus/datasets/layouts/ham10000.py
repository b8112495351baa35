"""HAM10000 as published: a metadata table, one or more folders of images, a folder of masks.

https://doi.org/10.7910/DVN/DBW86T (Tschandl, Rosendahl & Kittler, Sci. Data 2018)
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from naevus.datasets.dataset import Problem
from naevus.datasets.layouts.images import split_of
from naevus.datasets.layouts.labels import known, to_codes, to_confirmations
from naevus.datasets.layouts.parsing import (
    ParsedLayout,
    fill,
    images_in,
    masks_in,
    merged,
    once,
    subfolders,
    unnested,
)
from naevus.io.formats import read_table
from naevus.taxonomy import ISIC2018, Taxonomy

# ``HAM10000_metadata.csv`` and the masks next to it, used by two layouts.

METADATA = ("HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab")
"""The published names of the metadata file."""

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


def join_metadata(parsed: ParsedLayout, metadata: pd.DataFrame, only: pd.Series[bool]) -> None:
    """Fill unknown values of the rows ``only`` from the metadata, by image id."""
    frame = parsed.frame
    rows = frame[only].copy()
    if "lesion_id" in rows.columns:
        parsed.ties.append(metadata["lesion_id"])
    for column in metadata.columns:
        fill(rows, column, metadata[column])
        frame.loc[only, column] = rows[column]


def note_masks(masks: dict[str, str], ids: set[str], problems: list[Problem]) -> None:
    """Record masks that belong to none of ``ids``."""
    problems.extend(
        Problem("mask without image", image_id, masks[image_id])
        for image_id in sorted(masks.keys() - ids)
    )


NAME = "ham10000"
DESCRIPTION = "HAM10000_metadata.csv beside folders of images"


def matches(root: Path) -> bool:
    """Return whether the metadata table is in ``root``."""
    return root.is_dir() and find_metadata(root) is not None


def read(root: Path, taxonomy: Taxonomy | None = None) -> ParsedLayout:
    """Read the table with its images and masks."""
    problems: list[Problem] = []
    path = find_metadata(root)
    table = pd.DataFrame() if path is None else read_metadata(path, problems, taxonomy or ISIC2018)
    folders = [unnested(folder) for folder in subfolders(root) if folder.name != MASKS]
    images = merged([images_in(folder, problems) for folder in (root, *folders)], problems)
    masks = masks_in(unnested(root / MASKS), problems)
    ids = pd.Series([*table.index, *sorted(images.keys() - set(table.index))], dtype="string")
    frame = pd.DataFrame({"image_id": ids, "path": ids.map(images), "mask_path": ids.map(masks)})
    frame["split"] = (
        frame["path"]
        .map(
            lambda path: split_of(*Path(path).relative_to(root.absolute()).parts[:-1]),
            na_action="ignore",
        )
        .astype("string")
    )
    parsed = ParsedLayout(frame, taxonomy or ISIC2018, problems)
    join_metadata(parsed, table, only=pd.Series(data=True, index=frame.index))
    problems.extend(
        Problem("row without image", image_id, str(path))
        for image_id in table.index
        if image_id not in images
    )
    problems.extend(
        Problem("image without row", image_id, images[image_id])
        for image_id in sorted(images.keys() - set(table.index))
    )
    note_masks(masks, set(ids), problems)
    return parsed
