"""Compare measurements of predicted lesion masks with those of the true masks.

    python benchmarks/lesion_sizes.py DATA --folds FOLDS.csv --bundle BUNDLE

DATA is a data set with lesion masks, whose fold 0 the bundle's segmenter held out. Lesions that
reach the border in either mask are counted and left out. Intervals are by lesion.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from naevus.bundles.bundle import Bundle, builtin
from naevus.datasets.folds import Folds
from naevus.datasets.layouts import load
from naevus.evaluation.intervals import mean_interval
from naevus.images.maskfile import read_mask
from naevus.images.measurements import Measurements, measure
from naevus.images.read import read
from naevus.inference.segmenter import Segmenter


def main() -> None:
    """Print the mean absolute difference of each measurement, and the rank correlation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folds", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=builtin())
    options = parser.parse_args()
    segmenter = Segmenter(Bundle.read(options.bundle))
    folds = Folds.read(options.folds)
    groups = dict(zip(folds.table["image_id"], folds.table["group_id"], strict=True))
    rows, images = [], 0
    for row in load(options.data).part("task1").rows():
        if row.image_id not in folds.held_out(0) or row.path is None or row.mask_path is None:
            continue
        images += 1
        pixels = read(row.path)
        truth = measure(read_mask(row.mask_path), pixels)
        found = measure(segmenter.mask(pixels), pixels)
        if truth is not None and found is not None:
            rows.append((groups[row.image_id], truth, found))
    print(f"{len(rows):,} of {images:,} images have both measurements")
    print("| measurement | mean absolute difference | rank correlation |\n|---|---|---|")
    for name in Measurements._fields:
        print(_line(name, rows))


def _line(name: str, rows: list[tuple[str, Measurements, Measurements]]) -> str:
    """Return a row of the table; sizes are in per cent of the true one."""
    truth, found = (np.array([getattr(row[side], name) for row in rows]) for side in (1, 2))
    apart = np.abs(found - truth)
    is_size = name in Measurements._fields[:5]
    if is_size:
        apart = 100 * apart / truth
    value, low, high = mean_interval(apart, [row[0] for row in rows])
    ranks = pd.Series(truth).corr(pd.Series(found), method="spearman")
    digits, unit = (1, " %") if is_size or name == "colour_variegation" else (3, "")
    unit = unit if is_size else ""
    return (
        f"| {name.replace('_', ' ')} | {value:.{digits}f}{unit} "
        f"({low:.{digits}f} to {high:.{digits}f}) | {ranks:.2f} |"
    )


if __name__ == "__main__":
    main()
