"""Test-time augmentation: predict D4 transforms of a batch, and average the outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from naevus.images.geometry import D4, d4_inverse_batch, d4_transform_batch
from naevus.io.settings import check_choice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from naevus.inference.engines import Outputs
    from naevus.types import TTA

    Run = Callable[[NDArray[np.uint8]], Outputs]


TTA_TRANSFORMS: Final[dict[TTA, tuple[int, ...]]] = {
    "none": (0,),
    "half-turn": (0, 2),
    "flips": (0, 4, 6, 2),  # identity, horizontal, vertical, both
    "d4": tuple(D4),
}
"""The D4 transforms of each TTA mode; see `naevus.images.geometry.d4_transform`."""


def transforms_of(name: TTA) -> tuple[int, ...]:
    """Return the D4 transforms of a TTA mode.

    Raises:
        ConfigError: The mode is unknown.
    """
    check_choice("TTA mode", name, TTA_TRANSFORMS)
    return TTA_TRANSFORMS[name]


def each_transform(
    run: Run, batch: NDArray[np.uint8], transforms: Sequence[int]
) -> Iterator[Outputs]:
    """Yield a network's outputs for each transform, with maps transformed back.

    Args:
        run: Returns the outputs for N x S x S x 3 pixels.
        batch: N x S x S x 3.
        transforms: Numbers of D4 transforms (`naevus.images.geometry.d4_transform`).
    """
    for k in transforms:
        outputs = run(d4_transform_batch(batch, k))
        yield {name: _inverted(name, values, k) for name, values in outputs.items()}


def mean_outputs(run: Run, batch: NDArray[np.uint8], transforms: Sequence[int]) -> Outputs:
    """Return a network's outputs averaged over transforms; see `each_transform`."""
    return averaged(each_transform(run, batch, transforms))


def averaged(outputs: Iterable[Outputs]) -> Outputs:
    """Return the mean of outputs, such as those of `each_transform`, without stacking them."""
    total: Outputs = {}
    count = 0
    for each in outputs:
        for name, values in each.items():
            total[name] = total[name] + values if name in total else values
        count += 1
    return {name: values / np.float32(count) for name, values in total.items()}


def _inverted(name: str, values: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    if name == "logit":  # N x S x S
        return d4_inverse_batch(values, k)
    if name in {"cam", "attributes"}:  # N x C x h x w
        return np.moveaxis(d4_inverse_batch(np.moveaxis(values, 1, -1), k), -1, 1)
    return values
