"""Several networks averaged into one: weights, not answers."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from naevus.errors import RunError
from naevus.training.batchnorm import momentum

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from naevus.training.export.members import TrainedMember

_ONLY_CHANCE = {"seed", "workers", "checkpoint_seconds"}
"""What recipes may differ in: order and augmentation, never where the networks start."""
_BATCH = 32


def average(members: Sequence[TrainedMember]) -> TrainedMember:
    """Average the weights of networks that were trained alike from one start.

    Such networks end in one basin of the loss, where their mean is as good as their ensemble or
    nearly, at the price of one (Wortsman et al., Model soups, ICML 2022). The means of batch
    normalisation's statistics are not those of the mean network: see ``estimate_statistics``.

    Args:
        members: Two or more.

    Returns:
        The average. Its folds are those that no member trained on. Its class weights are the
        geometric means of the members', as logits are averaged in logarithms.

    Raises:
        RunError: The networks do not go together.
    """
    _check_alike(members)
    network = copy.deepcopy(members[0].network)
    states = [member.network.state_dict() for member in members]
    network.load_state_dict({name: _mean([state[name] for state in states]) for name in states[0]})
    weights = np.exp(np.mean([np.log(member.weights) for member in members], axis=0))
    shares = np.mean([member.shares for member in members], axis=0)
    never = set.intersection(*(set(member.folds) for member in members))
    return replace(
        members[0],
        network=network,
        folds=tuple(sorted(never)),
        origin=" + ".join(member.origin for member in members),
        weights=tuple(weights.tolist()),
        shares=tuple(shares.tolist()),
    )


@torch.no_grad()
def estimate_statistics(network: nn.Module, pixels: NDArray[np.uint8]) -> None:
    """Put the means and variances of these pictures into every batch normalisation.

    An averaged network needs it (Izmailov et al., Averaging weights leads to wider optima, UAI
    2018). All batches count alike, whatever the momentum; the rest runs as in use, without dropout.

    Args:
        network: Takes uint8 N x S x S x 3; left in evaluation mode.
        pixels: Training pictures, unvaried.
    """
    network.eval()
    with momentum(network, None) as norms:
        for norm in norms:
            norm.reset_running_stats()
            norm.train()
        for batch in np.array_split(pixels, -(-len(pixels) // _BATCH)):
            network(torch.from_numpy(np.ascontiguousarray(batch)))
    network.eval()


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    first = tensors[0]
    if not first.is_floating_point():
        return first
    return torch.stack([tensor.double() for tensor in tensors]).mean(0).to(first.dtype)


def _check_alike(members: Sequence[TrainedMember]) -> None:
    if len(members) < 2:
        raise RunError("one network alone has no average", "name more runs, or more folds of one")
    first = members[0]
    for other in members[1:]:
        pair = f"{first.origin} and {other.origin}"
        for what, same in (
            ("recipes", _start(first) == _start(other)),
            ("classes", first.classes == other.classes),
            ("folds", first.run.folds.sha256 == other.run.folds.sha256),
            ("data", first.run.inputs["fingerprint"] == other.run.inputs["fingerprint"]),
            ("starts", _warm_start(first) == _warm_start(other)),
        ):
            if not same:
                raise RunError(
                    f"{pair} have different {what}",
                    "average networks that differ in seed or fold alone",
                )


def _start(member: TrainedMember) -> object:
    return member.config.model_dump(exclude=_ONLY_CHANCE)


def _warm_start(member: TrainedMember) -> object:
    """Where it started from: another run's fold, or nothing but the recipe."""
    source = member.run.inputs.get("warm_start")
    return source and (source, member.folds)
