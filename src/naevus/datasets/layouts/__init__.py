"""Layouts: one small reader each, recognised by what is in the folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.datasets.layouts import archive, classfolders, ham10000, isic2018, manifest
from naevus.datasets.layouts.groups import apply_groups
from naevus.datasets.records import Dataset, make_table
from naevus.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from naevus.datasets.layouts.draft import Draft

LAYOUTS: dict[str, ModuleType] = {
    module.NAME: module for module in (manifest, isic2018, ham10000, archive, classfolders)
}
"""The known layouts by name, in the order in which they are tried."""


def load(root: Path, layout: str | None = None) -> Dataset:
    """Read a folder of pictures (or a manifest file) as a typed table.

    No picture is opened. ``*_Groups.csv`` files beside the layout are joined by image id.

    Args:
        root: The folder, or the CSV manifest.
        layout: A name of `LAYOUTS`; recognised by what is there when absent.

    Raises:
        DataError: No layout fits, or what is there contradicts itself.
    """
    if not root.exists():
        raise DataError(f"{root} does not exist", "give the folder that holds the pictures")
    module = _named(layout) if layout is not None else _recognised(root)
    draft: Draft = module.read(root)
    apply_groups(draft, root)
    return Dataset(
        make_table(draft.frame), root, module.NAME, draft.taxonomy, tuple(draft.problems)
    )


def _named(layout: str) -> ModuleType:
    if layout not in LAYOUTS:
        raise DataError(f"unknown layout {layout!r}", f"use one of {', '.join(LAYOUTS)}")
    return LAYOUTS[layout]


def _recognised(root: Path) -> ModuleType:
    for module in LAYOUTS.values():
        if module.matches(root):
            return module
    known = "; ".join(f"{name} ({module.DESCRIPTION})" for name, module in LAYOUTS.items())
    raise DataError(f"{root}: no known layout of pictures fits", f"the known ones are {known}")
