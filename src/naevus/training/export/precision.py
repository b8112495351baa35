"""Smaller graphs: numbers stored in 16 bits, or stored and computed in 8."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from naevus.errors import BundleError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from numpy.typing import NDArray

FEWEST = 256
"""Tensors of fewer numbers stay in 32 bits: they weigh nothing, and normalisation is among them."""


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store a graph's weights in 16 bits, each followed by a cast back to 32.

    Inputs, outputs and everything between stay as they are, so an engine computes as it likes.

    Args:
        model: The graph; it is not changed.

    Raises:
        BundleError: A weight is beyond what 16 bits can hold, 65504.
    """
    half = onnx.ModelProto()
    half.CopyFrom(model)
    casts = []
    for tensor in half.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.size < FEWEST:
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
    """Quantise a graph to 8 bits after training, with NNCF's ``QuantizeLinear`` pairs.

    Both engines read them. Some layers are left as they are, see `_delicate`.

    Args:
        model: The graph; it is not changed.
        pixels: Calibration pictures, uint8 N x S x S x 3: their activations give the ranges.

    Raises:
        ConfigError: NNCF is not installed.
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
            nncf.Dataset([{name: picture[None]} for picture in pixels]),
            subset_size=len(pixels),
            # With NNCF's default, symmetric ranges of activations, OpenVINO gave other answers than
            # ONNX Runtime: 20 % of EfficientNet-Lite0's decisions changed, in place of 3 %.
            preset=nncf.QuantizationPreset.MIXED,
            # The slow, accurate correction halved how far a U-Net's probabilities moved; of
            # classifiers it brought nothing.
            fast_bias_correction=all(output.name != "logit" for output in model.graph.output),
            # Weights of 7 bits: where a processor has no VNNI instructions, two products of 8 bits
            # are added up in 16, and with whole weights that sum can be cut off.
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix.ENABLE
            ),
            ignored_scope=nncf.IgnoredScope(names=_delicate(copied.graph)),
        )
    return quantised


def _delicate(graph: onnx.GraphProto) -> list[str]:
    """Return the layers that 8 bits would spoil.

    - What gives an output directly (a classifier's head and its activation map): so the map's mean
      remains the logit.
    - The convolution that sees the picture: with it in 8 bits three times as many of
      EfficientNet-Lite0's decisions changed (4.3 % in place of 1.5).
    - Convolutions of maps that were joined, as in a U-Net's decoder: they have one range together,
      and the finer ones lose theirs. Probabilities then moved three times as far.
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
    # NNCF, and the OpenVINO it imports, report to their makers unless this package is absent.
    sys.modules["openvino_telemetry"] = cast("Any", None)
    try:
        with _quiet():
            import nncf  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise ConfigError("NNCF is not installed", "run pip install 'naevus[quantise]'") from error
    module: ModuleType = nncf
    return module


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep NNCF's bars and notes away from users."""
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
