"""Galleries: small copies of the pictures most worth a look, with outlines and heat maps."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
from PIL import Image

from naevus.errors import PictureError
from naevus.images.maskfile import read_mask
from naevus.images.read import read
from naevus.inference.cam import glowing, heat_map, side_for
from naevus.reports.contact_sheet import Tile, framed
from naevus.reports.content.choices import of_diagnoses, of_masks
from naevus.reports.document import Gallery, Section, Thumbnail

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from naevus.reports.content.choices import Chosen
    from naevus.reports.results import Results

SIDE = 192
"""Of the small pictures, in pixels."""
_QUALITY = 82


def gallery_section(
    results: Results, progress: Callable[[int, int], None] | None = None
) -> Section | None:
    """Return galleries of the pictures most worth a look; None where there are no pictures.

    Args:
        results: The answers; without their data set there are no pictures.
        progress: Called with (done, total) pictures.

    Raises:
        BundleError: A classifier that is to show its heat maps cannot be used.
    """
    if results.records is None or results.records["path"].isna().all():
        return None
    choices = of_diagnoses(results.diagnosed) if results.diagnosed is not None else []
    if results.outlined is not None:
        choices += of_masks(results.outlined)
    total, done = sum(len(choice.pictures) for choice in choices), 0
    galleries, unread = [], 0
    for choice in choices:
        shown = []
        for chosen in choice.pictures:
            small = _thumbnail(results, chosen)
            done += 1
            if progress is not None:
                progress(done, total)
            if small is None:
                unread += 1
            else:
                shown.append(small)
        galleries.append(Gallery(choice.name, choice.title, choice.note, tuple(shown)))
    kept = tuple(gallery for gallery in galleries if gallery.pictures)
    notes = _notes(results, kept, unread)
    return Section("pictures", "Pictures", tuple(notes), galleries=kept) if kept else None


def _notes(results: Results, galleries: tuple[Gallery, ...], unread: int) -> list[str]:
    predicted = ", yellow the predicted one" if results.masks is not None else ""
    notes = [
        (
            "Small copies of the pictures: where these are of patients, share this page only with "
            "those who may see them. No two of a gallery are of one lesion."
        ),
        f"Outlines: cyan is the true one where it is known{predicted}.",
    ]
    if any(picture.heat for gallery in galleries for picture in gallery.pictures):
        notes.append(
            "Heat maps: yellow is where the network that answered sees the most of its answer, "
            "green less; what is grey says nothing for it. They compare places of one picture, "
            "not pictures."
        )
    if unread:
        notes.append(f"{unread} pictures cannot be read and are left out.")
    return notes


class _Seen(NamedTuple):
    """A picture as it is read, and its masks."""

    pixels: NDArray[np.uint8]
    truth: NDArray[np.bool_] | None
    predicted: NDArray[np.bool_] | None
    heat: NDArray[np.float32] | None


def _thumbnail(results: Results, chosen: Chosen) -> Thumbnail | None:
    """Return a small picture; None where its file cannot be read."""
    assert results.records is not None
    row: dict[Any, Any] = results.records.loc[chosen.image_id].to_dict()
    if pd.isna(row["path"]):
        return None
    try:
        seen = _see(results, chosen, Path(row["path"]), row["mask_path"])
    except PictureError:
        return None
    plain = framed(Tile(seen.pixels, seen.truth, seen.predicted), SIDE)
    heat = ""
    if seen.heat is not None:
        heat = _jpeg(framed(Tile(glowing(seen.pixels, seen.heat)), SIDE))
    return Thumbnail(chosen.image_id, chosen.words, _jpeg(plain), heat, chosen.right)


def _see(results: Results, chosen: Chosen, path: Path, true_mask: Any) -> _Seen:
    truth = read_mask(Path(true_mask)) if pd.notna(true_mask) else None
    file = results.predicted_mask(chosen.image_id)
    predicted = None if file is None else read_mask(file)
    classifier = results.classifier_of(chosen.image_id) if chosen.answer else None
    if classifier is None or chosen.answer is None:
        return _Seen(read(path, shortest=SIDE), truth, predicted, None)
    given = predicted if results.own_masks else truth
    pixels = read(path, shortest=max(SIDE, side_for(classifier, given)))
    return _Seen(pixels, truth, predicted, heat_map(classifier, pixels, given, chosen.answer))


def _jpeg(pixels: NDArray[np.uint8]) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=_QUALITY, optimize=True)
    return base64.b64encode(stream.getvalue()).decode()
