"""The plain U-Net of Ronneberger et al. 2015 (https://arxiv.org/abs/1505.04597), from scratch.

With batch normalisation, padded convolutions and bilinear enlarging in place of what made the
original's output smaller than its input and its pattern chequered.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence


class PlainUnet(nn.Module):
    """A U-Net for pictures N×3×H×W with sides divisible by ``stride``.

    Args:
        channels: Width of each level, the full-size one first; each next has half the size.

    Raises:
        ValueError: Fewer than two levels, or one without channels.
    """

    def __init__(self, channels: Sequence[int] = (32, 64, 128, 256, 512)) -> None:
        super().__init__()
        if len(channels) < 2 or min(channels) < 1:
            raise ValueError("`channels` needs two or more positive widths")
        pairs = list(pairwise(channels))
        self.stride: int = 2 ** len(pairs)
        self.stem = _block(3, channels[0])
        self.down = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(2), _block(above, below)) for above, below in pairs
        )
        self.up = nn.ModuleList(_block(above + below, above) for above, below in reversed(pairs))
        self.head = nn.Conv2d(channels[0], 1, kernel_size=1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Take pictures N×3×H×W to logits N×1×H×W."""
        levels = [self.stem(pictures)]
        for block in self.down:
            levels.append(block(levels[-1]))
        features = levels.pop()
        for block in self.up:
            skipped = levels.pop()
            features = functional.interpolate(
                features, scale_factor=2.0, mode="bilinear", align_corners=False
            )
            features = block(torch.cat([skipped, features], dim=1))
        logits: Tensor = self.head(features)
        return logits


def _block(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (inputs, outputs):
        layers += [
            nn.Conv2d(width, outputs, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
