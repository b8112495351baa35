"""Weights from an exported graph, in which batch normalisation is part of the convolutions."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import onnx
import torch
from onnx import numpy_helper
from torch import nn

from naevus.bundles.sample import distance, sample_batch
from naevus.errors import WeightsError
from naevus.training.onnx_graph import answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from naevus.bundles.sample import Sample
    from naevus.training.networks import Preprocessed
    from naevus.training.onnx_graph import SampledNetwork

IMAGES: Final = 256
"""Number of training images that give the statistics of batch normalisation."""

FARTHEST: Final = 0.5
"""The largest distance of a network from its graph: weights of 8 bits were chosen for activations
of 8 bits, so those of a segmenter differ by up to .13 with other ones."""

_PREFIXES: Final = {"_network.": "", "_classifier.": "network."}
"""What graphs with further outputs put before the names of a network's weights."""
_FOLDED: Final = ".weight_bias"
"""The end of the name of a bias that a folded normalisation left in a convolution without one."""
_SCALE: Final = ".weight_scale"
"""Likewise, for the factors of a group normalisation."""
_OF_GROUPS: Final = frozenset(
    {"Mul", "Reshape", "InstanceNormalization", "QuantizeLinear", "DequantizeLinear"}
)
_HEAD: Final = "network.head."
_Norm = nn.modules.batchnorm._BatchNorm  # noqa: SLF001 (the layers of all dimensions)


def load_graph(
    graph: Path, network: Preprocessed, batches: Sequence[Tensor], *, head: bool
) -> None:
    """Give a network the weights of an exported graph.

    Weights of 16 and 8 bits are converted to 32. Folded batch normalisation is made again: its
    statistics are those of ``batches``, and its weights leave the network's outputs unchanged.
    With other statistics, training mode would change them beyond use.

    Args:
        graph: The ONNX file.
        network: A network of the same architecture.
        batches: Training images, uint8 N x S x S x 3.
        head: Whether a classifier's last layers are taken over, too.

    Raises:
        WeightsError: The graph is of another network, or does not name all its weights.
    """
    with torch.no_grad():
        network.eval()
        state = network.state_dict()
        stored, norms = _fitting(graph, network, batches[0][:1], head=head)
        for name, value in stored.items():
            state[name].copy_(value)
        for norm, (mean, variance) in _statistics(network, norms, batches).items():
            epsilon = norms[norm].eps
            state[f"{norm}.weight"].copy_((variance + epsilon).sqrt())
            state[f"{norm}.bias"] += mean
            state[f"{norm}.running_mean"].copy_(mean)
            state[f"{norm}.running_var"].copy_(variance)


def check_graph(graph: Path, network: Preprocessed, size: int, *, head: bool) -> None:
    """Check that `load_graph` can load a graph; the network is left in evaluation mode.

    Raises:
        WeightsError: The graph is of another network, or does not name all its weights.
    """
    network.eval()
    with torch.no_grad():
        _fitting(graph, network, torch.zeros((1, size, size, 3), dtype=torch.uint8), head=head)


def _fitting(
    graph: Path, network: Preprocessed, pixels: Tensor, *, head: bool
) -> tuple[dict[str, Tensor], dict[str, _Norm]]:
    """Return the tensors for a network, and the normalisations that need statistics."""
    stored = graph_weights(graph)
    norms: dict[str, _Norm] = {}
    for layer, norm in _normalised(network, pixels).items():
        bias, weight = stored.pop(f"{layer}{_FOLDED}", None), stored.get(f"{layer}.weight")
        made = network.get_submodule(norm)
        if bias is None:
            if weight is None or f"{norm}.weight" in stored:
                continue
            bias = torch.zeros(len(weight))  # graphs omit biases of zero
        if not isinstance(made, _Norm):
            stored |= {f"{norm}.weight": stored[f"{layer}{_SCALE}"], f"{norm}.bias": bias}
            continue
        norms[norm] = made
        stored |= {
            f"{norm}.running_mean": torch.zeros_like(bias),
            f"{norm}.running_var": torch.ones_like(bias),
            f"{norm}.weight": torch.full_like(bias, (1 + made.eps) ** 0.5),
            f"{norm}.bias": bias,
        }
    found = {}
    for name, own in network.state_dict().items():
        if name.endswith("num_batches_tracked") or (name.startswith(_HEAD) and not head):
            continue
        value = stored.get(name)
        if value is None and f"{name.removesuffix('bias')}weight" in stored:
            value = torch.zeros_like(own)
        if value is None:
            raise WeightsError(
                f"{graph}: does not name all weights of this network, such as {name}",
                "start from a run, or from a network of another kind",
            )
        if value.shape != own.shape:
            there, due = (" x ".join(map(str, each.shape)) for each in (value, own))
            raise WeightsError(
                f"{graph}: {name} is {there}, not {due}",
                "give the recipe the settings of `network` that it was trained with",
            )
        found[name] = value
    return found, norms


def check_loaded(sampled: SampledNetwork, sample: Sample) -> None:
    """Check that a network predicts for a bundle's sample what its graph does.

    Raises:
        WeightsError: It predicts something else.
    """
    found = answer(sampled, sample_batch(sample.pixels, sampled.size))
    if distance(found, sample.predictions[sampled.graph.name]) > FARTHEST:
        raise WeightsError(
            f"{sampled.graph.name}: its weights do not give its predictions in this network",
            "use the recipe that it was trained with",
        )


def graph_weights(graph: Path) -> dict[str, Tensor]:
    """Return the weights of a graph in fp32 by the names that they have in the network."""
    model = onnx.load(graph)
    values = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    for node in model.graph.node:
        if not node.input or node.input[0] not in values:
            continue
        if node.op_type == "DequantizeLinear":
            axis = next((each.i for each in node.attribute if each.name == "axis"), 1)
            weight, *spread = (values[name] for name in node.input)
            values[_plain(node.output[0])] = _dequantised(weight, spread, axis)
        elif node.op_type == "Cast":
            values[node.output[0]] = values[node.input[0]]
    values |= _group_norms(model.graph, values)
    found = {}
    for name, value in values.items():
        prefix = next((each for each in _PREFIXES if name.startswith(each)), "")
        kept = _PREFIXES.get(prefix, "") + name.removeprefix(prefix)
        found[kept] = torch.tensor(value, dtype=torch.float32)
    return found


def _group_norms(
    graph: onnx.GraphProto, values: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Return weights and biases of group normalisations, under names of the convolutions before.

    A graph has no such layer, but an instance normalisation, a product and a sum.
    """
    made = {name: node for node in graph.node for name in node.output}
    found = {}
    for node in graph.node:
        product = made.get(node.input[0]) if node.op_type == "Add" else None
        if product is None or product.op_type != "Mul":
            continue
        before, seen = product, set()
        while before is not None and before.op_type != "Conv":
            seen.add(before.op_type)
            before = made.get(before.input[0]) if seen <= _OF_GROUPS else None
        if before is not None and "InstanceNormalization" in seen:
            layer = _plain(before.input[1]).removesuffix(".weight")
            for end, name in ((_SCALE, product.input[1]), (_FOLDED, node.input[1])):
                found[f"{layer}{end}"] = values[name].ravel()
    return found


def _plain(name: str) -> str:
    """Return the name of a weight without what quantisation added to it."""
    while name.startswith("dq_output_"):
        name = name.removeprefix("dq_output_").removesuffix("_1")
    return name


def _dequantised(
    weight: NDArray[np.int8], spread: Sequence[NDArray[np.float32]], axis: int
) -> NDArray[np.float32]:
    shape = [-1 if each == axis else 1 for each in range(weight.ndim)] if spread[0].ndim else []
    scale, zero = spread[0].reshape(shape), spread[1].reshape(shape) if spread[1:] else 0
    values: NDArray[np.float32] = ((weight.astype("f4") - zero) * scale).astype("f4")
    return values


def _normalised(network: nn.Module, pixels: Tensor) -> dict[str, str]:
    """Return the convolutions that a normalisation follows, and its name."""
    order: list[str] = []

    def note(name: str) -> Callable[..., None]:
        return lambda *_: order.append(name)

    with _hooked(network, (nn.Conv2d, _Norm, nn.GroupNorm), note):
        network(pixels)
    return {
        first: second
        for first, second in pairwise(order)
        if isinstance(network.get_submodule(second), (_Norm, nn.GroupNorm))
        and isinstance(network.get_submodule(first), nn.Conv2d)
    }


def _statistics(
    network: nn.Module, norms: Mapping[str, _Norm], batches: Sequence[Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return mean and variance of what enters each normalisation, by channel."""
    counts = dict.fromkeys(norms, 0)
    sums: dict[str, Tensor] = {}

    def add(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor], _output: Tensor) -> None:
            entering = inputs[0].double().transpose(0, 1).flatten(1)
            counts[name] += entering.shape[1]
            added = torch.stack((entering.sum(1), entering.square().sum(1)))
            sums[name] = sums[name] + added if name in sums else added

        return hook

    with _hooked(network, (_Norm,), lambda name: add(name) if name in norms else None):
        for pixels in batches:
            network(pixels)
    found = {}
    for name, (total, powers) in sums.items():
        mean = total / counts[name]
        variance = (powers / counts[name] - mean.square()).clamp(min=0)
        found[name] = (mean.float(), variance.float())
    return found


@contextmanager
def _hooked(
    network: nn.Module,
    kinds: tuple[type[nn.Module], ...],
    hook: Callable[[str], Callable[..., None] | None],
) -> Iterator[None]:
    """Call hooks after the layers of these kinds while the block runs."""
    handles = [
        module.register_forward_hook(made)
        for name, module in network.named_modules()
        if isinstance(module, kinds) and (made := hook(name))
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
