"""PAD-UFES-20: clinical smartphone photographs, and ``metadata.csv``.

https://data.mendeley.com/datasets/zr7vgbcyr2 (Pacheco et al., Data in Brief 2020)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.datasets.layouts.images import Images, stem_of
from naevus.datasets.layouts.tabular import parsed_layout_of
from naevus.io.formats import read_table

if TYPE_CHECKING:
    from pathlib import Path

    from naevus.datasets.layouts.parsing import ParsedLayout
    from naevus.taxonomy import Taxonomy

NAME = "pad_ufes"
DESCRIPTION = "metadata.csv with columns img_id and diagnostic, and folders of images"


def matches(root: Path) -> bool:
    """Return whether ``root`` has the table."""
    path = root / "metadata.csv"
    return path.is_file() and {"img_id", "diagnostic"} <= set(read_table(path).columns)


def read(root: Path, taxonomy: Taxonomy | None = None) -> ParsedLayout:
    """Read the table and the photographs, all of them clinical."""
    path = root / "metadata.csv"
    table = read_table(path, ("img_id", "diagnostic"))
    parsed = parsed_layout_of([(table, path)], Images(root), taxonomy=taxonomy)
    parsed.frame["image_type"] = "clinical"
    if "biopsed" in table.columns:
        ids = table["img_id"].map(stem_of, na_action="ignore")
        histology = table["biopsed"].str.lower().map({"true": "histopathology"})
        parsed.frame["confirmation"] = (
            parsed.frame["image_id"].map(dict(zip(ids, histology, strict=True))).astype("string")
        )
    return parsed
