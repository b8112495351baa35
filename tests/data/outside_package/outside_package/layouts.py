"""Own layout: a folder for each case with photo.png, lesion.png and diagnosis.txt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from naevus.datasets.layouts.parsing import ParsedLayout
from naevus.taxonomy import ISIC2018

if TYPE_CHECKING:
    from pathlib import Path

    from naevus.taxonomy import Taxonomy

NAME = "cases"
DESCRIPTION = "folders with photo.png, lesion.png and diagnosis.txt"


def matches(root: Path) -> bool:
    """Return whether there is such a folder in ``root``."""
    return any(root.glob("*/photo.png"))


def read(root: Path, taxonomy: Taxonomy | None = None) -> ParsedLayout:
    """Read the cases; columns that are not known are left out."""
    rows = [
        {
            "image_id": photo.parent.name,
            "path": str(photo),
            "mask_path": str(photo.with_name("lesion.png")),
            "lesion_id": photo.parent.name,
            "diagnosis": photo.with_name("diagnosis.txt").read_text().strip(),
        }
        for photo in sorted(root.glob("*/photo.png"))
    ]
    return ParsedLayout(pd.DataFrame(rows), taxonomy or ISIC2018)
