"""Export networks to ONNX files without traces of the machine, and sample their outputs."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import onnx
import torch
from onnx import numpy_helper, version_converter
from onnx.reference import ReferenceEvaluator
from torch import nn
from torch.nn import functional

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
from naevus.io.files import write_bytes
from naevus.runs.recipe import LESION
from naevus.training.networks import Classifier, Segmenter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from naevus.training.networks import Preprocessed
    from naevus.types import Precision, Storage, Task


STAGES = 2
"""Number of the backbone's last stages in ``texture``; chosen by benchmarks/not_dermoscopy.py."""

OPSET = 18
"""ONNX operator set of the exported graphs (ONNX 1.13; ONNX Runtime 1.14 and later)."""


class Explained(nn.Module):
    """A classifier with further outputs: embedding, texture and class activation maps.

    If the head is linear over averaged feature maps, the spatial mean of a class activation map
    is exactly the class's logit (Zhou et al., CVPR 2016). For OOD detection, the mean and standard
    deviation of earlier feature maps contain more than the embedding, which has learnt to discard
    everything irrelevant to the diagnosis.

    Args:
        network: A ``Preprocessed`` classifier.
        input_size: Side of its input, in pixels.

    Attributes:
        outputs: ``logits`` N×C; ``embedding`` N×F (the pooled features); ``texture`` N×T (spatial
            mean and standard deviation of every map of the backbone's last `STAGES` stages), if
            these output maps; ``cam`` N×C×h×w, if it is exact.
    """

    _kernel: Tensor

    def __init__(self, network: Preprocessed, input_size: int) -> None:
        super().__init__()
        self._network = network
        classifier = network.network
        assert isinstance(classifier, Classifier)
        self._classifier = classifier
        linear = [layer for layer in classifier.head if isinstance(layer, nn.Linear)]
        # A copy: NNCF does not follow weights that share memory with others.
        kernel = linear[-1].weight.detach()[:, :, None, None].clone()
        self.register_buffer("_kernel", kernel, persistent=False)
        self._bias = linear[-1].bias
        self._stages, averaged = _probed(network, input_size)
        self._mapped = len(linear) == 1 and averaged
        self.outputs = (
            "logits",
            "embedding",
            *(("texture",) if self._stages else ()),
            *(("cam",) if self._mapped else ()),
        )

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Map uint8 pixels N×S×S×3 to ``outputs``."""
        with _watched(self._stages) as maps:
            features = self._classifier.features(self._network.prepared(pixels))
        embedding = self._classifier.pool(features)
        found = [self._classifier.head(embedding), embedding]
        if maps:
            found.append(torch.cat([_texture(each) for each in maps], dim=1))
        if self._mapped:
            found.append(functional.conv2d(features, self._kernel, self._bias))
        return tuple(found)


def _texture(maps: Tensor) -> Tensor:
    """Return the spatial mean and standard deviation of N×F×h×w maps: N×2F."""
    mean = maps.mean((2, 3))
    deviation = (maps - mean[:, :, None, None]).square().mean((2, 3)).sqrt()
    return torch.cat([mean, deviation], dim=1)


@contextlib.contextmanager
def _watched(stages: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Collect the outputs of some layers within the block."""
    given: list[Tensor] = []
    handles = [
        stage.register_forward_hook(lambda _module, _inputs, output: given.append(output))
        for stage in stages
    ]
    try:
        yield given
    finally:
        for handle in handles:
            handle.remove()


def _probed(network: Preprocessed, input_size: int) -> tuple[list[nn.Module], bool]:
    """Run a classifier on an image of noise and inspect its layers.

    Returns:
        The last stages of the backbone in timm's list, if they output maps; and whether the
        pooled features are the means of the feature maps.
    """
    classifier = network.network
    assert isinstance(classifier, Classifier)
    described = list(getattr(classifier.backbone, "feature_info", ()))[-STAGES:]
    layers = dict(classifier.backbone.named_modules())
    stages = [layers[stage["module"]] for stage in described if stage["module"] in layers]
    rng = torch.Generator().manual_seed(0)
    side = (1, input_size, input_size, 3)
    pixels = torch.randint(0, 256, side, dtype=torch.uint8, generator=rng)
    with evaluating(network), torch.no_grad(), _watched(stages) as maps:
        features = classifier.features(network.prepared(pixels.to(network.scale.device)))
        pooled = classifier.pool(features)
    widths = [stage["num_chs"] for stage in described]
    if [each.shape[1] if each.ndim == 4 else None for each in maps] != widths:
        stages = []
    if features.ndim != 4:
        return stages, False
    means = features.mean((2, 3))
    return stages, pooled.shape == means.shape and torch.allclose(pooled, means, atol=1e-5)


class NamedMaps(nn.Module):
    """A network of several masks with separate outputs for the lesion and the attributes.

    Args:
        network: A ``Preprocessed`` segmentation network with more than one output.

    Attributes:
        outputs: ``logit`` N×S×S of the lesion, if it has one, and ``attributes`` N×A×S×S.
    """

    def __init__(self, network: Preprocessed) -> None:
        super().__init__()
        self._network = network
        segmenter = network.network
        assert isinstance(segmenter, Segmenter)
        self._lesion = LESION in segmenter.outputs
        self.outputs = ("logit", "attributes") if self._lesion else ("attributes",)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Map uint8 pixels N×S×S×3 to ``outputs``."""
        logits = self._network(pixels)
        return (logits[:, 0], logits[:, 1:]) if self._lesion else (logits,)


def export_onnx(network: Preprocessed, path: Path, *, input_size: int) -> None:
    """Export a network to an ONNX file.

    The graph has one input ``pixels``, uint8 N×S×S×3 with variable N. Its float32 outputs are
    ``logit`` N×S×S for a segmenter, ``NamedMaps.outputs`` for one with attributes, and
    ``Explained.outputs`` for a classifier. Source locations and other traces are removed, so that
    the same network gives the same bytes on every machine with the same libraries.

    Args:
        network: The network; it is exported in evaluation mode and keeps its own mode.
        path: Output file, written atomically.
        input_size: S, in pixels.

    Raises:
        NaevusError: The file cannot be written.
    """
    example = torch.zeros((2, input_size, input_size, 3), dtype=torch.uint8)
    example = example.to(next(network.parameters()).device)
    graph: nn.Module = network
    outputs: tuple[str, ...] = ("logit",)
    if isinstance(network.network, Classifier):
        graph = explained = Explained(network, input_size)
        outputs = explained.outputs
    elif isinstance(network.network, Segmenter) and len(network.network.outputs) > 1:
        graph = maps = NamedMaps(network)
        outputs = maps.outputs
    with evaluating(graph), _quiet():
        program = torch.onnx.export(
            graph,
            (example,),
            dynamo=True,
            input_names=["pixels"],
            output_names=outputs,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    scale_by_number(model)
    write_onnx(model, path)


def scale_by_number(model: onnx.ModelProto) -> None:
    """Resize a graph's maps by constant scales instead of the sizes that torch exports.

    The sizes are computed at run time from the batch size, which fails in OpenVINO on processors
    without AVX. A constant scale is also slightly faster.
    """
    shapes = {
        value.name: [side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in model.graph.value_info
    }
    for node in model.graph.node:
        if node.op_type != "Resize" or len(node.input) != 4:
            continue
        before, after = (shapes.get(name, []) for name in (node.input[0], node.output[0]))
        if len(before) != 4 or len(after) != 4 or not all((*before[1:], *after[1:])):
            continue
        scales = [1.0, *map(scale_of, before[1:], after[1:])]
        name = f"{node.output[0]}_scales"
        model.graph.initializer.append(numpy_helper.from_array(np.array(scales, np.float32), name))
        del node.input[2:]
        node.input.append(name)
    _drop_unused(model.graph)


def scale_of(old: int, new: int) -> float:
    """Return the number by which engines, which compute with 32 bits, make ``old`` pixels ``new``.

    They round down: at 3 to 20 pixels, the nearest number to 20 / 3 gives 19.
    """
    scale = np.float32(new / old)
    while int(float(scale) * old) < new:
        scale = np.nextafter(scale, np.float32(np.inf))
    return float(scale)


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove unused layers and weights."""
    results = {value.name for value in graph.output}
    while True:
        used = results.union(*(node.input for node in graph.node))
        kept = [node for node in graph.node if used.intersection(node.output)]
        if len(kept) == len(graph.node):
            break
        del graph.node[:]
        graph.node.extend(kept)
    weights = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(weights)
    there = used.union(results)
    values = [value for value in graph.value_info if value.name in there]
    del graph.value_info[:]
    graph.value_info.extend(values)


def write_onnx(model: onnx.ModelProto, path: Path) -> None:
    """Check a graph and write it atomically, without traces of the exporting machine.

    Raises:
        NaevusError: The file cannot be written.
    """
    _strip(model)
    onnx.checker.check_model(model)
    write_bytes(path, model.SerializeToString(deterministic=True))


def _strip(model: onnx.ModelProto) -> None:
    """Remove everything that names source files, modules or the exporting machine."""
    model.producer_name, model.producer_version = "naevus", ""
    model.doc_string = ""
    del model.metadata_props[:]
    graphs: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    for graph in graphs:
        graph.doc_string = ""
        del graph.metadata_props[:]
        for node in graph.node:
            node.doc_string = ""
            del node.metadata_props[:]
            graphs += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    for graph in graphs:
        for value in graph.value_info:
            value.doc_string = ""
            del value.metadata_props[:]
    for value in [*model.graph.input, *model.graph.output, *model.graph.initializer]:
        value.doc_string = ""
        del value.metadata_props[:]


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Set a network to evaluation mode within the block."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's messages about its own libraries."""
    level = logging.getLogger("torch.onnx").level
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            yield
        finally:
            logging.getLogger("torch.onnx").setLevel(level)


# The sample of a bundle: reference outputs of the networks, to verify engines with.

_SIDES: Final = (32, 256)
"""Smallest and largest side of the synthetic image, in pixels."""
_EVALUATED_OPSET: Final = 21
"""Operator set that graphs are converted to for the reference evaluator, which lacks older ones."""
_ANY: Final = 1e30
"""A tolerance above any distance between finite outputs."""


class SampledNetwork(NamedTuple):
    """A network that is in a bundle.

    Attributes:
        task: Its task.
        graph: Its ONNX file, under its name in the bundle.
        network: The network itself; None if only its graph is left, which ONNX's own evaluator then
            computes in NumPy.
        size: Side of its square input, in pixels.
        storage: Number format of the stored weights.
        precisions: Precisions besides fp32 that were measured to be accurate enough.
    """

    task: Task
    graph: Path
    network: Preprocessed | None
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
        each.graph.name: answer(each, sample_batch(pixels, each.size)) for each in networks
    }
    write_sample(path, Sample(pixels, predictions))
    kinds = {each.network is None: _answered_by(each) for each in networks}
    entry = {
        "file": SAMPLE_FILE,
        "answered_by": " or ".join(kinds.values()),
        "tolerances": {
            each.graph.name: _tolerances(each, pixels, predictions[each.graph.name], path)
            for each in networks
        },
    }
    return {"sample": entry}


def _answered_by(sampled: SampledNetwork) -> str:
    if sampled.network is None:
        return f"the reference evaluator of onnx {onnx.__version__} (NumPy, no engine) on the graph"
    return f"the networks themselves, in torch {torch.__version__} and fp32"


def answer(sampled: SampledNetwork, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return what a sample keeps of a network's outputs, or of its graph's without a network."""
    if sampled.network is None:
        return np.ascontiguousarray(compared(evaluated_graph(sampled.graph, batch)), np.float32)
    device = next(sampled.network.parameters()).device
    with evaluating(sampled.network), torch.inference_mode():
        outputs = sampled.network(torch.from_numpy(batch).to(device)).float().cpu().numpy()
    name = {"segmentation": "logit", "classification": "logits", "attributes": "attributes"}
    return np.ascontiguousarray(compared({name[sampled.task]: outputs}), np.float32)


def evaluated_graph(graph: Path, batch: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Return the outputs of a graph, computed by ONNX's reference evaluator: exact, but slow.

    Args:
        graph: The ONNX file; its operator set may be older than the evaluator's 8-bit operators.
        batch: N×S×S×3.
    """
    model = version_converter.convert_version(onnx.load(graph), _EVALUATED_OPSET)
    found = ReferenceEvaluator(model).run(None, {"pixels": batch})
    names = [value.name for value in model.graph.output]
    return {name: np.asarray(values, np.float32) for name, values in zip(names, found, strict=True)}


def _tolerances(
    sampled: SampledNetwork, pixels: NDArray[np.uint8], answer: NDArray[np.float32], path: Path
) -> dict[Precision, float]:
    batch = sample_batch(pixels, sampled.size)
    outputs = compared(open_engine(sampled.graph).run(batch))
    off = distance(outputs, answer)
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
