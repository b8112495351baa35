"""Sharpness-aware minimisation: learning from where, near by, the loss is worst."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch
from torch.nn.utils import get_total_norm

from naevus.training.batchnorm import momentum

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


@contextlib.contextmanager
def uphill(network: nn.Module, radius: float) -> Iterator[None]:
    """Move the weights up the slope that their gradients tell of; on leaving they are back.

    The gradients made inside are those of about the worst place near by. Steps along these end
    in flat minima, which hold better on pictures never seen (Foret et al., Sharpness-aware
    minimization for efficiently improving generalization, ICLR 2021). BatchNorm keeps the
    statistics it had: they are of the weights that stay.

    Args:
        network: Its gradients are there; they are cleared on entering.
        radius: How far all weights together are moved (rho).
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
