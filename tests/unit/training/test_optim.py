"""Sharpness-aware minimisation: position of its gradients, and restored weights afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from naevus.runs.recipe import Recipe
from naevus.training.callbacks import Callback
from naevus.training.loop import Trainer
from naevus.training.networks import Preprocessed, build_classifier
from naevus.training.optim import estimate_statistics, uphill

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RADIUS, RATE = 0.1, 0.5


class Bowl(nn.Module):
    """A network with a known loss: half the sum of a_i w_i^2."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.tensor([3.0, -1.0, 0.5]))

    def forward(self, steepness: Tensor) -> Tensor:
        value: Tensor = (steepness.float() * self.place.square()).sum(1) / 2
        return value


STEEP = torch.tensor([[1.0, 2.0, 8.0]] * 4)


class Batches:
    """One batch per epoch."""

    steps = 1
    images = 4

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        if not first:
            yield STEEP, torch.zeros(4)


class TrainingTask:
    """Use the network's output as the loss."""

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return (logits - targets).mean()

    def inspect(self, network: nn.Module, size: int, processes: object = None) -> dict[str, float]:
        return {"score": 0.0}


def uphill_of(place: Tensor) -> Tensor:
    slope = STEEP[0] * place
    moved: Tensor = place + RADIUS * slope / slope.norm()
    return moved


def test_gradients_are_those_of_the_worst_point_nearby() -> None:
    bowl = Bowl()
    before = bowl.place.detach().clone()
    bowl(STEEP).mean().backward()
    with uphill(bowl, RADIUS):
        assert all(weight.grad is None for weight in bowl.parameters())
        torch.testing.assert_close(bowl.place.detach(), uphill_of(before))
        bowl(STEEP).mean().backward()
    assert torch.equal(bowl.place, before)
    assert bowl.place.grad is not None
    torch.testing.assert_close(bowl.place.grad, STEEP[0] * uphill_of(before))


def test_weights_and_statistics_are_restored_even_after_an_error() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    network(images).sum().backward()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(RuntimeError, match="stop"), uphill(network, RADIUS):  # noqa: PT012
        network(2 * images).sum().backward()
        raise RuntimeError("stop")
    after = network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed <= {"1.num_batches_tracked"}
    network(2 * images)
    assert not torch.equal(before["1.running_mean"], network.state_dict()["1.running_mean"])


def test_without_gradient_weights_do_not_move() -> None:
    bowl = Bowl()
    bowl(torch.zeros(4, 3)).mean().backward()
    before = bowl.place.detach().clone()
    with uphill(bowl, RADIUS):
        assert torch.equal(bowl.place, before)


def test_training_uses_those_gradients(tmp_path: Path) -> None:
    optimiser = {
        "name": "sgd",
        "learning_rate": RATE,
        "weight_decay": 0,
        "momentum": 0,
        "schedule": "constant",
        "warm_up": 0,
        "clip": 0,
        "ema": 0,
        "sam": RADIUS,
    }
    recipe = Recipe.model_validate(
        {"task": "classification", "epochs": 1, "batch_size": 4, "optimiser": optimiser}
    )
    bowl = Bowl()
    before = bowl.place.detach().clone()
    fabric = Fabric(accelerator="cpu", devices=1)
    trainer = Trainer(bowl, TrainingTask(), Batches(), recipe, fabric, tmp_path)  # type: ignore[arg-type]
    trainer.fit(Callback())
    torch.testing.assert_close(bowl.place.detach(), before - RATE * STEEP[0] * uphill_of(before))


@pytest.mark.parametrize(("fraction", "seen"), [(0.5, [2, 4]), (0.75, [3, 4]), (1.0, [4, 4])])
def test_the_first_gradient_uses_a_fraction_of_the_batch(
    fraction: float, seen: list[int], tmp_path: Path
) -> None:
    counted: list[int] = []

    class Counting(Bowl):
        def forward(self, steepness: Tensor) -> Tensor:
            counted.append(len(steepness))
            return super().forward(steepness)

    recipe = Recipe.model_validate(
        {
            "task": "classification",
            "epochs": 1,
            "optimiser": {"sam": RADIUS, "sam_batch": fraction, "ema": 0},
        }
    )
    fabric = Fabric(accelerator="cpu", devices=1)
    trainer = Trainer(Counting(), TrainingTask(), Batches(), recipe, fabric, tmp_path)  # type: ignore[arg-type]
    trainer.fit(Callback())
    assert counted == seen


def test_statistics_are_those_of_the_images() -> None:
    """Compare with torch's ``update_bn`` on a deterministic network."""
    torch.manual_seed(3)
    network = Preprocessed(build_classifier("test_resnet", weights="none", dropout=0))
    pixels = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert layers
    batches = [torch.from_numpy(half) for half in np.array_split(pixels, 2)]
    update_bn(batches, network)
    expected = [(layer.running_mean.clone(), layer.running_var.clone()) for layer in layers]  # type: ignore[union-attr]
    for layer in layers:
        layer.running_mean.fill_(7)  # type: ignore[union-attr]
    estimate_statistics(network, batches)
    for layer, (mean, variance) in zip(layers, expected, strict=True):
        torch.testing.assert_close(layer.running_mean, mean)
        torch.testing.assert_close(layer.running_var, variance)
        assert layer.momentum is not None
    assert not any(module.training for module in network.modules())


def test_statistics_are_without_dropout() -> None:
    network = Preprocessed(build_classifier("test_efficientnet", weights="none"))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    batches = [torch.from_numpy(pixels)]
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        estimate_statistics(network, batches)
        found.append({name: value.clone() for name, value in network.named_buffers()})
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
