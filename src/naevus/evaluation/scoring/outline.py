"""All that is told of one picture's mask: how well it fits, and what may have made it difficult."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from naevus.evaluation.scoring.boundary import BoundaryDistance, boundary_distance
from naevus.evaluation.scoring.segmentation import MaskScore, compare_masks
from naevus.images.masks import area_share
from naevus.images.quality import lesion_contrast, quality_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


class Conditions(NamedTuple):
    """What may make a lesion hard to outline, measured by its true mask; NaN: not known."""

    area: float
    """The lesion's share of the picture."""
    contrast: float
    """How far its colour is from the skin's (`lesion_contrast`)."""
    hair: float
    """The share of the skin under dark hair (`Quality.hair`)."""
    border: float
    """The share of its outline that lies on the picture's border (`Quality.cut`)."""

    @classmethod
    def of(cls, pixels: NDArray[np.uint8] | None, truth: NDArray[np.bool_]) -> Conditions:
        """Measure a picture.

        Args:
            pixels: h x w x 3 RGB, of any size; None: not at hand, and only the area is known.
            truth: H x W, the lesion in the same frame.
        """
        area = area_share(truth)
        if pixels is None:
            return cls(area, np.nan, np.nan, np.nan)
        quality, contrast = quality_of(pixels, truth), lesion_contrast(pixels, truth)
        assert quality.cut is not None
        return cls(area, np.nan if contrast is None else contrast, quality.hair, quality.cut)


class Outline(NamedTuple):
    """One picture's mask against the truth."""

    score: MaskScore
    boundary: BoundaryDistance
    conditions: Conditions

    @classmethod
    def of(
        cls,
        truth: NDArray[np.bool_],
        prediction: NDArray[np.bool_],
        pixels: NDArray[np.uint8] | None = None,
    ) -> Outline:
        """Judge a mask.

        Args:
            truth: H x W, true on the lesion.
            prediction: H x W, of the same size.
            pixels: h x w x 3, the picture in any size, where it is at hand.

        Raises:
            DataError: The masks differ in size.
        """
        return cls(
            compare_masks(truth, prediction),
            boundary_distance(truth, prediction),
            Conditions.of(pixels, truth),
        )


COLUMNS = (*MaskScore._fields, *BoundaryDistance._fields, *Conditions._fields)
"""What an out-of-fold table of masks says of each picture, beside its id and group."""


def outline_table(outlines: Mapping[str, Outline]) -> pd.DataFrame:
    """Return ``image_id`` and `COLUMNS`, a row a picture, sorted by id."""
    rows = [
        (image_id, *one.score, *one.boundary, *one.conditions)
        for image_id, one in sorted(outlines.items())
    ]
    table = pd.DataFrame(rows, columns=["image_id", *COLUMNS])
    return table.astype({"image_id": "string", **dict.fromkeys(COLUMNS, np.float64)})
