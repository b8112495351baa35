"""Out-of-fold predictions: a fold's bundle on its held-out images, and on copies of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from naevus.bundles.bundle import Bundle
from naevus.datasets.sources import DecodedImages, find_images, mask_file
from naevus.errors import ConfigError, DataError, ImageError
from naevus.evaluation.attributes import attribute_row
from naevus.evaluation.mask_metrics import MaskComparison, mask_table
from naevus.images.geometry import resize
from naevus.images.maskfile import read_mask_of
from naevus.images.preprocess import DecodedImage, ImageFiles, InputSpec, decode_once, stack_inputs
from naevus.images.quality import SIDE
from naevus.images.read import read, write_png
from naevus.inference.classifier import Classifier
from naevus.inference.ensemble import refuse_faults
from naevus.inference.segmenter import Segmenter
from naevus.io.parallel import Workers, batches, thread_count
from naevus.io.progress import SILENT
from naevus.runs.images import crop_masks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from naevus.datasets.sources import ImagesById
    from naevus.io.progress import Reporter
    from naevus.runs.run import Run
    from naevus.types import TTA, CropMode, Precision


# Inputs of a bundle, decoded on demand.


def copies_for(
    bundle: Bundle, files: Mapping[str, Path], masks: Mapping[str, Path | None]
) -> DecodedImages:
    """Return the inputs of a classification bundle by id, at its largest input size.

    Args:
        bundle: The bundle, which sets the crop mode.
        files: Image file of each id.
        masks: Mask file for the crop of each id, if there is one.

    Raises:
        ConfigError: Its networks differ in their crop mode.
    """
    spec = bundle.classifier
    input_spec = InputSpec(
        _one_mode(bundle),
        max(member.input_size for member in spec.members),
        margin=spec.crop_margin,
        colour_constancy=spec.colour_constancy,
    )
    sources = [
        ImageFiles(image_id, path, masks.get(image_id), scaled=True)
        for image_id, path in files.items()
    ]
    return DecodedImages(sources, input_spec)


def _one_mode(bundle: Bundle) -> CropMode:
    modes = bundle.classifier.crop_modes
    if len(modes) > 1:
        raise ConfigError(
            f"{bundle.folder}: its networks differ in their input ({', '.join(modes)})",
            "predict images with one network at a time",
        )
    return modes[0]


class LogitMap(NamedTuple):
    """Logits of lesion, attributes or both for one image, and the image's own size."""

    image_id: str
    logit: NDArray[np.float32] | None
    height: int
    width: int
    attributes: NDArray[np.float32] | None = None

    def mask(self, segmenter: Segmenter) -> NDArray[np.bool_]:
        """Return the lesion's mask at the image's size."""
        assert self.logit is not None
        return segmenter.mask_of(self.logit, self.height, self.width)


def oof_scores(
    bundles: Bundle | Sequence[Bundle],
    sources: Sequence[tuple[str, Path, Path]],
    *,
    out: Path | None = None,
    threads: int | None = None,
    precision: Precision = "fp32",
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Compare predicted masks with ground truth, at the ground truth's size.

    Args:
        bundles: A segmentation bundle, or an ensemble.
        sources: Ids, image files and ground truth mask files.
        out: Folder for the predicted masks at the images' sizes; None: do not write them.
        threads: Threads for the engine and for decoding.
        precision: Precision of the computation.
        progress: Called with (done, total) images.

    Returns:
        The result of `mask_table`: metrics and failure factors. Images whose file or mask is
        unreadable have no row.

    Raises:
        BundleError: The network's output for an image is invalid.
    """
    segmenter = Segmenter(bundles, threads=threads, precision=precision)
    files = {image_id: (path, truth) for image_id, path, truth in sources}
    contours: dict[str, MaskComparison] = {}

    def score(surface: LogitMap) -> None:
        path, mask_path = files[surface.image_id]
        truth = read_mask_of(mask_path, path, scaled=True)
        if out is not None:
            write_png(mask_file(out, surface.image_id), surface.mask(segmenter))
        assert surface.logit is not None
        predicted = segmenter.mask_of(surface.logit, *truth.shape)
        # Decoded again at a small size, since keeping a whole batch would use more memory.
        contours[surface.image_id] = MaskComparison.of(truth, predicted, read(path, shortest=SIDE))

    ordered = sorted((image_id, path) for image_id, path, _ in sources)
    _for_each_logit_map(segmenter, ordered, score, threads, progress)
    return mask_table(contours)


def oof_attributes(
    bundle: Bundle,
    sources: Sequence[tuple[str, Path, Mapping[str, Path]]],
    *,
    tta: TTA = "none",
    threads: int | None = None,
    precision: Precision = "fp32",
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Compare a bundle's attribute masks with ground truth at every threshold.

    Args:
        bundle: The bundle.
        sources: Ids, image files, and the ground truth mask file of each attribute.
        tta: The TTA mode.
        threads: Threads for the engine and for decoding.
        precision: Precision of the computation.
        progress: Called with (done, total) images.

    Returns:
        ``image_id`` and the columns of `attribute_row`, at the size of the ground truth. Unreadable
        images have no row.

    Raises:
        BundleError: The network's output for an image is invalid.
    """
    segmenter = Segmenter((), attributes=[bundle], tta=tta, threads=threads, precision=precision)
    files = {image_id: (path, truths) for image_id, path, truths in sources}
    rows: dict[str, dict[str, Any]] = {}

    def count(surface: LogitMap) -> None:
        path, masks = files[surface.image_id]
        truths = {name: read_mask_of(mask, path, scaled=True) for name, mask in masks.items()}
        height, width = next(iter(truths.values())).shape
        assert surface.attributes is not None
        maps = segmenter.probabilities_of(surface.attributes, height, width)
        peaks = segmenter.peaks_of(surface.attributes)
        rows[surface.image_id] = attribute_row(maps, truths, peaks)

    ordered = sorted((image_id, path) for image_id, path, _ in sources)
    _for_each_logit_map(segmenter, ordered, count, threads, progress)
    table = pd.DataFrame([{"image_id": name, **rows[name]} for name in sorted(rows)])
    return table.astype({"image_id": "string"})


def oof_logits(
    bundle: Bundle,
    images: ImagesById,
    ids: Sequence[str],
    *,
    tta: TTA = "none",
    threads: int | None = None,
    precision: Precision = "fp32",
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Return a classification bundle's logits for cached images.

    Args:
        bundle: The bundle.
        images: Cached inputs by id, in the crop mode of all the bundle's networks, of any size.
        ids: The images to predict.
        tta: The TTA mode.
        threads: Threads for the engine.
        precision: Precision of the computation.
        progress: Called with (done, total) images.

    Returns:
        ``image_id`` and ``logit_<class>`` (float32), sorted by id.

    Raises:
        BundleError: The network's output for an image is invalid.
        ConfigError: The bundle's networks differ in their crop mode.
    """
    _one_mode(bundle)
    classifier = Classifier(bundle, tta=tta, threads=threads, precision=precision)
    ordered = sorted(ids)
    found = np.empty((len(ordered), len(classifier.classes)), np.float32)
    done = 0
    for piece in batches(ordered):
        inputs = [
            np.stack(
                [resize(images[image_id], input_spec.size, input_spec.size) for image_id in piece]
            )
            for input_spec in classifier.input_specs
        ]
        found[done : done + len(piece)] = classifier.logits(inputs, piece)
        done += len(piece)
        if progress is not None:
            progress(done, len(ordered))
    table = pd.DataFrame(found, columns=[f"logit_{code}" for code in classifier.classes])
    table.insert(0, "image_id", pd.Series(ordered, dtype="string"))
    return table


def _for_each_logit_map(
    segmenter: Segmenter,
    sources: Sequence[tuple[str, Path]],
    use: Callable[[LogitMap], None],
    threads: int | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Call ``use`` with the logit map of each readable image."""
    done = 0

    def decode(source: tuple[str, Path]) -> DecodedImage:
        return decode_once(source[1], segmenter)

    with Workers(thread_count(threads)) as workers:
        for piece, seen in workers.ahead(decode, batches(sources)):
            good = [
                (image_id, result)
                for (image_id, _), result in zip(piece, seen, strict=True)
                if not isinstance(result, ImageError)
            ]
            workers.each(use, _logit_maps(segmenter, good))
            done += len(piece)
            if progress is not None:
                progress(done, len(sources))


def _logit_maps(segmenter: Segmenter, good: Sequence[tuple[str, DecodedImage]]) -> list[LogitMap]:
    if not good:
        return []
    found = segmenter.logit_maps(stack_inputs([seen.inputs for _, seen in good]))
    refuse_faults(found.faults, [image_id for image_id, _ in good])
    return [
        LogitMap(
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
    """Return the out-of-fold table for other copies of a run's images.

    Args:
        run: The run.
        table: The run's out-of-fold table.
        folder: Copies, named by image id; images that the run did not hold out are ignored.
        reporter: Reports progress.

    Raises:
        DataError: There is no copy, or several of one image; or the masks for crops are missing.
    """
    masks = crop_masks(run, reporter)
    copies = find_images([folder])
    if copies.renamed:
        raise DataError(
            f"{folder}: several files have the same image id, such as {copies.renamed[0]}",
            "keep one copy of each image there",
        )
    files = {source.image_id: source.path for source in copies.sources}
    tables = []
    for fold in run.finished():
        bundle = Bundle.read(run.bundle_folder(fold))
        ids = sorted(set(table.loc[table["fold"] == fold, "image_id"]).intersection(files))
        inputs = copies_for(bundle, files, masks)
        with reporter.progress(f"predicting fold {fold}", len(ids)) as move:
            tables.append(oof_logits(bundle, inputs, ids, progress=move))
    found = pd.concat(tables, ignore_index=True)
    if found.empty:
        raise DataError(f"{folder}: no copy of a held-out image", "name files by image id")
    known = [name for name in table.columns if not name.startswith("logit_")]
    return found.merge(table[known], on="image_id", validate="one_to_one")
