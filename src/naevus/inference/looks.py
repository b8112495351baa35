"""A picture as networks want it: squares for the segmenter, and crops for the classifier."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from naevus.datasets.forms import Form, arrange, decoding_side
from naevus.errors import DataError
from naevus.images.geometry import Box, resize
from naevus.images.jpeg import SPARE
from naevus.images.quality import SIDE
from naevus.images.read import ImageBytes, Limits, read, read_with_header

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from naevus.inference.segmenter import Segmenter

    Picture = Path | ImageBytes | NDArray[np.uint8]
    """A picture's file, the bytes of one, or its pixels: H x W x 3, RGB."""

KEPT: Final = 4_000_000
"""Most bytes of a decoded picture that are kept for its crop: a few batches of them wait at once.
A JPEG comes scaled and stays below; a larger picture of another format is reduced to it."""

LEAST: Final = math.ceil(SIDE / SPARE)
"""The shorter side that is asked for at least: what is decoded then shows the picture's quality."""

_LIMITS: Final = Limits()


class Look(NamedTuple):
    """A picture at first sight: its own size, one square for each form, and what was kept.

    ``pixels`` is the decoded picture or a reduced copy, where it was to be kept; ``flags`` what is
    to be known of its file.
    """

    height: int
    width: int
    squares: tuple[NDArray[np.uint8], ...]
    pixels: NDArray[np.uint8] | None = None
    flags: tuple[str, ...] = ()

    def fine_for(self, side: int) -> NDArray[np.uint8] | None:
        """Return the pixels if they are as fine as ``read(shortest=side)`` would give them."""
        if self.pixels is None:
            return None
        rows, columns = self.pixels.shape[:2]
        whole = (rows, columns) == (self.height, self.width)
        return self.pixels if whole or min(rows, columns) >= SPARE * side else None


class Cut(NamedTuple):
    """A picture as the classifier wants it.

    Attributes:
        squares: One for each form.
        boxes: For each form, what the square shows: its box in pixels of a frame, and that frame's
            rows and columns.
        mode: The crop mode really used.
    """

    squares: tuple[NDArray[np.uint8], ...]
    boxes: tuple[tuple[Box, tuple[int, int]], ...]
    mode: str


def look(
    picture: Picture,
    segmenter: Segmenter | None,
    forms: Sequence[Form] = (),
    limits: Limits = _LIMITS,
    *,
    keep: bool = False,
) -> Look:
    """Read a picture for the segmenter, decoded no larger than it needs.

    Args:
        picture: Its file or its pixels.
        segmenter: Which forms and sizes are wanted; None: it is read for ``forms``.
        forms: What a classifier sees of it where there is no segmenter.
        limits: What is refused before decoding.
        keep: Whether its pixels are kept (reduced beyond `KEPT` bytes), to cut a crop from.

    Raises:
        PictureError: It cannot be read.
        DataError: The pixels are of another shape or type.
    """
    flags: tuple[str, ...] = ()
    if isinstance(picture, np.ndarray):
        pixels = checked(picture)
        height, width = pixels.shape[:2]
    else:
        sides = [form.size for form in forms] if segmenter is None else [segmenter.size]
        shortest = max([LEAST, *sides])
        pixels, header, flags = read_with_header(picture, shortest=shortest, limits=limits)
        height, width = header.height, header.width
    squares = () if segmenter is None else segmenter.arrange(pixels)
    return Look(height, width, squares, _kept(pixels) if keep else None, flags)


def cut_for(
    picture: Picture,
    mask: NDArray[np.bool_] | None,
    forms: tuple[Form, ...],
    limits: Limits = _LIMITS,
    *,
    seen: Look | None = None,
) -> Cut:
    """Cut a picture as the classifier sees it, as fine as the crop needs.

    The road of the training caches: the decoding scale follows from the mask and the form. What
    the first look decoded is used where it is as fine as that; the picture is read again
    where the lesion is small in it. A larger first look was no quicker on camera originals: at
    448 px in place of 256 px it takes a third longer, and 30 % of Task 1's crops still need a
    second reading (58 % with 256 px). Masks would then hang on who asks for crops, too.

    Args:
        picture: Its file or its pixels.
        mask: The lesion, of any size; None where there is no segmenter.
        forms: What the classifier's members see.
        limits: What is refused before decoding.
        seen: What was decoded before, if anything was.

    Raises:
        PictureError: It cannot be read.
    """
    rendered, boxes = [], []
    decoded: dict[int, NDArray[np.uint8]] = {}
    for form in forms:
        side = decoding_side(None if form.mode == "full" else mask, form)
        if side not in decoded:
            decoded[side] = _as_fine(picture, side, limits, seen)
        pixels = decoded[side]
        rendered.append(arrange(pixels, mask, form))
        boxes.append((rendered[-1].box, (pixels.shape[0], pixels.shape[1])))
    # Where members see different forms, the mode told is that of the one that uses the mask.
    modes = [crop.mode for crop in rendered]
    return Cut(
        tuple(crop.pixels for crop in rendered),
        tuple(boxes),
        next((mode for mode in modes if mode != "full"), "full"),
    )


def checked(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return pixels that are a picture: H x W x 3, uint8.

    Raises:
        DataError: They are something else.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise DataError(
            f"an array of {pixels.dtype} {pixels.shape} is no picture",
            "give height x width x 3, uint8, in the order red, green, blue",
        )
    return pixels


def stacked(
    squares: Sequence[tuple[NDArray[np.uint8], ...]],
) -> list[NDArray[np.uint8]]:
    """Turn the squares of N pictures, one a form, into one batch a form."""
    return [np.stack(of_form) for of_form in zip(*squares, strict=True)]


def _kept(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if pixels.nbytes <= KEPT:
        return pixels
    scale = math.sqrt(KEPT / pixels.nbytes)
    rows, columns = (max(1, int(side * scale)) for side in pixels.shape[:2])
    return resize(pixels, rows, columns)


def _as_fine(picture: Picture, side: int, limits: Limits, seen: Look | None) -> NDArray[np.uint8]:
    pixels = None if seen is None else seen.fine_for(side)
    if pixels is not None:
        return pixels
    if isinstance(picture, np.ndarray):
        return checked(picture)
    return read(picture, shortest=side, limits=limits)
