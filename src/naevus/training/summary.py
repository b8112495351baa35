"""A network on one page: modules, output shapes, parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_OPENED_ABOVE = 0.5
"""A module with more than this share of all parameters is shown by its parts."""


def layer_summary(network: nn.Module, input_size: int) -> str:
    """Describe a network as it sees one square picture.

    Args:
        network: Takes float pictures N×3×H×W. Its modes, weights and statistics stay as they are.
        input_size: Height and width of the picture, in pixels.

    Returns:
        A table in plain text: a line a module in the order of the forward pass, with the shape of
        what it gives (without the batch) and its parameters, and a line with the totals.
    """
    total = _parameters(network)
    shapes: dict[str, str] = {}
    handles = [
        module.register_forward_hook(_note(shapes, name))
        for name, module in _parts(network, "", total)
    ]
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            weight = next(network.parameters())
            network(torch.zeros(1, 3, input_size, input_size, device=weight.device))
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    rows = [
        (name, type(module).__name__, shapes[name], f"{_parameters(module):,}")
        for name in shapes
        for module in (network.get_submodule(name),)
    ]
    trained = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    end = f"{total:,} parameters, {trained:,} of them trained, at {input_size} × {input_size} px"
    return "\n".join([*_aligned([("module", "kind", "output", "parameters"), *rows]), end])


def _parts(module: nn.Module, name: str, total: int) -> Iterator[tuple[str, nn.Module]]:
    """Yield the parts to show: large modules are opened, small ones shown whole."""
    for key, child in module.named_children():
        path = f"{name}.{key}" if name else key
        if any(True for _ in child.children()) and _parameters(child) > _OPENED_ABOVE * total:
            yield from _parts(child, path, total)
        elif _parameters(child):
            yield path, child


def _note(shapes: dict[str, str], name: str) -> Callable[[nn.Module, object, object], None]:
    def hook(_module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            shapes[name] = " × ".join(str(side) for side in output.shape[1:])
        else:
            shapes[name] = "several"

    return hook


def _parameters(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def _aligned(rows: list[tuple[str, str, str, str]]) -> Iterator[str]:
    name, kind, shape, count = (max(map(len, column)) for column in zip(*rows, strict=True))
    for row in rows:
        yield f"{row[0]:<{name}}  {row[1]:<{kind}}  {row[2]:<{shape}}  {row[3]:>{count}}"
