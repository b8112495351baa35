"""Masks in files against masks in files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.errors import DataError
from naevus.evaluation.scoring.outline import Outline, outline_table
from naevus.images.maskfile import read_mask, read_mask_of
from naevus.images.quality import SIDE
from naevus.images.read import read

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd


def compare_folder(
    truths: Mapping[str, Path], predicted: Path, pictures: Mapping[str, Path] | None = None
) -> pd.DataFrame:
    """Compare the masks of a folder with the true ones.

    Args:
        truths: File of the true mask of each id.
        predicted: Folder with ``<id>_segmentation.png``.
        pictures: File of the picture of each id; where it is absent, contrast, hair and contact
            with the border are not known.

    Returns:
        What `outline_table` gives.

    Raises:
        DataError: A predicted mask is absent or of another size.
        PictureError: A mask or a picture cannot be read.
    """
    outlines = {}
    for image_id, truth in sorted(truths.items()):
        path = predicted / f"{image_id}_segmentation.png"
        if not path.exists():
            raise DataError(f"{path}: there is no such mask", "predict this picture again")
        try:
            picture = None if pictures is None else pictures.get(image_id)
            pixels = None if picture is None else read(picture, shortest=SIDE)
            true = read_mask(truth) if picture is None else read_mask_of(truth, picture)
            outlines[image_id] = Outline.of(true, read_mask(path), pixels)
        except DataError as error:
            raise DataError(f"{path}: {error.message}", error.remedy) from error
    return outline_table(outlines)
