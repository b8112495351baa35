"""Own losses."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Tversky(nn.Module):
    """One minus the Tversky index, in which false negatives count for more."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of logits N x H x W and targets N x H x W, 0 to 1."""
        p = logits.sigmoid()
        found = (p * targets).sum((1, 2))
        wrong = 0.3 * (p * (1 - targets)).sum((1, 2)) + 0.7 * ((1 - p) * targets).sum((1, 2))
        return (1 - (found + 1) / (found + wrong + 1)).mean()


class Poly1(nn.Module):
    """Cross-entropy plus a multiple of 1 - p (Leng et al., ICLR 2022)."""

    class_weights: Tensor | None

    def __init__(self, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("class_weights", class_weights)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of logits N x C and class indices N."""
        p = logits.softmax(1)[torch.arange(len(targets)), targets]
        losses = functional.cross_entropy(logits, targets, reduction="none") + (1 - p)
        if self.class_weights is not None:
            losses = losses * self.class_weights[targets]
        return losses.mean()
