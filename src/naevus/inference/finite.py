"""Networks that give no usable number: which network, for which picture of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from naevus.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_LARGEST: Final = 1e30  # sums over views and networks stay finite below it
_HALF: Final = float(np.finfo(np.float16).max)  # embeddings are kept in half precision
REMEDY: Final = "export the bundle again, or try --precision f32 or another engine"


def faults_of(name: str, outputs: Mapping[str, NDArray[Any]]) -> dict[int, str]:
    """Return the pictures for which a network gave NaN, infinity, or what overflows later.

    Args:
        name: What the network is called.
        outputs: Its outputs, N x ... each.

    Returns:
        What is wrong, in words, by the picture's number in the batch.
    """
    found: dict[int, str] = {}
    for output, values in outputs.items():
        if not values.size:
            continue
        limit = _HALF if output == "embedding" else _LARGEST
        rows = values.reshape(len(values), -1)
        # NaN goes through minimum and maximum, and no copy of the values is made.
        least, most = rows.min(axis=1), rows.max(axis=1)
        for number in np.flatnonzero(~((least >= -limit) & (most <= limit))).tolist():
            worst = float(least[number] if abs(least[number]) > limit else most[number])
            found.setdefault(
                number, f"network {name} gives {worst:g} in its output {output!r}: no usable number"
            )
    return found


def silenced(
    outputs: dict[str, NDArray[np.float32]], numbers: Sequence[int]
) -> dict[str, NDArray[np.float32]]:
    """Return outputs in which some pictures' values are 0, so that others can be reckoned with."""
    if not numbers:
        return outputs
    quiet = {name: values.copy() for name, values in outputs.items()}
    for values in quiet.values():
        values[list(numbers)] = 0
    return quiet


def refuse_faults(faults: Mapping[int, str], ids: Sequence[str] | None = None) -> None:
    """Raise the first of the faults of a batch.

    Args:
        faults: From `faults_of`.
        ids: What the batch's pictures are called; None: by their number.

    Raises:
        BundleError: There is one.
    """
    if not faults:
        return
    number = min(faults)
    image = ids[number] if ids is not None else f"picture {number} of the batch"
    more = f" ({len(faults) - 1} more of this batch)" if len(faults) > 1 else ""
    raise BundleError(f"{image}: {faults[number]}{more}", REMEDY)
