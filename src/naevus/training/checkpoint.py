"""Checkpoints: the whole state of a training job in one file, written atomically.

Tensors (network, averaged weights, optimiser, random state) are stored as safetensors; numbers
(position, schedule, history) as JSON in the file's header.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from naevus.errors import RunError
from naevus.io.files import atomic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn
    from torch.optim import Optimizer


def save_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write named tensors and a JSON header atomically."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic(path) as temporary:
        save_file(whole, temporary, metadata={"json": json.dumps(header)})


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file written by :func:`save_tensors`.

    Raises:
        RunError: The file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as stored:
            header = json.loads(stored.metadata()["json"])
            return {name: stored.get_tensor(name) for name in stored.keys()}, header  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{path}: unreadable checkpoint ({error})", "delete it to start this fold again"
        ) from error


def save_checkpoint(
    path: Path,
    networks: dict[str, nn.Module],
    optimiser: Optimizer,
    header: dict[str, Any],
) -> None:
    """Write the state of a job.

    Args:
        path: The file.
        networks: Networks by name, such as ``network`` and ``average``.
        optimiser: Its tensors are stored with those of the networks, its numbers in the header.
        header: Everything else that is needed to resume, as JSON.
    """
    tensors = {
        f"{name}/{key}": value
        for name, network in networks.items()
        for key, value in network.state_dict().items()
    }
    numbers: dict[str, dict[str, float]] = {}
    for index, state in optimiser.state_dict()["state"].items():
        for key, value in state.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimiser/{index}/{key}"] = value
            elif value is not None:
                numbers.setdefault(str(index), {})[key] = value
    tensors["random"] = torch.get_rng_state()
    save_tensors(path, tensors, {**header, "optimiser": numbers})


def load_checkpoint(
    path: Path, networks: dict[str, nn.Module], optimiser: Optimizer
) -> dict[str, Any]:
    """Restore the state of a job; return the header.

    Raises:
        RunError: The file is damaged or belongs to another network.
    """
    tensors, header = load_tensors(path)
    try:
        for name, network in networks.items():
            prefix = f"{name}/"
            network.load_state_dict(
                {
                    key.removeprefix(prefix): value
                    for key, value in tensors.items()
                    if key.startswith(prefix)
                }
            )
    except RuntimeError as error:
        raise RunError(
            f"{path}: checkpoint of another network", "choose another --out, or delete the run"
        ) from error
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser/"):
            _, index, name = key.split("/")
            state.setdefault(int(index), {})[name] = value
    for index_text, numbers in header.pop("optimiser").items():
        state.setdefault(int(index_text), {}).update(numbers)
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    # Stored tensors are contiguous, but a fused step needs the memory layout of the weights.
    for weight, moments in optimiser.state.items():
        for name, value in moments.items():
            if isinstance(value, torch.Tensor) and value.shape == weight.shape:
                moments[name] = torch.empty_like(weight).copy_(value)
    torch.set_rng_state(tensors["random"])
    return header


def load_network(
    path: Path, network: nn.Module, outputs: tuple[Sequence[str], Sequence[str]] | None = None
) -> None:
    """Load stored weights into a network.

    Args:
        path: The weights.
        network: The network.
        outputs: Names of the outputs of the stored network and of this one, if they differ;
            outputs that only this network has keep their weights.

    Raises:
        RunError: The file is damaged or belongs to another network.
    """
    tensors, _ = load_tensors(path)
    if outputs is not None:
        tensors |= _of_outputs(tensors, network.state_dict(), *outputs)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise RunError(
            f"{path}: does not fit this network ({str(error).splitlines()[0]})",
            "use the recipe that it was trained with",
        ) from error


def _of_outputs(
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    theirs: Sequence[str],
    ours: Sequence[str],
) -> dict[str, Tensor]:
    """Return the tensors with one row per output, rearranged for a network with other outputs."""
    pairs = [(ours.index(name), theirs.index(name)) for name in ours if name in theirs]
    found = {}
    for name, stored in tensors.items():
        wanted = own.get(name)
        if wanted is None or stored.shape == wanted.shape:
            continue
        if stored.shape[:1] == (len(theirs),) and wanted.shape == (len(ours), *stored.shape[1:]):
            found[name] = wanted.clone()
            for row, source in pairs:
                found[name][row] = stored[source]
    return found
