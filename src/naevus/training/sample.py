"""What networks in torch say of a drawn image, for engines to be judged by (`bundles.sample`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch

from naevus.bundles.sample import (
    SAMPLE_FILE,
    Sample,
    compared,
    distance,
    sample_batch,
    tolerance,
    write_sample,
)
from naevus.datasets.synthetic.photograph import draw_lesion
from naevus.errors import BundleError
from naevus.inference.engines import open_engine
from naevus.inference.engines.automatic import PATIENCE_S
from naevus.inference.engines.trial import EngineSetup, TrialNetwork, tried
from naevus.training.onnx_graph import evaluating

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from naevus.training.networks import Preprocessed
    from naevus.types import Precision, Storage, Task


_SIDES: Final = (32, 256)
"""The smallest and the largest image that is drawn, pixels."""
_ANY: Final = 1e30
"""A distance that no answer of numbers reaches."""


class SampledNetwork(NamedTuple):
    """A network that is in a bundle.

    Attributes:
        task: What it does.
        graph: Its file, under the name that the bundle gives it.
        network: The network itself.
        size: Side of the square it sees, pixels.
        storage: How the file's numbers are stored.
        precisions: What else than fp32 it was measured to bear.
    """

    task: Task
    graph: Path
    network: Preprocessed
    size: int
    storage: Storage = "fp32"
    precisions: tuple[Precision, ...] = ()


def sample_entry(networks: Sequence[SampledNetwork], path: Path) -> dict[str, Any]:
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
    predictions = {
        each.graph.name: _answer(each, sample_batch(pixels, each.size)) for each in networks
    }
    write_sample(path, Sample(pixels, predictions))
    entry = {
        "file": SAMPLE_FILE,
        "answered_by": f"the networks themselves, in torch {torch.__version__} and 32 bits",
        "tolerances": {each.graph.name: _tolerances(each, pixels, path) for each in networks},
    }
    return {"sample": entry}


def _answer(sampled: SampledNetwork, batch: np.ndarray[Any, np.dtype[np.uint8]]) -> Any:
    device = next(sampled.network.parameters()).device
    with evaluating(sampled.network), torch.inference_mode():
        outputs = sampled.network(torch.from_numpy(batch).to(device)).float().cpu().numpy()
    name = {"segmentation": "logit", "classification": "logits", "attributes": "attributes"}
    return np.ascontiguousarray(compared({name[sampled.task]: outputs}), np.float32)


def _tolerances(sampled: SampledNetwork, pixels: Any, path: Path) -> dict[Precision, float]:
    batch = sample_batch(pixels, sampled.size)
    outputs = compared(open_engine(sampled.graph).run(batch))
    off = distance(outputs, _answer(sampled, batch))
    if not np.isfinite(off):
        raise BundleError(
            f"{sampled.graph.name}: answers that are no finite numbers", "train it again"
        )
    found: dict[Precision, float] = {"fp32": tolerance(off, sampled.storage, "fp32")}
    for precision in sampled.precisions:
        evaluated = TrialNetwork(
            sampled.task, str(sampled.graph), sampled.size, str(path), {precision: _ANY}
        )
        way = EngineSetup("openvino", precision)
        ((result,),) = tried(
            [way], [evaluated], limit_s=PATIENCE_S, patience_s=PATIENCE_S, rounds=0
        ).values()
        if result.distance is not None:
            found[precision] = tolerance(result.distance, sampled.storage, precision)
    return found
