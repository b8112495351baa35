"""Whether a graph says what its network says."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from naevus.errors import BundleError
from naevus.evaluation.priors import balanced_log_probabilities, natural_log_probabilities
from naevus.inference.engines import open_engine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from naevus.training.export.members import TrainedMember

LARGEST = 2e-3
"""How far a probability of the 32-bit graph may be from the network's own."""
ALIKE = 0.999
"""Share of decisions that must be the network's own."""
_BATCH = 16


class Agreement(NamedTuple):
    """How two versions of one network agree.

    Attributes:
        pictures: How many they were compared on.
        largest: The largest difference of a probability: of a class, or of lesion at a pixel.
        mean: The mean difference.
        decisions: Share of equal decisions: most probable and balanced class, or pixels of masks.
    """

    pictures: int
    largest: float
    mean: float
    decisions: float

    @property
    def holds(self) -> bool:
        """Whether a graph in 32 bits that agrees so with its network may be written."""
        return self.largest <= LARGEST and self.decisions >= ALIKE  # not so where a value is NaN


class Answers(NamedTuple):
    """What a network says of N pictures: its probabilities, and what follows from them."""

    probabilities: NDArray[np.float64]
    decisions: NDArray[np.int64]


def network_answers(member: TrainedMember, pixels: NDArray[np.uint8]) -> Answers:
    """Return what the network itself says, in torch and 32 bits, of pixels N x S x S x 3."""

    def run(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: NDArray[np.float32] = member.network(torch.from_numpy(batch)).numpy()
        return logits

    return _answers(member, pixels, run)


def graph_answers(member: TrainedMember, graph: Path, pixels: NDArray[np.uint8]) -> Answers:
    """Return what its graph says, in OpenVINO and 32 bits where the graph has them."""
    engine = open_engine(graph)
    output = "logits" if member.classes else "logit"
    return _answers(member, pixels, lambda batch: engine.run(batch)[output])


def compare(one: Answers, other: Answers) -> Agreement:
    """Compare what two versions of a network say of the same pictures."""
    difference = np.abs(one.probabilities - other.probabilities)
    return Agreement(
        pictures=len(one.probabilities),
        largest=float(difference.max()),
        mean=float(difference.mean()),
        decisions=float(np.mean(one.decisions == other.decisions)),
    )


def require(agreement: Agreement, origin: str) -> None:
    """Refuse a graph that does not say what its network says.

    Raises:
        BundleError: A probability is off by more than ``LARGEST``, or too many decisions differ.
    """
    if not agreement.holds:
        raise BundleError(
            f"{origin}: its graph differs from the network by {agreement.largest:.2g} and agrees "
            f"in {agreement.decisions:.2%} of decisions",
            "nothing was written; report this with the recipe and the versions of torch and onnx",
        )


def _answers(
    member: TrainedMember,
    pixels: NDArray[np.uint8],
    run: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
) -> Answers:
    pieces = [
        run(np.ascontiguousarray(pixels[start : start + _BATCH]))
        for start in range(0, len(pixels), _BATCH)
    ]
    logits = np.concatenate(pieces)
    if not member.classes:
        with np.errstate(over="ignore"):
            probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
        return Answers(probability, (logits > 0).astype(np.int64))
    natural = natural_log_probabilities(logits, member.weights)
    balanced = balanced_log_probabilities(logits, member.weights, member.shares)
    decisions = np.stack([natural.argmax(1), balanced.argmax(1)], axis=1)
    return Answers(np.exp(natural), decisions)
