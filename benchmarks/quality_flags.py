"""Precision and recall of the flags for hair and rulers, on images labelled by eye.

    python benchmarks/quality_flags.py DATA [--originals FOLDER] [--half tuning|judging]

DATA is the ISIC 2018 data set with the images of ``results/labels/quality-flags.csv``. Limits are
set on the groups of the half ``tuning``; the other half only judges them. ``hair`` is right where
much hair was seen, ``ruler`` where a ruler or scale marks were. Half of the images are a random
sample (one per group); the others were chosen by scores for hair and rulers, so that both occur
often. Prints Wilson's 95 % intervals, and the flags of each full-size original.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import pandas as pd

from naevus.datasets.layouts import load
from naevus.evaluation.intervals import wilson_interval
from naevus.images.quality import flags_of, quality_of
from naevus.images.read import read

LABELS = Path(__file__).parents[1] / "results" / "labels" / "quality-flags.csv"


def measured(labels: pd.DataFrame, files: dict[str, Path]) -> pd.DataFrame:
    """Return the labels with columns of what is right and what is flagged."""
    rows = []
    for row in labels.itertuples():
        pixels = read(files[str(row.image_id)])
        flagged, quality = flags_of(pixels), quality_of(pixels)
        rows.append(("hair" in flagged, "ruler" in flagged, quality.hair, quality.ruler))
    columns = ["hair_flag", "ruler_flag", "hair_measure", "ruler_measure"]
    table = labels.reset_index(drop=True).join(pd.DataFrame(rows, columns=columns))
    return table.assign(hair_right=table["hair"] == "much", ruler_right=table["ruler"] == 1)


def report(table: pd.DataFrame, name: str) -> None:
    """Print precision and recall of both flags on some images."""
    for flag in ("hair", "ruler"):
        right, flagged = table[f"{flag}_right"], table[f"{flag}_flag"]
        print(
            f"{name}, {flag}: {len(table)} images, {right.sum()} labelled, {flagged.sum()} flagged"
        )
        for metric, among, value in (("precision", flagged, right), ("recall", right, flagged)):
            if not among.any():
                print(f"  {metric}: no images")
                continue
            found = wilson_interval(value[among], table.loc[among, "group_id"].tolist())
            print(f"  {metric}: {value[among].sum()} of {among.sum()}, {found}")
    hair = table[table["hair_flag"]]["hair"].value_counts().to_dict()
    print(f"{name}, flagged as hair by label: {hair}")


def milliseconds(files: list[Path]) -> float:
    """Return the processor time for the flags of an image; reading is not counted."""
    images = [read(file) for file in files]
    before = time.process_time()
    for pixels in images:
        flags_of(pixels)
    return 1000 * (time.process_time() - before) / len(images)


def main() -> None:
    """Print precision and recall."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--originals", type=Path, help="the full-size images")
    parser.add_argument("--half", choices=["tuning", "judging"], default="judging")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    labels = pd.read_csv(LABELS)
    paths = load(args.data).table.set_index("image_id")["path"]
    files = {str(name): Path(path) for name, path in paths.items()}
    half = labels[labels["half"] == args.half]
    table = measured(half, files)
    report(table, args.half)
    report(table[table["chosen_by"] == "random"], f"{args.half}, random part")
    print(
        f"{milliseconds([files[name] for name in half['image_id']]):.2f} ms of processor per image"
    )
    if args.originals is not None:
        originals = labels[labels["half"] == "neither"]
        names = {file.stem: file for file in args.originals.iterdir()}
        table = measured(originals, names)
        report(table, "originals")
        columns = ["image_id", "hair", "hair_measure", "hair_flag"]
        columns += ["ruler", "ruler_measure", "ruler_flag"]
        print(table[columns].round(3).to_string(index=False))


if __name__ == "__main__":
    main()
