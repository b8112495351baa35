"""A network's graph in fp32, fp16 and int8, each compared with the network."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from naevus.datasets.sources import stack_images
from naevus.errors import BundleError, ConfigError
from naevus.evaluation.priors import balanced_log_probabilities, natural_log_probabilities
from naevus.inference.engines import open_engine
from naevus.io.extras import how_to_install
from naevus.training.onnx_graph import export_onnx, write_onnx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import ModuleType

    from numpy.typing import NDArray

    from naevus.datasets.sources import Images
    from naevus.export.members import TrainedMember
    from naevus.types import Storage


# Agreement of a graph with its network.

LARGEST = 2e-3
"""Largest allowed difference of a probability between fp32 graph and network."""
ALIKE = 0.999
"""Required fraction of equal decisions."""
_BATCH = 16


class Agreement(NamedTuple):
    """The agreement of two versions of one network.

    Attributes:
        images: Number of images they were compared on.
        largest: Largest difference of a probability (of a class, or at a pixel).
        mean: Mean difference of the probabilities.
        decisions: Fraction of equal decisions (natural and balanced class, or pixels of masks).
    """

    images: int
    largest: float
    mean: float
    decisions: float

    @property
    def holds(self) -> bool:
        """Whether an fp32 graph with this agreement may be written."""
        return self.largest <= LARGEST and self.decisions >= ALIKE  # False for NaN


class GraphOutput(NamedTuple):
    """Probabilities and decisions of a network on N images."""

    probabilities: NDArray[np.float64]
    decisions: NDArray[np.int64]


def network_outputs(member: TrainedMember, pixels: NDArray[np.uint8]) -> GraphOutput:
    """Return the outputs of the network itself, in torch and fp32, on pixels N x S x S x 3."""

    def run(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: NDArray[np.float32] = member.network(torch.from_numpy(batch)).numpy()
        return logits

    return _outputs(member, pixels, run)


def graph_outputs(member: TrainedMember, graph: Path, pixels: NDArray[np.uint8]) -> GraphOutput:
    """Return the outputs of its graph in OpenVINO, in fp32 unless the graph is int8."""
    engine = open_engine(graph)

    def run(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        outputs = engine.run(batch)
        if "attributes" not in outputs:
            return outputs["logits" if member.classes else "logit"]
        lesion = [outputs["logit"][:, None]] if "logit" in outputs else []
        return np.concatenate([*lesion, outputs["attributes"]], axis=1)

    return _outputs(member, pixels, run)


def compare(one: GraphOutput, other: GraphOutput) -> Agreement:
    """Compare the outputs of two versions of a network on the same images."""
    difference = np.abs(one.probabilities - other.probabilities)
    return Agreement(
        images=len(one.probabilities),
        largest=float(difference.max()),
        mean=float(difference.mean()),
        decisions=float(np.mean(one.decisions == other.decisions)),
    )


def require(agreement: Agreement, origin: str) -> None:
    """Reject a graph that does not agree with its network.

    Raises:
        BundleError: A probability differs by more than ``LARGEST``, or too many decisions differ.
    """
    if not agreement.holds:
        raise BundleError(
            f"{origin}: its graph differs from the network by {agreement.largest:.2g} and agrees "
            f"in {agreement.decisions:.2%} of decisions",
            "nothing was written; report this with the recipe and the versions of torch and onnx",
        )


def _outputs(
    member: TrainedMember,
    pixels: NDArray[np.uint8],
    run: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
) -> GraphOutput:
    pieces = [
        run(np.ascontiguousarray(pixels[start : start + _BATCH]))
        for start in range(0, len(pixels), _BATCH)
    ]
    logits = np.concatenate(pieces)
    if not member.classes:
        with np.errstate(over="ignore"):
            probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
        return GraphOutput(probability, (logits > 0).astype(np.int64))
    natural = natural_log_probabilities(logits, member.class_weights)
    balanced = balanced_log_probabilities(logits, member.class_weights, member.class_priors)
    decisions = np.stack([natural.argmax(1), balanced.argmax(1)], axis=1)
    return GraphOutput(np.exp(natural), decisions)


# Smaller graphs: weights stored in fp16, or stored and computed in int8.

FEWEST = 256
"""Smaller tensors stay in fp32, and so do vectors: they hardly add to the size, and include biases,
normalisation and the scales of int8."""


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store a graph's weights in fp16, each followed by a cast back to fp32.

    Inputs, outputs and activations are unchanged, so an engine can choose its precision.

    Args:
        model: The graph; it is not changed.

    Raises:
        BundleError: A weight exceeds the range of fp16.
    """
    half = onnx.ModelProto()
    half.CopyFrom(model)
    casts = []
    for tensor in half.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.ndim < 2 or values.size < FEWEST:
            continue
        if np.abs(values).max() > np.finfo(np.float16).max:
            raise BundleError(f"weights {tensor.name} are too large for fp16", "export it as fp32")
        name, stored = tensor.name, f"{tensor.name}_fp16"
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
        casts.append(
            helper.make_node("Cast", [stored], [name], f"{name}_cast", to=TensorProto.FLOAT)
        )
    nodes = [*casts, *half.graph.node]
    del half.graph.node[:]
    half.graph.node.extend(nodes)
    return half


def to_int8(model: onnx.ModelProto, pixels: NDArray[np.uint8]) -> onnx.ModelProto:
    """Quantise a graph to int8 after training, with NNCF's ``QuantizeLinear`` pairs.

    Both engines read them. Some layers are computed in fp32, see `_delicate`; their weights are
    stored in fp16.

    Args:
        model: The graph; it is not changed.
        pixels: Calibration images, uint8 N x S x S x 3, whose activations give the ranges.

    Raises:
        ConfigError: NNCF is not installed.
        BundleError: A weight exceeds the range of fp16.
    """
    nncf = _import_nncf()
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    for number, node in enumerate(copied.graph.node):
        node.name = node.name or f"node_{number}"
    name = model.graph.input[0].name
    with _quiet():
        quantised: onnx.ModelProto = nncf.quantize(
            copied,
            nncf.Dataset([{name: image[None]} for image in pixels]),
            subset_size=len(pixels),
            # With NNCF's default (symmetric activation ranges), OpenVINO and ONNX Runtime disagree:
            # 20 % of EfficientNet-Lite0's decisions changed instead of 3 %.
            preset=nncf.QuantizationPreset.MIXED,
            # The slow, accurate correction halves the error of a U-Net's probabilities; it gains
            # nothing for classifiers.
            fast_bias_correction=all(output.name != "logit" for output in model.graph.output),
            # 7-bit weights: processors without VNNI instructions add two 8-bit products in 16 bits,
            # which can overflow with 8-bit weights.
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix.ENABLE
            ),
            ignored_scope=nncf.IgnoredScope(names=_delicate(copied.graph)),
        )
    return to_fp16(quantised)


def _delicate(graph: onnx.GraphProto) -> list[str]:
    """Return the layers that are computed in fp32 because int8 would spoil them.

    - Layers that give an output (a classifier's head and its activation map): the mean of the map
      must remain the logit.
    - The first convolution: in int8, three times as many of EfficientNet-Lite0's decisions change.
    - Convolutions of concatenated maps, as in a U-Net's decoder: they share one range, which is
      too coarse for some of the maps. Probabilities change three times as much.
    """
    layers = [node for node in graph.node if node.op_type in {"Gemm", "MatMul", "Conv"}]
    last = {value.name for value in graph.output}
    joined = {name for node in graph.node if node.op_type == "Concat" for name in node.output}
    first = next((node.name for node in layers if node.op_type == "Conv"), None)
    return [
        node.name
        for node in layers
        if node.name == first
        or last.intersection(node.output)
        or (node.op_type == "Conv" and node.input[0] in joined)
    ]


def _import_nncf() -> ModuleType:
    # NNCF, and the OpenVINO it imports, send telemetry unless this package is absent.
    sys.modules["openvino_telemetry"] = cast("Any", None)
    try:
        with _quiet():
            import nncf  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise ConfigError("NNCF is not installed", how_to_install("quantise")) from error
    module: ModuleType = nncf
    return module


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress NNCF's progress bars and messages."""
    logger = logging.getLogger("nncf")
    level = logger.level
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


class StoredGraphs:
    """The graph files of one member, made on demand.

    Args:
        member: The network.
        images: The images of its run; its training images calibrate the int8 ranges.
        folder: Folder for the files.
        calibrated: Number of calibration images, one per group.
        without: Images whose groups are excluded from the calibration.

    Attributes:
        member: The network.
        folder: Folder of its files.
    """

    def __init__(
        self,
        member: TrainedMember,
        images: Images,
        folder: Path,
        *,
        calibrated: int,
        without: Sequence[str],
    ) -> None:
        self.member = member
        self.folder = folder
        self._images = images
        self._calibrated, self._without = calibrated, without

    def path(self, storage: Storage) -> Path:
        """Return the file in a number format; make it if necessary.

        Raises:
            BundleError: A weight exceeds the range of fp16.
            ConfigError: NNCF, which makes int8 graphs, is not installed.
            NaevusError: The file cannot be written.
        """
        path = self.folder / f"{storage}.onnx"
        if path.exists():
            return path
        if storage == "fp32":
            self.folder.mkdir(parents=True, exist_ok=True)
            export_onnx(self.member.network, path, input_size=self.member.recipe.input_size)
            return path
        model = onnx.load(self.path("fp32"))
        if storage == "fp16":
            write_onnx(to_fp16(model), path)
            return path
        ids = self.member.draw(self.member.learnt(), self._calibrated, without=self._without)
        size = self.member.recipe.input_size
        write_onnx(to_int8(model, stack_images(self._images, ids, size)), path)
        return path
