"""The ISIC 2019 challenge: eight classes and unknown; some images are named ``_downsampled``.

https://challenge.isic-archive.com/data/#2019
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.datasets.layouts.isic2016 import Challenge
from naevus.taxonomy import ISIC2019

if TYPE_CHECKING:
    from pathlib import Path

    from naevus.datasets.layouts.parsing import ParsedLayout
    from naevus.taxonomy import Taxonomy

NAME = "isic2019"
DESCRIPTION = "folders ISIC_2019_Training_Input and so on"

_CHALLENGE = Challenge(
    images=r"ISIC_2019_(Training|Test)_Input",
    truth=r"ISIC_2019_(Training|Test)_GroundTruth",
    metadata=r"ISIC_2019_(Training|Test)_Metadata",
)

matches = _CHALLENGE.matches


def read(root: Path, taxonomy: Taxonomy | None = None) -> ParsedLayout:
    """Read images, diagnoses, lesions and metadata."""
    return _CHALLENGE.read(root, taxonomy or ISIC2019)
