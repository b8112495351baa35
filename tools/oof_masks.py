"""Write the out-of-fold table of lesion masks that several networks of each fold give together.

    python tools/oof_masks.py DATA --folds FOLDS... --bundles 'a/fold-{}' 'b/fold-{}' --out TABLE

Folds of several parts are joined. ``{}`` in the path of a bundle stands for the fold. Each image is
segmented by the bundles of the fold that held out its lesion, as they are stored, computed in 32
bits.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from naevus.bundles.bundle import Bundle
from naevus.datasets.folds import Folds, join_folds
from naevus.datasets.layouts import load
from naevus.errors import NaevusError
from naevus.evaluation.segmentation import SegmentationEvaluation
from naevus.inference.out_of_fold import oof_scores
from naevus.io.files import atomic
from naevus.io.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table, and print its scores fold by fold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folds", type=Path, nargs="+", required=True)
    parser.add_argument("--bundles", nargs="+", required=True, metavar="BUNDLE")
    parser.add_argument("--fold", type=int, nargs="+", help="only these folds")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        folds = join_folds([Folds.read(path) for path in options.folds])
        chosen = options.fold or range(folds.k)
        table = oof_masks(options.data, folds, options.bundles, chosen)
        with atomic(options.out) as temporary:
            table.to_parquet(temporary, index=False, compression="zstd")
    except NaevusError as error:
        sys.exit(f"error: {error}")


def oof_masks(
    data: Path, folds: Folds, places: Sequence[str], chosen: Iterable[int]
) -> pd.DataFrame:
    """Return the table of the chosen folds, sorted by image id.

    Images without a mask, and unreadable ones, have no row; their numbers are printed.

    Raises:
        NaevusError: A bundle is missing or unusable, or did not hold out its fold.
    """
    files = {
        each.image_id: (each.image_id, each.path, each.mask_path)
        for each in load(data).rows()
        if each.path is not None and each.mask_path is not None
    }
    groups = dict(zip(folds.table["image_id"], folds.table["group_id"], strict=True))
    tables = []
    for fold in chosen:
        bundles = [Bundle.read(Path(place.format(fold))) for place in places]
        for bundle in bundles:
            if any(member.folds != (fold,) for member in bundle.segmenter.members):
                raise NaevusError(f"{bundle.folder} did not hold out fold {fold}", "name another")
        held_out = folds.held_out(fold)
        ids = sorted(files.keys() & held_out)
        table = oof_scores(bundles, [files[image_id] for image_id in ids])
        for count, why in (
            (len(held_out) - len(ids), "without file or mask"),
            (len(ids) - len(table), "unreadable"),
        ):
            if count:
                print(f"fold {fold}: {counted(count, 'image')} left out, {why}", flush=True)
        table["group_id"], table["fold"] = table["image_id"].map(groups), fold
        scores = SegmentationEvaluation.of(table).metrics
        print(
            f"fold {fold}: {len(table):,} images, mean Jaccard index {scores['jaccard']}, "
            f"thresholded {scores['thresholded_jaccard']}",
            flush=True,
        )
        tables.append(table)
    return pd.concat(tables).sort_values("image_id", ignore_index=True)


if __name__ == "__main__":
    main()
