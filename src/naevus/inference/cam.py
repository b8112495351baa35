"""Class activation maps: computed, how far beside what they show, laid over an image."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import cv2
import numpy as np

from naevus.images.geometry import Box, resize
from naevus.images.preprocess import decoding_side, preprocess
from naevus.inference.engines import open_engine
from naevus.inference.ensemble import refuse_faults

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from naevus.inference.classifier import Classifier, ClassifierOutput

    Maps = NDArray[np.float32]


# Class activation maps laid over the image they were made of.

_GREY = 0.65  # of what is left of the image's own colours where there is no heat
_STRONGEST = 0.75


class Activation(NamedTuple):
    """A class activation map, and where the square that it was made of lies.

    Attributes:
        map: h x w.
        box: The square, in pixels of a frame that shows the whole image; it may exceed it.
        frame: Rows and columns of that frame.
        offset: How far below and to the right of its place on the map what it shows is to be
            drawn, in cells of the map.
    """

    map: NDArray[np.float32]
    box: Box
    frame: tuple[int, int]
    offset: tuple[float, float] = (0.0, 0.0)


def cam_over(activations: Sequence[Activation], height: int, width: int) -> NDArray[np.float32]:
    """Lay the mean of class activation maps over an image.

    What speaks against the class counts as nothing, and the strongest place as one, as is usual
    for such maps (Zhou et al., CVPR 2016): they compare places of one image, not images.

    Args:
        activations: One or more maps of one class; their mean is taken before anything else.
        height: Rows of the image.
        width: Columns of the image.

    Returns:
        height x width, 0..1; 0 outside the squares.

    Examples:
        >>> activation = np.array([[0, 0], [0, 2]], np.float32)
        >>> middle = Activation(activation, Box(1, 0, 3, 2), frame=(2, 4))
        >>> cam_over([middle], 2, 4)
        array([[0., 0., 0., 0.],
               [0., 0., 1., 0.]], dtype=float32)
    """
    cam = np.zeros((height, width), np.float32)
    for activation in activations:
        _add(cam, activation)
    np.maximum(cam, 0, out=cam)
    strongest = float(cam.max())
    return cam / np.float32(strongest) if strongest > 0 else cam


def overlay(pixels: NDArray[np.uint8], cam: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return an image, paled to grey, in which its heatmap glows.

    The colours are viridis, which the colour-blind tell apart and which skin does not have.

    Args:
        pixels: H x W x 3.
        cam: H x W, 0..1.
    """
    grey = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    pale = _GREY * grey + (1 - _GREY) * pixels
    levels = np.rint(cam * np.float32(255)).astype(np.uint8)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS)[..., ::-1]
    fraction = (_STRONGEST * cam)[..., None]
    mixed: NDArray[np.float32] = pale * (1 - fraction) + colours * fraction
    return np.asarray(np.rint(mixed), np.uint8)


def _add(cam: NDArray[np.float32], activation: Activation) -> None:
    height, width = cam.shape
    box = _scaled(activation, height, width)
    strength = resize(activation.map, box.height, box.width)
    top, left = max(box.top, 0), max(box.left, 0)
    bottom, right = min(box.bottom, height), min(box.right, width)
    (rows, columns), (down, across) = activation.map.shape, activation.offset
    # What the move uncovers takes the map's edge.
    y = np.arange(top, bottom) - box.top - round(down * box.height / rows)
    x = np.arange(left, right) - box.left - round(across * box.width / columns)
    inside = np.ix_(y.clip(0, box.height - 1), x.clip(0, box.width - 1))
    cam[top:bottom, left:right] += strength[inside]


def _scaled(activation: Activation, height: int, width: int) -> Box:
    """Return the square in an image of another size, at least a pixel large."""
    rows, columns = activation.frame
    box = activation.box
    left, right = (round(x * width / columns) for x in (box.left, box.right))
    top, bottom = (round(y * height / rows) for y in (box.top, box.bottom))
    return Box(left, top, max(right, left + 1), max(bottom, top + 1))


# How far a network's activation maps lie beside what they show.

_STEPS: Final = 10  # in which a cell is moved
_BATCH: Final = 16
_ALIKE: Final = 0.4
"""Mean correlation that maps must reach: those of the built-in networks reach .57 to .71."""
_FEWEST: Final = 4
"""Cells a side; a coarser map does not tell by how much of a cell it is off."""


def cam_offset(graph: Path, pixels: NDArray[np.uint8]) -> tuple[float, float]:
    """Measure where a thing lies, seen from where a network's maps show it.

    Where layers pad one side only, as TensorFlow's do, a cell of the last map has seen pixels that
    lie beside its place; by how much, training decides. An image turned by half shows it: of maps
    that lie off, those of the turned image, turned back, lie off the other way. The answer is the
    half of what has to be moved between the two, so that they are most alike (their correlation,
    the mean over images).

    Args:
        graph: A classifier's ONNX file.
        pixels: N x S x S x 3, what it is measured on.

    Returns:
        Cells down and to the right, in tenths, each within a cell; 0 where that cannot be told:
        without images or maps, from maps of fewer than 4 cells a side, and where no move makes
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
        predicted = np.arange(len(batch)), seen["logits"].argmax(axis=1)
        pairs += zip(seen["cam"][predicted], turned["cam"][predicted][:, ::-1, ::-1], strict=True)
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


class ActivationMaps(NamedTuple):
    """A network's class activation maps (C x h x w), and where they lie (`Activation`)."""

    maps: NDArray[np.float32]
    box: Box
    frame: tuple[int, int]
    offset: tuple[float, float]

    def of(self, number: int) -> Activation:
        """Return the map of one class."""
        return Activation(self.maps[number], self.box, self.frame, self.offset)


def activation_maps(
    classifier: Classifier,
    outputs: ClassifierOutput,
    number: int,
    places: Sequence[tuple[Box, tuple[int, int]]],
) -> tuple[ActivationMaps, ...] | None:
    """Return each network's maps of one image; None where a network has none.

    Args:
        classifier: Whose maps they are.
        outputs: What it says of a batch.
        number: Which image of the batch.
        places: For each of its forms where the square lies, in a frame of so many rows and columns.
    """
    if outputs.activations is None:
        return None
    place_of = dict(zip(classifier.input_specs, places, strict=True))
    return tuple(
        ActivationMaps(maps[number], *place_of[member.input_spec], offset)
        for maps, member, offset in zip(
            outputs.activations, classifier.members, classifier.offsets, strict=True
        )
    )


def side_for(classifier: Classifier, mask: NDArray[np.bool_] | None) -> int:
    """Return the shorter side at which an image is to be read, for `class_activation_map` of it."""
    return max(
        decoding_side(None if input_spec.mode == "full" else mask, input_spec)
        for input_spec in classifier.input_specs
    )


def class_activation_map(
    classifier: Classifier, pixels: NDArray[np.uint8], mask: NDArray[np.bool_] | None, code: str
) -> NDArray[np.float32] | None:
    """Return where a classifier sees a diagnosis in an image whose mask is given.

    Args:
        classifier: Whose activation maps are laid over the image (`images.cam`).
        pixels: H x W x 3, as fine as `side_for` asks.
        mask: The lesion; None where the classifier was given none.
        code: Of the diagnosis.

    Returns:
        H x W, 0..1; None where a network has no map that adds up to its answer.

    Raises:
        BundleError: A network gives no usable number.
    """
    height, width = pixels.shape[:2]
    seen = [preprocess(pixels, mask, input_spec) for input_spec in classifier.input_specs]
    outputs = classifier.predictions([each.pixels[None] for each in seen])
    refuse_faults(outputs.faults)
    found = activation_maps(classifier, outputs, 0, [(each.box, (height, width)) for each in seen])
    if found is None:
        return None
    number = classifier.classes.index(code)
    return cam_over([maps.of(number) for maps in found], height, width)
