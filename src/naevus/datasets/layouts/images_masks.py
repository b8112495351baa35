"""Images in one folder and their masks in another: ``images/`` and ``masks/``.

Also ``train/images`` and ``train/masks`` and so on. A mask has the name of its image, optionally
with ``_segmentation`` or ``_mask`` at the end; in that case it may also be next to the image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.datasets.layouts.images import Images
from naevus.datasets.layouts.parsing import masks_beside
from naevus.datasets.layouts.tabular import masks_below, parsed_layout_of

if TYPE_CHECKING:
    from pathlib import Path

    from naevus.datasets.dataset import Problem
    from naevus.datasets.layouts.parsing import ParsedLayout
    from naevus.taxonomy import Taxonomy

NAME = "images_masks"
DESCRIPTION = "a folder of images beside a folder masks, or masks beside their images"


def matches(root: Path) -> bool:
    """Return whether there is a mask folder below ``root``, with masks of images."""
    if not root.is_dir():
        return False
    masks = {name.casefold() for name in _masks(root, [])}
    if not masks:
        return False
    stems = (path.rpartition("/")[2].rpartition(".")[0] for path in Images(root).paths)
    return any(stem.casefold() in masks for stem in stems)


def _masks(root: Path, problems: list[Problem]) -> dict[str, str]:
    """Return the masks in mask folders, and those next to the images."""
    return masks_beside(root) | masks_below(root, problems)


def read(root: Path, taxonomy: Taxonomy | None = None) -> ParsedLayout:
    """Read the images with their masks."""
    problems: list[Problem] = []
    masks = _masks(root, problems)
    parsed = parsed_layout_of((), Images(root), masks=masks, taxonomy=taxonomy)
    parsed.problems.extend(problems)
    return parsed
