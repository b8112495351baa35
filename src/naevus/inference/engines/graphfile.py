"""Checks of ONNX files before an engine loads them.

An ONNX file may refer to other files for its weights, which a bundle's hashes do not cover. It may
loop forever, declare huge outputs, or hold weights that are no numbers, which engines may turn into
plausible outputs. No engine rejects all of this before loading, so the file is parsed in its wire
format (Protocol Buffers).
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from naevus.inference.engines.base import LARGEST, graph_bytes, unusable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

NODES: Final = 50_000
OUTPUTS: Final = 16
NUMBERS: Final = 2**27
"""Maximum number of values per image in an output."""

# Field numbers of onnx.proto3.
_GRAPH, _TRAINING, _FUNCTIONS = 7, 20, 25
_OUTPUT_NAME = 1
_NODE, _INITIALIZER, _OUTPUT, _SPARSE = 1, 5, 12, 15
_INPUT, _RESULT, _OP_TYPE, _ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
_ATTRIBUTE_FLOATS = (2, 7)
_DIMS, _TYPE, _NAME, _EXTERNAL, _LOCATION = 1, 2, 8, 13, 14
_SCALED: Final = ("QuantizeLinear", "DequantizeLinear")
_VARINT, _EIGHT, _CHUNK, _FOUR = 0, 1, 2, 5


class _Real(NamedTuple):
    """How a data type stores numbers that are not finite.

    Attributes:
        bits: The integers to compare.
        infinity: The bits of infinity; without the sign, larger ones are NaN.
        fields: The fields of a tensor that may hold the numbers.
    """

    bits: type[np.unsignedinteger]
    infinity: int
    fields: tuple[int, ...]


_REALS: Final = {
    1: _Real(np.uint32, 0x7F800000, (4, 9)),
    10: _Real(np.uint16, 0x7C00, (5, 9)),
    11: _Real(np.uint64, 0x7FF0000000000000, (9, 10)),
    16: _Real(np.uint16, 0x7F80, (5, 9)),
}
"""Of the data types float, float16, double and bfloat16."""
_FLOAT: Final = _REALS[1]
_HALVES: Final = 5
"""The field of a tensor that holds small numbers as integers of variable length."""
_BLOCK: Final = 2**20


class _BadFileError(ValueError):
    """A graph file with forbidden content."""


def check_graph(path: Path, content: bytes) -> None:
    """Reject a graph with external data, nested graphs or NaN, or beyond the limits.

    Infinity is rejected as well, except alone: bounds and masks have it. As a scale it is rejected.

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


def output_names(path: Path) -> tuple[str, ...]:
    """Return the names of a graph's outputs, without loading it into an engine.

    Raises:
        BundleError: The file cannot be read, or is not an ONNX file.
    """
    found = []
    try:
        for graph in _inside(memoryview(graph_bytes(path)), _GRAPH):
            for output in _inside(graph, _OUTPUT):
                found += [str(bytes(name), "utf-8") for name in _inside(output, _OUTPUT_NAME)]
    except (_BadFileError, UnicodeDecodeError) as error:
        raise unusable(path, str(error)) from error
    return tuple(found)


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
    infinite, scales = set[str](), set[str]()
    for field, value in _fields(graph):
        if field == _NODE:
            nodes += 1
            _check_node(_chunk(value), infinite, scales)
        elif field == _INITIALIZER:
            infinite |= _check_tensor(_chunk(value))
        elif field == _SPARSE:
            raise _BadFileError("sparse weights")
        elif field == _OUTPUT:
            outputs += 1
            _check_output(_chunk(value))
    if infinite & scales:
        raise _BadFileError(f"the scale {min(infinite & scales)} is infinite")
    if nodes > NODES or outputs > OUTPUTS:
        raise _BadFileError(f"{nodes} layers and {outputs} outputs")


def _check_node(node: memoryview, infinite: set[str], scales: set[str]) -> None:
    """Check a node; add the names of its outputs if they are infinite, and of its scales."""
    parts = _grouped(node)
    operator = _text(parts[_OP_TYPE][-1]) if parts[_OP_TYPE] else ""
    if sum(_check_attribute(_chunk(each), operator) for each in parts[_ATTRIBUTE]):
        infinite.update(map(_text, parts[_RESULT]))
    if operator in _SCALED:
        scales.update(map(_text, parts[_INPUT][1:2]))


def _check_attribute(attribute: memoryview, operator: str) -> bool:
    """Check a setting of a node; return whether it is infinite."""
    infinite = False
    for field, value in _fields(attribute):
        if field in _ATTRIBUTE_GRAPHS:
            raise _BadFileError(f"a nested graph, as in a loop or a branch ({operator})")
        if field in _ATTRIBUTE_SPARSE:
            raise _BadFileError("sparse weights")
        if field in _ATTRIBUTE_TENSORS:
            infinite |= bool(_check_tensor(_chunk(value), operator))
        elif field in _ATTRIBUTE_FLOATS:
            infinite |= _is_infinite(_largest(_chunk(value), _FLOAT, field), _FLOAT, operator)
    return infinite


def _check_tensor(tensor: memoryview, operator: str = "") -> set[str]:
    """Check a tensor; return its name if it is a single infinite number."""
    parts = _grouped(tensor)
    if parts[_EXTERNAL] or any(value != 0 for value in parts[_LOCATION]):
        raise _BadFileError("its weights are in another file")
    values = math.prod(each for dims in parts[_DIMS] for each in _integers(dims))
    name = operator or "".join(map(_text, parts[_NAME]))
    if values > NUMBERS:
        raise _BadFileError(f"more than {NUMBERS} values in one weight ({name})")
    real = _REALS.get(parts[_TYPE][-1]) if parts[_TYPE] else None  # type: ignore[arg-type]
    if real is None:
        return set()
    found = ((field, _chunk(each)) for field in real.fields for each in parts[field])
    largest = max((_largest(numbers, real, field) for field, numbers in found), default=0)
    if not _is_infinite(largest, real, name):
        return set()
    if values > 1:
        raise _BadFileError(f"infinity in weights ({name})")
    return {name}


def _is_infinite(largest: int, real: _Real, name: str) -> bool:
    if largest > real.infinity:
        raise _BadFileError(f"NaN in weights ({name})")
    return largest == real.infinity


def _largest(numbers: memoryview, real: _Real, field: int) -> int:
    """Return the largest bits, without signs: those of infinity or more are no finite number."""
    bits: NDArray[np.unsignedinteger]
    if field == _HALVES:
        bits = np.array(_integers(numbers), np.uint64).astype(real.bits)
    else:
        width = np.dtype(real.bits).itemsize
        bits = np.frombuffer(numbers[: len(numbers) // width * width], real.bits)
    rest = real.bits(np.iinfo(real.bits).max >> 1)
    blocks = (bits[start : start + _BLOCK] for start in range(0, len(bits), _BLOCK))
    return max((int((block & rest).max()) for block in blocks), default=0)


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
        raise _BadFileError(f"an output with more than {NUMBERS} values per image")


def _inside(message: memoryview, wanted: int) -> Iterator[memoryview]:
    for field, value in _fields(message):
        if field == wanted:
            yield _chunk(value)


def _grouped(message: memoryview) -> defaultdict[int, list[int | memoryview]]:
    """Return the contents of a message's fields, by number."""
    found: defaultdict[int, list[int | memoryview]] = defaultdict(list)
    for field, value in _fields(message):
        found[field].append(value)
    return found


def _integers(value: int | memoryview) -> list[int]:
    """Return a number, or all of a packed field."""
    if isinstance(value, int):
        return [value]
    found, place = list[int](), 0
    while place < len(value):
        number, place = _varint(value, place)
        found.append(number)
    return found


def _text(value: int | memoryview) -> str:
    return bytes(_chunk(value)).decode(errors="replace")


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
