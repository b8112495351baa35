"""The forms in which a cache holds pictures, and how a file becomes one of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from naevus.errors import ConfigError, PictureError
from naevus.images.colour import shades_of_grey
from naevus.images.crops import cut
from naevus.images.geometry import Box, box_of, square_with_margin, squash
from naevus.images.maskfile import read_mask_of
from naevus.images.masks import plausible
from naevus.images.read import Limits, read

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FormMode = Literal["squash", "full", "crop", "blank", "mask"]
MODES: tuple[FormMode, ...] = ("squash", "full", "crop", "blank", "mask")


@dataclass(frozen=True)
class Form:
    """What every row of a cache looks like.

    Args:
        mode: ``squash``: the whole frame, made square; ``full``: the centre square; ``crop``: the
            square box round the mask; ``blank``: as ``crop``, blanked outside the mask; ``mask``:
            the mask file squashed, 0 to 255, one channel, averaged over areas.
        size: Side in pixels. Smaller pictures are enlarged to it.
        margin: Margin round the mask's box as a fraction of its side (``crop`` and ``blank``).
        colour_constancy: Whether shades of grey is applied to the whole picture first.

    Raises:
        ConfigError: The mode is unknown, the size below 1, or the margin negative.
    """

    mode: FormMode
    size: int
    margin: float = 0.15
    colour_constancy: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"unknown form {self.mode!r}", f"use one of {', '.join(MODES)}")
        if self.size < 1 or self.margin < 0:
            raise ConfigError(
                f"size {self.size} and margin {self.margin} make no picture",
                "use a size of at least 1 and a margin of at least 0",
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row: size x size x 3, or size x size for masks."""
        square = (self.size, self.size)
        return square if self.mode == "mask" else (*square, 3)


class Source(NamedTuple):
    """A picture's id and files.

    Attributes:
        image_id: Its id.
        path: Its file.
        mask_path: Its mask.
        scaled: Whether the mask may be of another size, as where the file is a smaller copy.
    """

    image_id: str
    path: Path
    mask_path: Path | None = None
    scaled: bool = False


class Rendered(NamedTuple):
    """A picture in its form.

    ``mode`` is the one really used (a crop may fall back to full); ``box`` is what is shown of the
    decoded picture, in its pixels (it may exceed it, see `crops.Crop`).
    """

    pixels: NDArray[np.uint8]
    mode: str
    box: Box


def files_of(source: Source, form: Form) -> tuple[Path, ...]:
    """Return the files of ``source`` that its picture in ``form`` is made from.

    Raises:
        PictureError: ``form`` is ``mask`` and the source has no mask file.
    """
    if form.mode == "mask":
        if source.mask_path is None:
            raise PictureError(source.path, "has no mask file", "give a mask or leave it out")
        return (source.mask_path, source.path)  # which tells the size that the mask must have
    if form.mode in {"crop", "blank"} and source.mask_path is not None:
        return (source.path, source.mask_path)
    return (source.path,)


def arrange(pixels: NDArray[np.uint8], mask: NDArray[np.bool_] | None, form: Form) -> Rendered:
    """Bring a decoded picture (H x W x 3) into ``form``; not for masks.

    Training caches and predictions both come through here, so that both are cut by the same rules.
    Their pixels are not the same: a cache has one size, which batches are then resized from, and
    predictions are decoded for the network's own.
    """
    if form.colour_constancy:
        pixels = shades_of_grey(pixels)
    if form.mode == "squash":
        return Rendered(squash(pixels, form.size), "squash", _whole(pixels))
    if form.mode == "mask":
        raise ConfigError("a picture cannot take the form of a mask", "use render")
    crop = cut(pixels, mask, mode=form.mode, size=form.size, margin=form.margin)
    return Rendered(*crop)


def render(source: Source, form: Form, limits: Limits = Limits()) -> Rendered:  # noqa: B008
    """Decode ``source`` at the scale that ``form`` needs and bring it into that form.

    Raises:
        PictureError: The picture or its mask is absent or cannot be decoded, or they differ in
            size.
    """
    if form.mode == "mask":
        path, image = files_of(source, form)
        mask = read_mask_of(path, image, limits, scaled=source.scaled)
        grey = mask.astype(np.uint8) * np.uint8(255)
        return Rendered(squash(grey, form.size), "mask", _whole(grey))
    outline = None
    if form.mode in {"crop", "blank"} and source.mask_path is not None:
        outline = read_mask_of(source.mask_path, source.path, limits, scaled=source.scaled)
    pixels = read(source.path, shortest=decoding_side(outline, form), limits=limits)
    return arrange(pixels, outline, form)


def _whole(pixels: NDArray[np.uint8]) -> Box:
    height, width = pixels.shape[:2]
    return Box(0, 0, width, height)


def decoding_side(mask: NDArray[np.bool_] | None, form: Form) -> int:
    """Return the shorter side in pixels to decode at, so that a crop is not enlarged needlessly."""
    box = box_of(mask) if mask is not None and plausible(mask) else None
    if mask is None or box is None:
        return form.size
    height, width = mask.shape
    side = square_with_margin(box, form.margin, height, width).width
    shorter: int = min(height, width)
    return max(form.size, math.ceil(form.size * shorter / side))
