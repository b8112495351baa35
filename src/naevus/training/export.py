"""Networks as ONNX files that tell nothing but the network."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING

import onnx
import torch

from naevus.files import write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import nn

OPSET = 18
"""The ONNX operator set of what is written (ONNX 1.13; read by ONNX Runtime 1.14 and later)."""


def export_onnx(network: nn.Module, path: Path, *, input_size: int, output: str) -> None:
    """Write a network that takes stored pictures as an ONNX file.

    The graph has one input ``pixels``, uint8 N×S×S×3 with N free, and one float32 output. Notes
    about where and from which source lines it was made are taken out, so that the same network
    gives the same bytes on every machine with the same libraries.

    Args:
        network: A ``Preprocessed`` network; it is exported in its evaluation mode, and left in
            the mode it was in.
        path: Where to write, atomically.
        input_size: S, in pixels.
        output: The output's name: ``logits`` (classification) or ``logit`` (segmentation).

    Raises:
        NaevusError: The file cannot be written.
    """
    example = torch.zeros((2, input_size, input_size, 3), dtype=torch.uint8)
    example = example.to(next(network.parameters()).device)
    with _evaluating(network), _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            input_names=["pixels"],
            output_names=[output],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _strip(model)
    onnx.checker.check_model(model)
    write_bytes(path, model.SerializeToString(deterministic=True))


def _strip(model: onnx.ModelProto) -> None:
    """Take out everything that names source files, modules or the exporting machine."""
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
def _evaluating(network: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes about its own libraries away from users."""
    level = logging.getLogger("torch.onnx").level
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            yield
        finally:
            logging.getLogger("torch.onnx").setLevel(level)
