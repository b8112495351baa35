"""A fold's exported bundle over pictures it never saw, and over copies of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from naevus.bundles.bundle import Bundle
from naevus.datasets.sources import DecodedPictures, find_pictures, mask_file
from naevus.errors import DataError, PictureError
from naevus.evaluation.attributes import attribute_row
from naevus.evaluation.mask_metrics import Outline, outline_table
from naevus.images.geometry import resize
from naevus.images.maskfile import read_mask_of
from naevus.images.preprocess import Form, Look, Source, look, stacked
from naevus.images.quality import SIDE
from naevus.images.read import read, write_png
from naevus.inference.classifier import Classifier
from naevus.inference.ensemble import refuse_faults
from naevus.inference.segmenter import Segmenter
from naevus.io.parallel import Workers, batches, cpu_count
from naevus.io.progress import SILENT
from naevus.runs.run import crop_masks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from naevus.datasets.sources import PicturesById
    from naevus.inference.engines import EngineName
    from naevus.io.progress import Reporter
    from naevus.runs.run import Run
    from naevus.types import Computed, ViewSet


# Pictures read from files on demand, in the form that a bundle sees.


def copies_for(
    bundle: Bundle, files: Mapping[str, Path], masks: Mapping[str, Path | None]
) -> DecodedPictures:
    """Return squares by id as a classification bundle sees them, at its largest input size.

    Args:
        bundle: The bundle; its crop mode is used.
        files: Picture file of each id.
        masks: Mask that the crop of each id is cut by, if it is.
    """
    spec = bundle.classifier
    form = Form(
        spec.crop_mode,
        max(member.input_size for member in spec.members),
        margin=spec.crop_margin,
        colour_constancy=spec.colour_constancy,
    )
    sources = [
        Source(image_id, path, masks.get(image_id), scaled=True) for image_id, path in files.items()
    ]
    return DecodedPictures(sources, form)


class Surface(NamedTuple):
    """Logits of lesion, attributes or both over a whole picture, and the picture's own size."""

    image_id: str
    logit: NDArray[np.float32] | None
    height: int
    width: int
    attributes: NDArray[np.float32] | None = None

    def mask(self, segmenter: Segmenter) -> NDArray[np.bool_]:
        """Return the lesion's mask at the picture's size."""
        assert self.logit is not None
        return segmenter.mask_of(self.logit, self.height, self.width)


def heldout_scores(
    bundle: Bundle,
    sources: Sequence[tuple[str, Path, Path]],
    *,
    out: Path | None = None,
    views: ViewSet = "none",
    engine: EngineName = "openvino",
    threads: int | None = None,
    precision: Computed = "fp32",
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Compare a segmentation bundle's masks with the true ones, at the true ones' sizes.

    Args:
        bundle: The bundle.
        sources: Ids, picture files and files of true masks.
        out: Folder for the predicted masks at the pictures' sizes; None: they are not kept.
        views: The views every picture is seen in.
        engine: What runs the graphs.
        threads: Threads for the engine and for decoding.
        precision: What the engine computes in.
        progress: Called with (done, total) pictures.

    Returns:
        What `outline_table` gives: how the mask fits and what may have made it difficult. Pictures
        that cannot be read, or whose mask cannot, have no row.

    Raises:
        BundleError: The network gives no usable number for a picture.
    """
    segmenter = Segmenter(bundle, views=views, engine=engine, threads=threads, precision=precision)
    files = {image_id: (path, truth) for image_id, path, truth in sources}
    outlines: dict[str, Outline] = {}

    def score(surface: Surface) -> None:
        path, mask_path = files[surface.image_id]
        truth = read_mask_of(mask_path, path, scaled=True)
        if out is not None:
            write_png(mask_file(out, surface.image_id), surface.mask(segmenter))
        assert surface.logit is not None
        predicted = segmenter.mask_of(surface.logit, *truth.shape)
        # Decoded again, small, rather than kept: pictures of a whole batch wait at once.
        outlines[surface.image_id] = Outline.of(truth, predicted, read(path, shortest=SIDE))

    ordered = sorted((image_id, path) for image_id, path, _ in sources)
    _over_surfaces(segmenter, ordered, score, threads, progress)
    return outline_table(outlines)


def heldout_attributes(
    bundle: Bundle,
    sources: Sequence[tuple[str, Path, Mapping[str, Path]]],
    *,
    views: ViewSet = "none",
    engine: EngineName = "openvino",
    threads: int | None = None,
    precision: Computed = "fp32",
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Compare a bundle's masks of attributes with the true ones at every threshold.

    Args:
        bundle: The bundle.
        sources: Ids, image files, and the file of the true mask of each attribute.
        views: The views every image is seen in.
        engine: What runs the graphs.
        threads: Threads for the engine and for decoding.
        precision: What the engine computes in.
        progress: Called with (done, total) images.

    Returns:
        ``image_id`` and what `attribute_row` gives, at the size of the true masks. Images that
        cannot be read have no row.

    Raises:
        BundleError: The network gives no usable number for an image.
    """
    segmenter = Segmenter(
        (),
        attributes=[bundle],
        views=views,
        engine=engine,
        threads=threads,
        precision=precision,
    )
    files = {image_id: (path, truths) for image_id, path, truths in sources}
    rows: dict[str, dict[str, Any]] = {}

    def count(surface: Surface) -> None:
        path, masks = files[surface.image_id]
        truths = {name: read_mask_of(mask, path, scaled=True) for name, mask in masks.items()}
        height, width = next(iter(truths.values())).shape
        assert surface.attributes is not None
        maps = segmenter.probabilities_of(surface.attributes, height, width)
        peaks = segmenter.peaks_of(surface.attributes)
        rows[surface.image_id] = attribute_row(maps, truths, peaks)

    ordered = sorted((image_id, path) for image_id, path, _ in sources)
    _over_surfaces(segmenter, ordered, count, threads, progress)
    table = pd.DataFrame([{"image_id": name, **rows[name]} for name in sorted(rows)])
    return table.astype({"image_id": "string"})


def heldout_logits(
    bundle: Bundle,
    pictures: PicturesById,
    ids: Sequence[str],
    *,
    views: ViewSet = "none",
    engine: EngineName = "openvino",
    threads: int | None = None,
    precision: Computed = "fp32",
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Return a classification bundle's logits of cached pictures.

    Args:
        bundle: The bundle.
        pictures: Cached squares by id, already in the bundle's crop mode, of any size.
        ids: Which pictures.
        views: The views every picture is seen in.
        engine: What runs the graphs.
        threads: Threads for the engine.
        precision: What the engine computes in.
        progress: Called with (done, total) pictures.

    Returns:
        ``image_id`` and ``logit_<class>`` (float32), in the order of the sorted ids.

    Raises:
        BundleError: The network gives no usable number for a picture.
    """
    classifier = Classifier(
        bundle, views=views, engine=engine, threads=threads, precision=precision
    )
    ordered = sorted(ids)
    found = np.empty((len(ordered), len(classifier.classes)), np.float32)
    done = 0
    for piece in batches(ordered):
        squares = [
            np.stack([resize(pictures[image_id], form.size, form.size) for image_id in piece])
            for form in classifier.forms
        ]
        found[done : done + len(piece)] = classifier.logits(squares, piece)
        done += len(piece)
        if progress is not None:
            progress(done, len(ordered))
    table = pd.DataFrame(found, columns=[f"logit_{code}" for code in classifier.classes])
    table.insert(0, "image_id", pd.Series(ordered, dtype="string"))
    return table


def _over_surfaces(
    segmenter: Segmenter,
    sources: Sequence[tuple[str, Path]],
    use: Callable[[Surface], None],
    threads: int | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Let ``use`` work on the surface of each picture that can be read."""
    done = 0

    def see(source: tuple[str, Path]) -> Look:
        return look(source[1], segmenter)

    with Workers(threads or cpu_count()) as workers:
        for piece, seen in workers.ahead(see, batches(sources)):
            good = [
                (image_id, result)
                for (image_id, _), result in zip(piece, seen, strict=True)
                if not isinstance(result, PictureError)
            ]
            workers.each(use, _surfaces(segmenter, good))
            done += len(piece)
            if progress is not None:
                progress(done, len(sources))


def _surfaces(segmenter: Segmenter, good: Sequence[tuple[str, Look]]) -> list[Surface]:
    if not good:
        return []
    found = segmenter.surfaces(stacked([seen.squares for _, seen in good]))
    refuse_faults(found.faults, [image_id for image_id, _ in good])
    return [
        Surface(
            image_id,
            None if found.logits is None else found.logits[number],
            seen.height,
            seen.width,
            None if found.attributes is None else found.attributes[number],
        )
        for number, (image_id, seen) in enumerate(good)
    ]


def copies_of_run(
    run: Run, table: pd.DataFrame, folder: Path, reporter: Reporter = SILENT
) -> pd.DataFrame:
    """Return the out-of-fold table of other copies of some of a run's images.

    Args:
        run: The run.
        table: Its out-of-fold table.
        folder: Files by image id; those that the run did not hold out do not count.
        reporter: Shows how it goes.

    Raises:
        DataError: There is no such copy, or several of one image; or the crops' masks are gone.
    """
    masks = crop_masks(run, reporter)
    copies = find_pictures([folder])
    if copies.renamed:
        raise DataError(
            f"{folder}: several files are called as one picture, such as {copies.renamed[0]}",
            "keep one copy of each picture there",
        )
    files = {source.image_id: source.path for source in copies.sources}
    tables = []
    for fold in run.finished():
        bundle = Bundle.read(run.bundle_folder(fold))
        ids = sorted(set(table.loc[table["fold"] == fold, "image_id"]).intersection(files))
        squares = copies_for(bundle, files, masks)
        with reporter.progress(f"predicting fold {fold}", len(ids)) as move:
            tables.append(heldout_logits(bundle, squares, ids, progress=move))
    found = pd.concat(tables, ignore_index=True)
    if found.empty:
        raise DataError(f"{folder}: no copy of a held-out picture", "name files by image id")
    known = [name for name in table.columns if not name.startswith("logit_")]
    return found.merge(table[known], on="image_id", validate="one_to_one")
