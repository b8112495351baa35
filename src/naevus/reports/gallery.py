"""Galleries: which pictures are most worth a look, and their small copies."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from naevus.errors import PictureError
from naevus.images.maskfile import read_mask
from naevus.images.read import read
from naevus.inference.cam import glowing, heat_map, side_for
from naevus.reports.contact_sheet import Tile, framed
from naevus.reports.document import Gallery, Section, Thumbnail

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from naevus.evaluation.tables import Diagnosed
    from naevus.reports.results import Results


# Which pictures are most worth a look: best, worst, most doubtful, most disagreed.

MOST = 12
"""How many pictures a gallery has."""


class Chosen(NamedTuple):
    """A picture with what is to be said of it."""

    image_id: str
    words: tuple[str, ...]
    right: bool | None = None
    """Whether the answer is right; None where there is none to judge."""
    answer: str | None = None
    """The diagnosis whose heat map is to be shown."""


class Choice(NamedTuple):
    """Pictures that have something in common, no two of one lesion."""

    name: str
    title: str
    note: str
    pictures: list[Chosen]


def of_diagnoses(diagnosed: Diagnosed) -> list[Choice]:
    """Choose pictures by their natural probabilities."""
    table, codes = diagnosed.table, np.array(diagnosed.taxonomy.codes, object)
    natural, places = diagnosed.natural, np.arange(len(diagnosed.table))
    classes = np.array([diagnosed.taxonomy.index(code) for code in table["truth"]], np.intp)
    answers = natural.argmax(axis=1)
    right, of_truth = answers == classes, natural[places, classes]
    surest = natural.max(axis=1)

    def chosen(order: NDArray[np.intp], last: Callable[[int], str]) -> list[Chosen]:
        return [
            Chosen(
                str(table["image_id"].iloc[row]),
                (_said(codes[classes[row]], codes[answers[row]]), last(row)),
                bool(right[row]),
                str(codes[answers[row]]),
            )
            for row in one_a_group(order, table)[:MOST]
        ]

    def stated(row: int) -> str:
        return _stated(surest[row], None if right[row] else of_truth[row])

    best = in_turn(np.argsort(-np.where(right, of_truth, -1), kind="stable"), classes, right)
    wrong = np.flatnonzero(~right)
    apart, how = disagreement(table, natural)
    farthest = np.argsort(-apart, kind="stable")
    farthest = farthest[apart[farthest] > 0]
    return [
        Choice(
            "best",
            "Surest and right",
            "One of each diagnosis in turn.",
            chosen(best, stated),
        ),
        Choice(
            "worst",
            "Surest and wrong",
            "The true diagnosis was given the least probability.",
            chosen(wrong[np.argsort(of_truth[wrong], kind="stable")], stated),
        ),
        Choice(
            "doubtful",
            "Most doubtful",
            "The greatest probability is the smallest.",
            chosen(np.argsort(surest, kind="stable"), stated),
        ),
        Choice(
            "disagreed",
            "Most disagreed",
            how,
            chosen(farthest, lambda row: f"disagreement {apart[row]:.2f}"),
        ),
    ]


def of_masks(outlined: pd.DataFrame) -> list[Choice]:
    """Choose pictures by the Jaccard index of their mask."""
    table = outlined.sort_values(["jaccard", "image_id"]).reset_index(drop=True)

    def chosen(order: NDArray[np.intp]) -> list[Chosen]:
        return [
            Chosen(str(table["image_id"].iloc[row]), (f"Jaccard {table['jaccard'].iloc[row]:.3f}",))
            for row in one_a_group(order, table)[:MOST]
        ]

    rows = np.arange(len(table))
    middle = np.argsort(np.abs(rows - (len(rows) - 1) / 2), kind="stable")
    return [
        Choice("best-masks", "Best outlines", "", chosen(rows[::-1])),
        Choice("usual-masks", "Usual outlines", "Those nearest the median.", chosen(middle)),
        Choice("worst-masks", "Worst outlines", "", chosen(rows)),
    ]


def _said(truth: str, answer: str) -> str:
    return truth if truth == answer else f"{truth}, answered {answer}"


def _stated(surest: float, of_truth: float | None) -> str:
    """Return probabilities in words; two places would round what is rare to nothing."""
    told = f"probability {_short(surest)}"
    return told if of_truth is None else f"{told}, of the truth {_short(of_truth)}"


def _short(probability: float) -> str:
    if probability < 0.005:
        return "below 0.01"
    return "above 0.99" if probability >= 0.995 else f"{probability:.2f}"


def in_turn(
    order: NDArray[np.intp], classes: NDArray[np.intp], right: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """Return the right ones in an order that takes the first of each class, then the second."""
    kept = pd.Series(order[right[order]])
    rank = kept.groupby(classes[kept]).cumcount()
    return kept.iloc[np.lexsort((classes[kept], rank))].to_numpy(np.intp)


def disagreement(
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


def one_a_group(order: NDArray[np.intp], table: pd.DataFrame) -> NDArray[np.intp]:
    """Return the first row of each group, in order."""
    groups = table["group_id"].iloc[order]
    return order[~groups.duplicated().to_numpy()]


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
