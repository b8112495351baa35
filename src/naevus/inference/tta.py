"""Test-time augmentation: a batch seen in several views, the answers averaged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from naevus.errors import ConfigError
from naevus.images.geometry import VIEWS, unview_batch, view_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from naevus.inference.engines import Outputs
    from naevus.types import ViewSet

    Run = Callable[[NDArray[np.uint8]], Outputs]


VIEW_SETS: Final[dict[ViewSet, tuple[int, ...]]] = {
    "none": (0,),
    "half-turn": (0, 2),
    "flips": (0, 4, 6, 2),  # identity, horizontal, vertical, both
    "d4": tuple(VIEWS),
}
"""The views that a picture is predicted in, by the name of the choice."""


def views_named(name: ViewSet) -> tuple[int, ...]:
    """Return the views of a set.

    Raises:
        ConfigError: There is no set of that name.
    """
    if name not in VIEW_SETS:
        raise ConfigError(f"unknown views {name!r}", f"use one of {', '.join(VIEW_SETS)}")
    return VIEW_SETS[name]


def each_view(run: Run, batch: NDArray[np.uint8], views: Sequence[int]) -> Iterator[Outputs]:
    """Yield a network's outputs for one view after the other, its maps turned back.

    Args:
        run: Gives the outputs for N x S x S x 3 pixels.
        batch: N x S x S x 3.
        views: Numbers of views (``images.geometry.view``).
    """
    for k in views:
        outputs = run(view_batch(batch, k))
        yield {name: _turned_back(name, values, k) for name, values in outputs.items()}


def mean_outputs(run: Run, batch: NDArray[np.uint8], views: Sequence[int]) -> Outputs:
    """Return a network's outputs averaged over views; see `each_view`."""
    return averaged(each_view(run, batch, views))


def averaged(outputs: Iterable[Outputs]) -> Outputs:
    """Return the mean of outputs, such as of `each_view`, holding one sum and no stack."""
    total: Outputs = {}
    count = 0
    for each in outputs:
        for name, values in each.items():
            total[name] = total[name] + values if name in total else values
        count += 1
    return {name: values / np.float32(count) for name, values in total.items()}


def _turned_back(name: str, values: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    if name == "logit":  # N x S x S
        return unview_batch(values, k)
    if name in {"cam", "attributes"}:  # N x C x h x w
        return np.moveaxis(unview_batch(np.moveaxis(values, 1, -1), k), -1, 1)
    return values
