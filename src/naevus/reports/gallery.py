"""Galleries: a selection of images, with thumbnails."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from naevus.bundles.bundle import Bundle
from naevus.datasets.sources import attribute_mask_file
from naevus.errors import BundleError, DataError, ImageError
from naevus.evaluation.attributes import TRUE_MASKS, PooledCounts, jaccard
from naevus.evaluation.lesions import lesion_column
from naevus.images.maskfile import read_mask
from naevus.images.masks import ATTRIBUTE_LEGEND
from naevus.images.read import read
from naevus.inference.cam import class_activation_map, overlay, side_for
from naevus.inference.classifier import Classifier
from naevus.io.files import stored
from naevus.reports.contact_sheet import Tile, framed
from naevus.reports.document import Gallery, Section, Thumbnail
from naevus.taxonomy import ATTRIBUTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from naevus.evaluation.labelled import LabelledPredictions
    from naevus.runs.results import Results
    from naevus.types import Unit


# Selection of images: most confident, wrong, least confident, most disagreement.

MOST = 12
"""The maximum number of images per gallery."""


class Chosen(NamedTuple):
    """An image with its caption."""

    image_id: str
    words: tuple[str, ...]
    right: bool | None = None
    """Whether the prediction is correct; None if it cannot be evaluated."""
    answer: str | None = None
    """The diagnosis whose heatmap is shown."""


class Choice(NamedTuple):
    """Images with a common property, at most one per group."""

    name: str
    title: str
    note: str
    images: list[Chosen]


def of_diagnoses(classified: LabelledPredictions, unit: Unit = "lesion") -> list[Choice]:
    """Choose images by their natural probabilities; ``unit`` is what the groups are."""
    table, codes = classified.table, np.array(classified.taxonomy.codes, object)
    natural, places = classified.natural, np.arange(len(classified.table))
    classes = np.array([classified.taxonomy.index(code) for code in table["diagnosis"]], np.intp)
    predictions = natural.argmax(axis=1)
    right, of_truth = predictions == classes, natural[places, classes]
    surest = natural.max(axis=1)

    def chosen(order: NDArray[np.intp], last: Callable[[int], str]) -> list[Chosen]:
        return [
            Chosen(
                str(table["image_id"].iloc[row]),
                (_labelled(codes[classes[row]], codes[predictions[row]]), last(row)),
                bool(right[row]),
                str(codes[predictions[row]]),
            )
            for row in one_a_group(order, table)[:MOST]
        ]

    def stated(row: int) -> str:
        return _stated(surest[row], None if right[row] else of_truth[row])

    best = in_turn(np.argsort(-np.where(right, of_truth, -1), kind="stable"), classes, right)
    wrong = np.flatnonzero(~right)
    apart, how = disagreement(table, natural, unit)
    farthest = np.argsort(-apart, kind="stable")
    farthest = farthest[apart[farthest] > 0]
    return [
        Choice(
            "best",
            "Most confident correct predictions",
            "The diagnoses alternate.",
            chosen(best, stated),
        ),
        Choice(
            "worst",
            "Most confident errors",
            "The true diagnosis has the smallest probability.",
            chosen(wrong[np.argsort(of_truth[wrong], kind="stable")], stated),
        ),
        Choice(
            "uncertain",
            "Least confident predictions",
            "The largest probability is smallest.",
            chosen(np.argsort(surest, kind="stable"), stated),
        ),
        Choice(
            "disagreed",
            "Most disagreement",
            how,
            chosen(farthest, lambda row: f"disagreement {apart[row]:.2f}"),
        ),
    ]


def of_masks(segmented: pd.DataFrame) -> list[Choice]:
    """Choose images by the Jaccard index of their mask."""
    table = segmented.sort_values(["jaccard", "image_id"]).reset_index(drop=True)

    def chosen(order: NDArray[np.intp]) -> list[Chosen]:
        return [
            Chosen(str(table["image_id"].iloc[row]), (f"Jaccard {table['jaccard'].iloc[row]:.3f}",))
            for row in one_a_group(order, table)[:MOST]
        ]

    rows = np.arange(len(table))
    middle = np.argsort(np.abs(rows - (len(rows) - 1) / 2), kind="stable")
    return [
        Choice("best-masks", "Best masks", "", chosen(rows[::-1])),
        Choice("usual-masks", "Median masks", "The closest to the median.", chosen(middle)),
        Choice("worst-masks", "Worst masks", "", chosen(rows)),
    ]


def of_attributes(counts: pd.DataFrame) -> list[Choice]:
    """Choose images by the Jaccard index over the masks of all five attributes."""
    table = counts.reset_index(drop=True)
    pooled = PooledCounts.of(table)
    cut = pooled.at_places(pooled.best_places()).sum(axis=1)
    found, there = jaccard(*cut.T), cut[:, 2] > 0
    order = np.argsort(found, kind="stable")
    order = order[there[order]]

    def chosen(order: NDArray[np.intp]) -> list[Chosen]:
        return [
            Chosen(
                str(table["image_id"].iloc[row]),
                (_shown(table.iloc[row]), f"Jaccard {found[row]:.3f}"),
            )
            for row in one_a_group(order, table)[:MOST]
        ]

    note = "Jaccard index over all attributes, for images that show at least one."
    return [
        Choice("best-attributes", "Best attribute masks", note, chosen(order[::-1])),
        Choice("worst-attributes", "Worst attribute masks", note, chosen(order)),
    ]


def _shown(row: pd.Series[Any]) -> str:
    return ", ".join(title for name, title in ATTRIBUTES.items() if row[f"true_{name}"])


def _labelled(truth: str, answer: str) -> str:
    return truth if truth == answer else f"{truth}, predicted {answer}"


def _stated(surest: float, of_truth: float | None) -> str:
    """Return probabilities as text, without rounding small ones to 0."""
    stated = f"probability {_short(surest)}"
    return stated if of_truth is None else f"{stated}, of the true diagnosis {_short(of_truth)}"


def _short(probability: float) -> str:
    if probability < 0.005:
        return "below 0.01"
    return "above 0.99" if probability >= 0.995 else f"{probability:.2f}"


def in_turn(
    order: NDArray[np.intp], classes: NDArray[np.intp], right: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """Return correct predictions in an order that alternates between classes."""
    kept = pd.Series(order[right[order]])
    rank = kept.groupby(classes[kept]).cumcount()
    return kept.iloc[np.lexsort((classes[kept], rank))].to_numpy(np.intp)


def disagreement(
    table: pd.DataFrame, natural: NDArray[np.float64], unit: Unit = "lesion"
) -> tuple[NDArray[np.float64], str]:
    """Return the disagreement about each image, and a description of how it is measured.

    For several networks, the Jensen-Shannon divergence of their probabilities (Lin 1991). Otherwise
    the total variation distance from the mean over the images of the same lesion.

    Args:
        table: ``image_id, group_id``, and ``lesion_id`` and ``member_probs`` if known.
        natural: N x C natural probabilities.
        unit: What the groups are; without ``lesion_id`` they are taken as lesions only if they are.
    """
    if "member_probs" in table and table["member_probs"].map(lambda each: len(each) > 1).all():
        members = np.array([np.stack(list(each)) for each in table["member_probs"]], np.float64)
        apart = _entropy(members.mean(axis=1)) - _entropy(members).mean(axis=1)
        return np.maximum(apart, 0), "The probabilities of the networks differ most."
    names = table[lesion_column(table)]
    if names.name == "group_id" and unit != "lesion":
        return np.zeros(len(table)), ""  # no image is known to show the lesion of another
    groups = pd.factorize(names.astype(object).where(names.notna(), table.index))[0]
    counts = np.bincount(groups)
    means = np.zeros((len(counts), natural.shape[1]))
    np.add.at(means, groups, natural)
    means /= counts[:, None]
    distance = np.abs(natural - means[groups]).sum(axis=1) / 2
    how = "The probabilities of images of one lesion differ most; the farthest image of each."
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
"""The side of thumbnails, in pixels."""
_QUALITY = 82


ClassifierOf = Callable[[str], Classifier | None]
"""Returns the classifier that predicted an image, for its heatmap; None if there is none."""


def no_classifier(_image_id: str) -> None:
    """Return no classifier: there are no heatmaps."""


def fold_classifiers(results: Results) -> ClassifierOf:
    """Return a function that gives the classifier of the fold that held an image out.

    If the masks that the crops were made with are gone, there are no heatmaps.

    Raises:
        BundleError: A fold's bundle is damaged; raised on first use.
    """
    if results.labelled is None or _masks_gone(results):
        return no_classifier
    table, bundles = results.labelled.table, results.fold_bundles
    folds = dict(zip(table["image_id"], table["fold"], strict=True))

    @cache
    def of_fold(fold: int) -> Classifier | None:
        there = fold in bundles and bundles[fold].is_dir()
        return Classifier(Bundle.read(bundles[fold])) if there else None

    return lambda image_id: of_fold(folds[image_id])


def predictions_classifier(results: Results, bundles: Sequence[Bundle]) -> ClassifierOf:
    """Return a function that gives the classifier that predictions were made with.

    Args:
        results: The predictions.
        bundles: The classification bundles that they were made with; none: no heatmaps.

    Raises:
        BundleError: They were made with other bundles.
        DataError: Diagnoses are scored in other classes than those of the bundles, or the masks
            that the crops were made with are gone.
    """
    if not bundles:
        return no_classifier
    made_with = results.classified_with
    if sorted(made_with.get("bundles", ())) != sorted(bundle.sha256 for bundle in bundles):
        raise BundleError(
            "the predictions were made with other classification bundles",
            "name the bundles given to predict with --bundle, or leave it out",
        )
    classifier = Classifier(bundles, tta=made_with["tta"])
    if classifier.needs_mask and _masks_gone(results):
        raise DataError(
            "heatmaps need the masks that the crops were made with, and there are none",
            "predict into another folder, with masks, or leave out --bundle",
        )
    codes = results.labelled.taxonomy.codes if results.labelled is not None else ()
    if set(codes) - set(classifier.classes):
        raise DataError(
            f"heatmaps are of {', '.join(classifier.classes)}, but the scored classes are "
            f"{', '.join(codes)}",
            "leave out --bundle",
        )
    return lambda _: classifier


def _masks_gone(results: Results) -> bool:
    """Whether images were cropped by predicted masks that are not there any more."""
    return results.own_masks and results.mask_folder is None


def gallery_section(
    results: Results,
    classifier_of: ClassifierOf = no_classifier,
    progress: Callable[[int, int], None] | None = None,
) -> Section | None:
    """Return galleries of selected images; None if there are no images.

    Args:
        results: The predictions; without their data set there are no images.
        classifier_of: Gives the classifier for an image's heatmap.
        progress: Called with (done, total) images.

    Raises:
        BundleError: A classifier needed for heatmaps cannot be used.
    """
    if results.records is None or results.records["path"].isna().all():
        return None
    choices = of_diagnoses(results.labelled, results.unit) if results.labelled is not None else []
    # Lesion masks of an attributes run belong to other copies, which are not available.
    if results.mask_scores is not None and (
        results.attribute_counts is None or results.mask_folder is not None
    ):
        choices += of_masks(results.mask_scores)
    if results.attribute_counts is not None:
        choices += of_attributes(results.attribute_counts)
    total, done = sum(len(choice.images) for choice in choices), 0
    galleries, unread = [], 0
    for choice in choices:
        shown = []
        for chosen in choice.images:
            small = _thumbnail(results, chosen, classifier_of)
            done += 1
            if progress is not None:
                progress(done, total)
            if small is None:
                unread += 1
            else:
                shown.append(small)
        galleries.append(Gallery(choice.name, choice.title, choice.note, tuple(shown)))
    kept = tuple(gallery for gallery in galleries if gallery.images)
    notes = _notes(results, kept, unread)
    return Section("images", "Images", tuple(notes), galleries=kept) if kept else None


def _notes(results: Results, galleries: tuple[Gallery, ...], unread: int) -> list[str]:
    predicted = ", cyan the prediction" if results.mask_folder is not None else ""
    notes = [
        (
            "The page contains small copies of the images. If they show patients, share it only "
            "with people who may see them. Each gallery shows at most one image per "
            f"{results.unit}."
        ),
        f"Contours: yellow is the ground truth, if known{predicted}.",
    ]
    if results.attribute_folder is not None or results.attribute_counts is not None:
        whose = "predicted" if results.attribute_folder is not None else "true"
        notes.append(f"Attributes ({whose}): {ATTRIBUTE_LEGEND}.")
    if any(image.cam for gallery in galleries for image in gallery.images):
        notes.append(
            "Heatmaps: yellow regions contribute most to the predicted class, green ones less, "
            "and grey ones little or nothing. They are coarse. Compare regions within an image, "
            "not between images."
        )
    if results.out_of_fold and results.labelled is not None and _masks_gone(results):
        notes.append("There are no heatmaps: the masks that the crops were made with are gone.")
    if unread:
        notes.append(f"{unread} unreadable images are left out.")
    return notes


class _Shown(NamedTuple):
    """A decoded image and its masks."""

    pixels: NDArray[np.uint8]
    truth: NDArray[np.bool_] | None
    predicted: NDArray[np.bool_] | None
    cam: NDArray[np.float32] | None
    attributes: dict[str, NDArray[np.bool_]]


def _thumbnail(results: Results, chosen: Chosen, classifier_of: ClassifierOf) -> Thumbnail | None:
    """Return a thumbnail; None if the file cannot be read."""
    assert results.records is not None
    row: dict[Any, Any] = results.records.loc[chosen.image_id].to_dict()
    if pd.isna(row["path"]):
        return None
    try:
        classifier = classifier_of(chosen.image_id) if chosen.answer else None
        shown = _show(results, chosen, row, classifier)
    except ImageError:
        return None
    tile = Tile(shown.pixels, shown.truth, shown.predicted, attributes=shown.attributes)
    plain = framed(tile, SIDE)
    cam = ""
    if shown.cam is not None:
        cam = _jpeg(framed(Tile(overlay(shown.pixels, shown.cam)), SIDE))
    return Thumbnail(chosen.image_id, chosen.words, _jpeg(plain), cam, chosen.right)


def _show(
    results: Results, chosen: Chosen, row: dict[Any, Any], classifier: Classifier | None
) -> _Shown:
    path, true_mask = Path(row["path"]), row["mask_path"]
    truth = read_mask(Path(true_mask)) if pd.notna(true_mask) else None
    file = results.predicted_mask(chosen.image_id)
    predicted = None if file is None else read_mask(file)
    attributes = _attributes(results, chosen.image_id, row)
    given = predicted if results.own_masks else truth
    # It was then cropped by a mask that is not there any more.
    lost = given is None and results.own_masks and not results.out_of_fold
    if classifier is None or chosen.answer is None or (lost and classifier.needs_mask):
        return _Shown(read(path, shortest=SIDE), truth, predicted, None, attributes)
    pixels = read(path, shortest=max(SIDE, side_for(classifier, given)))
    cam = class_activation_map(classifier, pixels, given, chosen.answer)
    return _Shown(pixels, truth, predicted, cam, attributes)


def _attributes(
    results: Results, image_id: str, row: dict[Any, Any]
) -> dict[str, NDArray[np.bool_]]:
    """Return an image's predicted attributes; the true ones for a run, which stores no masks."""
    folder = results.attribute_folder
    files: dict[str, Path] = {}
    if folder is not None:
        there = {
            name: stored(attribute_mask_file(folder, image_id, name), image_id)
            for name in ATTRIBUTES
        }
        files = {name: file for name, file in there.items() if file.exists()}
    elif results.attribute_counts is not None:
        files = {
            name: Path(row[column])
            for name, column in TRUE_MASKS.items()
            if pd.notna(row.get(column))
        }
    return {name: read_mask(file) for name, file in files.items()}


def _jpeg(pixels: NDArray[np.uint8]) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=_QUALITY, optimize=True)
    return base64.b64encode(stream.getvalue()).decode()
