"""Compare the average of some networks' weights with their ensemble.

Takes runs of one recipe that differ only in seed, on a fold that all of them have held out.
Compares one of them, their mean prediction, and the network with their mean weights, on the same
images, by lesion.

    python benchmarks/seeds.py runs/a runs/b runs/c --fold 0 --out results/oof

prints the comparison, and writes ``classification-<single|ensemble|average>-fold0.parquet``, which
``naevus compare`` reads.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from naevus.evaluation.classification import headline_intervals
from naevus.evaluation.comparison import compare
from naevus.evaluation.labelled import oof_classified
from naevus.evaluation.out_of_fold import combined, taxonomy_of
from naevus.export.graphs import StoredGraphs
from naevus.export.members import combine
from naevus.export.precision import Measuring, oof_predictions
from naevus.runs.run import Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd


def predictions(runs: Sequence[Run], fold: int, data: Path | None) -> dict[str, pd.DataFrame]:
    """Return the held-out tables of one network, of the ensemble, and of the average."""
    joined = [run.predictions() for run in runs]
    held_out = [table[table["fold"] == fold].reset_index(drop=True) for table in joined]
    part = combine("classification", runs, folds=(fold,), averaged=True, data=data)
    (whole,) = part.members
    images = part.sources[whole.run.folder]
    with tempfile.TemporaryDirectory() as folder:
        graphs = StoredGraphs(whole, images, Path(folder), calibrated=0, without=())
        average = oof_predictions(Measuring(graphs, images, None))
    return {
        "single": held_out[0],
        "ensemble": combined(held_out, taxonomy_of(held_out[0])),
        "average": average,
    }


def main() -> None:
    """Compare the networks, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--data", type=Path, help="the data set, if it has moved")
    parser.add_argument("--out", type=Path, help="where the tables are kept")
    args = parser.parse_args()
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
    tables = predictions([Run.open(folder) for folder in args.runs], args.fold, args.data)
    for name, table in tables.items():
        intervals = headline_intervals(oof_classified(table))
        for score in ("balanced_accuracy", "accuracy"):
            print(f"{name:9} {score:18} {intervals[score]}")
        if args.out is not None:
            table.to_parquet(
                args.out / f"classification-{name}-fold{args.fold}.parquet", index=False
            )
    for a, b in (("single", "ensemble"), ("single", "average"), ("ensemble", "average")):
        print(compare(tables[a], tables[b], (a, b)))


if __name__ == "__main__":
    main()
