"""The forms in which a cache holds images, and how a file becomes one of them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

import cv2
import numpy as np

from naevus.errors import ConfigError, DataError, ImageError
from naevus.images.geometry import (
    Box,
    box_of,
    centre_box,
    resize,
    square_with_margin,
    squash,
    widened,
)
from naevus.images.jpeg import SPARE
from naevus.images.maskfile import read_mask_of
from naevus.images.masks import plausible
from naevus.images.quality import SIDE
from naevus.images.read import ImageBytes, Limits, read, read_with_header

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from naevus.types import CropMode

    ImageData = Path | ImageBytes | NDArray[np.uint8]
    """An image's file, the bytes of one, or its pixels: H x W x 3, RGB."""


# Colour constancy: what the lamp adds, taken away.

_LEVELS = np.arange(256, dtype=np.float64)


def shades_of_grey(pixels: NDArray[np.uint8], power: int = 6) -> NDArray[np.uint8]:
    """Make the light of an image white, by Shades of Grey.

    The light's colour is estimated as the Minkowski mean ``(mean(I^p))^(1/p)`` of each channel,
    scaled to unit length; the channels are divided by it times the square root of 3 (Finlayson &
    Trezzi, "Shades of gray and colour constancy", Color Imaging Conference 2004; p = 6 is theirs).
    ``power = 1`` is the grey world.

    Args:
        pixels: H x W x 3, RGB.
        power: The norm p, at least 1.

    Returns:
        H x W x 3; the image itself, copied, where a channel is black throughout.
    """
    light = np.array([_minkowski_mean(pixels[:, :, channel], power) for channel in range(3)])
    if light.min() == 0:
        return pixels.copy()
    gain = np.linalg.norm(light) / (light * np.sqrt(3))
    table = np.clip(np.rint(_LEVELS[:, None] * gain), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(np.ascontiguousarray(pixels), table[None]), np.uint8)


def _minkowski_mean(channel: NDArray[np.uint8], power: int) -> float:
    # Over the 256 levels instead of the pixels: the same sum, a hundredth of the work.
    counts = np.bincount(channel.ravel(), minlength=256)
    return float((counts @ _LEVELS**power / channel.size) ** (1 / power))


# What the classifier sees: the one place where a crop is cut.

MARGIN: Final = 0.15
"""Skin shown on each side of the lesion, as a fraction of the lesion's longer side."""


class Crop(NamedTuple):
    """A square ready for the classifier.

    ``pixels`` is size x size x 3; ``mode`` is the one really used; ``box`` is where the square
    lies in the image it was cut from (it may exceed it, see `geometry.square_with_margin`).
    """

    pixels: NDArray[np.uint8]
    mode: CropMode
    box: Box


def cut(
    pixels: NDArray[np.uint8],
    mask: NDArray[np.bool_] | None,
    *,
    mode: CropMode,
    size: int,
    margin: float = MARGIN,
    context: float = 1.0,
) -> Crop:
    """Cut the square that the classifier sees.

    Args:
        pixels: H x W x 3.
        mask: The lesion; of any size, taken as covering the same frame as ``pixels``.
        mode: ``full``: the largest centred square; ``crop``: a square round the lesion with a
            margin; ``blank``: the same, black outside the mask, its edge antialiased.
        size: Side of the result.
        margin: Added on each side, as a fraction of the lesion's longer side.
        context: Side of the result's box in sides of the crop, which stays in its middle.

    Returns:
        The crop. Without a mask, or with one that is empty or not plausible, it is the ``full``
        one and says so in its ``mode``. What lies outside the image is its reflection (``crop``)
        or black (``blank``).

    Examples:
        >>> pixels = np.full((100, 120, 3), 200, np.uint8)
        >>> mask = np.zeros((100, 120), bool)
        >>> mask[40:60, 50:90] = True
        >>> crop = cut(pixels, mask, mode="crop", size=64)
        >>> crop.pixels.shape, crop.mode, crop.box
        ((64, 64, 3), 'crop', Box(left=44, top=24, right=96, bottom=76))
        >>> cut(pixels, np.zeros_like(mask), mode="crop", size=64).mode  # there is no lesion
        'full'
    """
    height, width = pixels.shape[:2]
    found = box_of(mask) if mask is not None else None
    if mode == "full" or mask is None or found is None or not plausible(mask):
        box = widened(centre_box(height, width), context)
        return Crop(resize(_window(pixels, box, cv2.BORDER_REFLECT_101), size, size), "full", box)
    box = square_with_margin(_scaled(found, mask, height, width), margin, height, width)
    box = widened(box, context)
    square = resize(_window(pixels, box, cv2.BORDER_REFLECT_101), size, size)
    if mode == "blank":
        square = _blanked(square, mask, box, height, width)
    return Crop(square, mode, box)


def _scaled(box: Box, mask: NDArray[np.bool_], height: int, width: int) -> Box:
    """Return a mask's box in an image of another size, grown to whole pixels."""
    rows, columns = mask.shape
    return Box(
        box.left * width // columns,
        box.top * height // rows,
        -(-box.right * width // columns),
        -(-box.bottom * height // rows),
    )


def _window(pixels: NDArray[np.uint8], box: Box, border: int) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    above, left = max(-box.top, 0), max(-box.left, 0)
    below, right = max(box.bottom - height, 0), max(box.right - width, 0)
    inside = pixels[max(box.top, 0) : box.bottom, max(box.left, 0) : box.right]
    if not any((above, left, below, right)):
        return inside
    padded = cv2.copyMakeBorder(inside, above, below, left, right, border)
    return np.asarray(padded, np.uint8)


def _blanked(
    square: NDArray[np.uint8], mask: NDArray[np.bool_], box: Box, height: int, width: int
) -> NDArray[np.uint8]:
    size = len(square)
    surface = resize(mask.astype(np.uint8) * 255, height, width)
    shown = resize(_window(surface, box, cv2.BORDER_CONSTANT), size, size)
    product = square.astype(np.uint16) * shown[:, :, None]
    return ((product + 127) // 255).astype(np.uint8)


InputMode = Literal["squash", "full", "crop", "blank", "mask"]
MODES: tuple[InputMode, ...] = ("squash", "full", "crop", "blank", "mask")


@dataclass(frozen=True)
class InputSpec:
    """What every row of a cache looks like.

    Args:
        mode: ``squash``: the whole frame, made square; ``full``: the centre square; ``crop``: the
            square box round the mask; ``blank``: as ``crop``, blanked outside the mask; ``mask``:
            the mask file squashed, 0 to 255, one channel, averaged over areas.
        size: Side in pixels. Smaller images are enlarged to it.
        margin: Margin round the mask's box as a fraction of its side (``crop`` and ``blank``).
        colour_constancy: Whether shades of grey is applied to the whole image first.
        context: Side of what is shown in sides of the crop, which stays in the middle; what of it
            lies beyond the frame is reflected (``full``, ``crop``) or black (``blank``).

    Raises:
        ConfigError: The mode is unknown, the size below 1, the margin negative, or the context
            below 1 or of a form that has none.
    """

    mode: InputMode
    size: int
    margin: float = 0.15
    colour_constancy: bool = False
    context: float = field(default=1.0, repr=False)

    def __post_init__(self) -> None:
        if self.context < 1 or (self.context > 1 and self.mode in {"squash", "mask"}):
            raise ConfigError(
                f"a context of {self.context} makes no {self.mode}", "use one of at least 1"
            )
        if self.mode not in MODES:
            raise ConfigError(f"unknown form {self.mode!r}", f"use one of {', '.join(MODES)}")
        if self.size < 1 or self.margin < 0:
            raise ConfigError(
                f"size {self.size} and margin {self.margin} make no image",
                "use a size of at least 1 and a margin of at least 0",
            )

    def wider(self, context: float) -> InputSpec:
        """Return the form with more around the crop, which is shown as large as before."""
        return replace(self, size=round(self.size * context), context=self.context * context)

    def settings(self) -> dict[str, Any]:
        """Return it by name; the context only where there is one."""
        settings = asdict(self)
        if self.context == 1:
            del settings["context"]
        return settings

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row: size x size x 3, or size x size for masks."""
        square = (self.size, self.size)
        return square if self.mode == "mask" else (*square, 3)


class ImageFiles(NamedTuple):
    """An image's id and files.

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


class LoadedInput(NamedTuple):
    """An image in its form.

    ``mode`` is the one really used (a crop may fall back to full); ``box`` is what is shown of the
    decoded image, in its pixels (it may exceed it, see `crops.Crop`).
    """

    pixels: NDArray[np.uint8]
    mode: str
    box: Box


def files_of(source: ImageFiles, input_spec: InputSpec) -> tuple[Path, ...]:
    """Return the files of ``source`` that its image in ``input_spec`` is made from.

    Raises:
        ImageError: ``input_spec`` is ``mask`` and the source has no mask file.
    """
    if input_spec.mode == "mask":
        if source.mask_path is None:
            raise ImageError(source.path, "has no mask file", "give a mask or leave it out")
        return (source.mask_path, source.path)  # which tells the size that the mask must have
    if input_spec.mode in {"crop", "blank"} and source.mask_path is not None:
        return (source.path, source.mask_path)
    return (source.path,)


def preprocess(
    pixels: NDArray[np.uint8], mask: NDArray[np.bool_] | None, input_spec: InputSpec
) -> LoadedInput:
    """Bring a decoded image (H x W x 3) into ``input_spec``; not for masks.

    Training caches and predictions both come through here, so that both are cut by the same rules.
    Their pixels are not the same: a cache has one size, which batches are then resized from, and
    predictions are decoded for the network's own.
    """
    if input_spec.colour_constancy:
        pixels = shades_of_grey(pixels)
    if input_spec.mode == "squash":
        return LoadedInput(squash(pixels, input_spec.size), "squash", _whole(pixels))
    if input_spec.mode == "mask":
        raise ConfigError("an image cannot take the form of a mask", "use render")
    crop = cut(
        pixels,
        mask,
        mode=input_spec.mode,
        size=input_spec.size,
        margin=input_spec.margin,
        context=input_spec.context,
    )
    return LoadedInput(*crop)


def render(source: ImageFiles, input_spec: InputSpec, limits: Limits = Limits()) -> LoadedInput:  # noqa: B008
    """Decode ``source`` at the scale that ``input_spec`` needs and bring it into that form.

    Raises:
        ImageError: The image or its mask is absent or cannot be decoded, or they differ in
            size.
    """
    if input_spec.mode == "mask":
        path, image = files_of(source, input_spec)
        mask = read_mask_of(path, image, limits, scaled=source.scaled)
        grey = mask.astype(np.uint8) * np.uint8(255)
        return LoadedInput(squash(grey, input_spec.size), "mask", _whole(grey))
    contour = None
    if input_spec.mode in {"crop", "blank"} and source.mask_path is not None:
        contour = read_mask_of(source.mask_path, source.path, limits, scaled=source.scaled)
    pixels = read(source.path, shortest=decoding_side(contour, input_spec), limits=limits)
    return preprocess(pixels, contour, input_spec)


def _whole(pixels: NDArray[np.uint8]) -> Box:
    height, width = pixels.shape[:2]
    return Box(0, 0, width, height)


def decoding_side(mask: NDArray[np.bool_] | None, input_spec: InputSpec) -> int:
    """Return the shorter side in pixels to decode at, so that a crop is not enlarged needlessly."""
    box = box_of(mask) if mask is not None and plausible(mask) else None
    size = math.ceil(input_spec.size / input_spec.context)
    if mask is None or box is None:
        return size
    height, width = mask.shape
    side = square_with_margin(box, input_spec.margin, height, width).width
    shorter: int = min(height, width)
    return max(size, math.ceil(size * shorter / side))


# An image as networks want it: squares for the segmenter, and crops for the classifier.

KEPT: Final = 4_000_000
"""Most bytes of a decoded image that are kept for its crop: a few batches of them wait at once.
A JPEG comes scaled and stays below; a larger image of another format is reduced to it."""

LEAST: Final = math.ceil(SIDE / SPARE)
"""The shorter side that is asked for at least: what is decoded then shows the image's quality."""

_LIMITS: Final = Limits()


class Preprocessor(Protocol):
    """What asks for squares of an image, such as a segmenter."""

    size: int

    def preprocess(self, image: NDArray[np.uint8], /) -> tuple[NDArray[np.uint8], ...]:
        """Return one square for each form that is wanted."""
        ...


class DecodedImage(NamedTuple):
    """An image at first sight: its own size, one square for each form, and what was kept.

    ``pixels`` is the decoded image or a reduced copy, where it was to be kept; ``flags`` what is
    to be known of its file.
    """

    height: int
    width: int
    inputs: tuple[NDArray[np.uint8], ...]
    pixels: NDArray[np.uint8] | None = None
    flags: tuple[str, ...] = ()

    def fine_for(self, side: int) -> NDArray[np.uint8] | None:
        """Return the pixels if they are as fine as ``read(shortest=side)`` would give them."""
        if self.pixels is None:
            return None
        rows, columns = self.pixels.shape[:2]
        whole = (rows, columns) == (self.height, self.width)
        return self.pixels if whole or min(rows, columns) >= SPARE * side else None


class ClassifierInput(NamedTuple):
    """An image as the classifier wants it.

    Attributes:
        inputs: One for each form.
        boxes: For each form, what the square shows: its box in pixels of a frame, and that frame's
            rows and columns.
        mode: The crop mode really used.
    """

    inputs: tuple[NDArray[np.uint8], ...]
    boxes: tuple[tuple[Box, tuple[int, int]], ...]
    mode: str


def decode_once(
    image: ImageData,
    segmenter: Preprocessor | None,
    input_specs: Sequence[InputSpec] = (),
    limits: Limits = _LIMITS,
    *,
    keep: bool = False,
) -> DecodedImage:
    """Read an image for the segmenter, decoded no larger than it needs.

    Args:
        image: Its file or its pixels.
        segmenter: Which forms and sizes are wanted; None: it is read for ``input_specs``.
        input_specs: What a classifier sees of it where there is no segmenter.
        limits: What is refused before decoding.
        keep: Whether its pixels are kept (reduced beyond `KEPT` bytes), to cut a crop from.

    Raises:
        ImageError: It cannot be read.
        DataError: The pixels are of another shape or type.
    """
    flags: tuple[str, ...] = ()
    if isinstance(image, np.ndarray):
        pixels = checked(image)
        height, width = pixels.shape[:2]
    else:
        sides = (
            [input_spec.size for input_spec in input_specs]
            if segmenter is None
            else [segmenter.size]
        )
        shortest = max([LEAST, *sides])
        pixels, header, flags = read_with_header(image, shortest=shortest, limits=limits)
        height, width = header.height, header.width
    inputs = () if segmenter is None else segmenter.preprocess(pixels)
    return DecodedImage(height, width, inputs, _kept(pixels) if keep else None, flags)


def classifier_input(
    image: ImageData,
    mask: NDArray[np.bool_] | None,
    input_specs: tuple[InputSpec, ...],
    limits: Limits = _LIMITS,
    *,
    first: DecodedImage | None = None,
) -> ClassifierInput:
    """Cut an image as the classifier sees it, as fine as the crop needs.

    The road of the training caches: the decoding scale follows from the mask and the form. What
    the first look decoded is used where it is as fine as that; the image is read again
    where the lesion is small in it. A larger first look was no quicker on camera originals: at
    448 px in place of 256 px it takes a third longer, and 30 % of Task 1's crops still need a
    second reading (58 % with 256 px). Masks would then hang on who asks for crops, too.

    Args:
        image: Its file or its pixels.
        mask: The lesion, of any size; None where there is no segmenter.
        input_specs: What the classifier's members see.
        limits: What is refused before decoding.
        first: What was decoded before, if anything was.

    Raises:
        ImageError: It cannot be read.
    """
    rendered, boxes = [], []
    decoded: dict[int, NDArray[np.uint8]] = {}
    for input_spec in input_specs:
        side = decoding_side(None if input_spec.mode == "full" else mask, input_spec)
        if side not in decoded:
            decoded[side] = _as_fine(image, side, limits, first)
        pixels = decoded[side]
        rendered.append(preprocess(pixels, mask, input_spec))
        boxes.append((rendered[-1].box, (pixels.shape[0], pixels.shape[1])))
    # Where members see different forms, the mode told is that of the one that uses the mask.
    modes = [crop.mode for crop in rendered]
    return ClassifierInput(
        tuple(crop.pixels for crop in rendered),
        tuple(boxes),
        next((mode for mode in modes if mode != "full"), "full"),
    )


def checked(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return pixels that are an image: H x W x 3, uint8.

    Raises:
        DataError: They are something else.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise DataError(
            f"an array of {pixels.dtype} {pixels.shape} is no image",
            "give height x width x 3, uint8, in the order red, green, blue",
        )
    return pixels


def stack_inputs(
    inputs: Sequence[tuple[NDArray[np.uint8], ...]],
) -> list[NDArray[np.uint8]]:
    """Turn the squares of N images, one a form, into one batch a form."""
    return [np.stack(of_input_spec) for of_input_spec in zip(*inputs, strict=True)]


def _kept(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if pixels.nbytes <= KEPT:
        return pixels
    scale = math.sqrt(KEPT / pixels.nbytes)
    rows, columns = (max(1, int(side * scale)) for side in pixels.shape[:2])
    return resize(pixels, rows, columns)


def _as_fine(
    image: ImageData, side: int, limits: Limits, first: DecodedImage | None
) -> NDArray[np.uint8]:
    pixels = None if first is None else first.fine_for(side)
    if pixels is not None:
        return pixels
    if isinstance(image, np.ndarray):
        return checked(image)
    return read(image, shortest=side, limits=limits)
