"""ISIC challenges whose files are alike: folders of images and masks, tables of truth and metadata.

A file belongs to a split by the word ``Training``, ``Validation`` or ``Test`` in its name, and may
lie in the folder itself, or in one of those that archives were unpacked into.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from naevus.datasets.layouts.images import Images
from naevus.datasets.layouts.parsing import masks_beside, subfolders, unnested
from naevus.datasets.layouts.tabular import parsed_layout_of
from naevus.io.formats import read_table, tables_in

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd

    from naevus.datasets.layouts.parsing import ParsedLayout
    from naevus.taxonomy import Taxonomy


@dataclass(frozen=True)
class Challenge:
    """How the files of a challenge are called, as regular expressions; case does not count."""

    images: str
    truth: str
    metadata: str | None = None
    masks: str | None = None

    def matches(self, root: Path) -> bool:
        """Tell whether a folder of images or a table of the challenge is in ``root``."""
        return bool(root.is_dir() and (_folders(root, self.images) or _tables(root, self.truth)))

    def read(
        self,
        root: Path,
        taxonomy: Taxonomy | None,
        read_truth: Callable[[Path], pd.DataFrame] = read_table,
    ) -> ParsedLayout:
        """Read images, masks, diagnoses, and what else is known.

        Args:
            root: The folder.
            taxonomy: The diagnoses to read labels as.
            read_truth: Reads a table of truth.
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
