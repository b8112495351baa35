"""The network's fraction of training time: the whole loop compared with bare steps.

Five ways to run steps of EfficientNet-Lite0 on batches of 32 at 160 pixels, in turn, several
rounds in one process after a warm-up round:

- naevus: reading the cache, augmentation, forward, backward, optimiser, averaged weights,
  validation, history, checkpoint: an epoch of ``naevus train`` with the recipe;
- bare: forward, backward and optimiser of the same network, prepared the same way and in the same
  precision, on one ready batch;
- returned: the same, but freed memory is returned to the system, as is the C library's default;
- plain, fp32 and plain, bf16: the same network as timm makes it, on one ready batch, channels_last,
  in float32 and under bf16 autocast (a sixth of the steps on processors without instructions for
  bf16). Which is faster depends on the processor: naevus is compared with the faster one.

The start of a job is not counted; the end of an epoch is, although epochs are short here.

    python benchmarks/bench_training.py --steps 20
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import timm
import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional

from naevus.datasets.layouts import load
from naevus.datasets.synthetic import write_isic2018
from naevus.runs.images import select_images
from naevus.runs.recipe import Recipe, load_recipe
from naevus.training.callbacks import Callback
from naevus.training.data import BatchLoader, TrainingData, workers_of
from naevus.training.distributed import make_fabric
from naevus.training.loop import Trainer
from naevus.training.networks import Preprocessed, build_classifier
from naevus.training.optim import make_optimiser
from naevus.training.performance import kept_memory, prepare_network, resolve
from naevus.training.prepare import prepare
from naevus.training.tasks import ClassificationTask

BATCH, SIZE = 32, 160
RECIPE = Path(__file__).parents[1] / "recipes" / "classification.toml"
MONITORED = 19
"""Training images for each one of the validation split: the recipe's fraction of 0.05."""

EngineSetup = Callable[[], Callable[[], int]]
"""Makes ready a round, and returns what is timed; that returns how many steps it made."""


def main() -> None:
    """Read the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20, help="steps a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=-1, help="threads that prepare batches")
    asked = parser.parse_args()
    recipe = load_recipe(
        RECIPE,
        "classification",
        {"epochs": 1, "batch_size": BATCH, "sizes": [[0, SIZE]], "workers": asked.workers},
    )
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), recipe, asked.steps, asked.rounds)


def compare(folder: Path, recipe: Recipe, steps: int, rounds: int) -> None:
    """Time all ways in turn and print their ratios."""
    console = Console()
    console.print(f"drawing images for {steps} steps of {BATCH}")
    native = resolve("auto") == "bf16-mixed"
    ways: dict[str, EngineSetup] = {
        "naevus": whole_training(folder, recipe, steps),
        "bare": bare_steps(recipe, steps, keep=True),
        "returned": bare_steps(recipe, steps, keep=False),
        "plain, fp32": plain_steps(steps, None),
        "plain, bf16": plain_steps(steps if native else max(1, steps // 6), torch.bfloat16),
    }
    for way in ways.values():
        way()()
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            timed = way()
            began = time.perf_counter()
            done = timed()
            rates[name].append(done * BATCH / (time.perf_counter() - began))
    table = Table("way", title=f"{rounds} rounds of {steps} steps, batch {BATCH}, {SIZE} px")
    for column in ("images/s, median", "least", "most", "naevus against it, median of rounds"):
        table.add_column(column, justify="right")
    for name, values in rates.items():
        ratios = [own / other for own, other in zip(rates["naevus"], values, strict=True)]
        table.add_row(
            name,
            *(f"{value:.1f}" for value in (median(values), min(values), max(values))),
            f"{median(ratios):.2f} ×",
        )
    console.print(table)
    plain = {name: median(values) for name, values in rates.items() if name.startswith("plain")}
    best = max(plain, key=plain.__getitem__)
    ratio = median(own / other for own, other in zip(rates["naevus"], rates[best], strict=True))
    console.print(f"the plain network's best here: {best}; naevus makes {ratio:.2f} times that")
    console.print(
        f"precision {resolve(recipe.precision)}, torch {torch.__version__} on "
        f"{torch.get_num_threads()} threads, {workers_of(recipe)} for batches"
    )


def whole_training(folder: Path, recipe: Recipe, steps: int) -> EngineSetup:
    """Return an epoch of real training on synthetic images, as in ``train_fold``."""
    wanted = steps * BATCH
    watched = max(1, wanted // MONITORED)
    # Three fifths of the synthetic images belong to Task 3.
    write_isic2018(folder / "data", images=int((wanted + watched) / 0.6) + 10, size=256)
    dataset = select_images(load(folder / "data"), recipe)
    training_data = TrainingData(dataset, folder / "cache")
    prepare(training_data, recipe, lambda _: lambda _done, _total: None)
    ids, table = list(dataset.ids), dataset.table
    diagnoses = dict(zip(table["image_id"], table["diagnosis"], strict=True))
    training, validation = ids[:wanted], ids[wanted : wanted + watched]
    rounds = iter(range(1000))

    def ready() -> Callable[[], int]:
        training_task = ClassificationTask(
            recipe, training_data.caches, training, validation, diagnoses, dataset.taxonomy
        )
        network = training_task.network()
        prepare_network(network, resolve(recipe.precision))
        fabric = make_fabric(recipe)
        batches = BatchLoader(training_task.training, recipe, training_task.draw)
        run = folder / f"round-{next(rounds)}"
        run.mkdir()
        trainer = Trainer(network, training_task, batches, recipe, fabric, run)

        @kept_memory()
        def train() -> int:
            trainer.fit(Callback())
            return batches.steps

        return train

    return ready


def bare_steps(recipe: Recipe, steps: int, *, keep: bool) -> EngineSetup:
    """Return forward, backward and optimiser of the prepared network on one batch."""
    network = Preprocessed(build_classifier()).train().to(memory_format=torch.channels_last)
    prepare_network(network, resolve(recipe.precision))
    fabric = make_fabric(recipe)
    wrapped, optimiser = fabric.setup(network, make_optimiser(network, recipe.optimiser))
    pixels = torch.randint(0, 256, (BATCH, SIZE, SIZE, 3), dtype=torch.uint8)
    labels = torch.randint(0, 7, (BATCH,))

    def step() -> int:
        for _ in range(steps):
            fabric.backward(functional.cross_entropy(wrapped(pixels).float(), labels))
            optimiser.step()
            optimiser.zero_grad()
        return steps

    timed = kept_memory()(step) if keep else step
    return lambda: timed


def plain_steps(steps: int, autocast: torch.dtype | None) -> EngineSetup:
    """Return the steps of the plain network, channels_last; None: in float32."""
    network = timm.create_model("tf_efficientnet_lite0", num_classes=7).train()
    network = network.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    images = torch.randn(BATCH, 3, SIZE, SIZE).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 7, (BATCH,))

    def step() -> int:
        for _ in range(steps):
            with torch.autocast("cpu", autocast, enabled=autocast is not None):
                loss = functional.cross_entropy(network(images).float(), labels)
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
        return steps

    return lambda: step


if __name__ == "__main__":
    main()
