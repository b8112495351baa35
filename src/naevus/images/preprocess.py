"""From an image file or pixels to a network's input: decoding, colour constancy and crops."""

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
from naevus.io.settings import check_choice

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from naevus.types import CropMode

    ImageData = Path | ImageBytes | NDArray[np.uint8]
    """An image's file, the bytes of one, or its pixels: H x W x 3, RGB."""


# Colour constancy.

_LEVELS = np.arange(256, dtype=np.float64)


def shades_of_grey(pixels: NDArray[np.uint8], power: int = 6) -> NDArray[np.uint8]:
    """Correct the colour of the illuminant by Shades of Grey.

    The illuminant is estimated as the Minkowski mean ``(mean(I^p))^(1/p)`` of each channel, scaled
    to unit length. Each channel is divided by its estimate times the square root of 3 (Finlayson &
    Trezzi, "Shades of gray and colour constancy", Color Imaging Conference 2004, with p = 6).
    ``power = 1`` is the grey-world assumption.

    Args:
        pixels: H x W x 3, RGB.
        power: The norm p, at least 1.

    Returns:
        H x W x 3; an unchanged copy if a channel is entirely black.
    """
    light = np.array([_minkowski_mean(pixels[:, :, channel], power) for channel in range(3)])
    if light.min() == 0:
        return pixels.copy()
    gain = np.linalg.norm(light) / (light * np.sqrt(3))
    table = np.clip(np.rint(_LEVELS[:, None] * gain), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(np.ascontiguousarray(pixels), table[None]), np.uint8)


def _minkowski_mean(channel: NDArray[np.uint8], power: int) -> float:
    # Summed over the histogram's 256 levels: the same result at a hundredth of the work.
    counts = np.bincount(channel.ravel(), minlength=256)
    return float((counts @ _LEVELS**power / channel.size) ** (1 / power))


# The classifier's crop. Every crop is made here.

MARGIN: Final = 0.15
"""Skin around the lesion on each side, as a fraction of the lesion's longer side."""


class Crop(NamedTuple):
    """A square crop, ready for the classifier.

    Attributes:
        pixels: size x size x 3.
        mode: The mode used, which may differ from the one requested.
        box: The crop's box in the image; it may exceed the image, see
            `geometry.square_with_margin`.
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
    """Cut the square crop that the classifier sees.

    Args:
        pixels: H x W x 3.
        mask: The lesion mask, of any size; it covers the same frame as ``pixels``.
        mode: ``full``: the largest centred square; ``crop``: a square around the lesion with a
            margin; ``blank``: the same, black outside the mask, with an antialiased edge.
        size: Side of the result in pixels.
        margin: Added on each side, as a fraction of the lesion's longer side.
        context: Side of the result's box as a multiple of the crop's side; the crop stays centred.

    Returns:
        The crop. If the mask is missing, empty or implausible, its ``mode`` is ``full``. Pixels
        outside the image are reflected (``crop``) or black (``blank``).

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
    """Scale a mask's box to an image of another size, rounding outwards."""
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
    """How an image becomes a network's input; the same for every row of a cache.

    Args:
        mode: ``squash``: the whole frame, made square; ``full``: the centre square; ``crop``: the
            square box around the mask; ``blank``: as ``crop``, black outside the mask; ``mask``:
            the mask file squashed to one channel, 0 to 255, averaged over areas.
        size: Side in pixels. Smaller images are enlarged.
        margin: Margin around the mask's box as a fraction of its side (``crop`` and ``blank``).
        colour_constancy: Whether to apply `shades_of_grey` to the whole image first.
        context: Side of the input as a multiple of the crop's side; the crop stays centred. Pixels
            outside the frame are reflected (``full``, ``crop``) or black (``blank``).

    Raises:
        ConfigError: The mode is unknown, the size is below 1, the margin is negative, or the
            context is below 1 or does not apply to the mode.
    """

    mode: InputMode
    size: int
    margin: float = 0.15
    colour_constancy: bool = False
    context: float = field(default=1.0, repr=False)

    def __post_init__(self) -> None:
        if self.context < 1 or (self.context > 1 and self.mode in {"squash", "mask"}):
            raise ConfigError(
                f"a context of {self.context} is invalid with mode {self.mode!r}",
                "use at least 1, and 1 with squash and mask",
            )
        check_choice("input mode", self.mode, MODES)
        if self.size < 1 or self.margin < 0:
            raise ConfigError(
                f"size {self.size} with margin {self.margin} is invalid",
                "use a size of at least 1 and a margin of at least 0",
            )

    def wider(self, context: float) -> InputSpec:
        """Return a spec that shows more around the crop, at the same scale."""
        return replace(self, size=round(self.size * context), context=self.context * context)

    def settings(self) -> dict[str, Any]:
        """Return the settings by name; the context only if it is not 1."""
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
        image_id: The image's id.
        path: The image file.
        mask_path: The mask file, if there is one.
        scaled: Whether the mask may have another size, for example if the file is a reduced copy.
    """

    image_id: str
    path: Path
    mask_path: Path | None = None
    scaled: bool = False


class LoadedInput(NamedTuple):
    """A network input made from an image.

    Attributes:
        pixels: The input, of the shape of its `InputSpec`.
        mode: The mode used (a crop may fall back to full).
        box: The box in the decoded image, in its pixels; it may exceed the image, see `Crop`.
    """

    pixels: NDArray[np.uint8]
    mode: str
    box: Box


def files_of(source: ImageFiles, input_spec: InputSpec) -> tuple[Path, ...]:
    """Return the files that an input depends on.

    Raises:
        ImageError: The mode is ``mask`` and the image has no mask file.
    """
    if input_spec.mode == "mask":
        if source.mask_path is None:
            raise ImageError(source.path, "has no mask file", "give a mask or leave it out")
        return (source.mask_path, source.path)  # the mask must have the image's size
    if input_spec.mode in {"crop", "blank"} and source.mask_path is not None:
        return (source.path, source.mask_path)
    return (source.path,)


def preprocess(
    pixels: NDArray[np.uint8], mask: NDArray[np.bool_] | None, input_spec: InputSpec
) -> LoadedInput:
    """Turn a decoded image (H x W x 3) into a network input; not for masks.

    Training caches and predictions share this function, so both are cropped by the same rules.
    Their pixels differ: a cache has one size, from which batches are resized, while predictions are
    decoded for the network's own size.
    """
    if input_spec.colour_constancy:
        pixels = shades_of_grey(pixels)
    if input_spec.mode == "squash":
        return LoadedInput(squash(pixels, input_spec.size), "squash", _whole(pixels))
    if input_spec.mode == "mask":
        raise ConfigError("the mode mask is for mask files", "use load_input")
    crop = cut(
        pixels,
        mask,
        mode=input_spec.mode,
        size=input_spec.size,
        margin=input_spec.margin,
        context=input_spec.context,
    )
    return LoadedInput(*crop)


def load_input(
    source: ImageFiles,
    input_spec: InputSpec,
    limits: Limits = Limits(),  # noqa: B008
) -> LoadedInput:
    """Decode an image at the scale that ``input_spec`` needs, and preprocess it.

    Raises:
        ImageError: The image or its mask is missing or cannot be decoded, or their sizes differ.
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
    """Return the shorter side to decode at, in pixels, so that the crop needs no enlarging.

    The centre square (``full``) does not depend on the mask.
    """
    mask = None if input_spec.mode == "full" else mask
    box = box_of(mask) if mask is not None and plausible(mask) else None
    size = math.ceil(input_spec.size / input_spec.context)
    if mask is None or box is None:
        return size
    height, width = mask.shape
    side = square_with_margin(box, input_spec.margin, height, width).width
    shorter: int = min(height, width)
    return max(size, math.ceil(size * shorter / side))


# Decoding for prediction: inputs for the segmenter, then crops for the classifier.

KEPT: Final = 4_000_000
"""Most bytes of a decoded image to keep for its crop; a few batches are kept at a time.
JPEGs are decoded to scale and stay below the limit; larger images are reduced to it."""

LEAST: Final = math.ceil(SIDE / SPARE)
"""The shortest side to decode at, so that the image's quality can be measured."""

_LIMITS: Final = Limits()


class Preprocessor(Protocol):
    """Makes network inputs from an image, as a segmenter does."""

    size: int

    def preprocess(self, image: NDArray[np.uint8], /) -> tuple[NDArray[np.uint8], ...]:
        """Return one input per input spec."""
        ...


class DecodedImage(NamedTuple):
    """An image decoded for the segmenter.

    Attributes:
        height: The image's own height in pixels.
        width: The image's own width in pixels.
        inputs: One segmenter input per input spec.
        pixels: The decoded image or a reduced copy, if it was to be kept.
        flags: Flags of its file.
    """

    height: int
    width: int
    inputs: tuple[NDArray[np.uint8], ...]
    pixels: NDArray[np.uint8] | None = None
    flags: tuple[str, ...] = ()

    def fine_for(self, side: int) -> NDArray[np.uint8] | None:
        """Return the pixels if their resolution suffices for ``read(shortest=side)``."""
        if self.pixels is None:
            return None
        rows, columns = self.pixels.shape[:2]
        whole = (rows, columns) == (self.height, self.width)
        return self.pixels if whole or min(rows, columns) >= SPARE * side else None


class ClassifierInput(NamedTuple):
    """An image preprocessed for the classifier.

    Attributes:
        inputs: One input per input spec.
        boxes: For each input, its box in pixels of the decoded image, and that image's shape.
        mode: The crop mode used; if inputs differ, that of the first one that uses the mask.
        crop: The input that the mode describes.
    """

    inputs: tuple[NDArray[np.uint8], ...]
    boxes: tuple[tuple[Box, tuple[int, int]], ...]
    mode: str
    crop: NDArray[np.uint8]


def decode_once(
    image: ImageData,
    segmenter: Preprocessor | None,
    input_specs: Sequence[InputSpec] = (),
    limits: Limits = _LIMITS,
    *,
    keep: bool = False,
) -> DecodedImage:
    """Read an image for the segmenter, decoded no larger than needed.

    Args:
        image: The image's file or pixels.
        segmenter: The segmenter; None: decode for ``input_specs``.
        input_specs: The classifier's inputs, which count if there is no segmenter.
        limits: Limits that are checked before decoding.
        keep: Whether to keep the pixels for a crop, reduced to at most `KEPT` bytes.

    Raises:
        ImageError: The image cannot be read.
        DataError: The pixels have another shape or type.
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
    """Cut the classifier's inputs from an image, at the resolution that each crop needs.

    As in training caches, the decoding scale follows from the mask and the input spec. The pixels
    decoded for the segmenter are reused if their resolution suffices. If the lesion is small, the
    image is decoded again. Decoding larger for the segmenter (448 instead of 256 px) was no faster
    on camera originals, and would make masks depend on whether crops are requested.

    Args:
        image: The image's file or pixels.
        mask: The lesion mask, of any size; None without a segmenter.
        input_specs: The inputs of the classifier's members.
        limits: Limits that are checked before decoding.
        first: The image as decoded for the segmenter, if it was.

    Raises:
        ImageError: The image cannot be read.
    """
    rendered, boxes = [], []
    decoded: dict[int, NDArray[np.uint8]] = {}
    for input_spec in input_specs:
        side = decoding_side(mask, input_spec)
        if side not in decoded:
            decoded[side] = _as_fine(image, side, limits, first)
        pixels = decoded[side]
        rendered.append(preprocess(pixels, mask, input_spec))
        boxes.append((rendered[-1].box, (pixels.shape[0], pixels.shape[1])))
    shown = next((crop for crop in rendered if crop.mode != "full"), rendered[0])
    inputs = tuple(crop.pixels for crop in rendered)
    return ClassifierInput(inputs, tuple(boxes), shown.mode, shown.pixels)


def checked(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the pixels if they are an image: H x W x 3, uint8.

    Raises:
        DataError: They have another shape or type.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise DataError(
            f"an array of {pixels.dtype} {pixels.shape} is not an image",
            "give height x width x 3, uint8, in the order red, green, blue",
        )
    return pixels


def stack_inputs(
    inputs: Sequence[tuple[NDArray[np.uint8], ...]],
) -> list[NDArray[np.uint8]]:
    """Stack the inputs of N images into one batch per input spec."""
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
