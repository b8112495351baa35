"""Predict many images into a folder, in constant memory.

Images are sorted by id and split into batches of a fixed size. Each batch is written once as a part
of the table, named by a hash of its images. A killed job therefore resumes after the last complete
batch, and every job over the same images writes the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from naevus import __version__
from naevus.datasets.sources import keep_ids, unique
from naevus.errors import NaevusError
from naevus.images.read import Limits
from naevus.inference.abilities import Abilities
from naevus.inference.backends import Here, Todo, file_kinds
from naevus.inference.inputs import counts_of
from naevus.inference.lesions import write_lesions
from naevus.inference.options import (
    OUTPUTS,
    PredictionOptions,
    check_tables,
    prediction_options_of,
)
from naevus.inference.sheets import (
    sizes_of,
    tallies,
    write_sheets,
    write_submission_of,
)
from naevus.io.files import lock
from naevus.io.parallel import batches
from naevus.io.words import counted, first_of
from naevus.runs.prediction_tables import embeddings_schema, failed_in, join
from naevus.runs.predictions import PredictionsFolder, key_of
from naevus.runs.shards import RECORD, ShardRecord, digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from naevus.datasets.patient_table import PatientTable
    from naevus.evaluation.patient import PatientCounts
    from naevus.images.preprocess import ImageFiles
    from naevus.inference.backends import Backend
    from naevus.inference.classifier import Classifier
    from naevus.inference.lesions import LesionCounts
    from naevus.inference.options import OutputOptions
    from naevus.inference.segmenter import Segmenter
    from naevus.runs.prediction_tables import Schema
    from naevus.runs.shards import Shard
    from naevus.types import FailedImage


_LIMITS: Final = Limits()
REMOVED: Final = "removed, since it was made from other predictions:"


@dataclass(frozen=True)
class BatchResult:
    """The result of a prediction job.

    Attributes:
        out: The output folder.
        table: The table of predictions.
        predicted: Number of its rows.
        reused: Images that an earlier, interrupted job already processed.
        failed: Images that failed; they are listed in ``failed.csv``.
        members: The networks, as "bundle/member (architecture)".
        files: The written files and folders.
        lesions: Counts of lesions; None if none is known.
        answers: Number of images by predicted class, the most frequent first.
        flags: Number of images by quality flag, the most frequent first.
        metadata: How many images have metadata that count; None without metadata.
        scaled: How many images have a scale in mm per pixel; None if none is given.
        shard: Which part of the images this is; None: all of them.
        sizes: The pixel sizes of the images, the most frequent first, if one scale is given for all
            of them.
        other_files: The files that the metadata name in place of the predicted ones, by image id.
        other_lesions: Number of images whose lesion in the metadata is not the one that is used.
        removed: Files of an earlier job that were made from other predictions.
    """

    out: Path
    table: Path
    predicted: int
    reused: int
    failed: tuple[FailedImage, ...]
    members: tuple[str, ...]
    files: tuple[Path, ...]
    lesions: LesionCounts | None = None
    answers: Mapping[str, int] = field(default_factory=dict)
    flags: Mapping[str, int] = field(default_factory=dict)
    metadata: PatientCounts | None = None
    scaled: int | None = None
    shard: Shard | None = None
    sizes: tuple[str, ...] = ()
    other_files: Mapping[str, str] = field(default_factory=dict)
    other_lesions: int = 0
    removed: tuple[Path, ...] = ()

    def __str__(self) -> str:
        """Return how many images were predicted, which failed, and what was written."""
        lines = [f"{counted(self.predicted, 'image')} predicted, {len(self.failed):,} failed"]
        lines += [f"failed: {each.path}: {each.problem}" for each in self.failed]
        lines += [] if self.lesions is None else [f"{self.lesions}"]
        lines += [*self.metadata_lines(), *map(str, self.files)]
        return "\n".join([*lines, *(f"{REMOVED} {path}" for path in self.removed)])

    def metadata_lines(self) -> list[str]:
        """Return in sentences what counts of the metadata, and what does not."""
        lines = [] if self.metadata is None else self.metadata.lines()
        if self.scaled is not None:
            images = self.predicted + len(self.failed)
            lines.append(f"metadata: {self.scaled:,} of {images:,} images have a scale")
        if self.other_files:
            image_id, named = next(iter(self.other_files.items()))
            lines.append(
                f"metadata: the rows of {counted(len(self.other_files), 'image')} name files of "
                f"other folders, such as {named} for {image_id}; check that they are the same"
            )
        if self.other_lesions:
            lines.append(
                f"metadata: the lesion_id of {counted(self.other_lesions, 'image')} is not used: "
                "the lesions that --lesions, --group-by or the data set names hold"
            )
        if len(self.sizes) > 1:
            lines.append(
                f"metadata: one scale for images of {len(self.sizes):,} sizes "
                f"({first_of(self.sizes)}), which rarely share one: give --metadata a column "
                "mm_per_pixel"
            )
        return lines


def predict(
    sources: Sequence[ImageFiles],
    out: Path,
    outputs: OutputOptions = OUTPUTS,
    *,
    segmenter: Segmenter | None = None,
    classifier: Classifier | None = None,
    metadata: PatientTable | None = None,
    threads: int | None = None,
    limits: Limits = _LIMITS,
    unusable: Sequence[FailedImage] = (),
    lesions: Mapping[str, str] | None = None,
    shard: Shard | None = None,
    backend: Backend | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BatchResult:
    """Predict images into a folder.

    Files in the folder:

    - ``predictions.parquet`` (`naevus.runs.prediction_tables.Schema`), with ``lesion_id`` if
      lesions are known;
    - ``predictions.csv``, the same for spreadsheets (`sheet_columns`), and ``predictions.xlsx``, if
      requested;
    - ``masks/<id>_segmentation.png``, at the image's size, 0 and 255;
    - ``attributes/<id>_attribute_<attribute>.png``, for each attribute;
    - ``crops/<id>.png``;
    - ``submission.csv``, if requested;
    - ``failed.csv``, if images failed;
    - ``lesions.parquet`` and ``lesions.csv``, if lesions are known and images are classified;
    - ``heatmaps/<id>.png`` and ``embeddings.parquet``, if requested.

    With ``nested``, images are in 256 subfolders: ``masks/3f/<id>_segmentation.png``, by the first
    two hexadecimal digits of the SHA-256 of the id.

    An interrupted job resumes if the settings are the same; the lesions may be others. A workbook,
    a submission or tables of lesions that a repeated job does not ask for stay if the predictions
    do; otherwise they are removed, which the result says. A workbook that stays is not written
    again either. A shard predicts every n-th batch, and leaves the submission and the tables of
    lesions, which need all images, to `naevus.inference.gather`.

    Args:
        sources: The images; see `naevus.datasets.sources`.
        out: The output folder.
        outputs: What to write.
        segmenter: Segments the images.
        classifier: Classifies the images.
        metadata: Data of the patients by image id, which change the odds of the diagnoses, and
            scales of the images, for sizes in millimetres.
        threads: Threads that decode and write; None: one per processor.
        limits: Limits that are checked before decoding.
        unusable: Images that already failed; they are listed with the others.
        lesions: The lesion of each image, by image id, as far as it is known; by default what the
            metadata know.
        shard: Which part of the images to predict; None: all.
        backend: Where to predict; None: in this process, with ``threads``.
        progress: Called with (done, total) images.

    Raises:
        ConfigError: A bundle is missing, or has no heatmaps, embeddings or model of the patient's
            data; or an option has no effect.
        DataError: Two images have the same id.
        NaevusError: ``out`` has results of other settings or images or is in use, or the disk is
            full.
    """
    ordered = unique(sources)
    if metadata is not None:
        metadata = metadata.for_files(ordered)
    options = prediction_options_of(segmenter, classifier, outputs, metadata)
    abilities = Abilities.of_loaded(segmenter, classifier)
    taxonomy = check_tables(outputs, len(ordered), abilities)
    pieces = batches(ordered, outputs.batch_size)
    if not lesions and metadata is not None:
        lesions = metadata.lesions_of(each.image_id for each in ordered)
    record = None
    if shard is not None:
        unusable = shard.part(sorted(unusable))
        record = _record(shard, ordered, options, unusable, lesions)
        pieces = list(shard.part(pieces))
        ordered = [each for piece in pieces for each in piece]
    given = [Todo(key_of(piece, limits), piece) for piece in pieces]
    folder = PredictionsFolder(out, outputs.nested)
    folder.create()
    with lock(folder.lock):
        folder.claim(options.settings() | ({} if shard is None else {"shard": f"{shard}"}))
        folder.sweep()
        (out / RECORD).unlink(missing_ok=True)
        stale = folder.stale_parts([each.key for each in given])
        folder.check_covered(stale, ordered)
        keep_ids(out, ordered)
        parts, reused = _predict_missing(
            given, folder, options, limits, backend or Here(threads), progress
        )
        schema = options.schema().with_lesions() if lesions else options.schema()
        earlier = [each for each in folder.derived if each.exists()]
        predicted, failed, written = join_parts(
            folder, parts, schema, unusable, embeddings=outputs.embeddings, lesions=lesions or None
        )
        if predicted + len(failed) - len(unusable) != len(ordered):
            raise NaevusError(
                f"{folder.table}: {predicted} rows and {len(failed) - len(unusable)} failed images "
                f"do not add up to {len(ordered)} images",
                "run the command again; it repeats what has changed",
            )
        written += write_sheets(folder, schema, xlsx=outputs.xlsx)
        if record is None:
            written += write_submission_of(folder, taxonomy, outputs.decision)
        counts = _write_lesions(folder, options, {} if record else lesions, failed)
        written += [] if counts is None else folder.lesions
        folder.remove(stale)
        if record is not None:
            folder.keep_lesions(lesions or {}, ordered)
            record.write(out)
    written += [each for each in folder.image_folders if each.exists()]  # missing if all failed
    written += [folder.failed] if failed else []
    ids = [each.image_id for each in ordered]
    return BatchResult(
        out,
        folder.table,
        predicted,
        reused,
        tuple(failed),
        options.members(),
        tuple(written),
        counts,
        *tallies(folder),
        _counts(options, ids),
        _scaled(metadata, ids),
        shard,
        () if metadata is None or metadata.scale is None else sizes_of(folder.table),
        {} if metadata is None else metadata.other_files(ordered),
        _other_lesions(metadata, lesions or {}, ids),
        tuple(each for each in earlier if not each.exists()),
    )


def _predict_missing(
    given: Sequence[Todo],
    folder: PredictionsFolder,
    options: PredictionOptions,
    limits: Limits,
    backend: Backend,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[Path], int]:
    """Predict the batches that an earlier job left; return all parts, and how many images had one.

    A part has another name than its batch if a file changed while it was read.
    """
    places = folder.places(file_kinds(options)) if backend.keeps_files else []
    embeddings = options.outputs.embeddings
    todo = [
        each
        for each in given
        if not folder.is_done(
            each.key, [image.image_id for image in each.images], places, embeddings=embeddings
        )
    ]
    total, missing = (sum(len(each.images) for each in some) for some in (given, todo))
    done = total - missing
    parts = {each.key: each.key for each in given}
    if progress is not None:
        progress(done, total)
    for one in backend.predict(todo, folder, options, limits):
        parts[one.key], done = one.part, done + one.images
        if progress is not None:
            progress(done, total)
    return [folder.part(part) for part in parts.values()], total - missing


def _scaled(metadata: PatientTable | None, ids: Sequence[str]) -> int | None:
    """Return how many images have a scale; None if none is given."""
    if metadata is None or not metadata.has_scale:
        return None
    return sum(metadata.mm_per_pixel(image_id) is not None for image_id in ids)


def _other_lesions(
    metadata: PatientTable | None, lesions: Mapping[str, str], ids: Sequence[str]
) -> int:
    """Return of how many images the metadata name another lesion than the one that is used."""
    named = {} if metadata is None else metadata.lesions_of(ids)
    return sum(lesions.get(image_id) != lesion for image_id, lesion in named.items())


def _counts(options: PredictionOptions, ids: Sequence[str]) -> PatientCounts | None:
    """Return what counts of the metadata, and what does not."""
    metadata, classifier = options.metadata, options.classifier
    if metadata is None or classifier is None or not metadata.has_patients:
        return None
    return counts_of(metadata, classifier.require_patient(), ids)


def _record(
    shard: Shard,
    sources: Sequence[ImageFiles],
    options: PredictionOptions,
    unusable: Sequence[FailedImage],
    lesions: Mapping[str, str] | None,
) -> ShardRecord:
    """Return the record of a shard of some images."""
    outputs = options.outputs
    return ShardRecord(
        shard,
        len(sources),
        digest(each.image_id for each in sources),
        __version__,
        file_kinds(options),
        options.members(),
        {each.sha256: str(each.folder.resolve()) for each in options.bundles},
        tuple(unusable),
        bool(lesions),
        outputs.xlsx,
        outputs.decision if outputs.submission else None,
    )


def join_parts(
    folder: PredictionsFolder,
    parts: Sequence[Path],
    schema: Schema,
    unusable: Sequence[FailedImage] = (),
    *,
    embeddings: bool,
    lesions: Mapping[str, str] | None = None,
) -> tuple[int, list[FailedImage], list[Path]]:
    """Join parts into a folder's tables.

    Args:
        folder: The folder.
        parts: The parts, in the order of their rows.
        schema: The columns.
        unusable: Images that failed before prediction.
        embeddings: Whether to join the embeddings, too.
        lesions: The lesion of each image, by image id; None: as in the parts.

    Returns:
        The number of predicted images, the failed images, and the written tables.

    Raises:
        NaevusError: The disk is full or the folder cannot be written.
    """
    predicted = join(parts, schema.arrow(), folder.table, lesions, folder.derived)
    failed = sorted([*(entry for part in parts for entry in failed_in(part)), *unusable])
    folder.write_failed(failed)
    if not embeddings:
        return predicted, failed, [folder.table]
    features = [folder.embeddings_part(part.stem) for part in parts]
    join(features, embeddings_schema(schema.about), folder.embeddings)
    return predicted, failed, [folder.table, folder.embeddings]


def _write_lesions(
    folder: PredictionsFolder,
    options: PredictionOptions,
    lesions: Mapping[str, str] | None,
    failed: Sequence[FailedImage],
) -> LesionCounts | None:
    """Write the tables of lesions, if any is known."""
    classifier = options.classifier
    if lesions and classifier is not None:
        return write_lesions(folder, lesions, failed, classifier.sets_of)
    return None
