"""How much of a training's time is the network's own: the whole loop against bare steps.

Four ways to make steps of EfficientNet-Lite0 on batches of 32 at 160 pixels,
in turn, several rounds in one process:

- naevus: reading the cache, augmentation, forward, backward, optimiser, averaged weights, watching
  on an inner split, history, checkpoints; as ``naevus train`` does it;
- bare: forward, backward and optimiser of the same prepared network on one ready batch;
- returned: the same, with the C library's habit of returning freed memory to the system;
- plain: the same network as timm makes it, on one ready batch, under bf16 autocast and
  channels_last (a sixth of the steps: without instructions for bf16 they are slow).

    python benchmarks/bench_training.py --steps 20
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import timm
import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.table import Table
from torch.nn import functional

from naevus.datasets.folds import inner_split, make_folds
from naevus.datasets.layouts import load
from naevus.datasets.synthetic import write_isic2018
from naevus.training.batches import BatchMaker
from naevus.training.classification import ClassificationLearning
from naevus.training.config import TrainConfig
from naevus.training.job import Material, prepare, select_pictures
from naevus.training.loop import Trainer, Watch, make_optimiser
from naevus.training.memory import kept_memory

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH, SIZE = 32, 160


def main() -> None:
    """Read the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20, help="steps a round")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), asked.steps, asked.rounds)


def compare(folder: Path, steps: int, rounds: int) -> None:
    """Time the four ways in turn and print their ratios."""
    console = Console()
    console.print(f"drawing pictures for {steps} steps of {BATCH}")
    train = whole_training(folder, steps)
    ways = {
        "naevus": train,
        "bare": kept_memory()(bare_steps(steps)),
        "returned": bare_steps(steps),
        "plain": plain_steps(max(1, steps // 6)),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            done = way()
            rates[name].append(done * BATCH / (time.perf_counter() - began))
    table = Table("way", title=f"{rounds} rounds of {steps} steps, batch {BATCH}, {SIZE} px")
    for column in ("pictures/s, median", "least", "most", "naevus against it, median of rounds"):
        table.add_column(column, justify="right")
    for name, values in rates.items():
        ratios = [own / other for own, other in zip(rates["naevus"], values, strict=True)]
        table.add_row(
            name,
            *(f"{value:.1f}" for value in (median(values), min(values), max(values))),
            f"{median(ratios):.2f} ×",
        )
    console.print(table)


def whole_training(folder: Path, steps: int) -> Callable[[], int]:
    """Return the real training loop over drawn pictures; it makes ``steps`` steps and more."""
    # Three fifths of the drawn pictures belong to Task 3; a fold and a watched part stay out.
    wanted = steps * BATCH
    write_isic2018(folder / "data", pictures=int(wanted / 0.6 / 0.8 / 0.95) + 40, size=256)
    config = TrainConfig.model_validate(
        {
            "task": "classification",
            "epochs": 1,
            "batch_size": BATCH,
            "sizes": [[0, SIZE]],
            "data": {"parts": ["task3"], "inner_share": 0.05},
        }
    )
    dataset = select_pictures(load(folder / "data"), config)
    material = Material(dataset, folder / "cache")
    prepare(material, config, lambda _: lambda _done, _total: None)
    folds = make_folds(dataset)
    training, inner = inner_split(folds, 0, dataset, config.data.inner_share, config.seed)
    table = dataset.table
    diagnoses = dict(zip(table["image_id"], table["diagnosis"], strict=True))
    rounds = iter(range(1000))

    @kept_memory()
    def train() -> int:
        learning = ClassificationLearning(
            config, material.stores, training, inner, diagnoses, dataset.taxonomy
        )
        batches = BatchMaker(learning.training, config)
        run = folder / f"round-{next(rounds)}"
        run.mkdir()
        trainer = Trainer(learning.network(), learning, batches, config, Fabric(devices=1), run)
        trainer.fit(Watch(lambda *_: None, lambda _: None))
        return batches.steps

    return train


def bare_steps(steps: int) -> Callable[[], int]:
    """Return forward, backward and optimiser of the prepared network on one batch."""
    from naevus.training.networks import Preprocessed, build_classifier

    network = Preprocessed(build_classifier()).train().to(memory_format=torch.channels_last)
    optimiser = make_optimiser(network, TrainConfig(task="classification").optimiser)
    pixels = torch.randint(0, 256, (BATCH, SIZE, SIZE, 3), dtype=torch.uint8)
    labels = torch.randint(0, 7, (BATCH,))

    def step() -> int:
        for _ in range(steps):
            functional.cross_entropy(network(pixels), labels).backward()
            optimiser.step()
            optimiser.zero_grad()
        return steps

    return step


def plain_steps(steps: int) -> Callable[[], int]:
    """Return the steps of the plain network under bf16 autocast and channels_last."""
    network = timm.create_model("tf_efficientnet_lite0", num_classes=7).train()
    network = network.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    pictures = torch.randn(BATCH, 3, SIZE, SIZE).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 7, (BATCH,))

    def step() -> int:
        for _ in range(steps):
            with torch.autocast("cpu", torch.bfloat16):
                loss = functional.cross_entropy(network(pictures).float(), labels)
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
        return steps

    return step


if __name__ == "__main__":
    main()
