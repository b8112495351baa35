"""Reference outputs of networks in torch on a synthetic image, to verify engines with."""

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
"""Smallest and largest side of the synthetic image, in pixels."""
_ANY: Final = 1e30
"""A tolerance above any distance between finite outputs."""


class SampledNetwork(NamedTuple):
    """A network that is in a bundle.

    Attributes:
        task: Its task.
        graph: Its ONNX file, under its name in the bundle.
        network: The network itself.
        size: Side of its square input, in pixels.
        storage: Number format of the stored weights.
        precisions: Precisions besides fp32 that were measured to be accurate enough.
    """

    task: Task
    graph: Path
    network: Preprocessed
    size: int
    storage: Storage = "fp32"
    precisions: tuple[Precision, ...] = ()


def sample_entry(networks: Sequence[SampledNetwork], path: Path) -> dict[str, Any]:
    """Write the sample of a bundle, and return its manifest entry.

    The tolerances are measured here: in fp32, and in the networks' other precisions in a child
    process, if this machine supports them.

    Args:
        networks: The bundle's members.
        path: Output file.

    Raises:
        BundleError: A graph's outputs are not finite.
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
        "answered_by": f"the networks themselves, in torch {torch.__version__} and fp32",
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
            f"{sampled.graph.name}: outputs are not finite", "train the network again"
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
