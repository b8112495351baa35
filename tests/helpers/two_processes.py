"""Checks for two processes at once: ``torchrun --nproc-per-node 2 -m tests.helpers.two_processes``.

Each compares what the two processes get together with what one of them gets alone. The argument is
the folder of a run of classification, which is not changed, and the caches of its images.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from naevus.errors import ConfigError
from naevus.runs.recipe import Recipe
from naevus.runs.run import Run
from naevus.training.callbacks import Callback
from naevus.training.distributed import Processes, make_fabric, open_processes
from naevus.training.loop import Trainer
from naevus.training.losses import OutputsLoss, classification_loss, segmentation_loss
from naevus.training.tasks import outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from naevus.datasets.cache import ImageCache

BATCH, STEPS, SIDE = 7, 2, 16  # an odd batch: the two parts differ in size
RECIPE: dict[str, Any] = {
    "task": "segmentation",
    "epochs": 2,
    "batch_size": BATCH,
    "sizes": [[0, SIDE]],
    "precision": "32",
    "checkpoint_seconds": 0,
    "optimiser": {
        "name": "sgd",
        "learning_rate": 0.05,
        "ema": 0.5,
        "clip": 1.0,
        "sam": 0.05,
        "sam_batch": 0.8,
    },
}


def deadly(_predicted: object, _truth: object) -> float:
    """Kill process 1 when it first evaluates the second epoch: a metric of a recipe."""
    deadly.calls += 1  # type: ignore[attr-defined]
    first = os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0"
    if "DEADLY" in os.environ and first and os.environ["RANK"] == "1" and deadly.calls == 2:  # type: ignore[attr-defined]
        os.kill(os.getpid(), signal.SIGKILL)
    return 0.5


deadly.calls = 0  # type: ignore[attr-defined]


class Network(nn.Module):
    """Two convolutions without normalisation: an image's output does not depend on the others."""

    def __init__(self, channels: int, *, pooled: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.GELU(), nn.Conv2d(6, channels, 3, padding=1)
        )
        self._pooled, self._squeezed = pooled, channels == 1

    def forward(self, pixels: Tensor) -> Tensor:
        maps: Tensor = self.layers(pixels.permute(0, 3, 1, 2).float() / 255)
        if self._pooled:
            return maps.mean((2, 3))
        return maps[:, 0] if self._squeezed else maps


class Batches:
    """Random batches, of which each process takes its part."""

    steps, images = STEPS, STEPS * BATCH

    def __init__(
        self, targets: Callable[[np.random.Generator], Any], rank: int, world: int
    ) -> None:
        self._targets, self._part = targets, slice(rank, None, world)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for number in range(first, STEPS):
            rng = np.random.default_rng([epoch, number])
            pixels = rng.integers(0, 256, (BATCH, SIDE, SIDE, 3), dtype=np.uint8)
            targets = torch.as_tensor(self._targets(rng))
            yield torch.as_tensor(pixels)[self._part], targets[self._part]


class TrainingTask:
    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.loss = loss

    def inspect(self, network: nn.Module, size: int, processes: object = None) -> dict[str, Any]:
        return {}


def _masks(rng: np.random.Generator) -> Any:
    return rng.random((BATCH, SIDE, SIDE), np.float32)


def _outputs(rng: np.random.Generator) -> Any:
    """Return masks of two outputs; the second is unknown for some images."""
    targets = (rng.random((BATCH, 2, SIDE, SIDE)) > 0.7).astype(np.float32)
    targets[rng.random(BATCH) < 0.4, 1] = -1
    return targets


def _classes(rng: np.random.Generator) -> Any:
    return rng.integers(0, 3, BATCH)


TASKS: dict[str, tuple[Any, Any, Callable[[], Network]]] = {
    "segmentation": (segmentation_loss(["bce", "dice", "lovasz"]), _masks, lambda: Network(1)),
    "attributes": (OutputsLoss(["bce", "jaccard"], ["lesion", "globules"]), _outputs,
                   lambda: Network(2)),
    "classification": (classification_loss(class_weights=torch.tensor([1.0, 2.0, 3.0])), _classes,
                       lambda: Network(3, pooled=True)),
}  # fmt: skip


def check_training(together: Processes, alone: Processes) -> None:
    """Both have the same losses and weights."""
    for name, (loss, targets, network) in TASKS.items():
        found = []
        for each in (together, alone):
            with tempfile.TemporaryDirectory() as folder:
                batches = Batches(targets, each.rank, each.world)
                recipe = Recipe.model_validate(RECIPE)
                trainer = Trainer(
                    network(),
                    cast("Any", TrainingTask(loss)),
                    cast("Any", batches),
                    recipe,
                    each.fabric,
                    Path(folder),
                )
                trainer.fit(Callback())
                losses = torch.tensor([row["train_loss"] for row in trainer.state.history])
                found.append({"losses": losses, **trainer.used.state_dict()})
                assert (Path(folder) / "checkpoint.safetensors").exists() == each.is_first
        for key, value in found[0].items():
            torch.testing.assert_close(
                value, found[1][key], rtol=1e-5, atol=1e-6, msg=f"{name} {key}"
            )


class Store(dict[str, Any]):
    @property
    def index(self) -> Store:
        return self


def check_evaluation(together: Processes, alone: Processes) -> None:
    """Both have the same outputs, for any number of images and batches."""
    from naevus.training.data import Samples

    network, recipe = Network(1), Recipe.model_validate({**RECIPE, "batch_size": 2})
    for count in (0, 1, 4, 5, 11):
        rng = np.random.default_rng(count)
        ids = tuple(f"image-{number:02}" for number in range(count))
        images = Store({i: rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for i in ids})
        masks = Store({i: rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8) for i in ids})
        samples = Samples(ids, (cast("ImageCache", images),), cast("ImageCache", masks))
        found = [list(outputs(network, samples, recipe, SIDE, one)) for one in (together, alone)]
        assert len(found[0]) == len(found[1]) == -(-count // 4)
        for pair, other in zip(*found, strict=True):
            assert all(torch.equal(*values) for values in zip(pair, other, strict=True))


def check_exchange(together: Processes, alone: Processes) -> None:
    rank = together.rank
    rows = torch.full((2, 3), rank, dtype=torch.int16) if rank else None
    (only,) = together.gather(rows)
    assert only.dtype == torch.int16
    assert only.tolist() == [[1] * 3] * 2
    assert [len(each) for each in together.gather(torch.zeros(1 + 2 * rank, 2))] == [1, 3]
    assert together.of_first({"score": 0.1 + rank}) == {"score": 0.1}
    assert together.first(lambda: "made") == (None if rank else "made")
    together.agree({"--out": "run", "--fold": "0"})
    with pytest.raises(ConfigError, match="--fold is 0 for process 0 and 1 for process 1; give"):
        together.agree({"--out": "run", "--fold": str(rank)})


def check_held_out(
    together: Processes, alone: Processes, run: Run, data: Path, cache: Path
) -> None:
    """Both predict every held-out image once, and alike."""
    import naevus.inference.out_of_fold
    import naevus.training.distributed
    from naevus.datasets.layouts import load
    from naevus.io.parallel import batches
    from naevus.runs.images import select_images
    from naevus.training.data import TrainingData
    from naevus.training.prepare import prepare
    from naevus.training.train import predict_held_out

    def small(items: Any) -> Any:
        return batches(items, 3)

    naevus.inference.out_of_fold.batches = small  # type: ignore[attr-defined, assignment]
    naevus.training.distributed.batches = small  # type: ignore[attr-defined, assignment]
    training_data = TrainingData(select_images(load(data), run.recipe), cache)
    prepare(training_data, run.recipe, lambda _: lambda _done, _of: None, lambda: None)
    path = run.fold_folder(0) / "oof.parquet"
    predict_held_out(run, 0, training_data, together)
    table = pd.read_parquet(path)
    together.wait()
    if together.is_first:
        path.unlink()
        predict_held_out(run, 0, training_data, alone)
        expected = pd.read_parquet(path)
        assert len(table) == len(set(run.folds.held_out(0)) & set(training_data.dataset.ids)) > 6
        pd.testing.assert_frame_equal(table, expected, rtol=0, atol=1e-6)


def main() -> None:
    run, data, cache, here = map(Path, sys.argv[1:])
    recipe = Recipe.model_validate(RECIPE)
    alone = Processes(make_fabric(recipe, "cpu"))
    with open_processes(recipe, device="cpu") as together:
        assert (together.world, alone.world) == (2, 1)
        for check in (check_exchange, check_evaluation, check_training):
            check(together, alone)
        opened = replace(Run.open(run), folder=here)
        check_held_out(together, alone, opened, data, cache)
    if together.is_first:
        print("all alike")


if __name__ == "__main__":
    main()
