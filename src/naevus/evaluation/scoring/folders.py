"""Masks in files against masks in files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.errors import DataError
from naevus.evaluation.scoring.segmentation import compare_masks, table_of
from naevus.images.read import read_mask

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd


def compare_folder(truths: Mapping[str, Path], predicted: Path) -> pd.DataFrame:
    """Compare the masks of a folder with the true ones.

    Args:
        truths: File of the true mask of each id.
        predicted: Folder with ``<id>_segmentation.png``.

    Returns:
        ``image_id`` and the fields of `MaskScore`, one row a picture.

    Raises:
        DataError: A predicted mask is absent or of another size.
        PictureError: A mask cannot be read.
    """
    scores = {}
    for image_id, truth in sorted(truths.items()):
        path = predicted / f"{image_id}_segmentation.png"
        if not path.exists():
            raise DataError(f"{path}: there is no such mask", "predict this picture again")
        try:
            scores[image_id] = compare_masks(read_mask(truth), read_mask(path))
        except DataError as error:
            raise DataError(f"{path}: {error.message}", error.remedy) from error
    return table_of(scores)
