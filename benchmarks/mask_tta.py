"""What test-time augmentation and a second network gain for lesion masks, out of fold.

    python benchmarks/mask_tta.py DATA --folds FOLDS.csv --bundles 'fold-{}.naevus' --fold 0 1 2 3 4

Each image is segmented by the bundle of the fold that held out its lesion, with and without
``--tta``; with ``--beside BUNDLE``, also by this bundle, which must have held out the same fold
(``{}`` in its path stands for it), and by both together. Differences are paired by image, with
95 % intervals by lesion.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from naevus.bundles.bundle import Bundle
from naevus.datasets.folds import Folds
from naevus.datasets.layouts import load
from naevus.evaluation.intervals import mean_interval
from naevus.evaluation.mask_metrics import compare_masks
from naevus.images.maskfile import read_mask
from naevus.images.read import read
from naevus.inference.segmenter import Segmenter

if TYPE_CHECKING:
    from numpy.typing import NDArray


def main() -> None:
    """Print both scores of every way, and its gain over a single transform of one network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--folds", type=Path, required=True)
    parser.add_argument("--bundles", required=True, help="path with {} for the fold")
    parser.add_argument("--fold", type=int, nargs="+", default=[0])
    parser.add_argument("--tta", choices=["none", "half-turn", "flips", "d4"], default="d4")
    parser.add_argument("--beside", help="another bundle that held out the fold")
    options = parser.parse_args()
    folds = Folds.read(options.folds)
    paths = {
        row.image_id: (row.path, row.mask_path)
        for row in load(options.data).rows()
        if row.path is not None and row.mask_path is not None
    }
    groups = dict(zip(folds.table["image_id"], folds.table["group_id"], strict=True))
    scores = []
    for fold in options.fold:
        beside = None if options.beside is None else Path(options.beside.format(fold))
        ways = segmenters(Path(options.bundles.format(fold)), beside, options.tta)
        for image_id in sorted(folds.held_out(fold) & paths.keys()):
            path, mask_path = paths[image_id]
            truth, image = read_mask(mask_path), read(path)
            for name, segmenter in ways.items():
                score = compare_masks(truth, segmenter.mask(image))
                scores.append((image_id, name, score.jaccard, score.thresholded_jaccard))
    table = pd.DataFrame(scores, columns=["image_id", "way", "mean", "thresholded"])
    print(f"{table['image_id'].nunique():,} images\n")
    print("| | mean Jaccard | gain, points | thresholded | gain, points |\n|---|---|---|---|---|")
    by_way = {
        str(way): part.set_index("image_id") for way, part in table.groupby("way", sort=False)
    }
    first = next(iter(by_way.values()))
    lesions = [groups[image_id] for image_id in first.index]
    for way, part in by_way.items():
        cells = [way]
        for column in ("mean", "thresholded"):
            gain = 100 * (part[column] - first[column]).to_numpy()
            cells.append(str(mean_interval(part[column].to_numpy(), lesions)))
            cells.append(points(gain, lesions) if gain.any() else "")
        print("| " + " | ".join(cells) + " |")


def segmenters(bundle: Path, beside: Path | None, tta: str) -> dict[str, Segmenter]:
    """Load every way to segment: each network alone and both together, with and without TTA."""
    networks = {"the network": [Bundle.read(bundle)]}
    if beside is not None:
        networks["the other"] = [Bundle.read(beside)]
        networks["both"] = [bundle for each in networks.values() for bundle in each]
    ways = {}
    for name, bundles in networks.items():
        ways[name] = Segmenter(bundles)
        if tta != "none":
            ways[f"{name}, {tta}"] = Segmenter(bundles, tta=tta)  # type: ignore[arg-type]
    return ways


def points(gain: NDArray[Any], lesions: list[str]) -> str:
    """Write a mean gain in points with its interval."""
    value, low, high = mean_interval(gain, lesions)
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


if __name__ == "__main__":
    main()
