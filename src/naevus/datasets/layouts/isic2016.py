"""The ISIC 2016 challenge: images, lesion masks, and a table of benign and malignant, no header.

https://challenge.isic-archive.com/data/#2016
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from naevus.datasets.layouts.images import Images
from naevus.datasets.layouts.parsing import masks_beside, subfolders, unnested
from naevus.datasets.layouts.tabular import parsed_layout_of
from naevus.io.formats import known_columns, read_table, tables_in

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd

    from naevus.datasets.layouts.parsing import ParsedLayout
    from naevus.taxonomy import Taxonomy

# ISIC challenges whose files are alike. A file belongs to a split by the word ``Training``,
# ``Validation`` or ``Test`` in its name, and is in the folder itself or in an unpacked archive.


@dataclass(frozen=True)
class Challenge:
    """The file names of a challenge, as regular expressions that ignore case."""

    images: str
    truth: str
    metadata: str | None = None
    masks: str | None = None

    def matches(self, root: Path) -> bool:
        """Return whether ``root`` contains a folder of images or a table of the challenge."""
        return bool(root.is_dir() and (_folders(root, self.images) or _tables(root, self.truth)))

    def read(
        self,
        root: Path,
        taxonomy: Taxonomy | None,
        read_truth: Callable[[Path], pd.DataFrame] = read_table,
    ) -> ParsedLayout:
        """Read images, masks, diagnoses and metadata.

        Args:
            root: The folder.
            taxonomy: The taxonomy of the labels.
            read_truth: Reads a ground-truth table.
        """
        tables = [(read_truth(path), path) for path in _tables(root, self.truth)]
        if self.metadata is not None:
            tables += [(read_table(path), path) for path in _tables(root, self.metadata)]
        masks: dict[str, str] = {}
        for folder in _folders(root, self.masks) if self.masks else ():
            masks = masks_beside(folder) | masks
        images = Images(root, _folders(root, self.images))
        return parsed_layout_of(tables, images, masks=masks, taxonomy=taxonomy)


def _folders(root: Path, pattern: str) -> list[Path]:
    return [
        unnested(folder)
        for folder in subfolders(root)
        if re.fullmatch(pattern, folder.name, flags=re.IGNORECASE)
    ]


def _tables(root: Path, pattern: str) -> list[Path]:
    places = [root, *(unnested(folder) for folder in subfolders(root))]
    return [
        path
        for place in places
        for path in tables_in(place)
        if re.fullmatch(pattern, path.stem, flags=re.IGNORECASE)
    ]


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
