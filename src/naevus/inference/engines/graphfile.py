"""Checks of ONNX files before an engine loads them.

An ONNX file may refer to other files for its weights, which a bundle's hashes do not cover. It may
loop forever, or declare huge outputs. No engine rejects all of this before loading, so the file is
parsed in its wire format (Protocol Buffers).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from naevus.inference.engines.base import unusable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGEST: Final = 2**30
"""Maximum size of a file in bytes."""
NODES: Final = 50_000
OUTPUTS: Final = 16
NUMBERS: Final = 2**27
"""Maximum number of values per image in an output."""

# Field numbers of onnx.proto3.
_GRAPH, _TRAINING, _FUNCTIONS = 7, 20, 25
_NODE, _INITIALIZER, _OUTPUT, _SPARSE = 1, 5, 12, 15
_OP_TYPE, _ATTRIBUTE = 4, 5
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
_EXTERNAL, _LOCATION = 13, 14
_VARINT, _EIGHT, _CHUNK, _FOUR = 0, 1, 2, 5


class _BadFileError(ValueError):
    """A graph file with forbidden content."""


def check_graph(path: Path, content: bytes) -> None:
    """Reject a graph with external data, with nested graphs, or beyond the limits.

    Args:
        path: The file's name for errors.
        content: The file's bytes.

    Raises:
        BundleError: The graph is rejected, or the file is not an ONNX file.
    """
    try:
        _check_model(memoryview(content))
    except _BadFileError as error:
        raise unusable(path, str(error)) from error


def _check_model(model: memoryview) -> None:
    if len(model) > LARGEST:
        raise _BadFileError(f"larger than {LARGEST // 2**20} MB")
    graphs = 0
    for field, value in _fields(model):
        if field in {_FUNCTIONS, _TRAINING}:
            raise _BadFileError("functions or training inside the graph")
        if field == _GRAPH:
            graphs += 1
            _check(_chunk(value))
    if graphs != 1:
        raise _BadFileError("not an ONNX file, or damaged")


def _check(graph: memoryview) -> None:
    nodes = outputs = 0
    for field, value in _fields(graph):
        if field == _NODE:
            nodes += 1
            _check_node(_chunk(value))
        elif field == _INITIALIZER:
            _check_tensor(_chunk(value))
        elif field == _SPARSE:
            raise _BadFileError("sparse weights")
        elif field == _OUTPUT:
            outputs += 1
            _check_output(_chunk(value))
    if nodes > NODES or outputs > OUTPUTS:
        raise _BadFileError(f"{nodes} layers and {outputs} outputs")


def _check_node(node: memoryview) -> None:
    operator = ""
    for field, value in _fields(node):
        if field == _OP_TYPE:
            operator = bytes(_chunk(value)).decode(errors="replace")
        elif field == _ATTRIBUTE:
            for inner, given in _fields(_chunk(value)):
                if inner in _ATTRIBUTE_GRAPHS:
                    raise _BadFileError(f"a nested graph, as in a loop or a branch ({operator})")
                if inner in _ATTRIBUTE_SPARSE:
                    raise _BadFileError("sparse weights")
                if inner in _ATTRIBUTE_TENSORS:
                    _check_tensor(_chunk(given))


def _check_tensor(tensor: memoryview) -> None:
    for field, value in _fields(tensor):
        if field == _EXTERNAL or (field == _LOCATION and value != 0):
            raise _BadFileError("its weights are in another file")


def _check_output(output: memoryview) -> None:
    """Multiply the sizes that are fixed: output.type.tensor_type.shape.dim.dim_value."""
    numbers = 1
    for kind in _inside(output, 2):
        for tensor in _inside(kind, 1):
            for shape in _inside(tensor, 2):
                for side in _inside(shape, 1):
                    for field, value in _fields(side):
                        if field == 1 and isinstance(value, int):
                            numbers *= max(value, 1)
    if numbers > NUMBERS:
        raise _BadFileError(f"an output with {numbers} values per image")


def _inside(message: memoryview, wanted: int) -> Iterator[memoryview]:
    for field, value in _fields(message):
        if field == wanted:
            yield _chunk(value)


def _chunk(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise _BadFileError("not an ONNX file, or damaged")
    return value


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield a message's fields: their numbers and contents."""
    place, end = 0, len(message)
    while place < end:
        key, place = _varint(message, place)
        field, kind = key >> 3, key & 7
        value: int | memoryview
        if kind == _VARINT:
            value, place = _varint(message, place)
        elif kind == _CHUNK:
            size, place = _varint(message, place)
            value, place = message[place : place + size], place + size
        elif kind in {_EIGHT, _FOUR}:
            size = 8 if kind == _EIGHT else 4
            value, place = message[place : place + size], place + size
        else:
            raise _BadFileError("not an ONNX file, or damaged")
        if place > end:
            raise _BadFileError("not an ONNX file, or damaged")
        yield field, value


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if place >= len(message) or shift > 63:
            raise _BadFileError("not an ONNX file, or damaged")
        byte = message[place]
        number |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return number, place
