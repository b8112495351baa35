"""The gain of adding a network to an ensemble, by the rule of docs/explanation/ablations.md.

    python benchmarks/new_member.py NEW --beside A B C [--in-place-of C] [--folds 0 1]

NEW, A, B and C are runs or out-of-fold tables. Prints the class-balanced log loss (each fold at the
temperature of the others) and balanced accuracy without and with the new member, and whether it is
adopted. One fold, at its own temperature, can only reject a member.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from naevus.evaluation.ensemble_selection import evaluate_member
from naevus.io.formats import read_parquet

if TYPE_CHECKING:
    import pandas as pd


def main() -> None:
    """Print the verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("new", type=Path)
    parser.add_argument("--beside", type=Path, nargs="+", required=True)
    parser.add_argument("--in-place-of", type=Path)
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    if options.in_place_of and options.in_place_of not in options.beside:
        parser.error("--in-place-of is none of --beside")
    before = {str(path): _table(path) for path in options.beside}
    kept = {name: table for name, table in before.items() if name != str(options.in_place_of)}
    verdict = evaluate_member(before, {**kept, "new": _table(options.new)}, "new", options.folds)
    print("fold  images  loss without  with   balanced accuracy without  with   alone")
    for each in verdict.folds:
        print(
            f"{each.fold:>4}  {each.images:>6}  {each.losses[0]:>12.4f}  {each.losses[1]:.4f}"
            f"  {each.balanced_accuracies[0]:>24.4f}  {each.balanced_accuracies[1]:.4f}"
            f"  {each.alone[0]:.4f}, {each.alone[1]:.4f}"
            f"  (temperatures {each.temperatures[0]:.2f}, {each.temperatures[1]:.2f})"
        )
    print(f"alone, all folds: loss {verdict.alone[0]:.4f}, balanced {verdict.alone[1]:.4f}")
    for found in (verdict.loss, verdict.balanced_accuracy):
        value, low, high = found.difference
        print(
            f"{found.score}: {found.a:.4f} -> {found.b:.4f}, {value:+z.4f} "
            f"(95 % interval {low:+z.4f} to {high:+z.4f}, {found.groups:,} lesions)"
        )
    print("adopted" if verdict.is_adopted else f"not adopted: {'; '.join(verdict.reasons)}")


def _table(path: Path) -> pd.DataFrame:
    file = path / "oof.parquet" if path.is_dir() else path
    return read_parquet(file, "name a run or a table of out-of-fold logits")


if __name__ == "__main__":
    main()
