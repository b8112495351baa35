"""Class folders: ``<diagnosis>/<image>``, or ``train/<diagnosis>/<image>`` and so on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from naevus.datasets.dataset import Problem
from naevus.datasets.layouts.images import SPLIT_WORDS, is_mask_folder
from naevus.datasets.layouts.labels import code_of, to_codes
from naevus.datasets.layouts.parsing import ParsedLayout, subfolders
from naevus.datasets.listing import ids_of, images_below, is_text

if TYPE_CHECKING:
    from naevus.taxonomy import Taxonomy


NAME = "classfolders"
DESCRIPTION = "a folder per diagnosis (MEL, NV, … or names), also within train, validation, test"


class _Folder(NamedTuple):
    path: Path
    split: str
    label: str


def matches(root: Path) -> bool:
    """Return whether a folder with images is named like a diagnosis."""
    if not root.is_dir():
        return False
    return any(code_of(label) for label in labels_of(root))


def labels_of(root: Path) -> list[str]:
    """Return the sorted names of the folders with images, which may be diagnoses."""
    folders = [folder for folder in _folders(root) if not is_mask_folder(folder.label)]
    return sorted({folder.label for folder in folders if images_below(folder.path).files})


def read(root: Path, taxonomy: Taxonomy | None = None) -> ParsedLayout:
    """Read the images; a file name that occurs in several folders is preceded by its folder."""
    problems: list[Problem] = []
    found = [
        (folder, stem, path)
        for folder in _folders(root)
        if not is_mask_folder(folder.label)
        for stem, path in _images(folder.path)
    ]
    times = Counter(stem for _, stem, _ in found)
    frame = pd.DataFrame(
        {
            "image_id": ids_of([Path(path).relative_to(root.absolute()) for *_, path in found]),
            "path": [path for _, _, path in found],
            "split": [folder.split for folder, _, _ in found],
        }
    )
    problems.extend(
        Problem("one name in several folders", stem, f"{count} images, distinguished by folder")
        for stem, count in sorted(times.items())
        if count > 1
    )
    labels = pd.Series([folder.label for folder, _, _ in found], dtype="string")
    frame["diagnosis"], taxonomy = to_codes(labels, problems, taxonomy, source=root)
    return ParsedLayout(frame, taxonomy, problems)


def _images(folder: Path) -> list[tuple[str, str]]:
    files = [path for path in images_below(folder).files if is_text(path)]
    return [(path.stem, str(path.absolute())) for path in files]


def _folders(root: Path) -> list[_Folder]:
    folders = []
    for outer in subfolders(root):
        split = SPLIT_WORDS.get(outer.name.lower())
        if split is None:
            folders.append(_Folder(outer, "train", outer.name))
        else:
            folders.extend(_Folder(inner, split, inner.name) for inner in subfolders(outer))
    return folders
