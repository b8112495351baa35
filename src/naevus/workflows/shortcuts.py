"""Measure shortcuts: diagnoses predicted from metadata, or from images without the lesion."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import cv2
import numpy as np
import pandas as pd

from naevus.bundles.bundle import Bundle
from naevus.errors import DataError, ImageError
from naevus.evaluation.out_of_fold import probabilities, taxonomy_of
from naevus.evaluation.shortcuts import ShortcutScores, by_embeddings, by_metadata
from naevus.images.geometry import box_of, centre_square, resize
from naevus.images.maskfile import read_mask_of
from naevus.images.masks import plausible
from naevus.images.preprocess import ImageFiles, InputSpec, preprocess
from naevus.images.read import read
from naevus.inference.classifier import Classifier
from naevus.inference.ensemble import faults_of, refuse_faults
from naevus.io.parallel import BATCH, Workers, batches, cpu_count
from naevus.io.progress import SILENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from naevus.inference.engines import EngineName
    from naevus.io.progress import Reporter
    from naevus.runs.run import Run
    from naevus.taxonomy import Taxonomy

    Item = TypeVar("Item")


# Images with an occluded lesion.

GROWTH: Final = 0.1
"""Dilation of a mask before it occludes a lesion, as a fraction of the lesion's longer side."""
RING: Final = 0.125
"""Width of the border ring, as a fraction of the image's side."""
HELD: Final = 0.9
"""Fraction of all lesions' pixels that the common hole contains."""
HOLE_SIDE: Final = 128
"""Side of the map of the common hole, in pixels."""


def grown(mask: NDArray[np.bool_], fraction: float = GROWTH) -> NDArray[np.bool_]:
    """Dilate a mask by a fraction of its longer side; an empty mask stays empty."""
    box = box_of(mask)
    if box is None:
        return mask.copy()
    side = 2 * round(fraction * max(box.width, box.height)) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return np.asarray(cv2.dilate(np.ascontiguousarray(mask).view(np.uint8), disc) > 0)


def ring_hole(side: int, fraction: float = RING) -> NDArray[np.bool_]:
    """Return a mask of everything but a ring along the border of a square image, side x side."""
    width = max(round(fraction * side), 1)
    hole = np.zeros((side, side), bool)
    hole[width:-width, width:-width] = True
    return hole


def mean_hole(masks: Iterable[NDArray[np.bool_]], held: float = HELD) -> NDArray[np.bool_]:
    """Return one hole for all square images: a level set of the mean of their masks.

    It has the shape of the mean lesion, and is just large enough to contain the fraction ``held``
    of all masks' pixels. Because it is the same in every image, it reveals nothing about the
    lesion.

    Args:
        masks: Square, of any sizes.
        held: Between 0 and 1.

    Returns:
        `HOLE_SIDE` x `HOLE_SIDE`; empty if all masks are.
    """
    total = np.zeros((HOLE_SIDE, HOLE_SIDE), np.float64)
    for mask in masks:
        surface = np.ascontiguousarray(mask).view(np.uint8) * np.uint8(255)
        total += resize(surface, HOLE_SIDE, HOLE_SIDE)
    if not total.any():
        return np.zeros(total.shape, bool)
    falling = np.sort(total, axis=None)[::-1]
    enough = np.searchsorted(np.cumsum(falling), held * total.sum())
    return np.asarray(total >= falling[min(int(enough), falling.size - 1)])


def filled(pixels: NDArray[np.uint8], occluded: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Fill a part of an image with the mean colour of the rest.

    Args:
        pixels: H x W x 3.
        occluded: H x W; if it covers everything, the image becomes mid-grey.
    """
    result = pixels.copy()
    shown = pixels[~occluded]
    result[occluded] = np.round(shown.mean(axis=0)).astype(np.uint8) if len(shown) else 128
    return result


WAYS: Final = ("whole", "blanked", "common hole", "border ring")
"""What is occluded: nothing; the lesion; the lesion and the common hole; the lesion and
everything but a ring along the border."""
EMBEDDING: Final = "embedding"


class Square(NamedTuple):
    """An image's centre square, and a mask of the lesion with its margin."""

    image_id: str
    pixels: NDArray[np.uint8]
    lesion: NDArray[np.bool_]


class Occlusion(NamedTuple):
    """The common hole, and the images whose lesion fits inside it.

    Attributes:
        hole: `HOLE_SIDE` x `HOLE_SIDE`, the same for all images.
        fits: Ids of the images whose lesion, with its margin, is inside the hole. For the others,
            the parts outside are filled as well, and their shape may reveal something.
    """

    hole: NDArray[np.bool_]
    fits: frozenset[str]

    def ways(self, square: Square) -> tuple[NDArray[np.uint8], ...]:
        """Return the image in each variant of `WAYS`."""
        side = len(square.pixels)
        hole, ring = _sized(self.hole, side), ring_hole(side)
        return (
            square.pixels,
            filled(square.pixels, square.lesion),
            filled(square.pixels, square.lesion | hole),
            filled(square.pixels, square.lesion | ring),
        )


class Features(NamedTuple):
    """A network's embeddings of images with an occluded lesion.

    Attributes:
        ids: N, sorted, without images that are unreadable or have no plausible mask.
        embeddings: N x F, by variant.
    """

    ids: list[str]
    embeddings: dict[str, NDArray[np.float32]]


def occlusion_of(sources: Sequence[ImageFiles]) -> Occlusion:
    """Fit the common hole to the lesions of some images, without using diagnoses.

    Args:
        sources: Images with masks; implausible or unreadable masks are ignored.
    """
    hole = mean_hole(lesion for _, lesion in _lesions(sources))
    fits = (image_id for image_id, lesion in _lesions(sources) if not (lesion & ~hole).any())
    return Occlusion(hole, frozenset(fits))


def occluded_features(
    bundle: Bundle,
    sources: Sequence[ImageFiles],
    occlusion: Occlusion,
    *,
    engine: EngineName = "openvino",
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Features:
    """Return a classification bundle's embeddings of images in each variant of `WAYS`.

    The network always sees the centre square, because a crop would reveal position and size of
    the lesion.

    Args:
        bundle: A bundle that was not trained on these images.
        sources: Images with masks.
        occlusion: The occlusion of the lesions.
        engine: The inference engine.
        threads: Number of threads.
        progress: Called with (done, total) images.

    Raises:
        BundleError: A graph's outputs are not finite.
        ConfigError: A graph has no embedding.
        DataError: No image has a plausible mask.
    """
    classifier = Classifier(bundle, engine=engine, threads=threads)
    classifier.require(EMBEDDING, "predictions without the lesion")
    ordered = sorted(sources, key=lambda source: source.image_id)
    side = max(input_spec.size for input_spec in classifier.input_specs)
    ids: list[str] = []
    found: dict[str, list[NDArray[np.float32]]] = {way: [] for way in WAYS}
    inputs = _inputs(ordered, side)
    while piece := list(islice(inputs, BATCH)):
        named = [square.image_id for square in piece]
        ids += named
        shown = [occlusion.ways(square) for square in piece]
        for place, way in enumerate(WAYS):
            found[way].append(_embedded(classifier, [each[place] for each in shown], named))
        if progress is not None:
            progress(len(ids), len(ordered))
    if not ids:
        raise DataError("no image has a plausible mask", "use images with lesion masks")
    return Features(ids, {way: np.concatenate(parts) for way, parts in found.items()})


def _lesions(sources: Sequence[ImageFiles]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    def lesion(source: ImageFiles) -> tuple[str, NDArray[np.bool_]] | None:
        mask = _mask_of(source)
        return None if mask is None else (source.image_id, grown(_sized(mask, HOLE_SIDE)))

    yield from _made(lesion, sources)


def _inputs(sources: Sequence[ImageFiles], side: int) -> Iterator[Square]:
    """Yield images with their lesions, decoded with a shorter side of at least ``side``."""

    def square(source: ImageFiles) -> Square | None:
        mask = _mask_of(source)
        if mask is None:
            return None
        pixels = centre_square(read(source.path, shortest=side))
        return Square(source.image_id, pixels, grown(_sized(mask, len(pixels))))

    yield from _made(square, sources)


def _mask_of(source: ImageFiles) -> NDArray[np.bool_] | None:
    """Return the centre square of a mask, or None if it is not plausible."""
    assert source.mask_path is not None
    mask = read_mask_of(source.mask_path, source.path)
    return centre_square(mask) if plausible(mask) else None


def _made(
    make: Callable[[ImageFiles], Item | None], sources: Sequence[ImageFiles]
) -> Iterator[Item]:
    """Yield the results of ``make`` in the order of the sources, skipping failures."""
    with Workers(cpu_count()) as workers:
        for _, items in workers.ahead(make, batches(sources)):
            for item in items:
                if item is not None and not isinstance(item, ImageError):
                    yield item


def _embedded(
    classifier: Classifier, images: Sequence[NDArray[np.uint8]], ids: Sequence[str]
) -> NDArray[np.float32]:
    columns = []
    for member in classifier.members:
        input_spec = InputSpec(
            "full", member.input_spec.size, colour_constancy=member.input_spec.colour_constancy
        )
        batch = np.stack([preprocess(pixels, None, input_spec).pixels for pixels in images])
        outputs = member.engine.run(batch)
        refuse_faults(faults_of(member.name, outputs), ids)
        columns.append(outputs[EMBEDDING])
    return np.concatenate(columns, axis=1)


def _sized(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    surface = np.ascontiguousarray(mask).view(np.uint8) * np.uint8(255)
    return np.asarray(resize(surface, side, side) > 127)


# Predictions of a run's diagnoses without the lesion.

_METADATA = "age, sex and site alone"
_OWN = "the run's own predictions"
_BY_WAY = {
    "whole": "embedding of the whole image",
    "blanked": "... with the lesion filled",
    "common hole": "... with a common hole filled",
    "border ring": "... of the border ring alone",
}
_FITTING = "... of lesions that fit in it"


def measure_shortcuts(
    run: Run, table: pd.DataFrame, records: pd.DataFrame, reporter: Reporter = SILENT
) -> tuple[ShortcutScores, dict[str, float]]:
    """Score predictions of the diagnoses that do not use the lesion.

    Args:
        run: A classification run.
        table: Its out-of-fold table.
        records: Its images, indexed by id, with masks.
        reporter: Shows progress.

    Returns:
        The scores; and the number of images without a plausible mask (``without_mask``), the
        fraction of an image that the common hole covers (``hole``), and the fraction of lesions
        that fit inside it (``fits``).

    Raises:
        DataError: No image has a mask, or the records lack images of the run.
    """
    taxonomy = taxonomy_of(table)
    sources = _sources(table, records)
    with reporter.status("computing the common hole"):
        occlusion = occlusion_of(sources)
    parts = [
        _of_fold(run, fold, table, sources, occlusion, taxonomy, reporter)
        for fold in run.finished()
    ]
    ids = [image_id for known, _ in parts for image_id in known]
    chosen = table.set_index("image_id", drop=False).loc[ids]
    own = probabilities(chosen, taxonomy)[1]
    balanced = {_OWN: own}
    for way, name in _BY_WAY.items():
        balanced[name] = np.concatenate([guessed[way] for _, guessed in parts])
        if way == "common hole":
            balanced[_FITTING] = balanced[name]
    with reporter.status("predicting from age, sex and site"):
        balanced[_METADATA] = _by_metadata(run, records, ids, taxonomy)
    truth, groups = chosen["diagnosis"].tolist(), chosen["group_id"].tolist()
    within = {_FITTING: np.isin(ids, list(occlusion.fits))}
    with reporter.status("scoring"):
        found = ShortcutScores.of(balanced, truth, groups, taxonomy, within)
    return found, {
        "without_mask": len(table) - found.images,
        "hole": float(occlusion.hole.mean()),
        "fits": len(occlusion.fits) / found.images,
    }


def _sources(table: pd.DataFrame, records: pd.DataFrame) -> list[ImageFiles]:
    there = records[records["image_id"].isin(table["image_id"])]
    there = there[there["path"].notna() & there["mask_path"].notna()]
    if there.empty:
        raise DataError(
            "no image of the run has a mask", "name its data set, with masks, with --data"
        )
    return [
        ImageFiles(image_id, Path(path), Path(mask))
        for image_id, path, mask in there[["image_id", "path", "mask_path"]].to_numpy()
    ]


def _of_fold(
    run: Run,
    fold: int,
    table: pd.DataFrame,
    sources: Sequence[ImageFiles],
    occlusion: Occlusion,
    taxonomy: Taxonomy,
    reporter: Reporter,
) -> tuple[list[str], dict[str, NDArray[np.float64]]]:
    """Return the ids of a fold's images, and predictions from each variant's embeddings."""
    rows = table[table["fold"] == fold].set_index("image_id")
    own = [source for source in sources if source.image_id in rows.index]
    bundle = Bundle.read(run.bundle_folder(fold))
    with reporter.progress(f"occluding the lesions of fold {fold}", len(own)) as move:
        features = occluded_features(bundle, own, occlusion, progress=move)
    known = rows.loc[features.ids]
    truth, groups = known["diagnosis"].tolist(), known["group_id"].tolist()
    with reporter.status(f"predicting from the embeddings of fold {fold}"):
        guesses = {
            way: by_embeddings(embedded, truth, groups, taxonomy.codes)
            for way, embedded in features.embeddings.items()
        }
    return features.ids, guesses


def _by_metadata(
    run: Run, records: pd.DataFrame, ids: Sequence[str], taxonomy: Taxonomy
) -> NDArray[np.float64]:
    """Predict from metadata, with cross-validation over all of the run's folds."""
    folds = run.folds.table.set_index("image_id")["fold"]
    folds = folds[folds != "test"]  # test images are never used for training
    known = records[records["diagnosis"].notna() & records["image_id"].isin(folds.index)]
    parts = pd.factorize(known["image_id"].map(folds))[0]
    guessed = by_metadata(known, known["diagnosis"].tolist(), parts, taxonomy.codes)
    places = known.index.get_indexer(pd.Index(ids))
    if (places < 0).any():  # -1 would index the last image
        unknown = [image_id for image_id, place in zip(ids, places, strict=True) if place < 0]
        raise DataError(
            f"{run.folder}: {len(unknown)} predicted images have no diagnosis in the data set "
            f"or are in no fold, such as {unknown[0]}",
            "name the run's own data set with --data",
        )
    return guessed[places]
