"""Batches of two pictures in one, learnt as both: mixup and CutMix.

Zhang et al., mixup: beyond empirical risk minimization, ICLR 2018; Yun et al., CutMix, ICCV 2019.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from naevus.training.config import AugmentConfig

_MIXUP: Final = 0.4
"""Alpha of the beta distribution that mixup's shares are drawn from; CutMix has 1."""


class Blend(NamedTuple):
    """A batch whose pictures hold a part of another one.

    Attributes:
        pixels: uint8 N x S x S x 3.
        partner: int64 N, which picture of the batch each one holds a part of.
        share: How much of each picture is its own.
    """

    pixels: Tensor
    partner: Tensor
    share: float

    def loss(self, loss_on: Callable[[Tensor], Tensor], targets: Tensor) -> Tensor:
        """Return the loss on both pictures' targets, each counting by its share."""
        own = loss_on(targets)
        if self.share == 1:
            return own
        return self.share * own + (1 - self.share) * loss_on(targets[self.partner])


def blend(pixels: Tensor, config: AugmentConfig, chance: np.random.Generator) -> Blend:
    """Mix a batch, or leave it as it is.

    Args:
        pixels: uint8 N x S x S x 3.
        config: How many of a hundred batches are mixed, in which way.
        chance: Where it is drawn from.
    """
    kind = chance.random()
    if kind >= config.mixup + config.cutmix:
        return Blend(pixels, torch.arange(len(pixels)), 1.0)
    partner = torch.from_numpy(chance.permutation(len(pixels)))
    if kind < config.mixup:
        drawn = chance.beta(_MIXUP, _MIXUP)
        share = float(max(drawn, 1 - drawn))
        mixed = torch.lerp(pixels[partner].float(), pixels.float(), share)
        return Blend(mixed.round().to(torch.uint8), partner, share)
    size = pixels.shape[1]
    side = int(size * np.sqrt(1 - chance.beta(1, 1)))
    top, left = chance.integers(0, size - side + 1, 2)
    mixed = pixels.clone()
    window = np.s_[:, top : top + side, left : left + side]
    mixed[window] = pixels[partner][window]
    return Blend(mixed, partner, 1 - (side / size) ** 2)
