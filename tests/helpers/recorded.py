"""Recorded results of the built-in bundle on the committed synthetic images.

Record them again if the built-in networks change on purpose:
``python -m tests.helpers.recorded``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pandas as pd

from tests.helpers import ROOT

if TYPE_CHECKING:
    from pathlib import Path

IMAGES = ROOT / "tests" / "data" / "ISIC2018" / "ISIC2018_Task3_Training_Input"
RECORDED = ROOT / "tests" / "data" / "builtin.csv"


def predict(paths: list[Path]) -> pd.DataFrame:
    """Predict images with the built-in bundle in fp32; return areas and probabilities of each."""
    import naevus

    rows = []
    for path, found in zip(paths, naevus.load()(paths), strict=True):
        assert found.mask is not None
        area = float(found.mask.mean())
        presence = {f"presence_{name}": value for name, value in found.attributes.items()}
        areas = {f"area_{name}": float(mask.mean()) for name, mask in found.attribute_masks.items()}
        rows.append(
            {
                "image_id": path.stem,
                "lesion_area": area,
                **found.probabilities,
                **presence,
                **areas,
            }
        )
    return pd.DataFrame(rows).round(4)


if __name__ == "__main__":
    os.environ["NAEVUS_CACHE"] = "off"  # nothing faster than fp32 is tried then
    predict(sorted(IMAGES.glob("*.jpg"))).to_csv(RECORDED, index=False, lineterminator="\n")
