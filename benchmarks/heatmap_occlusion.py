"""Occlude the hottest region of heatmaps, and measure how much the answer changes.

    python benchmarks/heatmap_occlusion.py DATA --folds FOLDS.csv --bundle BUNDLE --count 300

DATA is a data set of Task 3, whose fold 0 the bundle's networks held out. One image of each of
COUNT lesions is taken, as equally over diagnoses as possible. A fraction of the classifier's crop
is blurred until no structure is left (Fong & Vedaldi, ICCV 2017): the hottest region of each kind
of heatmap, the same region at random places in the crop, and a disc in the middle of the lesion.
The change is the loss of log-odds of the predicted diagnosis. Intervals are of lesions.

Kinds of heatmaps: ``plain``, one input; ``2 x 2`` and ``3 x 3``, inputs moved by halves or thirds
of a cell whose cells are interleaved; ``mean of 2 x 2``, the mean of their enlarged maps. Networks
that see the centre square see the blurred region in it; their maps count inside the crop.
"""

from __future__ import annotations

import argparse
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import cv2
import numpy as np
import pandas as pd

from naevus.bundles.bundle import Bundle, builtin
from naevus.datasets.folds import Folds
from naevus.datasets.layouts import load
from naevus.evaluation.intervals import mean_interval
from naevus.images.geometry import Box, box_of, centre_box, resize, square_with_margin
from naevus.images.masks import plausible
from naevus.images.preprocess import MARGIN
from naevus.images.read import read
from naevus.inference.cam import Activation, cam_over
from naevus.inference.classifier import Classifier
from naevus.inference.segmenter import Segmenter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from naevus.images.preprocess import InputSpec

    Pixels = NDArray[np.uint8]
    Map = NDArray[np.float32]

FRACTIONS: Final = (0.05, 0.1, 0.2)
"""Fractions of the crop that are occluded."""
_RANDOM: Final = 4  # random places, whose mean counts
_STRIDE: Final = 32  # pixels of the input per cell
_BLUR: Final = 1 / 8  # standard deviation, as a fraction of the crop's side


class Example(NamedTuple):
    """An image with the crop of its lesion.

    Attributes:
        pixels: H x W x 3.
        box: The crop's box inside the image.
        lesion: H x W, the predicted lesion.
    """

    pixels: Pixels
    box: Box
    lesion: NDArray[np.bool_]

    def seen_by(self, spec: InputSpec) -> Box:
        """Return the box that a network sees: the crop, or the centre square."""
        return centre_box(*self.lesion.shape) if spec.mode == "full" else self.box


def main() -> None:
    """Print the loss of log-odds for each kind of heatmap, and the differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folds", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=builtin())
    parser.add_argument("--count", type=int, default=300)
    options = parser.parse_args()
    bundle = Bundle.read(options.bundle)
    segmenter, classifier = Segmenter(bundle), Classifier(bundle)
    rows = []
    for image_id, path in chosen(options.data, options.folds, options.count).items():
        example = _example(read(path), segmenter)
        if example is not None:
            rows += _losses(example, classifier, zlib.crc32(image_id.encode()))
    table = pd.DataFrame(rows)
    print(f"{len(table) // len(FRACTIONS)} lesions")
    _report(table)


def chosen(data: Path, folds: Path, count: int) -> dict[str, Path]:
    """Return one image of each of some lesions of fold 0, by id: diagnoses in turn."""
    given = Folds.read(folds)
    groups = dict(zip(given.table["image_id"], given.table["group_id"], strict=True))
    held_out = given.held_out(0)
    found = [
        (row.image_id, row.path, row.diagnosis, groups[row.image_id])
        for row in load(data).part("task3").rows()
        if row.image_id in held_out and row.path is not None
    ]
    table = pd.DataFrame(found, columns=["image_id", "path", "diagnosis", "group_id"])
    table = table.sample(frac=1, random_state=0).drop_duplicates("group_id")
    table["turn"] = table.groupby("diagnosis").cumcount()
    table = table.sort_values(["turn", "diagnosis"]).head(count)
    return dict(zip(table["image_id"], table["path"], strict=True))


def _example(pixels: Pixels, segmenter: Segmenter) -> Example | None:
    """Return an image with its crop; None if there is no lesion to crop."""
    mask = segmenter.mask(pixels)
    box = box_of(mask)
    if box is None or not plausible(mask):
        return None
    return Example(pixels, square_with_margin(box, MARGIN, *mask.shape), mask)


def input_of(pixels: Pixels, box: Box, size: int) -> Pixels:
    """Return the square input of a box, S x S x 3; reflected outside the image."""
    height, width = pixels.shape[:2]
    edges = (-box.top, box.bottom - height, -box.left, box.right - width)
    above, below, left, right = (max(0, edge) for edge in edges)
    padded = cv2.copyMakeBorder(pixels, above, below, left, right, cv2.BORDER_REFLECT_101)
    window = padded[box.top + above : box.bottom + above, box.left + left : box.right + left]
    return resize(np.asarray(window, np.uint8), size, size)


def _maps(example: Example, classifier: Classifier) -> tuple[dict[str, Map], int]:
    """Return the heatmap of each kind over the image, and the number of the predicted class."""
    (plain,), number = _moved(example, classifier, 1, None)
    found = {"plain": cam_over(plain, *example.lesion.shape)}
    for parts in (2, 3):
        moved, _ = _moved(example, classifier, parts, number)
        if parts == 2:
            each_one = [each for one in moved for each in one]
            found["mean of 2 x 2"] = cam_over(each_one, *example.lesion.shape)
        joined = [interleaved(member) for member in zip(*moved, strict=True)]
        found[f"{parts} x {parts}"] = cam_over(joined, *example.lesion.shape)
    return found, number


def _moved(
    example: Example, classifier: Classifier, parts: int, number: int | None
) -> tuple[list[list[Activation]], int]:
    """Return each member's maps of inputs that are moved by parts of a cell, row by row.

    Args:
        example: The image.
        classifier: The classifier.
        parts: Inputs along each axis.
        number: The class; None: the predicted one, which is returned.
    """
    frame = example.pixels.shape[0], example.pixels.shape[1]
    boxes = {}
    for spec in classifier.input_specs:
        left, top, right, bottom = example.seen_by(spec)
        step = (right - left) * _STRIDE / spec.size / parts
        moves = [round((k - (parts - 1) / 2) * step) for k in range(parts)]
        boxes[spec] = [
            Box(left + across, top + down, right + across, bottom + down)
            for down in moves
            for across in moves
        ]
    batches = [
        np.stack([input_of(example.pixels, box, spec.size) for box in of_spec])
        for spec, of_spec in boxes.items()
    ]
    outputs = classifier.predictions(batches)
    assert outputs.activations is not None
    if number is None:
        number = int(outputs.natural[0].argmax())
    found = [
        [
            Activation(maps[turn][number], boxes[member.input_spec][turn], frame, offset)
            for maps, member, offset in zip(
                outputs.activations, classifier.members, classifier.offsets, strict=True
            )
        ]
        for turn in range(parts**2)
    ]
    return found, number


def interleaved(moved: Sequence[Activation]) -> Activation:
    """Join the maps of inputs moved by parts of a cell into one of finer cells."""
    parts = round(len(moved) ** 0.5)
    rows, columns = moved[0].map.shape
    fine = np.zeros((rows * parts, columns * parts), np.float32)
    for number, each in enumerate(moved):
        fine[number // parts :: parts, number % parts :: parts] = each.map
    lefts, tops = [each.box.left for each in moved], [each.box.top for each in moved]
    side = moved[0].box.width
    left, top = round(sum(lefts) / len(moved)), round(sum(tops) / len(moved))
    down, across = moved[0].offset
    return Activation(
        fine,
        Box(left, top, left + side, top + side),
        moved[0].frame,
        (down * parts, across * parts),
    )


def _losses(example: Example, classifier: Classifier, seed: int) -> list[dict[str, float | int]]:
    """Return the loss of log-odds for each fraction, by kind of heatmap."""
    maps, number = _maps(example, classifier)
    rng, inside = np.random.default_rng(seed), _inside(example)
    names: list[tuple[float, str]] = []
    regions: list[NDArray[np.bool_]] = []
    for fraction in FRACTIONS:
        area = round(fraction * inside.sum())
        found = {name: _hottest(cam, inside, area) for name, cam in maps.items()}
        found["lesion's middle"] = _middle(example, inside, area)
        names += [(fraction, name) for name in found]
        regions += found.values()
        for name in ("plain", "2 x 2"):
            names += [(fraction, f"random, as {name}")] * _RANDOM
            regions += [_elsewhere(found[name], example, rng) for _ in range(_RANDOM)]
    odds = _odds(example, classifier, number, regions)
    table = pd.DataFrame(names, columns=["fraction", "name"]).assign(loss=odds[0] - odds[1:])
    means = table.pivot_table("loss", "fraction", "name", sort=False).reset_index()
    return [{str(name): value for name, value in row.items()} for row in means.to_dict("records")]


def _odds(
    example: Example, classifier: Classifier, number: int, regions: Sequence[NDArray[np.bool_]]
) -> NDArray[np.float64]:
    """Return the log-odds of a class for the image, and with each region blurred."""
    blurred, side = _blurred(example), example.box.width
    images = [example.pixels]
    for region in regions:
        soft = cv2.GaussianBlur(region.astype(np.float32), (0, 0), side / 64)
        mixed = example.pixels + soft[..., None] * (blurred - example.pixels)
        images.append(np.rint(mixed).astype(np.uint8))
    batches = [
        np.stack([input_of(each, example.seen_by(spec), spec.size) for each in images])
        for spec in classifier.input_specs
    ]
    chance = classifier.predictions(batches).natural[:, number]
    return np.asarray(np.log(chance) - np.log1p(-chance))


def _blurred(example: Example) -> NDArray[np.float32]:
    pixels = example.pixels.astype(np.float32)
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), _BLUR * example.box.width), np.float32)


def _inside(example: Example) -> NDArray[np.bool_]:
    """Return the pixels in the crop."""
    inside = np.zeros(example.lesion.shape, bool)
    box = example.box
    inside[max(box.top, 0) : box.bottom, max(box.left, 0) : box.right] = True
    return inside


def _hottest(cam: Map, inside: NDArray[np.bool_], area: int) -> NDArray[np.bool_]:
    """Return the ``area`` hottest pixels of the crop."""
    values = np.where(inside, cam, -1).ravel()
    region = np.zeros(values.size, bool)
    region[np.argpartition(values, -area)[-area:]] = True
    return region.reshape(cam.shape)


def _middle(example: Example, inside: NDArray[np.bool_], area: int) -> NDArray[np.bool_]:
    """Return the ``area`` pixels of the crop nearest to the lesion's centroid."""
    y, x = np.nonzero(example.lesion)
    rows, columns = np.indices(inside.shape)
    distance = np.hypot(rows - y.mean(), columns - x.mean()).astype(np.float32)
    return _hottest(distance.max() - distance, inside, area)


def _elsewhere(
    region: NDArray[np.bool_], example: Example, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Return the region at a random place in the crop, as it leaves the crop on no side."""
    box = box_of(region)
    assert box is not None
    crop = example.box
    height, width = region.shape
    top = int(rng.integers(max(crop.top, 0), min(crop.bottom, height) - box.height + 1))
    left = int(rng.integers(max(crop.left, 0), min(crop.right, width) - box.width + 1))
    moved = np.zeros_like(region)
    moved[top : top + box.height, left : left + box.width] = region[
        box.top : box.bottom, box.left : box.right
    ]
    return moved


def _report(table: pd.DataFrame) -> None:
    kinds = [name for name in table.columns if name != "fraction"]
    print(
        "| occluded | " + " | ".join(f"{fraction:.0%} of the crop" for fraction in FRACTIONS) + " |"
    )
    print("|---|" + "---|" * len(FRACTIONS))
    for name in kinds:
        print(f"| {name} | " + " | ".join(_cells(table, name)) + " |")
    pairs = [
        ("plain", "random, as plain"),
        ("2 x 2", "random, as 2 x 2"),
        ("plain", "lesion's middle"),
        *((name, "plain") for name in ("2 x 2", "3 x 3", "mean of 2 x 2")),
    ]
    for one, other in pairs:
        column = f"{one} - {other}"
        table[column] = table[one] - table[other]
        print(f"| {column} | " + " | ".join(_cells(table, column)) + " |")


def _cells(table: pd.DataFrame, column: str) -> list[str]:
    found = []
    for fraction in FRACTIONS:
        values = table.loc[table["fraction"] == fraction, column].to_numpy()
        value, low, high = mean_interval(values, list(range(len(values))))
        found.append(f"{value:.2f} ({low:.2f} to {high:.2f})")
    return found


if __name__ == "__main__":
    main()
