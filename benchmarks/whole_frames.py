"""Compare lesion masks on whole frames with those on centre squares of the same images.

    python benchmarks/whole_frames.py DATA FRAMES --folds FOLDS.csv --bundles 'fold-{}.naevus'

DATA is a data set of centre squares with masks; FRAMES holds ``images`` and ``masks`` of whole
frames of some of its images. Each image is segmented by the bundle of the fold that held out its
lesion. Differences are paired by image, with 95 % intervals by lesion.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from naevus.bundles.bundle import Bundle
from naevus.datasets.folds import Folds
from naevus.datasets.layouts import load
from naevus.datasets.sources import mask_file
from naevus.evaluation.intervals import mean_interval
from naevus.evaluation.mask_metrics import compare_masks
from naevus.images.geometry import centre_square
from naevus.images.maskfile import read_mask
from naevus.images.read import read
from naevus.inference.segmenter import Segmenter

if TYPE_CHECKING:
    from naevus.datasets.dataset import Record


def main() -> None:
    """Print a table of both scores on both copies, and where the lesion leaves the square."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("frames", type=Path)
    parser.add_argument("--folds", type=Path, required=True)
    parser.add_argument("--bundles", required=True, help="path with {} for the fold")
    options = parser.parse_args()
    folds = Folds.read(options.folds)
    cropped = {row.image_id: row for row in load(options.data).rows() if row.mask_path is not None}
    groups = dict(zip(folds.table["image_id"], folds.table["group_id"], strict=True))
    rows = []
    for fold in range(folds.k):
        segmenter = Segmenter(Bundle.read(Path(options.bundles.format(fold))))
        for image_id in sorted(folds.held_out(fold)):
            frame = options.frames / "images" / f"{image_id}.jpg"
            if frame.exists() and image_id in cropped:
                rows.append(_compared(segmenter, cropped[image_id], frame, groups))
    table = pd.DataFrame(rows)
    print(f"{len(table):,} images of {table['group_id'].nunique():,} lesions")
    print("| | mean Jaccard | thresholded |\n|---|---|---|")
    for name in ("square", "frame"):
        print(f"| {name} | {_mean(table, name)} | {_mean(table, f'{name}_thresholded')} |")
    for ending in ("", "_thresholded"):
        table[f"change{ending}"] = table[f"frame{ending}"] - table[f"square{ending}"]
    print(f"| frame − square | {_mean(table, 'change')} | {_mean(table, 'change_thresholded')} |")
    for title, part in (
        ("lesion within the square", table[~table["beyond"]]),
        ("lesion reaches beyond", table[table["beyond"]]),
    ):
        values = (_mean(part, "frame"), _mean(part, "frame_thresholded"))
        print(f"| frame, {title} ({len(part)}) | {values[0]} | {values[1]} |")


def _compared(
    segmenter: Segmenter, row: Record, frame: Path, groups: dict[str, str]
) -> dict[str, str | float | bool]:
    assert row.path is not None
    assert row.mask_path is not None
    scores: dict[str, str | float | bool] = {
        "image_id": row.image_id,
        "group_id": groups[row.image_id],
    }
    truth = read_mask(mask_file(frame.parents[1] / "masks", row.image_id))
    scores["beyond"] = bool(truth.sum() > centre_square(truth).sum())
    for name, image, mask in (
        ("square", read(row.path), read_mask(row.mask_path)),
        ("frame", read(frame), truth),
    ):
        score = compare_masks(mask, segmenter.mask(image))
        scores[name] = score.jaccard
        scores[f"{name}_thresholded"] = score.thresholded_jaccard
    return scores


def _mean(table: pd.DataFrame, column: str) -> str:
    return str(mean_interval(np.asarray(table[column]), table["group_id"].tolist()))


if __name__ == "__main__":
    main()
