"""Training by two processes of one thread each, compared with one process of two threads.

Both train the same recipe on the same images, in turn, with everything that belongs to an epoch:
cache, augmentation, forward, backward, exchange of gradients, optimiser, averaged weights,
checkpoint.

    python benchmarks/two_processes.py speed --rounds 3 --epochs 3
    python benchmarks/two_processes.py curves --data ISIC2018 --seeds 1 2 3 --epochs 5

``speed`` compares images per second of a classification on synthetic images, without the first
epoch; the processors must be free. ``curves`` compares the scores of a segmentation after each
epoch, with one thread for each process: two of them divide each batch, so they should differ from
one by no more than seeds do.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean, median
from typing import Any, Final

import pandas as pd
from rich.console import Console
from rich.table import Table

from naevus.datasets.synthetic import write_isic2018

SPEED: Final[dict[str, Any]] = {
    "data.parts": ["task3"],
    "data.validation_fraction": 0,
    "data.cache_size": 184,
    "sizes": [[0, 160]],
    "batch_size": 32,
    "network.dropout": 0.4,
    "optimiser.ema": 0.998,
    "network.backbone": "tf_efficientnet_lite0",
}
CURVES: Final[dict[str, Any]] = {
    "data.validation_fraction": 0.25,
    "data.cache_size": 80,
    "sizes": [[0, 64]],
    "batch_size": 32,
    "precision": "32",
}
WAYS: Final = {
    "one process, 2 threads": ([sys.executable], 2),
    "two processes, 1 thread each": (
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"],
        1,
    ),
}


def main() -> None:
    """Read the command line, train both ways in turn, and print what they reach."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["speed", "curves"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=400, help="half of them are trained on")
    parser.add_argument("--data", type=Path, help="a data set in place of synthetic images")
    parser.add_argument("--folder", type=Path, help="keeps images and cache between two calls")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        data = asked.data or folder / "ISIC2018"
        if not data.exists():
            write_isic2018(data, images=asked.images, seed=7, size=256)
        if asked.what == "speed":
            speed(data, folder, Path(temporary), asked.rounds, asked.epochs)
        else:
            settings = CURVES | {"epochs": asked.epochs, "data.limit": asked.images}
            curves(data, folder, Path(temporary), asked.seeds, settings)


def speed(data: Path, folder: Path, runs: Path, rounds: int, epochs: int) -> None:
    """Print the images per second of both ways, by the epochs after the first."""
    rates: dict[str, list[float]] = {name: [] for name in WAYS}
    for number in range(rounds):
        for place, name in enumerate(WAYS):
            history = trained(
                name, "classification", data, folder, runs / f"run-{number}-{place}",
                SPEED | {"epochs": epochs}, "--pretrained", "none",
            )  # fmt: skip
            rates[name].append(float(history["images_per_second"].iloc[1:].median()))
    table = Table("way", title=f"{rounds} rounds, 32 images of 160 px a step")
    for column in ("images/s, median", "least", "most"):
        table.add_column(column, justify="right")
    for name, values in rates.items():
        table.add_row(name, *(f"{each(values):.1f}" for each in (median, min, max)))
    one, two = (median(values) for values in rates.values())
    Console().print(table, f"two processes make {two / one:.2f} times the images of one")


def curves(
    data: Path, folder: Path, runs: Path, seeds: list[int], settings: dict[str, Any]
) -> None:
    """Print validation score and loss of both ways after each epoch: mean, least, most of seeds."""
    found: dict[str, list[pd.DataFrame]] = {name: [] for name in WAYS}
    for seed in seeds:
        for place, name in enumerate(WAYS):
            run = runs / f"run-{seed}-{place}"
            history = trained(
                name, "segmentation", data, folder, run, settings | {"seed": seed}, threads=1
            )
            found[name].append(history)
            print(f"seed {seed}, {name}: {history['val_score'].round(4).tolist()}", flush=True)
    for column in ("val_score", "train_loss"):
        ways = ("one process", "two processes")
        table = Table("epoch", *ways, title=f"{column}, {len(seeds)} seeds: mean (least to most)")
        for epoch in range(settings["epochs"]):
            values = ([float(one[column].iloc[epoch]) for one in found[name]] for name in WAYS)
            shown = (f"{mean(each):.3f} ({min(each):.3f} to {max(each):.3f})" for each in values)
            table.add_row(str(epoch + 1), *shown)
        Console().print(table)


def trained(
    name: str,
    task: str,
    data: Path,
    folder: Path,
    run: Path,
    settings: dict[str, Any],
    *more: str,
    threads: int | None = None,
) -> pd.DataFrame:
    """Train fold 0 up to its last epoch, without the export, and return its history."""
    command, usual = WAYS[name]
    threads = threads or usual
    words = [
        word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")
    ]
    process = subprocess.Popen(
        [*command, "-m", "naevus", "train", task, str(data), "--out", str(run), "--fold", "0",
         "--cache", str(folder / "cache"), "--threads", str(threads), *more, *words],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)}, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    history = run / "fold-0" / "history.csv"
    while process.poll() is None and not ends(history, int(settings["epochs"])):
        try:
            process.wait(0.5)
        except subprocess.TimeoutExpired:
            continue
    process.terminate()
    process.wait()
    return pd.read_csv(history)


def ends(history: Path, epochs: int) -> bool:
    """Return whether all epochs are in the history."""
    return history.exists() and len(pd.read_csv(history)) >= epochs


if __name__ == "__main__":
    main()
