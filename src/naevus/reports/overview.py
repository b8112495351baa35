"""Write an overview of predictions, with or without a ground truth: one page, and one sheet."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from naevus import __version__
from naevus.datasets.sources import mask_file
from naevus.errors import DataError, ImageError
from naevus.images import geometry, masks
from naevus.images.maskfile import read_mask
from naevus.images.measurements import COLUMNS, sizes_in
from naevus.images.read import read_with_header
from naevus.inference.prediction import LIKELY
from naevus.io.files import stored, write_text
from naevus.io.parallel import Workers, batches, cpu_count
from naevus.io.progress import SILENT
from naevus.io.words import counted
from naevus.reports.contact_sheet import TILE, Tile, contact_sheet, page_template
from naevus.runs.prediction_tables import Conditions, about, read_pieces
from naevus.runs.predictions import PredictionsFolder
from naevus.taxonomy import ATTRIBUTES, TAXONOMIES
from naevus.types import Patient

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from naevus.images.measurements import Measurements
    from naevus.io.progress import Reporter

MOST: Final = 2000
"""The maximum number of images of an overview, to keep it under 50 MB."""
_SIDE, _SHEET_QUALITY = 256, 80
_PRESENCE: Final = {f"presence_{name}": title for name, title in ATTRIBUTES.items()}
_LESION: Final = "predicted contour"
_CONTOURS: Final = {_LESION: masks.PREDICTED_COLOUR} | {
    title: masks.ATTRIBUTE_COLOURS[name] for name, title in ATTRIBUTES.items()
}
"""The colours of the contours in images, by name."""


class Overview(NamedTuple):
    """The predictions of an overview.

    Attributes:
        title: Of the page and of the sheet.
        notes: Which images are shown, and what is missing, in sentences.
        cards: The images, in the order of their ids.
        classified: Whether there are diagnoses.
        conditions: What the probabilities depend on beside the images.
    """

    title: str
    notes: list[str]
    cards: list[Card]
    classified: bool
    conditions: Conditions = Conditions()


class Card(NamedTuple):
    """One image of an overview, for the template.

    Attributes:
        name: The image's id.
        jpeg: A base64 JPEG of at most 256 pixels, with the lesion's contour; empty where the
            predicted image is not there any more.
        answer: The most probable diagnosis; empty without a classifier.
        confidence: Its probability.
        melanoma: The probability of melanoma, where that is a class.
        malignant: The probability of malignancy, where it is known which classes are malignant.
        sets: The prediction set.
        flags: The quality flags.
        area: The lesion's fraction of the image.
        diameters: The longest diameter and the one at right angles to it, or why they are not
            known; empty without a lesion.
        longest: The longest diameter, in mm or pixels.
        asymmetry: Of `naevus.images.measurements`.
        irregularity: Of the border.
        variegation: Of the colours.
        attributes: The attributes that are probably present, with their probabilities.
        patient: The patient's age and sex and the lesion's site, as far as they are known.
        age: In years.
        contours: The names of the contours in the image.
    """

    name: str
    jpeg: str
    answer: str
    confidence: float | None
    melanoma: float | None
    malignant: float | None
    sets: tuple[str, ...]
    flags: tuple[str, ...]
    area: float | None
    diameters: str = ""
    longest: float | None = None
    asymmetry: float | None = None
    irregularity: float | None = None
    variegation: float | None = None
    attributes: tuple[tuple[str, float], ...] = ()
    patient: str = ""
    age: float | None = None
    contours: tuple[str, ...] = ()

    @property
    def caption(self) -> str:
        """The caption on a sheet."""
        lines = [self.name, *([self.patient] if self.patient else [])]
        if self.answer:
            risk = "" if self.melanoma is None else f"melanoma {self.melanoma:.0%}, "
            lines.insert(0, f"{risk}{self.answer} {self.confidence:.0%}")
        return "\n".join(lines)


def overview_of(
    folder: Path,
    *,
    most: int = MOST,
    diagnoses: Sequence[str] | None = None,
    reporter: Reporter = SILENT,
) -> Overview:
    """Return an overview of a predictions folder.

    Of more than ``most`` images, those with the highest probability of malignancy are shown (of
    melanoma, or else the least confident ones, where that is not known).

    Args:
        folder: What predict wrote.
        most: How many images are shown.
        diagnoses: Only images with these answers; None: all.
        reporter: Receives progress.

    Raises:
        RunError: The table cannot be read.
        DataError: There is no such image.
    """
    out = PredictionsFolder(folder)
    metadata = about(out.table)
    codes, taxonomy = metadata["classes"], TAXONOMIES.get(metadata.get("taxonomy") or "")
    malignant = [one.code for one in taxonomy.diagnoses if one.malignant] if taxonomy else []
    wanted = {code.upper() for code in diagnoses or ()}
    chosen, order, total = list[Card](), "", 0
    for rows in _rows(out.table, codes):
        cards = [_card(row, malignant) for row in rows]
        cards = [card for card in cards if not wanted or card.answer in wanted]
        total += len(cards)
        chosen, order = _first([*chosen, *cards], most)
    if not total:
        of = f" of {', '.join(diagnoses)}" if diagnoses else ""
        raise DataError(f"{folder} contains no predictions{of}", "choose another folder or filter")
    notes = []
    if total > most:
        notes.append(f"Shown are {most:,} of {total:,} images: those with {order}.")
    files = _files(out.table, {card.name for card in chosen})
    shown: list[Card] = []
    lost: list[ImageError] = []
    with reporter.progress("reading images", len(chosen)) as move, Workers(cpu_count()) as workers:
        for piece in batches(chosen):
            drawn = workers.each(lambda card: _drawn(card, out, files[card.name]), piece)
            lost += [each for each in drawn if isinstance(each, ImageError)]
            shown += [
                card if isinstance(each, ImageError) else each
                for card, each in zip(piece, drawn, strict=True)
            ]
            move(len(shown), len(chosen))
    if lost:
        notes.append(
            "Moved, deleted or changed after the prediction, and not shown: "
            f"{counted(len(lost), 'image')}, such as {lost[0].message}."
        )
    newer = sum(_is_newer(files[card.name], out.table) for card in shown if card.jpeg)
    if newer:
        notes.append(
            f"Written after the prediction, and shown as they are now: {counted(newer, 'image')}."
        )
    failed = len(out.problems())
    if failed:
        notes.append(f"{counted(failed, 'image')} failed: {out.failed.name} names them.")
    shown.sort(key=lambda card: card.name)
    depend = Conditions.of(metadata, out.table) if codes else Conditions()
    return Overview(folder.resolve().name, notes, shown, bool(codes), depend)


def write_overview(found: Overview, path: Path) -> None:
    """Write the page: sortable and filterable, one file that needs no network.

    Raises:
        NaevusError: The file cannot be written.
    """
    answers = sorted(
        {card.answer for card in found.cards} - {""}, key=lambda code: (code != "MEL", code)
    )
    flags = sorted({flag for card in found.cards for flag in card.flags})
    page = page_template("overview.html").render(
        found=found,
        answers=answers,
        flags=flags,
        legend=masks.ATTRIBUTE_LEGEND
        if any({*card.contours} - {_LESION} for card in found.cards)
        else "",
        version=__version__,
    )
    write_text(path, page)


def write_overview_sheet(found: Overview, path: Path, *, count: int = 60) -> None:
    """Write a contact sheet of the images with the highest probability of malignancy.

    Raises:
        NaevusError: The file cannot be written.
    """
    chosen, order = _first([card for card in found.cards if card.jpeg], count)
    tiles = [
        Tile(np.asarray(Image.open(io.BytesIO(base64.b64decode(card.jpeg)))), caption=card.caption)
        for card in chosen
    ]
    named = f", {order}" if len(chosen) < len(found.cards) else ""
    title = f"{found.title}: {len(chosen):,} of {counted(len(found.cards), 'image')}{named}"
    title += found.conditions.brief and f"; {found.conditions.brief}"
    drawn = {name for card in chosen for name in card.contours}
    legend = [(name, colour) for name, colour in _CONTOURS.items() if name in drawn]
    contact_sheet(tiles, path, tile=TILE, title=title, legend=legend)


def _first(cards: Sequence[Card], most: int) -> tuple[list[Card], str]:
    """Return the images that are most urgent, and what orders them."""
    for name, words in (
        ("malignant", "the highest probability of malignancy"),
        ("melanoma", "the highest probability of melanoma"),
    ):
        if all(getattr(card, name) is not None for card in cards):
            ordered = sorted(cards, key=lambda card: -getattr(card, name))
            return ordered[:most], words
    if all(card.confidence is not None for card in cards):
        return sorted(cards, key=lambda card: card.confidence or 0)[:most], "the least confidence"
    return list(cards[:most]), "the first ids"


def _rows(table: Path, codes: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Read the table in pieces."""
    names = ["image_id", "predicted", "confidence", "prediction_set", "quality_flags"]
    sizes = ["lesion_area", "lesion_touches_border", *COLUMNS.values()]
    optional = ("mm_per_pixel", *_PRESENCE, *Patient._fields)
    sizes += [name for name in optional if name in pq.read_schema(table).names]
    columns = [*names, *sizes, *(f"prob_{code}" for code in codes)]
    return read_pieces(table, columns)


class _File(NamedTuple):
    """The predicted file of an image, and its size in pixels."""

    path: Path
    height: int
    width: int


def _files(table: Path, ids: Collection[str]) -> dict[str, _File]:
    """Return the files of some images, by id."""
    found: dict[str, _File] = {}
    for rows in read_pieces(table, ["image_id", "path", "height", "width"]):
        found |= {
            row["image_id"]: _File(Path(row["path"]), row["height"], row["width"])
            for row in rows
            if row["image_id"] in ids
        }
    return found


def _is_newer(file: _File, table: Path) -> bool:
    """Return whether an image was written after its prediction, which may be of another one."""
    return file.path.stat().st_mtime_ns > table.stat().st_mtime_ns


def _card(row: Mapping[str, Any], malignant: Sequence[str]) -> Card:
    known = bool(malignant) and f"prob_{malignant[0]}" in row
    return Card(
        name=row["image_id"],
        jpeg="",
        answer=row["predicted"] or "",
        confidence=row["confidence"],
        melanoma=row.get("prob_MEL"),
        malignant=sum(row[f"prob_{code}"] for code in malignant) if known else None,
        sets=tuple(row["prediction_set"] or ()),
        flags=tuple(row["quality_flags"]),
        area=row["lesion_area"],
        attributes=_likely(row),
        patient=_patient(row),
        age=row.get("age"),
        **_sizes(row),
    )


def _patient(row: Mapping[str, Any]) -> str:
    """Return age, sex and site, as far as they are known."""
    age, *others = (row.get(name) for name in Patient._fields)
    words = [] if age is None else [f"{age:g} years"]
    return ", ".join([*words, *(value for value in others if value is not None)])


def _likely(row: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    """Return the attributes that are probably present, the most probable first."""
    known = [(title, row.get(name)) for name, title in _PRESENCE.items()]
    likely = [(title, value) for title, value in known if value is not None and value >= LIKELY]
    return tuple(sorted(likely, key=lambda pair: -pair[1]))


def _sizes(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a card's values about the size and shape of the lesion."""
    if row["lesion_touches_border"]:
        return {"diameters": "cut by the border"}
    sizes: Measurements | None = sizes_in(row)["measurements"]
    if sizes is None:
        return {}
    scale = row.get("mm_per_pixel")
    longest, other = (
        length * (scale or 1) for length in (sizes.longest_diameter, sizes.perpendicular_diameter)
    )
    return {
        "diameters": f"{longest:.1f} × {other:.1f} mm"
        if scale
        else f"{longest:.0f} × {other:.0f} px",
        "longest": longest,
        "asymmetry": sizes.asymmetry,
        "irregularity": sizes.border_irregularity,
        "variegation": sizes.colour_variegation,
    }


def _drawn(card: Card, out: PredictionsFolder, expected: _File) -> Card:
    """Return a card with a small copy, which has the contours of the lesion and its attributes.

    Raises:
        ImageError: The image or its mask cannot be read, or another image has its place.
    """
    pixels, header, _ = read_with_header(expected.path, shortest=_SIDE)
    if (header.height, header.width) != (expected.height, expected.width):
        raise ImageError(
            expected.path,
            f"has {header.width} x {header.height} pixels, but {expected.width} x "
            f"{expected.height} were predicted",
        )
    image_id = card.name
    file = stored(mask_file(out.masks, image_id), image_id)
    mask = read_mask(file) if file.exists() else None
    height, width = pixels.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    pixels = geometry.resize(pixels, *size)
    if mask is not None:
        pixels = masks.draw_contours(pixels, _reduced(mask, size), masks.PREDICTED_COLOUR, 1)
    files = {name: stored(out.attribute(image_id, name=name), image_id) for name in ATTRIBUTES}
    found = {name: read_mask(place) for name, place in files.items() if place.exists()}
    small = {name: _reduced(each, size) for name, each in found.items()}
    pixels = masks.draw_attributes(pixels, small)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=_SHEET_QUALITY)
    lesion = [] if mask is None else [_LESION]
    visible = (ATTRIBUTES[name] for name, each in small.items() if each.any())
    return card._replace(
        jpeg=base64.b64encode(stream.getvalue()).decode(), contours=(*lesion, *visible)
    )


def _reduced(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    return geometry.resize(mask.astype(np.uint8) * np.uint8(255), *size) > 127
