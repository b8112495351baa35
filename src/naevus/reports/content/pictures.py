"""Galleries: which pictures to look at, and small copies of them."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from naevus.errors import PictureError
from naevus.images.read import read, read_mask
from naevus.inference.outfolder import mask_file
from naevus.reports.contact_sheet import Tile, framed
from naevus.reports.document import Gallery, Section, Thumbnail

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from naevus.reports.results import Diagnosed, Results

SIDE = 160
"""Of the small pictures, in pixels."""
MOST = 12
"""How many pictures a gallery has."""
_QUALITY = 82


class _Choice(NamedTuple):
    name: str
    title: str
    note: str
    pictures: list[tuple[str, tuple[str, ...], bool | None]]


def gallery_section(
    results: Results, progress: Callable[[int, int], None] | None = None
) -> Section | None:
    """Return galleries of the pictures most worth a look; None where there are no pictures.

    Args:
        results: The answers; without their data set there are no pictures.
        progress: Called with (done, total) pictures.
    """
    if results.records is None or results.records["path"].isna().all():
        return None
    choices = _of_diagnoses(results.diagnosed) if results.diagnosed is not None else []
    if results.outlined is not None:
        choices += _of_masks(results.outlined)
    total, done = sum(len(choice.pictures) for choice in choices), 0
    galleries, unread = [], 0
    for choice in choices:
        shown = []
        for image_id, words, right in choice.pictures:
            jpeg = _small(results, image_id)
            done += 1
            if progress is not None:
                progress(done, total)
            if jpeg is None:
                unread += 1
            else:
                shown.append(Thumbnail(image_id, words, jpeg, right))
        galleries.append(Gallery(choice.name, choice.title, choice.note, tuple(shown)))
    notes = ["Real patients' pictures: share this page only with those who may see them."]
    if results.masks is not None:
        notes.append("Outlines: cyan is the true one where it is known, yellow the predicted one.")
    if unread:
        notes.append(f"{unread} pictures cannot be read and are left out.")
    kept = tuple(gallery for gallery in galleries if gallery.pictures)
    return Section("pictures", "Pictures", tuple(notes), galleries=kept) if kept else None


def _small(results: Results, image_id: str) -> str | None:
    assert results.records is not None
    row = results.records.loc[image_id]
    try:
        pixels = read(Path(row["path"]), shortest=SIDE)
        masks = results.masks and mask_file(results.masks, image_id)
        truth = read_mask(Path(row["mask_path"])) if masks and pd.notna(row["mask_path"]) else None
        predicted = read_mask(masks) if masks and masks.exists() else None
    except (PictureError, TypeError):  # the latter: the record has no file
        return None
    stream = io.BytesIO()
    tile = framed(Tile(pixels, truth, predicted), SIDE)
    Image.fromarray(tile).save(stream, "JPEG", quality=_QUALITY, optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def _of_diagnoses(diagnosed: Diagnosed) -> list[_Choice]:
    table, codes = diagnosed.table, np.array(diagnosed.taxonomy.codes, object)
    natural, places = diagnosed.natural, np.arange(len(diagnosed.table))
    classes = np.array([diagnosed.taxonomy.index(code) for code in table["truth"]], np.intp)
    answers = natural.argmax(axis=1)
    right, of_truth = answers == classes, natural[places, classes]
    surest = natural.max(axis=1)

    def chosen(order: NDArray[np.intp], last: Callable[[int], str]) -> list[Any]:
        ids = table["image_id"]
        return [
            (
                str(ids.iloc[row]),
                (f"{codes[classes[row]]}, answered {codes[answers[row]]}", last(row)),
                bool(right[row]),
            )
            for row in order[:MOST]
        ]

    def stated(row: int) -> str:
        return f"stated {surest[row]:.2f}, truth {of_truth[row]:.2f}"

    best = _in_turn(np.argsort(-np.where(right, of_truth, -1), kind="stable"), classes, right)
    wrong = np.flatnonzero(~right)
    disagreement, how = _disagreement(table, natural)
    apart = np.argsort(-disagreement, kind="stable")
    apart = apart[disagreement[apart] > 0]
    return [
        _Choice("best", "Surest and right", "One of each diagnosis in turn.", chosen(best, stated)),
        _Choice(
            "worst",
            "Surest and wrong",
            "The truth was given the least probability.",
            chosen(wrong[np.argsort(of_truth[wrong], kind="stable")], stated),
        ),
        _Choice(
            "doubtful",
            "Most doubtful",
            "The greatest probability is the smallest.",
            chosen(np.argsort(surest, kind="stable"), stated),
        ),
        _Choice(
            "disagreed",
            "Most disagreed",
            how,
            chosen(_one_a_group(apart, table), lambda row: f"disagreement {disagreement[row]:.2f}"),
        ),
    ]


def _of_masks(outlined: pd.DataFrame) -> list[_Choice]:
    order = outlined.sort_values(["jaccard", "image_id"])

    def chosen(rows: pd.DataFrame) -> list[Any]:
        return [
            (str(name), (f"Jaccard {value:.3f}",), None)
            for name, value in zip(rows["image_id"], rows["jaccard"], strict=True)
        ]

    return [
        _Choice("best-masks", "Best outlines", "", chosen(order.iloc[::-1].head(MOST))),
        _Choice("worst-masks", "Worst outlines", "", chosen(order.head(MOST))),
    ]


def _in_turn(
    order: NDArray[np.intp], classes: NDArray[np.intp], right: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """Return the right ones in an order that takes the first of each class, then the second."""
    kept = pd.Series(order[right[order]])
    rank = kept.groupby(classes[kept]).cumcount()
    return kept.iloc[np.lexsort((classes[kept], rank))].to_numpy(np.intp)


def _disagreement(
    table: pd.DataFrame, natural: NDArray[np.float64]
) -> tuple[NDArray[np.float64], str]:
    """Return how far opinions of a picture are apart, and whose they are.

    Of several networks: the Jensen-Shannon divergence of their probabilities (Lin 1991). Else: the
    total variation distance from the mean of its lesion's pictures.
    """
    if "members" in table and table["members"].map(lambda each: len(each) > 1).all():
        members = np.array([np.stack(list(each)) for each in table["members"]], np.float64)
        apart = _entropy(members.mean(axis=1)) - _entropy(members).mean(axis=1)
        return np.maximum(apart, 0), "The networks state the most different probabilities."
    groups = pd.factorize(table["group_id"])[0]
    counts = np.bincount(groups)
    means = np.zeros((len(counts), natural.shape[1]))
    np.add.at(means, groups, natural)
    means /= counts[:, None]
    distance = np.abs(natural - means[groups]).sum(axis=1) / 2
    how = "Pictures of one lesion get the most different probabilities; the farthest one of each."
    return np.where(counts[groups] > 1, distance, 0), how


def _entropy(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    logs = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    entropy: NDArray[np.float64] = -(probabilities * logs).sum(axis=-1)
    return entropy


def _one_a_group(order: NDArray[np.intp], table: pd.DataFrame) -> NDArray[np.intp]:
    groups = table["group_id"].iloc[order]
    return order[~groups.duplicated().to_numpy()]
