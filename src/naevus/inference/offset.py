"""How far a network's activation maps lie beside what they show."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from naevus.images.geometry import resize
from naevus.inference.engines import open_engine

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Maps = NDArray[np.float32]

_STEPS: Final = 10  # in which a cell is moved
_BATCH: Final = 16
_ALIKE: Final = 0.4
"""Mean correlation that maps must reach: those of the built-in networks reach .57 to .71."""
_FEWEST: Final = 4
"""Cells a side; a coarser map does not tell by how much of a cell it is off."""


def cell_offset(graph: Path, pixels: NDArray[np.uint8]) -> tuple[float, float]:
    """Measure where a thing lies, seen from where a network's maps show it.

    Where layers pad one side only, as TensorFlow's do, a cell of the last map has seen pixels that
    lie beside its place; by how much, training decides. A picture turned by half shows it: of maps
    that lie off, those of the turned picture, turned back, lie off the other way. The answer is the
    half of what has to be moved between the two, so that they are most alike (their correlation,
    the mean over pictures).

    Args:
        graph: A classifier's ONNX file.
        pixels: N x S x S x 3, what it is measured on.

    Returns:
        Cells down and to the right, in tenths, each within a cell; 0 where that cannot be told:
        without pictures or maps, from maps of fewer than 4 cells a side, and where no move makes
        them alike.
    """
    engine = open_engine(graph)
    if "cam" not in engine.outputs:
        return 0.0, 0.0
    pairs: list[tuple[Maps, Maps]] = []
    for start in range(0, len(pixels), _BATCH):
        batch = np.ascontiguousarray(pixels[start : start + _BATCH])
        seen = engine.run(batch)
        turned = engine.run(np.ascontiguousarray(batch[:, ::-1, ::-1]))
        if min(seen["cam"].shape[2:]) < _FEWEST:
            return 0.0, 0.0
        told = np.arange(len(batch)), seen["logits"].argmax(axis=1)
        pairs += zip(seen["cam"][told], turned["cam"][told][:, ::-1, ::-1], strict=True)
    if not pairs:
        return 0.0, 0.0
    upright, back = (np.stack([_fine(pair[side]) for pair in pairs]) for side in (0, 1))
    likeness = partial(_likeness, upright, back)
    # Likeness is as smooth as the maps: coarse steps find its hill, fine ones the top.
    near = max(_moves((0, 0), 5, _STEPS), key=likeness)
    down, right = best = max(_moves(near, 1, 4), key=likeness)
    return (down / _STEPS, right / _STEPS) if likeness(best) >= _ALIKE else (0.0, 0.0)


def _moves(middle: tuple[int, int], step: int, reach: int) -> list[tuple[int, int]]:
    """Return moves round one, within a cell, the smallest first: of two equally good it is kept."""
    steps = range(-reach, reach + 1, step)
    moves = [(middle[0] + down, middle[1] + right) for down in steps for right in steps]
    within = [move for move in moves if max(map(abs, move)) <= _STEPS]
    return sorted(within, key=lambda move: move[0] ** 2 + move[1] ** 2)


def _fine(cells: Maps) -> Maps:
    """Return a map with `_STEPS` pixels for each of its cells."""
    rows, columns = cells.shape
    return resize(cells, rows * _STEPS, columns * _STEPS)


def _likeness(upright: Maps, back: Maps, move: tuple[int, int]) -> float:
    """Return the mean correlation of maps N x H x W moved forth with others moved as far back."""
    one, other = _middle(upright, *move), _middle(back, -move[0], -move[1])
    one = one - one.mean((1, 2), keepdims=True)
    other = other - other.mean((1, 2), keepdims=True)
    norm = np.sqrt(np.square(one).sum((1, 2)) * np.square(other).sum((1, 2)))
    return float(np.mean((one * other).sum((1, 2)) / np.maximum(norm, np.finfo(np.float32).tiny)))


def _middle(maps: Maps, down: int, right: int) -> Maps:
    """Return what is in the middle of maps that were moved: all but a cell on each side."""
    (_, height, width), edge = maps.shape, _STEPS
    return maps[:, edge - down : height - edge - down, edge - right : width - edge - right]
