"""The files below a folder that are images."""

from __future__ import annotations

import pytest

from naevus.datasets.listing import is_mask_name


@pytest.mark.parametrize(
    ("stem", "mask"),
    [
        ("ISIC_0000001_SEGMENTATION", True),
        ("ISIC_0000001_attribute_milia_like_cyst", True),
        ("ISIC_0000001_attribute_streaks", True),
        ("IMD002_lesion", True),
        ("IMD002_roi1", True),
        ("left_lesion", False),
        ("IMD002", False),
        ("an_attribute_of_2024", False),
    ],
)
def test_masks_are_recognised_by_their_names(stem: str, mask: bool) -> None:
    assert is_mask_name(stem) is mask
