"""Heatmaps as files: an image under a class activation map, with answer, colour bar and caveat."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from naevus.errors import ConfigError
from naevus.images.geometry import reduced, resize
from naevus.images.masks import (
    ATTRIBUTE_COLOURS,
    PREDICTED_COLOUR,
    draw_attributes,
    draw_contours,
)
from naevus.inference.cam import cells_of, overlay, ramp
from naevus.io.words import drawable
from naevus.taxonomy import ATTRIBUTES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from naevus.images.geometry import Box
    from naevus.inference.cam import ActivationMaps
    from naevus.inference.prediction import Prediction

OVERLAY_SIDE: Final = 384
"""Shorter side of the image on a heatmap in pixels; smaller images keep their size."""

CAVEAT: Final = (
    "The colours compare places within this image, not images or classes. They are coarse, and do "
    "not show why a class is likely. For research only, never a diagnosis."
)
"""Written below every heatmap."""

_PAPER, _INK, _PALE, _FRAME = (255, 255, 255), (28, 31, 39), (85, 92, 104), (255, 255, 255)
_LEAST_WIDTH: Final = 360  # pixels, for the text
_FONT, _LINE, _GAP = 13, 17, 8  # pixels
_BAR: Final = (120, 12)  # pixels


class Canvas(NamedTuple):
    """A reduced image with its masks, to draw a heatmap on.

    Attributes:
        pixels: h x w x 3.
        lesion: h x w; None without a segmenter.
        attributes: h x w masks by attribute.
    """

    pixels: NDArray[np.uint8]
    lesion: NDArray[np.bool_] | None
    attributes: Mapping[str, NDArray[np.bool_]]


def canvas_of(
    pixels: NDArray[np.uint8],
    lesion: NDArray[np.bool_] | None,
    attributes: Mapping[str, NDArray[np.bool_]],
) -> Canvas:
    """Reduce an image and its lesion mask to the size of heatmaps.

    Args:
        pixels: H x W x 3.
        lesion: The lesion mask, of any size.
        attributes: Masks that are small already (`small_mask`).
    """
    small = reduced(pixels, OVERLAY_SIDE)
    height, width = small.shape[:2]
    shown = None if lesion is None else small_mask(lesion, height, width)
    return Canvas(small, shown, attributes)


def small_mask(mask: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """Resize a mask to the size of the image that it is drawn on."""
    return np.asarray(resize(mask.view(np.uint8) * np.uint8(255), height, width) > 127)


def asked_class(asked: str, classes: Sequence[str]) -> str:
    """Return the class that heatmaps are asked for, in its own spelling.

    Raises:
        ConfigError: The classifier does not have it.
    """
    found = [code for code in classes if code.casefold() == asked.casefold()]
    if not found:
        raise ConfigError(
            f"heatmaps of {asked!r}: the bundle has no such class",
            f"use one of {', '.join(classes)}",
        )
    return found[0]


def draw_heatmap(prediction: Prediction, canvas: Canvas, code: str) -> NDArray[np.uint8]:
    """Draw an image with the heatmap of a class, contours and a legend.

    Args:
        prediction: With activation maps.
        canvas: The image.
        code: The class.

    Returns:
        The drawing; the image is at its top, and as wide unless it is too narrow for the text.

    Raises:
        ConfigError: The classifier does not have the class.
    """
    pixels = canvas.pixels
    height, width = pixels.shape[:2]
    cam = prediction.cam_of(code, height, width)
    assert cam is not None
    assert prediction.activations is not None
    drawn = _framed(overlay(pixels, cam), prediction.activations)
    if canvas.lesion is not None:
        drawn = draw_contours(drawn, canvas.lesion, PREDICTED_COLOUR, 1)
    drawn = draw_attributes(drawn, canvas.attributes)
    return _with_legend(drawn, prediction, canvas, code)


def _framed(pixels: NDArray[np.uint8], activations: Sequence[ActivationMaps]) -> NDArray[np.uint8]:
    """Draw a thin frame around each part that networks saw."""
    drawn = pixels.copy()
    for box in _frames(activations, *pixels.shape[:2]):
        corners = (box.left, box.top), (box.right - 1, box.bottom - 1)
        cv2.rectangle(drawn, *corners, _FRAME, 1)
    return drawn


def _frames(activations: Sequence[ActivationMaps], height: int, width: int) -> set[Box]:
    """Return the parts of an image that networks saw: crop, centre square or both."""
    return {each.of(0).scaled(height, width) for each in activations}


def _with_legend(
    drawn: NDArray[np.uint8], prediction: Prediction, canvas: Canvas, code: str
) -> NDArray[np.uint8]:
    """Return a drawing with lines of text and a colour bar below it."""
    height, width = drawn.shape[:2]
    font = ImageFont.load_default(_FONT)
    across = max(width, _LEAST_WIDTH)
    columns = int((across - 2 * _GAP) * len(CAVEAT) / font.getlength(CAVEAT))
    lines = [
        *textwrap.wrap(_answer(prediction), columns),
        *textwrap.wrap(_resolution(prediction), columns),
        *textwrap.wrap(CAVEAT, columns),
    ]
    swatches = _swatches(prediction, canvas)
    top = height + _GAP
    below = top + (len(lines) + 1 + len(swatches)) * _LINE + _GAP
    sheet = Image.new("RGB", (across, below), _PAPER)
    sheet.paste(Image.fromarray(drawn), ((across - width) // 2, 0))
    pen = ImageDraw.Draw(sheet)
    answer = len(textwrap.wrap(_answer(prediction), columns))
    for line in lines[:answer]:
        pen.text((_GAP, top), line, _INK, font)
        top += _LINE
    _draw_bar(sheet, pen, top, code, font)
    top += _LINE
    for colour, name in swatches:
        if colour == _FRAME:  # not seen on paper
            pen.rectangle((_GAP, top + 3, _GAP + 18, top + 13), _PALE)
        pen.rectangle((_GAP, top + 7, _GAP + 18, top + 9), colour)
        pen.text((_GAP + 24, top), name, _PALE, font)
        top += _LINE
    for line in lines[answer:]:
        pen.text((_GAP, top), line, _PALE, font)
        top += _LINE
    return np.asarray(sheet, np.uint8)


def _draw_bar(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    top: int,
    code: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    words = drawable(f"Evidence for {code}: none")
    pen.text((_GAP, top), words, _INK, font)
    left = _GAP + round(font.getlength(words)) + _GAP
    width, height = _BAR
    bar = np.broadcast_to(ramp(width), (height, width, 3))
    sheet.paste(Image.fromarray(np.ascontiguousarray(bar)), (left, top + 3))
    pen.text((left + width + _GAP, top), "most", _INK, font)


def _answer(prediction: Prediction) -> str:
    """Return the most probable class, and melanoma's probability, which must not be missed."""
    confidence = "" if prediction.confidence is None else f" {prediction.confidence:.0%}"
    answer = f"{prediction.image_id}: {prediction.predicted}{confidence}"
    melanoma = prediction.probabilities.get("MEL")
    if melanoma is not None and prediction.predicted != "MEL":
        answer += f", MEL {melanoma:.0%}"
    return drawable(answer)


def _resolution(prediction: Prediction) -> str:
    assert prediction.activations is not None
    count = len(prediction.activations)
    networks = "one network" if count == 1 else f"{count} networks, averaged"
    return f"Resolution: {cells_of(prediction.activations)} over a frame; {networks}."


def _swatches(prediction: Prediction, canvas: Canvas) -> list[tuple[tuple[int, int, int], str]]:
    """Return the colours and names of the lines that are drawn."""
    assert prediction.activations is not None
    several = len(_frames(prediction.activations, *canvas.pixels.shape[:2])) > 1
    found = [(_FRAME, f"{'frames' if several else 'frame'} around what the networks saw")]
    if canvas.lesion is not None and canvas.lesion.any():
        found.append((PREDICTED_COLOUR, "contour of the predicted lesion"))
    found += [
        (ATTRIBUTE_COLOURS[name], ATTRIBUTES[name])
        for name, mask in canvas.attributes.items()
        if mask.any()
    ]
    return found
