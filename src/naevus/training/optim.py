"""Optimiser, learning-rate schedule, weight averaging, sharpness-aware minimisation."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Final

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import nn
from torch.nn import BatchNorm1d, BatchNorm2d, BatchNorm3d, SyncBatchNorm
from torch.nn.utils import get_total_norm

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import ReduceLROnPlateau

    from naevus.runs.recipe_tables import OptimiserSettings

    Norm = BatchNorm1d | BatchNorm2d | BatchNorm3d | SyncBatchNorm


# Momentum and statistics of batch normalisation.

_KINDS: Final = (BatchNorm1d, BatchNorm2d, BatchNorm3d, SyncBatchNorm)


@contextlib.contextmanager
def momentum(network: nn.Module, value: float | None) -> Iterator[list[Norm]]:
    """Set the momentum of all batch normalisation layers within the block.

    Args:
        network: The network.
        value: 0 freezes the running statistics; None makes them the mean over all batches since
            the last reset (as in torch).

    Yields:
        The layers that track statistics.
    """
    norms = [
        layer
        for layer in network.modules()
        if isinstance(layer, _KINDS) and layer.track_running_stats
    ]
    before = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = value
    try:
        yield norms
    finally:
        for layer, own in zip(norms, before, strict=True):
            layer.momentum = own


@torch.no_grad()
def estimate_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the statistics of all batch normalisation layers to those of these images.

    An averaged network needs this (Izmailov et al., Averaging weights leads to wider optima, UAI
    2018), and so does one that began with smaller images. All batches have the same weight,
    whatever the momentum. Other layers run in evaluation mode, without dropout.

    Args:
        network: Takes uint8 N x S x S x 3; left in evaluation mode.
        batches: Training images, at least two per batch.
    """
    network.eval()
    with momentum(network, None) as norms:
        for norm in norms:
            norm.reset_running_stats()
            norm.train()
        for pixels in batches:
            network(pixels)
    network.eval()


def make_optimiser(network: nn.Module, recipe: OptimiserSettings) -> Optimizer:
    """Return the optimiser, without weight decay for biases and normalisation layers."""
    decayed = [weight for weight in network.parameters() if weight.ndim > 1]
    others = [weight for weight in network.parameters() if weight.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if recipe.name == "sgd":
        return torch.optim.SGD(
            groups,
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.momentum > 0,
            fused=True,
        )
    kind = torch.optim.AdamW if recipe.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=recipe.learning_rate, fused=True)


def learning_rate(
    recipe: OptimiserSettings, step: int, total: int, plateau: ReduceLROnPlateau
) -> float:
    """Return the learning rate of a step, which depends only on its position and the plateau."""
    warm = round(recipe.warm_up * total)
    if step < warm:
        return recipe.learning_rate * (step + 1) / warm
    if recipe.schedule == "cosine":
        done = (step - warm) / max(1, total - warm)
        return recipe.learning_rate * (0.5 + 0.5 * math.cos(math.pi * done))
    if recipe.schedule == "plateau":
        return float(plateau.get_last_lr()[0])
    return recipe.learning_rate


def _average(network: nn.Module, decay: float) -> ModelEmaV3 | None:
    """Return the running average of the weights; its decay warms up."""
    if decay == 0:
        return None
    return ModelEmaV3(network, decay=decay, use_warmup=True, warmup_power=0.75)


@contextlib.contextmanager
def uphill(network: nn.Module, radius: float) -> Iterator[None]:
    """Move the weights along their gradients within the block, and restore them afterwards.

    Gradients computed inside are those near the worst point of the neighbourhood. Following them
    leads to flat minima, which generalise better (Foret et al., Sharpness-aware minimization for
    efficiently improving generalization, ICLR 2021). The statistics of batch normalisation are
    frozen: they belong to the original weights.

    Args:
        network: A network with gradients; they are cleared on entering.
        radius: Length of the step over all weights (rho).
    """
    slopes = [(weight, weight.grad) for weight in network.parameters() if weight.grad is not None]
    length = float(get_total_norm([slope for _, slope in slopes]))
    stayed = [(weight, weight.detach().clone()) for weight, _ in slopes]
    with torch.no_grad():
        for weight, slope in slopes:
            weight.add_(slope, alpha=radius / max(length, 1e-12))
            weight.grad = None
    try:
        with momentum(network, 0.0):
            yield
    finally:
        with torch.no_grad():
            for weight, before in stayed:
                weight.copy_(before)
