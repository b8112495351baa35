"""The ISIC 2016 challenge: images, lesion masks, and a table of benign and malignant, no header.

https://challenge.isic-archive.com/data/#2016
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.datasets.layouts.tabular import Challenge
from naevus.io.formats import known_columns, read_table

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from naevus.datasets.layouts.parsing import ParsedLayout
    from naevus.taxonomy import Taxonomy

NAME = "isic2016"
DESCRIPTION = "folders ISBI2016_ISIC_Part1_Training_Data and so on"

_CHALLENGE = Challenge(
    images=r"ISBI2016_ISIC_Part(1|2|2B|3|3B)_(Training|Test)_Data",
    truth=r"ISBI2016_ISIC_Part3B?_(Training|Test)_GroundTruth",
    masks=r"ISBI2016_ISIC_Part(1|3B)_(Training|Test)_(GroundTruth|Data)",
)

matches = _CHALLENGE.matches


def read(root: Path, taxonomy: Taxonomy | None = None) -> ParsedLayout:
    """Read images, masks and labels; the test set's labels are the numbers 0 and 1."""
    return _CHALLENGE.read(root, taxonomy, _truth)


def _truth(path: Path) -> pd.DataFrame:
    table = read_table(path)
    if "image_id" in known_columns(table):
        return table
    return read_table(path, names=("image_id", "benign_malignant"))
