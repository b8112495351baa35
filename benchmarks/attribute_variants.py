"""Do finer thresholds, other ways to choose them, or test-time augmentation help attributes?

    python benchmarks/attribute_variants.py RUN DATA [--fold 0 1] [--tta half-turn]

RUN is a finished run of attributes and DATA its data set. Each fold's bundle predicts the images
that it held out. Thresholds beyond .95 are added on the logit scale. Those of each fold are chosen
on the other folds given here, or on the other half of its lesions. Differences are in points, with
95 % intervals by lesion.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import pandas as pd

from naevus.bundles.bundle import Bundle
from naevus.datasets.layouts import load
from naevus.evaluation import attributes
from naevus.evaluation.attributes import THRESHOLDS, cross_fitted_counts, jaccard
from naevus.evaluation.comparison import compare
from naevus.evaluation.paired_tests import pooled_difference
from naevus.inference.out_of_fold import oof_attributes
from naevus.runs.run import Run
from naevus.taxonomy import ATTRIBUTES
from naevus.types import TTA

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from naevus.datasets.dataset import Dataset

LOGITS = (3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 7.0, 8.0)
FINER = (*THRESHOLDS, *(1 / (1 + float(np.exp(-logit))) for logit in LOGITS))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--fold", type=int, nargs="+")
    parser.add_argument("--tta", choices=get_args(TTA), default="none")
    options = parser.parse_args()
    run, dataset = Run.open(options.run), load(options.data)
    folds = options.fold or run.finished()
    known = run.predictions()
    known = known[known["fold"].isin(folds)].sort_values("image_id", ignore_index=True)
    # The counts of a table are those of the thresholds at the time.
    vars(attributes)["THRESHOLDS"] = FINER
    finer = pd.concat([predicted(run, dataset, fold, options.tta) for fold in folds])
    finer = finer.sort_values("image_id", ignore_index=True)
    usual = cut_off(finer, len(THRESHOLDS))
    if options.tta != "none":
        show("as trained", known)
        show(f"--tta {options.tta}", usual)
        print(compare(known, usual, ("without", options.tta), corrected=False))
        return
    show("thresholds to .95", usual)
    show("finer thresholds", finer)
    print(compare(usual, finer, ("to .95", "finer"), corrected=False))
    apart = cross_fitted_counts(usual, alone=True)
    print("each attribute's own index:", listed(apart))
    whole, own = (cut.sum(axis=1) for cut in (cross_fitted_counts(usual), apart))
    groups = usual["group_id"].tolist()
    print(pooled_difference("pooled Jaccard", whole, own, groups).sentence("all", "own index"))


def predicted(run: Run, dataset: Dataset, fold: int, tta: TTA) -> pd.DataFrame:
    """Return the out-of-fold table of one fold."""
    table = run.predictions()
    rows = table[table["fold"] == fold][["image_id", "group_id", "fold"]]
    ids = set(rows["image_id"])
    sources = [
        (each.image_id, each.path, each.attributes)
        for each in dataset.rows()
        if each.image_id in ids and each.path
    ]
    found = oof_attributes(Bundle.read(run.bundle_folder(fold)), sources, tta=tta)
    return found.merge(rows, on="image_id", validate="1:1")


def cut_off(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return a table with the counts at the first thresholds."""
    columns = [f"{kind}_{name}" for kind in ("hit", "predicted") for name in ATTRIBUTES]
    return table.assign(**{name: [each[:count] for each in table[name]] for name in columns})


def show(name: str, table: pd.DataFrame) -> None:
    """Print the indices of a table."""
    print(f"{name}: {listed(cross_fitted_counts(table))}")


def listed(cut: NDArray[np.float64]) -> str:
    """Return the index over all attributes, then each attribute's."""
    each = jaccard(*cut.sum(axis=0).T)
    parts = [f"{name} {value:.3f}" for name, value in zip(ATTRIBUTES, each, strict=True)]
    return ", ".join([f"all {float(jaccard(*cut.sum(axis=(0, 1)))):.3f}", *parts])


if __name__ == "__main__":
    main()
