"""Training by two processes of one thread each, compared with one process of two threads.

Both train the same recipe on the same synthetic images, in turn, with everything that belongs to an
epoch: cache, augmentation, forward, backward, exchange of gradients, optimiser, averaged weights,
checkpoint. Rates are those of ``history.csv``, without the first epoch. The processors must be
free.

    python benchmarks/two_processes.py --rounds 2
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import pandas as pd
from rich.console import Console
from rich.table import Table

from naevus.datasets.synthetic import write_isic2018

SETTINGS = {
    "data.parts": ["task3"],
    "data.validation_fraction": 0,
    "data.cache_size": 184,
    "sizes": [[0, 160]],
    "batch_size": 32,
    "network.dropout": 0.4,
    "optimiser.ema": 0.998,
}
WAYS = {
    "one process, 2 threads": ([sys.executable], 2),
    "two processes, 1 thread each": (
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"],
        1,
    ),
}


def main() -> None:
    """Read the command line, train both ways in turn, and print their rates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--epochs", type=int, default=2, help="epochs a round; the first is left out"
    )
    parser.add_argument(
        "--images", type=int, default=400, help="synthetic images; half are trained on"
    )
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--folder", type=Path, help="keeps images and cache between two calls")
    asked = parser.parse_args()
    rates: dict[str, list[float]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        if not (folder / "ISIC2018").exists():
            write_isic2018(folder / "ISIC2018", images=asked.images, seed=7, size=256)
        settings = SETTINGS | {"epochs": asked.epochs, "network.backbone": asked.backbone}
        for number in range(asked.rounds):
            for place, name in enumerate(WAYS):
                run = Path(temporary) / f"run-{number}-{place}"
                rates[name].append(rate_of(name, folder, run, settings))
    one, two = (median(values) for values in rates.values())
    table = Table(
        "way", title=f"{asked.rounds} rounds, {asked.backbone}, 32 images of 160 px a step"
    )
    for column in ("images/s, median", "least", "most"):
        table.add_column(column, justify="right")
    for name, values in rates.items():
        table.add_row(
            name, *(f"{value:.1f}" for value in (median(values), min(values), max(values)))
        )
    console = Console()
    console.print(table)
    console.print(f"two processes make {two / one:.2f} times the images of one")


def rate_of(name: str, folder: Path, run: Path, settings: dict[str, object]) -> float:
    """Train up to the export and return the images per second of the epochs after the first."""
    command, threads = WAYS[name]
    words = [
        word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")
    ]
    process = subprocess.Popen(
        [*command, "-m", "naevus", "train", "classification", str(folder / "ISIC2018"),
         "--out", str(run), "--fold", "0", "--pretrained", "none", "--cache", str(folder / "cache"),
         "--threads", str(threads), *words],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)}, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    history = run / "fold-0" / "history.csv"
    while process.poll() is None and not ends(history, int(str(settings["epochs"]))):
        try:
            process.wait(0.5)
        except subprocess.TimeoutExpired:
            continue
    process.terminate()  # the export is not measured
    process.wait()
    return float(pd.read_csv(history)["images_per_second"].iloc[1:].median())


def ends(history: Path, epochs: int) -> bool:
    """Return whether all epochs are in the history."""
    return history.exists() and len(pd.read_csv(history)) >= epochs


if __name__ == "__main__":
    main()
