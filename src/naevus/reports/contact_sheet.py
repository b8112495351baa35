"""Write images to a contact sheet, or to a page for browsing."""

from __future__ import annotations

import base64
import io
import random
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import jinja2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from naevus.errors import DataError, ImageError
from naevus.images import geometry, masks
from naevus.images.maskfile import read_mask
from naevus.images.read import read, write_png
from naevus.io.files import write_text
from naevus.io.progress import SILENT
from naevus.io.words import drawable
from naevus.taxonomy import ATTRIBUTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from naevus.datasets.dataset import Dataset, Record
    from naevus.io.progress import Reporter

    LegendEntry = tuple[str, tuple[int, int, int]]
    ReadRecord = tuple[Record, NDArray[np.uint8], NDArray[np.bool_] | None]
    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


# A page for browsing images, in one file that needs no network.

_QUALITY = 85


class Leaf(NamedTuple):
    """One image of the page, as the template shows it.

    Attributes:
        name: The image's id.
        facts: Known facts, name and value.
        width: The width of the embedded image, in pixels.
        height: The height of the embedded image, in pixels.
        jpeg: The image as a base64 JPEG.
        contours: The lesion's contour as the data of an SVG path, empty without a mask.
    """

    name: str
    facts: list[tuple[str, str]]
    width: int
    height: int
    jpeg: str
    contours: str


def leaf(
    name: str,
    facts: Iterable[tuple[str, str]],
    pixels: NDArray[np.uint8],
    mask: NDArray[np.bool_] | None,
    longest: int = 640,
) -> Leaf:
    """Prepare an image for the page.

    Args:
        name: The image's id.
        facts: Known facts, name and value.
        pixels: H x W x 3 uint8 RGB.
        mask: The lesion, h x w bool of the same proportions, or ``None``.
        longest: The longer side of the embedded image, in pixels; it is never enlarged.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, longest / max(height, width))
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    stream = io.BytesIO()
    small = Image.fromarray(geometry.resize(pixels, height, width))
    small.save(stream, "JPEG", quality=_QUALITY)
    path = ""
    if mask is not None:
        scaled = geometry.resize(mask.astype(np.uint8) * np.uint8(255), height, width) > 127
        path = "".join(_svg(points) for points in masks.contours(scaled))
    return Leaf(
        name, list(facts), width, height, base64.b64encode(stream.getvalue()).decode(), path
    )


def write_browser(leaves: Iterable[Leaf], path: Path, *, title: str) -> None:
    """Write the page: arrow keys move between images, ``m`` toggles the contours.

    Args:
        leaves: The images, in order.
        path: The HTML file to write.
        title: The title above the images.

    Raises:
        NaevusError: The file cannot be written.
    """
    records = [each._asdict() for each in leaves]
    page = page_template("browser.html").render(
        title=title, leaves=records, colour=masks.hexadecimal(masks.TRUTH_COLOUR)
    )
    write_text(path, page)


@cache
def page_template(name: str) -> jinja2.Template:
    """Return the template of a page."""
    loader = jinja2.PackageLoader("naevus.reports", "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template(name)


def _svg(points: NDArray[np.int32]) -> str:
    return "M" + "L".join(f"{x + 0.5:g} {y + 0.5:g}" for x, y in points.tolist()) + "Z"


_RIGHT_COLOUR, _WRONG_COLOUR = (46, 160, 92), (214, 60, 60)
_PAPER, _INK, _PALE_INK = (255, 255, 255), (34, 38, 46), (104, 110, 122)
_GAP = 10
_BAR = 4
_LEAST_COLUMNS = 3
"""A sheet with words above its images has room for this many, so that the words are not divided."""


class Tile(NamedTuple):
    """One image of a contact sheet.

    Attributes:
        pixels: H x W x 3 uint8 RGB.
        mask: The true lesion, h x w bool of the image's proportions, or ``None``.
        predicted: The predicted lesion, likewise.
        caption: The caption below the image, one or more lines.
        correct: Whether the prediction is correct; ``None`` if it cannot be evaluated.
        attributes: Masks of attributes, likewise.
    """

    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None = None
    predicted: NDArray[np.bool_] | None = None
    caption: str = ""
    correct: bool | None = None
    attributes: Mapping[str, NDArray[np.bool_]] = MappingProxyType({})


def contact_sheet(
    tiles: Sequence[Tile],
    path: Path,
    *,
    columns: int = 6,
    tile: int = 192,
    title: str = "",
    legend: Sequence[LegendEntry] = (),
) -> None:
    """Write a contact sheet as PNG.

    Args:
        tiles: The images, in reading order.
        path: The PNG file to write.
        columns: The number of images per row.
        tile: The longer side of each image on the sheet, in pixels.
        title: The title above the images.
        legend: Names and colours of contours that the images have already.

    Raises:
        NaevusError: The file cannot be written.
    """
    text, heading = ImageFont.load_default(max(11, tile // 14)), ImageFont.load_default(24)
    line = round(text.size * 1.3) if isinstance(text, ImageFont.FreeTypeFont) else 14
    lines = max((each.caption.count("\n") + 1 for each in tiles if each.caption), default=0)
    columns = max(1, min(columns, len(tiles)))
    rows = -(-len(tiles) // columns)
    cell = (tile + _GAP, tile + _BAR + lines * line + _GAP)
    entries = [*legend, *_legend(tiles)]
    across = max(columns, _LEAST_COLUMNS) if title or entries else columns
    width = _GAP + across * cell[0]
    titles = _lines(drawable(title).split(), heading, width - 2 * _GAP)
    lines_of_legend = _legend_lines(entries, text, width - _GAP)
    top = _GAP + (len(titles) * 30 + 6 if titles else 0)
    head = top + (len(lines_of_legend) * line + 6 if entries else 0)
    sheet = Image.new("RGB", (width, head + rows * cell[1]), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, words in enumerate(titles):
        fitted = _fitted(words, heading, width - 2 * _GAP)
        pen.text((_GAP, _GAP + number * 30), fitted, _INK, heading)
    for number, row_of_legend in enumerate(lines_of_legend):
        _draw_legend(pen, row_of_legend, top + number * line, text)
    for index, each in enumerate(tiles):
        row, column = divmod(index, columns)
        place = (_GAP + column * cell[0], head + row * cell[1])
        sheet.paste(Image.fromarray(framed(each, tile)), place)
        below = place[1] + tile
        if each.correct is not None:
            colour = _RIGHT_COLOUR if each.correct else _WRONG_COLOUR
            pen.rectangle((place[0], below, place[0] + tile - 1, below + _BAR - 1), colour)
        for number, words in enumerate(drawable(each.caption).split("\n")):
            at = (place[0], below + _BAR + number * line)
            pen.text(at, _fitted(words, text, tile), _INK if number == 0 else _PALE_INK, text)
    write_png(path, np.asarray(sheet))


def framed(tile: Tile, side: int) -> NDArray[np.uint8]:
    """Return a tile's image with its contours, scaled and centred on a light square.

    Args:
        tile: The image and its masks.
        side: Height and width of the square, in pixels.

    Returns:
        side x side x 3 uint8 RGB.
    """
    height, width = tile.pixels.shape[:2]
    scale = side / max(height, width)
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    pixels = geometry.resize(tile.pixels, height, width)
    for mask, colour in (
        (tile.mask, masks.TRUTH_COLOUR),
        (tile.predicted, masks.PREDICTED_COLOUR),
    ):
        if mask is not None:
            scaled = geometry.resize(mask.astype(np.uint8) * np.uint8(255), height, width) > 127
            pixels = masks.draw_contours(pixels, scaled, colour, max(1, side // 128))
    attributes = {
        name: geometry.resize(mask.astype(np.uint8) * np.uint8(255), height, width) > 127
        for name, mask in tile.attributes.items()
    }
    pixels = masks.draw_attributes(pixels, attributes)
    square = np.full((side, side, 3), 238, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    return square


def _legend(tiles: Sequence[Tile]) -> list[LegendEntry]:
    """Return the names and colours of the contours on the tiles."""
    entries: list[LegendEntry] = []
    if any(each.mask is not None for each in tiles):
        entries.append(("true contour", masks.TRUTH_COLOUR))
    if any(each.predicted is not None for each in tiles):
        entries.append(("predicted contour", masks.PREDICTED_COLOUR))
    drawn = {name for each in tiles for name, mask in each.attributes.items() if mask.any()}
    entries += [
        (title, masks.ATTRIBUTE_COLOURS[name])
        for name, title in ATTRIBUTES.items()
        if name in drawn
    ]
    if any(each.correct is True for each in tiles):
        entries.append(("right", _RIGHT_COLOUR))
    if any(each.correct is False for each in tiles):
        entries.append(("wrong", _WRONG_COLOUR))
    return entries


def _legend_lines(
    entries: Sequence[LegendEntry], font: Font, width: int
) -> list[list[LegendEntry]]:
    """Divide a legend into lines that are at most ``width`` pixels wide."""
    found: list[list[LegendEntry]] = []
    left = float(width)
    for entry in entries:
        needed = _legend_width(entry, font)
        if left + needed > width:
            found.append([])
            left = _GAP
        found[-1].append(entry)
        left += needed
    return found


def _legend_width(entry: LegendEntry, font: Font) -> float:
    return 24 + font.getlength(entry[0]) + 18


def _draw_legend(
    pen: ImageDraw.ImageDraw, entries: Sequence[LegendEntry], top: int, font: Font
) -> None:
    left = float(_GAP)
    for name, colour in entries:
        pen.rectangle((left, top + 5, left + 18, top + 9), colour)
        pen.text((left + 24, top), name, _PALE_INK, font)
        left += _legend_width((name, colour), font)


def _lines(words: Sequence[str], font: Font, width: int) -> list[str]:
    """Divide words into lines that are at most ``width`` pixels wide, or have one word."""
    found: list[str] = []
    for word in words:
        if found and font.getlength(f"{found[-1]} {word}") <= width:
            found[-1] += f" {word}"
        else:
            found.append(word)
    return found


def _fitted(words: str, font: Font, width: int) -> str:
    """Return the text, truncated with an ellipsis if it is wider than ``width`` pixels."""
    if font.getlength(words) <= width:
        return words
    while words and font.getlength(words + "...") > width:
        words = words[:-1]
    return words + "..."


# A sheet or page of a data set's images.

TILE = 192
_PAGE = 640


def choose_records(
    dataset: Dataset, count: int, diagnoses: Sequence[str] | None, seed: int
) -> list[Record]:
    """Return at most ``count`` random images, ordered by diagnosis and id.

    Args:
        dataset: The data set.
        count: The maximum number of images.
        diagnoses: The diagnoses to choose, in this order; None: all.
        seed: The random seed.

    Raises:
        DataError: There are no such images.
    """
    wanted = [code.upper() for code in diagnoses or ()]
    order = {code: dataset.taxonomy.index(code) for code in wanted or dataset.taxonomy.codes}
    rows = [row for row in dataset.images().rows() if not wanted or row.diagnosis in order]
    if not rows:
        of = f" of {', '.join(wanted)}" if wanted else ""
        raise DataError(f"{dataset.root} contains no images{of}", "choose another folder or filter")
    chosen = random.Random(seed).sample(rows, min(count, len(rows)))  # noqa: S311 - no secret
    return sorted(chosen, key=lambda row: (order.get(row.diagnosis or "", 99), row.image_id))


def write_sheet_of(
    chosen: Sequence[Record], path: Path, *, title: str, reporter: Reporter = SILENT
) -> None:
    """Write a contact sheet of a data set's images; unreadable ones are reported and left out."""
    tiles = [
        Tile(pixels, mask, caption=f"{row.diagnosis or ''} {row.image_id}".strip())
        for row, pixels, mask in _read_records(chosen, TILE, reporter)
    ]
    contact_sheet(tiles, path, tile=TILE, title=title)


def write_browser_of(
    chosen: Sequence[Record], path: Path, *, title: str, reporter: Reporter = SILENT
) -> None:
    """Write a page for browsing; unreadable images are reported and left out."""
    leaves = [
        leaf(row.image_id, _facts(row), pixels, mask, _PAGE)
        for row, pixels, mask in _read_records(chosen, _PAGE, reporter)
    ]
    write_browser(leaves, path, title=title)


def _read_records(
    chosen: Sequence[Record], shortest: int, reporter: Reporter
) -> Iterator[ReadRecord]:
    """Yield each image with its mask; unreadable ones are reported and left out."""
    with reporter.progress("reading images", len(chosen)) as move:
        for done, row in enumerate(chosen, start=1):
            try:
                assert row.path is not None  # choose_records takes rows with an image
                pixels = read(row.path, shortest=shortest)
                mask = read_mask(row.mask_path) if row.mask_path else None
            except ImageError as error:
                reporter.warning(str(error), "left out")
                continue
            finally:
                move(done, len(chosen))
            yield row, pixels, mask


def _facts(row: Record) -> list[tuple[str, str]]:
    known = {
        "diagnosis": row.diagnosis,
        "confirmed by": row.confirmation,
        "lesion": row.lesion_id,
        "site": row.site,
        "age": None if row.age is None else f"{row.age:g}",
        "sex": row.sex,
        "split": row.split,
        "part": row.part,
    }
    return [(name, value) for name, value in known.items() if value is not None]
