"""What networks in torch say of a drawn picture, for engines to be judged by (`bundles.sample`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch

from naevus.bundles.sample import (
    SAMPLE_FILE,
    Sample,
    compared,
    distance,
    sample_views,
    tolerance,
    write_sample,
)
from naevus.datasets.synthetic.photograph import draw_lesion
from naevus.errors import BundleError
from naevus.inference.engines import open_engine
from naevus.inference.engines.automatic import PATIENCE_S
from naevus.inference.engines.trial import Judged, Way, tried
from naevus.training.onnx_graph import evaluating

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from naevus.training.networks import Preprocessed
    from naevus.types import Computed, Precision, Task


_SIDES: Final = (32, 256)
"""The smallest and the largest picture that is drawn, pixels."""
_ANY: Final = 1e30
"""A distance that no answer of numbers reaches."""


class Shipped(NamedTuple):
    """A network that is in a bundle.

    Attributes:
        task: What it does.
        graph: Its file, under the name that the bundle gives it.
        network: The network itself.
        size: Side of the square it sees, pixels.
        stored: How the file's numbers are stored.
        computed: What else than fp32 it was measured to bear.
    """

    task: Task
    graph: Path
    network: Preprocessed
    size: int
    stored: Precision = "fp32"
    computed: tuple[Computed, ...] = ()


def sample_entry(networks: Sequence[Shipped], path: Path) -> dict[str, Any]:
    """Write the sample of a bundle, and return its entry.

    How far answers may be off is measured here: in fp32, and in what else networks bear, in a
    process of its own, where that runs here.

    Args:
        networks: The bundle's members.
        path: Where to write to.

    Raises:
        BundleError: A graph's answers are no finite numbers.
        NaevusError: The file cannot be written.
    """
    low, high = _SIDES
    side = min(max(low, *(each.size for each in networks)), high)
    pixels, _ = draw_lesion("NV", 0, side)
    answers = {each.graph.name: _answer(each, sample_views(pixels, each.size)) for each in networks}
    write_sample(path, Sample(pixels, answers))
    entry = {
        "file": SAMPLE_FILE,
        "answered_by": f"the networks themselves, in torch {torch.__version__} and 32 bits",
        "tolerances": {each.graph.name: _tolerances(each, pixels, path) for each in networks},
    }
    return {"sample": entry}


def _answer(shipped: Shipped, views: np.ndarray[Any, np.dtype[np.uint8]]) -> Any:
    device = next(shipped.network.parameters()).device
    with evaluating(shipped.network), torch.inference_mode():
        said = shipped.network(torch.from_numpy(views).to(device)).float().cpu().numpy()
    name = {"segmentation": "logit", "classification": "logits", "attributes": "attributes"}
    return np.ascontiguousarray(compared({name[shipped.task]: said}), np.float32)


def _tolerances(shipped: Shipped, pixels: Any, path: Path) -> dict[Computed, float]:
    views = sample_views(pixels, shipped.size)
    said = compared(open_engine(shipped.graph).run(views))
    off = distance(said, _answer(shipped, views))
    if not np.isfinite(off):
        raise BundleError(
            f"{shipped.graph.name}: answers that are no finite numbers", "train it again"
        )
    found: dict[Computed, float] = {"fp32": tolerance(off, shipped.stored, "fp32")}
    for computed in shipped.computed:
        judged = Judged(shipped.task, str(shipped.graph), shipped.size, str(path), {computed: _ANY})
        way = Way("openvino", computed)
        ((result,),) = tried(
            [way], [judged], limit_s=PATIENCE_S, patience_s=PATIENCE_S, rounds=0
        ).values()
        if result.distance is not None:
            found[computed] = tolerance(result.distance, shipped.stored, computed)
    return found
