"""Test-time augmentation: a batch seen in several views, the answers averaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from naevus.errors import ConfigError
from naevus.images.geometry import VIEW_SETS, ViewSet, unview_batch, view_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def views_named(name: ViewSet) -> tuple[int, ...]:
    """Return the views of a set.

    Raises:
        ConfigError: There is no set of that name.
    """
    if name not in VIEW_SETS:
        raise ConfigError(f"unknown views {name!r}", f"use one of {', '.join(VIEW_SETS)}")
    return VIEW_SETS[name]


def mean_logits(run: Run, batch: NDArray[np.uint8], views: Sequence[int]) -> NDArray[np.float32]:
    """Return a classifier's logits, averaged over views.

    Args:
        run: Gives N x C logits of N x S x S x 3 pixels.
        batch: N x S x S x 3.
        views: Numbers of views (``images.geometry.view``).
    """
    total = run(view_batch(batch, views[0]))
    for k in views[1:]:
        total = total + run(view_batch(batch, k))
    return total / np.float32(len(views))


def mean_surfaces(run: Run, batch: NDArray[np.uint8], views: Sequence[int]) -> NDArray[np.float32]:
    """Return a segmenter's logits, every view turned back, then averaged.

    Args:
        run: Gives N x S x S logits of N x S x S x 3 pixels.
        batch: N x S x S x 3.
        views: Numbers of views (``images.geometry.view``).
    """
    total = unview_batch(run(view_batch(batch, views[0])), views[0])
    for k in views[1:]:
        total = total + unview_batch(run(view_batch(batch, k)), k)
    return total / np.float32(len(views))
