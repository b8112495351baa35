"""Error rates of the audit's near-duplicate rule on HAM10000's lesions.

Pairs of one lesion are mostly different photographs, so most of them need not be confirmed. Pairs
of different lesions should never be confirmed, unless one lesion has two ids.

Usage: python benchmarks/duplicate_threshold.py [ISIC2018_FOLDER]
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg
from rich.console import Console
from rich.table import Table

from naevus.datasets.duplicates import (
    CORRELATION,
    Appearance,
    Match,
    appearance_of,
    hamming,
    measure,
    propose,
)
from naevus.datasets.layouts import load
from naevus.images.geometry import d4_transform, resize
from naevus.images.read import read

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHARED = Path(os.environ.get("NAEVUS_SHARED", Path(__file__).parents[2] / "shared"))
THRESHOLDS = (0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97)
RANDOM_PAIRS = 5000
COPIES = 200


def main() -> None:
    """Measure and print both error rates at several thresholds."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else SHARED / "data" / "isic2018"
    dataset = load(root).part("task3").images()
    lesions = dataset.table["group_id"].to_numpy(dtype=str)
    with ThreadPoolExecutor(2) as pool:
        paths = [Path(path) for path in dataset.table["path"]]
        appearances = list(pool.map(lambda path: appearance_of(read(path, shortest=64)), paths))
    proposed = list(propose(appearances))
    alike = [pair for pair in proposed if lesions[pair.first] == lesions[pair.second]]
    unlike = [pair for pair in proposed if lesions[pair.first] != lesions[pair.second]]
    sets = {
        "one lesion, all": _same_lesion(appearances, lesions),
        "one lesion, proposed": alike,
        "different lesions, random": _random_pairs(appearances, lesions),
        "different lesions, proposed": unlike,
    }
    measured = {name: _correlations(appearances, pairs) for name, pairs in sets.items()}
    _show(measured)
    print(f"confirmed at {CORRELATION} across lesions:")
    for pair in unlike:
        value = measure(appearances, pair).correlation
        if value >= CORRELATION:
            print(f"  {dataset.ids[pair.first]} {dataset.ids[pair.second]} {value:.3f}")
    _copies(paths)


def _copies(paths: list[Path]) -> None:
    """Print how many modified copies of real images are confirmed."""
    random = np.random.default_rng(2018)
    chosen = random.choice(len(paths), COPIES, replace=False)
    for cut in (0.0, 0.03, 0.06, 0.1):
        confirmed = 0
        for position in chosen:
            pixels = read(paths[position])
            appearances = [appearance_of(pixels), appearance_of(_copy(pixels, cut, random))]
            confirmed += any(
                measure(appearances, p).correlation >= CORRELATION for p in propose(appearances)
            )
        print(f"copies with up to {cut:.0%} cut off: {confirmed} of {COPIES} confirmed")


def _copy(pixels: NDArray[np.uint8], cut: float, random: np.random.Generator) -> NDArray[np.uint8]:
    """Return the image cropped, rotated, scaled, with other brightness, and saved as JPEG."""
    side = min(pixels.shape[:2])
    left, top, right, bottom = random.integers(0, int(cut * side) + 1, 4)
    pixels = d4_transform(pixels[top : side - bottom, left : side - right], int(random.integers(8)))
    scale = random.uniform(0.6, 1.0)
    pixels = resize(pixels, int(pixels.shape[0] * scale), int(pixels.shape[1] * scale))
    lit = np.clip(pixels * random.uniform(0.8, 1.15), 0, 255).astype(np.uint8)
    quality = int(random.integers(50, 96))
    saved = simplejpeg.encode_jpeg(lit, quality=quality)
    return np.asarray(simplejpeg.decode_jpeg(saved), np.uint8)


def _correlations(appearances: list[Appearance], pairs: list[Match]) -> NDArray[np.float64]:
    with ThreadPoolExecutor(2) as pool:
        measured = pool.map(lambda pair: measure(appearances, pair).correlation, pairs)
        return np.fromiter(measured, np.float64, len(pairs))


def _same_lesion(appearances: list[Appearance], lesions: NDArray[np.str_]) -> list[Match]:
    order = np.argsort(lesions, kind="stable")
    _, starts = np.unique(lesions[order], return_index=True)
    members = np.split(order, starts[1:])
    pairs = [pair for group in members for pair in combinations(sorted(group.tolist()), 2)]
    return [_in_best_view(appearances, one, other) for one, other in pairs]


def _random_pairs(appearances: list[Appearance], lesions: NDArray[np.str_]) -> list[Match]:
    drawn = np.random.default_rng(2018).integers(0, len(appearances), (2 * RANDOM_PAIRS, 2))
    pairs = [(a, b) for a, b in drawn.tolist() if lesions[a] != lesions[b]][:RANDOM_PAIRS]
    return [_in_best_view(appearances, one, other) for one, other in pairs]


def _in_best_view(appearances: list[Appearance], one: int, other: int) -> Match:
    distances = hamming(appearances[one].hashes[:1], appearances[other].hashes)
    return Match(one, other, int(distances.argmin()), 0.0)


def _show(measured: dict[str, NDArray[np.float64]]) -> None:
    table = Table(title="pairs whose registered details correlate at least so much")
    table.add_column("pairs")
    table.add_column("number", justify="right")
    for threshold in THRESHOLDS:
        table.add_column(f"{threshold:.2f}", justify="right")
    for name, values in measured.items():
        above = [int((values >= threshold).sum()) for threshold in THRESHOLDS]
        cells = [f"{number} ({number / len(values):.2%})" for number in above]
        table.add_row(name, str(len(values)), *cells)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
