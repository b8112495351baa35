"""The gain of test-time augmentation: flips, all D4 transforms, and wider boxes.

    python benchmarks/tta_sets.py DATA --masks FOLDER --folds FOLDS.csv --fold 0 [--bundle BUNDLE]

Predicts with a bundle whose networks all held out the fold, on one image of some lesions of each
diagnosis, cropped by masks of networks that never saw them. Temperatures are fitted on each half
for the other half; differences are from one transform, by lesion. With --keep the logits are stored
and reused.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from naevus.bundles.bundle import Bundle, builtin
from naevus.datasets.folds import Folds
from naevus.datasets.layouts import load
from naevus.datasets.sources import mask_file
from naevus.evaluation.bootstrap import Groups
from naevus.evaluation.ensemble_selection import best_temperature
from naevus.evaluation.paired_tests import paired_difference
from naevus.evaluation.priors import balanced_log_probabilities
from naevus.evaluation.scaling import assign_parts
from naevus.images.geometry import d4_transform_batch
from naevus.images.preprocess import ImageFiles, InputSpec, load_input
from naevus.inference.classifier import Classifier

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SETS: dict[str, list[tuple[int, int]]] = {
    "1 view": [(0, 0)],
    "2: flip": [(0, 0), (0, 4)],
    "2: half turn": [(0, 0), (0, 2)],
    "2: wider box": [(0, 0), (1, 0)],
    "2: wider box, flipped": [(0, 0), (1, 4)],
    "4 flips": [(0, k) for k in (0, 4, 6, 2)],
    "4: two flips, two wider": [(0, 0), (0, 4), (1, 6), (1, 2)],
    "8 symmetries": [(0, k) for k in range(8)],
    "8: 4 flips x 2 boxes": [(box, k) for box in (0, 1) for k in (0, 4, 6, 2)],
    "8 symmetries, wider box": [(1, k) for k in range(8)],
    "16: 8 symmetries x 2 boxes": [(box, k) for box in (0, 1) for k in range(8)],
}
"""Pairs of box and symmetry (`images.geometry.view`) whose log-probabilities are averaged."""


def main() -> None:
    """Print a line for each set of transforms."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--folds", type=Path, required=True)
    parser.add_argument("--fold", type=int, required=True)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--wider", type=float, default=0.35, help="margin of the second box")
    parser.add_argument("--lesions", type=int, default=60, help="lesions of a diagnosis, at most")
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    if options.keep and options.keep.exists():
        stored = np.load(options.keep)
        table = pd.DataFrame({name: stored[name] for name in ("image_id", "group_id", "diagnosis")})
        logs = stored["logs"]
    else:
        table = _drawn(options.data, Folds.read(options.folds), options.fold, options.lesions)
        bundle = Bundle.read(options.bundle or builtin())
        logs = _asked(bundle, table, options.masks, options.fold, options.wider)
        if options.keep:
            np.savez(
                options.keep,
                logs=logs,
                truth=table["diagnosis"].to_numpy(),
                image_id=table["image_id"].to_numpy(str),
                group_id=table["group_id"].to_numpy(str),
            )
    _tell(table, logs)


def _drawn(data: Path, folds: Folds, fold: int, most: int) -> pd.DataFrame:
    """Return one image per lesion with its diagnosis, for a number of lesions of each."""
    dataset = load(data).part("task3").with_diagnosis()
    held = dataset.table[dataset.table["image_id"].isin(folds.held_out(fold))]
    groups = folds.table.set_index("image_id")["group_id"]
    rows = held.assign(group_id=held["image_id"].map(groups))
    rows = rows.sort_values("image_id").drop_duplicates("group_id")
    shuffled = rows.sample(frac=1, random_state=2018)
    chosen = shuffled.groupby("diagnosis").head(most).sort_values("image_id", ignore_index=True)
    truth = chosen["diagnosis"].map(dataset.taxonomy.index)
    return chosen[["image_id", "group_id", "path"]].assign(diagnosis=truth)


def _asked(
    bundle: Bundle, table: pd.DataFrame, masks: Path, fold: int, wider: float
) -> NDArray[np.float64]:
    """Return balanced log-probabilities, the members' mean: boxes x 8 x N x C."""
    spec = bundle.classifier
    unknown_ids = [member.file for member in spec.members if fold not in member.folds]
    if not all(spec.mode_of(member) == "crop" for member in spec.members):
        raise SystemExit("a wider box needs networks of crops: name a bundle of these alone")
    if unknown_ids:
        raise SystemExit(f"{unknown_ids[0]} has trained on fold {fold}")
    classifier = Classifier(bundle, threads=1)
    paths = zip(table["image_id"], table["path"], strict=True)
    sources = [ImageFiles(name, Path(path), mask_file(masks, name)) for name, path in paths]
    sources = [
        s if s.mask_path and s.mask_path.exists() else s._replace(mask_path=None) for s in sources
    ]
    logs = np.zeros((2, 8, len(table), len(spec.classes)))
    for member, opened in zip(spec.members, classifier.members, strict=True):
        for box, margin in enumerate((spec.crop_margin, wider)):
            input_spec = InputSpec("crop", member.input_size, margin, spec.colour_constancy)
            for start in range(0, len(sources), 32):
                piece = sources[start : start + 32]
                pixels = np.stack([load_input(source, input_spec).pixels for source in piece])
                for k in range(8):
                    logits = opened.engine.run(d4_transform_batch(pixels, k))["logits"].astype(
                        np.float64
                    )
                    found = balanced_log_probabilities(
                        logits, member.class_weights, member.class_priors
                    )
                    logs[box, k, start : start + 32] += found / len(spec.members)
            print(f"asked {member.file}, margin {margin}", flush=True)
    return logs


def _tell(table: pd.DataFrame, logs: NDArray[np.float64]) -> None:
    truth = table["diagnosis"].to_numpy(np.intp)
    groups = table["group_id"].tolist()
    half = assign_parts(Groups.of(groups, truth.tolist()), 2)
    member = truth[:, None] == np.unique(truth)[None, :]
    print(f"{len(table)} images, a lesion each; of each diagnosis {member.sum(0).tolist()}")
    first: tuple[NDArray[np.float64], NDArray[np.bool_]] | None = None
    for name, pairs in SETS.items():
        losses, right = _judged(_mean(logs, pairs), truth, half)
        parts = member * losses[:, None], member & right[:, None]
        first = first or parts
        lines = [
            paired_difference(what, one, other, member, groups)
            for what, one, other in zip(("loss", "balanced accuracy"), first, parts, strict=True)
        ]
        cells = [
            f"{found.score} {found.b:.4f} ({found.difference.value:+z.4f}, "
            f"{found.difference.low:+z.4f} to {found.difference.high:+z.4f})"
            for found in lines
        ]
        print(f"{name:<28}" + "  ".join(cells))


def _mean(logs: NDArray[np.float64], pairs: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
    boxes, symmetries = zip(*pairs, strict=True)
    mean = logs[list(boxes), list(symmetries)].mean(axis=0)
    total: NDArray[np.float64] = mean - np.log(np.exp(mean).sum(axis=1, keepdims=True))
    return total


def _judged(
    logs: NDArray[np.float64], truth: NDArray[np.intp], half: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    losses = np.empty(len(truth))
    for part in (0, 1):
        inside = half == part
        scaled = logs[inside] / best_temperature(logs[~inside], truth[~inside])
        scaled -= np.log(np.exp(scaled).sum(axis=1, keepdims=True))
        losses[inside] = -scaled[np.arange(len(scaled)), truth[inside]]
    return losses, logs.argmax(axis=1) == truth


if __name__ == "__main__":
    main()
