"""HAM10000 as published: a metadata table, one or more folders of pictures, a folder of masks.

https://doi.org/10.7910/DVN/DBW86T (Tschandl, Rosendahl & Kittler, Sci. Data 2018)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from naevus.datasets.layouts import ham
from naevus.datasets.layouts.draft import Draft
from naevus.datasets.layouts.pictures import split_of
from naevus.datasets.layouts.scan import masks_in, merged, pictures_in, subfolders, unnested
from naevus.datasets.records import Problem
from naevus.taxonomy import ISIC2018

if TYPE_CHECKING:
    from naevus.taxonomy import Taxonomy

NAME = "ham10000"
DESCRIPTION = "HAM10000_metadata.csv beside folders of pictures"


def matches(root: Path) -> bool:
    """Tell whether the metadata table is in ``root``."""
    return root.is_dir() and ham.find_metadata(root) is not None


def read(root: Path, taxonomy: Taxonomy | None = None) -> Draft:
    """Read the table, and the pictures and masks that belong to it."""
    problems: list[Problem] = []
    path = ham.find_metadata(root)
    table = (
        pd.DataFrame() if path is None else ham.read_metadata(path, problems, taxonomy or ISIC2018)
    )
    folders = [unnested(folder) for folder in subfolders(root) if folder.name != ham.MASKS]
    pictures = merged([pictures_in(folder, problems) for folder in (root, *folders)], problems)
    masks = masks_in(unnested(root / ham.MASKS), problems)
    ids = pd.Series([*table.index, *sorted(pictures.keys() - set(table.index))], dtype="string")
    frame = pd.DataFrame({"image_id": ids, "path": ids.map(pictures), "mask_path": ids.map(masks)})
    frame["split"] = frame["path"].map(
        lambda path: split_of(*Path(path).relative_to(root.absolute()).parts[:-1]),
        na_action="ignore",
    )
    draft = Draft(frame, taxonomy or ISIC2018, problems)
    ham.join_metadata(draft, table, only=pd.Series(data=True, index=frame.index))
    problems.extend(
        Problem("row without picture", image_id, str(path))
        for image_id in table.index
        if image_id not in pictures
    )
    problems.extend(
        Problem("picture without row", image_id, pictures[image_id])
        for image_id in sorted(pictures.keys() - set(table.index))
    )
    ham.note_masks(masks, set(ids), problems)
    return draft
