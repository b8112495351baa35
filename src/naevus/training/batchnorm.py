"""Batch normalisation whose running statistics are to go another way for a while."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from torch.nn import BatchNorm1d, BatchNorm2d, BatchNorm3d

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    Norm = BatchNorm1d | BatchNorm2d | BatchNorm3d

_KINDS: Final = (BatchNorm1d, BatchNorm2d, BatchNorm3d)


@contextlib.contextmanager
def momentum(network: nn.Module, value: float | None) -> Iterator[list[Norm]]:
    """Give a network's batch normalisations another momentum; on leaving they have theirs back.

    Args:
        network: Whose.
        value: 0 keeps the statistics as they are; None, torch's word for it, makes them the plain
            mean over all batches since they were reset.

    Yields:
        Those layers that keep statistics.
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
