"""Draw the raster images of the pages from what ``naevus demo`` left, so that all are synthetic.

    naevus demo --out demo
    python tools/draw_images.py demo

Writes to ``docs/images``: ``results.png``, the first unseen images with both contours;
``crop-modes.png``, the inputs of a classifier; ``prediction.png``, a prediction as it plots itself.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

import naevus
from naevus.datasets.layouts import load
from naevus.images.maskfile import read_mask
from naevus.images.masks import area_fraction, draw_contours
from naevus.images.preprocess import cut
from naevus.images.read import read
from naevus.reports.contact_sheet import Tile, contact_sheet
from naevus.runs.prediction_tables import read_predictions

if TYPE_CHECKING:
    from naevus.datasets.dataset import Record

IMAGES: Final = Path(__file__).parents[1] / "docs" / "images"
TITLE: Final = "Unseen synthetic images. Below each: ground truth: prediction, probability"
_COUNT, _SIDE, _GAP, _COLOURS = 12, 192, 12, 200
_AREA: Final = 0.2  # the lesion's fraction of the image in which modes are shown


def draw_results(demo: Path, rows: list[Record]) -> None:
    """Write the contact sheet of the first unseen images."""
    predicted = read_predictions(demo / "predictions" / "predictions.parquet")
    by_id = predicted.set_index("image_id", drop=False)
    tiles = []
    for row in rows:
        if row.image_id not in by_id.index or row.path is None or row.mask_path is None:
            continue
        code = str(by_id.loc[row.image_id, "predicted_balanced"])
        probability = float(by_id[f"prob_{code}"][row.image_id])
        mask = demo / "predictions" / "masks" / f"{row.image_id}_segmentation.png"
        tiles.append(
            Tile(
                read(row.path),
                read_mask(row.mask_path),
                read_mask(mask),
                f"{row.diagnosis}: {code} {probability:.2f}",
                code == row.diagnosis,
            )
        )
    contact_sheet(tiles[:_COUNT], IMAGES / "results.png", title=TITLE)
    _reduce(IMAGES / "results.png")


def draw_crop_modes(rows: list[Record]) -> None:
    """Write a melanoma of ordinary size, its contour, and the three modes of cropping."""
    found = [
        (row.path, read_mask(row.mask_path))
        for row in rows
        if row.diagnosis == "MEL" and row.path is not None and row.mask_path is not None
    ]
    path, mask = min(found, key=lambda pair: abs(area_fraction(pair[1]) - _AREA))
    pixels = read(path)
    contour = draw_contours(pixels, mask, thickness=3)
    tiles = [
        *(cut(each, mask, mode="full", size=_SIDE).pixels for each in (pixels, contour, pixels)),
        cut(pixels, mask, mode="crop", size=_SIDE).pixels,
        cut(pixels, mask, mode="blank", size=_SIDE).pixels,
    ]
    gap = np.full((_SIDE, _GAP, 3), 255, np.uint8)
    parts = [part for tile in tiles for part in (tile, gap)][:-1]
    Image.fromarray(np.hstack(parts)).save(IMAGES / "crop-modes.png")
    _reduce(IMAGES / "crop-modes.png")


def draw_prediction(demo: Path) -> None:
    """Write the plot of one unseen image, by the networks of the demo."""
    predictor = naevus.load([demo / "segmentation", demo / "classification"])
    predicted = read_predictions(demo / "predictions" / "predictions.parquet")
    prediction = predictor(Path(predicted["path"].iloc[0]))
    prediction.plot().savefig(IMAGES / "prediction.png", dpi=90)
    _reduce(IMAGES / "prediction.png")


def _reduce(path: Path) -> None:
    with Image.open(path) as image:
        image.convert("RGB").quantize(_COLOURS).save(path, optimize=True)


def main() -> int:
    """Draw all from the named folder."""
    if len(sys.argv) != 2:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    demo = Path(sys.argv[1])
    rows = list(load(demo / "data").part("task3").rows())
    draw_crop_modes(rows)
    draw_results(demo, rows)
    draw_prediction(demo)
    return 0


if __name__ == "__main__":
    sys.exit(main())
