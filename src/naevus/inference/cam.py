"""Class activation maps (CAMs): compute them, measure their offset, overlay them on images."""

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


# CAMs over images.

_GREY = 0.65  # fraction of grey in the image below the map
_STRONGEST = 0.75
_FAINT = 0.25
"""Values below it have no colour: they are everywhere in the input, and would tint all of it."""


class Activation(NamedTuple):
    """A class activation map, and the position of its input in the image.

    Attributes:
        map: h x w.
        box: The input's box, in pixels of the decoded image; it may exceed the image.
        frame: Rows and columns of the decoded image.
        offset: Shift down and to the right when the map is drawn, in cells of the map.
    """

    map: NDArray[np.float32]
    box: Box
    frame: tuple[int, int]
    offset: tuple[float, float] = (0.0, 0.0)

    def scaled(self, height: int, width: int) -> Box:
        """Return the input's box in an image of another size; at least one pixel."""
        rows, columns = self.frame
        left, right = (round(x * width / columns) for x in (self.box.left, self.box.right))
        top, bottom = (round(y * height / rows) for y in (self.box.top, self.box.bottom))
        return Box(left, top, max(right, left + 1), max(bottom, top + 1))


def cam_over(activations: Sequence[Activation], height: int, width: int) -> NDArray[np.float32]:
    """Compute the mean of class activation maps at the size of an image.

    Negative values are set to 0 and the maximum is scaled to 1, as is usual for CAMs (Zhou et al.,
    CVPR 2016). The map therefore compares places within one image, not images.

    Args:
        activations: One or more maps of one class, which are averaged first.
        height: Rows of the image.
        width: Columns of the image.

    Returns:
        height x width, 0..1; 0 outside the inputs.

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
    """Draw a heatmap over a greyed image.

    The colours are viridis: safe for colour-blind readers, and unlike skin. They are transparent
    up to a quarter of the maximum, so that the input's square is not tinted.

    Args:
        pixels: H x W x 3.
        cam: H x W, 0..1.
    """
    grey = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    pale = _GREY * grey + (1 - _GREY) * pixels
    fraction = _opacity(cam)[..., None]
    mixed: NDArray[np.float32] = pale * (1 - fraction) + _colours(cam) * fraction
    return np.asarray(np.rint(mixed), np.uint8)


def ramp(width: int) -> NDArray[np.uint8]:
    """Return the colours of an overlay on light skin from no evidence to most, 1 x width x 3."""
    cam = np.linspace(0, 1, width, dtype=np.float32)[None]
    fraction = _opacity(cam)[..., None]
    mixed = _LIGHT * (1 - fraction) + _colours(cam) * fraction
    return np.asarray(np.rint(mixed), np.uint8)


_LIGHT: Final = 215  # grey of light skin below a map


def _opacity(cam: NDArray[np.float32]) -> NDArray[np.float32]:
    visible = np.clip((cam - np.float32(_FAINT)) / np.float32(1 - _FAINT), 0, 1)
    return np.asarray(np.float32(_STRONGEST) * np.sqrt(visible), np.float32)


def _colours(cam: NDArray[np.float32]) -> NDArray[np.uint8]:
    levels = np.rint(cam * np.float32(255)).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS)[..., ::-1], np.uint8)


def _add(cam: NDArray[np.float32], activation: Activation) -> None:
    height, width = cam.shape
    box = activation.scaled(height, width)
    strength = resize(activation.map, box.height, box.width)
    top, left = max(box.top, 0), max(box.left, 0)
    bottom, right = min(box.bottom, height), min(box.right, width)
    (rows, columns), (down, across) = activation.map.shape, activation.offset
    # Pixels uncovered by the shift repeat the map's edge.
    y = np.arange(top, bottom) - box.top - round(down * box.height / rows)
    x = np.arange(left, right) - box.left - round(across * box.width / columns)
    inside = np.ix_(y.clip(0, box.height - 1), x.clip(0, box.width - 1))
    cam[top:bottom, left:right] += strength[inside]


# The offset of a network's CAMs.

_STEPS: Final = 10  # steps per cell
_BATCH: Final = 16
_ALIKE: Final = 0.4
"""Required mean correlation of the maps; the built-in networks exceed .5."""
_FEWEST: Final = 4
"""Required cells per side; coarser maps are too small to measure an offset."""


def cam_offset(graph: Path, pixels: NDArray[np.uint8]) -> tuple[float, float]:
    """Measure the offset between a network's CAMs and the image content.

    If layers pad only one side, as TensorFlow's do, a cell of the last map sees pixels beside its
    place; training determines how far. A half turn reveals the offset: the map of the turned image,
    turned back, is shifted the other way. The offset is half the shift between both maps at which
    their correlation (mean over images) is largest.

    Args:
        graph: A classifier's ONNX file.
        pixels: N x S x S x 3, images to measure on.

    Returns:
        Cells down and to the right, in tenths, each at most one cell. It is 0 if it cannot be
        measured: without images or maps, with fewer than 4 cells per side, or if no shift makes the
        maps correlate.
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
    # The correlation is smooth: coarse steps find its peak, fine steps the maximum.
    near = max(_moves((0, 0), 5, _STEPS), key=likeness)
    down, right = best = max(_moves(near, 1, 4), key=likeness)
    return (down / _STEPS, right / _STEPS) if likeness(best) >= _ALIKE else (0.0, 0.0)


def _moves(middle: tuple[int, int], step: int, reach: int) -> list[tuple[int, int]]:
    """Return shifts around one, within a cell, the smallest first, which wins ties."""
    steps = range(-reach, reach + 1, step)
    moves = [(middle[0] + down, middle[1] + right) for down in steps for right in steps]
    within = [move for move in moves if max(map(abs, move)) <= _STEPS]
    return sorted(within, key=lambda move: move[0] ** 2 + move[1] ** 2)


def _fine(cells: Maps) -> Maps:
    """Enlarge a map to `_STEPS` pixels per cell."""
    rows, columns = cells.shape
    return resize(cells, rows * _STEPS, columns * _STEPS)


def _likeness(upright: Maps, back: Maps, move: tuple[int, int]) -> float:
    """Return the mean correlation of maps N x H x W shifted in opposite directions."""
    one, other = _middle(upright, *move), _middle(back, -move[0], -move[1])
    one = one - one.mean((1, 2), keepdims=True)
    other = other - other.mean((1, 2), keepdims=True)
    norm = np.sqrt(np.square(one).sum((1, 2)) * np.square(other).sum((1, 2)))
    return float(np.mean((one * other).sum((1, 2)) / np.maximum(norm, np.finfo(np.float32).tiny)))


def _middle(maps: Maps, down: int, right: int) -> Maps:
    """Return the middle of shifted maps, without a cell on each side."""
    (_, height, width), edge = maps.shape, _STEPS
    return maps[:, edge - down : height - edge - down, edge - right : width - edge - right]


class ActivationMaps(NamedTuple):
    """A network's class activation maps (C x h x w), and their position (see `Activation`)."""

    maps: NDArray[np.float32]
    box: Box
    frame: tuple[int, int]
    offset: tuple[float, float]

    def of(self, number: int) -> Activation:
        """Return the map of one class."""
        return Activation(self.maps[number], self.box, self.frame, self.offset)


def cells_of(activations: Sequence[ActivationMaps]) -> str:
    """Return the resolution of networks' maps as text.

    Examples:
            >>> box, offset = Box(0, 0, 9, 9), (0.0, 0.0)
        >>> maps = [
        ...     ActivationMaps(np.zeros((7, side, side), np.float32), box, (9, 9), offset)
        ...     for side in (5, 5, 6)
        ... ]
        >>> cells_of(maps)
        '5 x 5 and 6 x 6 cells'
    """
    sizes = sorted({each.maps.shape[1:] for each in activations})
    return " and ".join(f"{rows} x {columns}" for rows, columns in sizes) + " cells"


def activation_maps(
    classifier: Classifier,
    outputs: ClassifierOutput,
    number: int,
    places: Sequence[tuple[Box, tuple[int, int]]],
) -> tuple[ActivationMaps, ...] | None:
    """Return each network's CAMs of one image; None if a network outputs none.

    Args:
        classifier: The classifier.
        outputs: Its outputs for a batch.
        number: The image's index in the batch.
        places: For each input spec, the input's box and the shape of the decoded image.
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
    """Return the shorter side to read an image at for `class_activation_map`."""
    return max(decoding_side(mask, input_spec) for input_spec in classifier.input_specs)


def class_activation_map(
    classifier: Classifier, pixels: NDArray[np.uint8], mask: NDArray[np.bool_] | None, code: str
) -> NDArray[np.float32] | None:
    """Return a classifier's CAM of a diagnosis for an image with a mask.

    Args:
        classifier: The classifier.
        pixels: H x W x 3, at least at the resolution of `side_for`.
        mask: The lesion mask; None if the classifier has none.
        code: The diagnosis.

    Returns:
        H x W, 0..1; None if a network outputs no CAM.

    Raises:
        BundleError: A network's output is invalid.
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
