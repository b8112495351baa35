"""The ISIC 2017 challenge: images next to superpixels, lesion masks, and the table of Part 3.

Part 3 distinguishes melanoma and seborrhoeic keratosis; an image with neither is a nevus.
https://challenge.isic-archive.com/data/#2017
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.datasets.layouts.isic2016 import Challenge

if TYPE_CHECKING:
    from pathlib import Path

    from naevus.datasets.layouts.parsing import ParsedLayout
    from naevus.taxonomy import Taxonomy

NAME = "isic2017"
DESCRIPTION = "folders ISIC-2017_Training_Data and so on"

_SPLIT = r"(Training|Validation|Test)(_v\d+)?"
_CHALLENGE = Challenge(
    images=rf"ISIC-2017_{_SPLIT}_Data",
    truth=rf"ISIC-2017_{_SPLIT}_Part3_GroundTruth",
    metadata=rf"ISIC-2017_{_SPLIT}_Data_metadata",
    masks=rf"ISIC-2017_{_SPLIT}_Part1_GroundTruth",
)

matches = _CHALLENGE.matches


def read(root: Path, taxonomy: Taxonomy | None = None) -> ParsedLayout:
    """Read images, masks, diagnoses, ages and sexes."""
    return _CHALLENGE.read(root, taxonomy)
