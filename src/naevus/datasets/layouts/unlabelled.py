"""Images alone: a folder of images without table, masks or diagnoses, and folders within it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from naevus.datasets.layouts import class_folders
from naevus.datasets.layouts.images import Images
from naevus.datasets.layouts.tabular import parsed_layout_of
from naevus.io.formats import tables_in

if TYPE_CHECKING:
    from pathlib import Path

    from naevus.datasets.layouts.parsing import ParsedLayout
    from naevus.taxonomy import Taxonomy

NAME = "unlabelled"
DESCRIPTION = "a folder of images and nothing else; also in folders named by patients or dates"

_NUMBERED = re.compile(r"(?=.*\d).{3,}")
"""Names of folders that are no diagnoses: of patients, cases or dates."""


def matches(root: Path) -> bool:
    """Return whether there are images below ``root``, and nothing that may be their labels.

    A table may be labels, and so may several folders of images, unless their names have numbers.
    """
    if not root.is_dir() or any(path.suffix.lower() != ".txt" for path in tables_in(root)):
        return False
    images = Images(root)
    alone = any("/" not in name for name in images.paths)
    folders = class_folders.labels_of(root)
    named = [name for name in folders if not _NUMBERED.fullmatch(name)]
    return bool(images.paths) and (alone or len(folders) < 2 or not named)


def read(root: Path, taxonomy: Taxonomy | None = None) -> ParsedLayout:
    """Read the images; only the split of an image may be known, from the names of its folders."""
    return parsed_layout_of((), Images(root), taxonomy=taxonomy)
