"""Predict many images into a folder, in constant memory.

Images are sorted by id and split into batches of a fixed size. Each batch is written once as a part
of the table, named by a hash of its images. A killed job therefore resumes after the last complete
batch, and every job over the same images writes the same bytes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from naevus.datasets.sources import keep_ids, unique
from naevus.errors import ConfigError, NaevusError
from naevus.evaluation.challenge.classification import write_submission
from naevus.images.read import Limits
from naevus.inference.inputs import ImageInput, counts_of
from naevus.inference.lesions import write_lesions
from naevus.inference.options import PredictionOptions, prediction_options_of
from naevus.inference.pipeline import Pipeline
from naevus.inference.prediction import Prediction
from naevus.io.files import lock, write_csv
from naevus.io.formats import check_workbooks, write_workbook
from naevus.io.parallel import BATCH, Workers, batches, cpu_count
from naevus.runs.prediction_tables import (
    about,
    embeddings_schema,
    failed_in,
    join,
    no_table,
    read_rows,
    write_embeddings,
    write_part,
)
from naevus.runs.predictions import PredictionsFolder, key_of
from naevus.taxonomy import TAXONOMIES
from naevus.types import FailedImage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from naevus.datasets.patient_table import PatientTable
    from naevus.evaluation.patient import PatientCounts
    from naevus.images.preprocess import ImageFiles
    from naevus.inference.classifier import Classifier
    from naevus.inference.lesions import LesionCounts
    from naevus.inference.segmenter import Segmenter
    from naevus.runs.prediction_tables import Schema
    from naevus.taxonomy import Taxonomy
    from naevus.types import Decision, Only


def first_predictions(path: Path, count: int) -> list[Prediction]:
    """Return the first predictions of a table, without masks, heatmaps and embeddings.

    Args:
        path: ``predictions.parquet``.
        count: Maximum number of predictions.

    Raises:
        NaevusError: The file is not a table of predictions, or has no rows.
    """
    metadata = about(path)
    try:
        with pq.ParquetFile(path) as file:
            rows = next(file.iter_batches(batch_size=count), None)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise no_table(path) from error
    if rows is None or not rows.num_rows:
        raise NaevusError(f"{path}: contains no predictions")
    return [Prediction.from_row(row, metadata) for row in rows.to_pylist()]


_LIMITS: Final = Limits()


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

    def __str__(self) -> str:
        """Return how many images were predicted, which failed, and what was written."""
        lines = [f"{self.predicted:,} images predicted, {len(self.failed):,} failed"]
        lines += [f"failed: {each.path}: {each.problem}" for each in self.failed]
        lines += [] if self.lesions is None else [f"{self.lesions}"]
        lines += [] if self.metadata is None else self.metadata.lines()
        return "\n".join([*lines, *map(str, self.files)])


def predict(
    sources: Sequence[ImageFiles],
    out: Path,
    *,
    segmenter: Segmenter | None = None,
    classifier: Classifier | None = None,
    submission: bool = False,
    decision: Decision = "balanced",
    xlsx: bool = False,
    only: Only | None = None,
    heatmaps: bool = False,
    embeddings: bool = False,
    masks: bool = True,
    crops: bool = True,
    nested: bool = False,
    batch_size: int = BATCH,
    metadata: PatientTable | None = None,
    threads: int | None = None,
    limits: Limits = _LIMITS,
    unusable: Sequence[FailedImage] = (),
    lesions: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BatchResult:
    """Predict images into a folder.

    Files in the folder:

    - ``predictions.parquet`` (`naevus.runs.prediction_tables.Schema`);
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

    An interrupted job resumes if the settings are the same.

    Args:
        sources: The images; see `naevus.datasets.sources`.
        out: The output folder.
        segmenter: Segments the images.
        classifier: Classifies the images.
        submission: Write the submission to ISIC 2018 Task 3.
        decision: Which probabilities the submission contains.
        xlsx: Write the table as a workbook, too.
        only: Write only masks or only crops, without classification.
        heatmaps: Write images with the heatmap of the predicted diagnosis.
        embeddings: Write the networks' embeddings.
        masks: Write masks.
        crops: Write crops.
        nested: Write images into subfolders.
        batch_size: Images per batch; it changes the last bits of the predictions.
        metadata: Data of the patients by image id; they change the odds of the diagnoses.
        threads: Threads that decode and write; None: one per processor.
        limits: Limits that are checked before decoding.
        unusable: Images that already failed; they are listed with the others.
        lesions: The lesion of each image, by image id, as far as it is known; by default what the
            metadata know.
        progress: Called with (done, total) images.

    Raises:
        ConfigError: A bundle is missing, or has no heatmaps, embeddings or model of the patient's
            data; or an option has no effect.
        DataError: Two images have the same id.
        NaevusError: ``out`` has results of other settings or images or is in use, or the disk is
            full.
    """
    prediction_options = prediction_options_of(
        segmenter,
        classifier,
        only,
        heatmaps=heatmaps,
        embeddings=embeddings,
        masks=masks,
        crops=crops,
        nested=nested,
        batch_size=batch_size,
        metadata=metadata,
    )
    schema = prediction_options.schema()
    ordered = unique(sources)
    taxonomy = _submitted(classifier, only) if submission else None
    _check_tables(decision, len(ordered), submission=submission, xlsx=xlsx)
    pieces = batches(ordered, batch_size)
    keys = [key_of(piece, limits) for piece in pieces]
    folder = PredictionsFolder(out, nested)
    folder.create()
    with lock(folder.lock):
        folder.claim(prediction_options.settings())
        folder.sweep()
        stale = folder.stale_parts(keys)
        folder.check_covered(stale, ordered)
        keep_ids(out, ordered)
        places = _places(folder, prediction_options)
        todo = [
            number
            for number, (key, piece) in enumerate(zip(keys, pieces, strict=True))
            if not folder.is_done(
                key, [each.image_id for each in piece], places, embeddings=embeddings
            )
        ]
        left = [pieces[number] for number in todo]
        reused = done = len(ordered) - sum(map(len, left))
        pipeline = Pipeline(prediction_options, limits, folder)
        if progress is not None:
            progress(done, len(ordered))
        with Workers(threads or cpu_count()) as workers:
            inputs = ([ImageInput(each.image_id, each.path) for each in piece] for piece in left)
            outputs = zip(todo, pipeline.predict(inputs, workers), strict=True)

            def write(output: tuple[int, Sequence[Prediction | FailedImage]]) -> int:
                number, predictions = output
                _write_parts(folder, keys[number], prediction_options, schema, predictions)
                return len(predictions)

            for count in workers.behind(write, outputs):
                done += count
                if progress is not None:
                    progress(done, len(ordered))
        parts = [folder.part(key) for key in keys]
        predicted = join(parts, schema.arrow(), folder.table)
        failed = [entry for part in parts for entry in failed_in(part)]
        if predicted + len(failed) != len(ordered):
            raise NaevusError(
                f"{folder.table}: {predicted} rows and {len(failed)} failed images do not add up "
                f"to {len(ordered)} images",
                "run the command again; it repeats what has changed",
            )
        failed = sorted([*failed, *unusable])
        folder.write_failed(failed)
        written = [folder.table, *_write_sheets(folder, schema, xlsx=xlsx)]
        written += _write_submission(folder, taxonomy, decision)
        if embeddings:
            written.append(folder.embeddings)
            join(
                [folder.embeddings_part(key) for key in keys],
                embeddings_schema(schema.about),
                folder.embeddings,
            )
        counts = _write_lesions(folder, prediction_options, ordered, lesions, failed)
        written += [] if counts is None else folder.lesions
        folder.remove(stale)
    images = (folder.masks, folder.attributes, folder.crops, folder.heatmaps)
    written += [each for each in images if each.exists()]  # missing if all images failed
    written += [folder.failed] if failed else []
    return BatchResult(
        out,
        folder.table,
        predicted,
        reused,
        tuple(failed),
        prediction_options.members(),
        tuple(written),
        counts,
        *_tallies(folder),
        _counts(prediction_options, [each.image_id for each in ordered]),
    )


def _counts(prediction_options: PredictionOptions, ids: Sequence[str]) -> PatientCounts | None:
    """Return what counts of the metadata, and what does not."""
    metadata, classifier = prediction_options.metadata, prediction_options.classifier
    if metadata is None or classifier is None:
        return None
    return counts_of(metadata, classifier.require_patient(), ids)


def _places(
    folder: PredictionsFolder, prediction_options: PredictionOptions
) -> list[Callable[[str], Path]]:
    """Return functions from an image id to each image file that is written for it."""
    lesions = (
        prediction_options.segmenter is not None and prediction_options.segmenter.segments_lesions
    )
    attributes = (
        () if prediction_options.segmenter is None else prediction_options.segmenter.attributes
    )
    made: tuple[tuple[Callable[[str], Path], bool], ...] = (
        (folder.mask, prediction_options.masks and lesions),
        *((partial(folder.attribute, name=name), prediction_options.masks) for name in attributes),
        (folder.crop, prediction_options.crops and bool(prediction_options.input_specs)),
        (folder.heatmap, prediction_options.heatmaps),
    )
    return [place for place, wanted in made if wanted]


def _write_parts(
    folder: PredictionsFolder,
    key: str,
    prediction_options: PredictionOptions,
    schema: Schema,
    prediction: Sequence[Prediction | FailedImage],
) -> None:
    """Write the results of a batch; its rows come last, since they mark it as done."""
    rows = [each for each in prediction if isinstance(each, Prediction)]
    failed = sorted(each for each in prediction if isinstance(each, FailedImage))
    for each in failed:
        folder.forget(each.image_id)
    sizes = folder.settle([row.image_id for row in rows], _places(folder, prediction_options))
    if prediction_options.embeddings:
        embeddings = {row.image_id: row.embedding for row in rows}
        write_embeddings(folder.embeddings_part(key), embeddings_schema(schema.about), embeddings)
    write_part(folder.part(key), schema, [row.to_row() for row in rows], failed, sizes)


def _write_lesions(
    folder: PredictionsFolder,
    prediction_options: PredictionOptions,
    sources: Sequence[ImageFiles],
    lesions: Mapping[str, str] | None,
    failed: Sequence[FailedImage],
) -> LesionCounts | None:
    """Write the tables of lesions; if none is known, remove those of an earlier job."""
    classifier, metadata = prediction_options.classifier, prediction_options.metadata
    if not lesions and metadata is not None:
        lesions = metadata.lesions_of(each.image_id for each in sources)
    if lesions and classifier is not None:
        return write_lesions(folder, lesions, failed, classifier.sets_of)
    for path in folder.lesions:
        path.unlink(missing_ok=True)
    return None


def _check_tables(decision: Decision, rows: int, *, submission: bool, xlsx: bool) -> None:
    """Check that the tables that are asked for can be written."""
    if decision != "balanced" and not submission:
        raise ConfigError(
            f"the decision {decision!r} is that of a submission, which is not asked for",
            "ask for it (--submission), or leave the decision out",
        )
    if xlsx:
        check_workbooks(rows)


def _submitted(classifier: Classifier | None, only: Only | None) -> Taxonomy:
    """Return the taxonomy of a submission.

    Raises:
        ConfigError: There is none.
    """
    taxonomy = None if classifier is None or only else TAXONOMIES.get(classifier.taxonomy or "")
    if classifier is None or taxonomy is None or taxonomy.codes != classifier.classes:
        raise ConfigError(
            "a submission needs the diagnoses of a challenge, which are not predicted here",
            "leave it out (--submission), or use another bundle",
        )
    return taxonomy


def _write_submission(
    folder: PredictionsFolder, taxonomy: Taxonomy | None, decision: Decision
) -> list[Path]:
    """Write the submission; without a taxonomy, remove that of an earlier job."""
    folder.submission.unlink(missing_ok=True)
    if taxonomy is None:
        return []
    kind = "balanced_prob" if decision == "balanced" else "prob"
    columns = [f"{kind}_{code}" for code in taxonomy.codes]
    table = read_rows(folder.table, ["image_id", *columns])
    values = np.column_stack([table.column(name).to_numpy() for name in columns])
    write_submission(folder.submission, table.column("image_id").to_pylist(), values, taxonomy)
    return [folder.submission]


# The table for spreadsheets, and what is counted in it.

_ROWS: Final = 4096  # in memory at once


def sheet_columns(schema: Schema) -> list[str]:
    """Return the columns of ``predictions.csv``.

    ``confidence`` is the probability of ``predicted``; ``malignant_prob`` the sum over malignant
    diagnoses, where the taxonomy tells which these are.
    """
    taxonomy = TAXONOMIES.get(schema.about.get("taxonomy") or "")
    malignant = ["malignant_prob"] if _malignant(taxonomy) else []
    classified = ["predicted", "confidence", "uncertainty", *malignant] if schema.classes else []
    probabilities = [f"prob_{code}" for code in schema.classes]
    sets = ["prediction_set"] if schema.about.get("coverage") else []
    presences = [f"presence_{name}" for name in schema.attributes]
    sizes = ["lesion_area", "height", "width"]
    return [
        "image_id", *classified, *probabilities, *sets, "quality_flags", *sizes, *presences, "path"
    ]  # fmt: skip


def _malignant(taxonomy: Taxonomy | None) -> list[str]:
    return [one.code for one in taxonomy.diagnoses if one.malignant] if taxonomy else []


def _write_sheets(folder: PredictionsFolder, schema: Schema, *, xlsx: bool) -> list[Path]:
    columns = sheet_columns(schema)
    write_csv(folder.sheet, columns, _sheet_rows(folder, schema, columns), spreadsheet=True)
    workbook = folder.sheet.with_suffix(".xlsx")
    workbook.unlink(missing_ok=True)
    if not xlsx:
        return [folder.sheet]
    write_workbook(workbook, columns, _sheet_rows(folder, schema, columns))
    return [folder.sheet, workbook]


def _sheet_rows(
    folder: PredictionsFolder, schema: Schema, columns: Sequence[str]
) -> Iterator[list[Any]]:
    malignant = _malignant(TAXONOMIES.get(schema.about.get("taxonomy") or ""))
    stored = [name for name in columns if name != "malignant_prob"]
    with pq.ParquetFile(folder.table) as file:
        for batch in file.iter_batches(_ROWS, columns=stored):
            for row in batch.to_pylist():
                if "malignant_prob" in columns:
                    row["malignant_prob"] = sum(row[f"prob_{code}"] for code in malignant)
                values = (row[name] for name in columns)
                yield [";".join(each) if isinstance(each, list) else each for each in values]


def _tallies(folder: PredictionsFolder) -> tuple[dict[str, int], dict[str, int]]:
    """Return how many images have each answer, and each flag."""
    table = read_rows(folder.table, ["predicted", "quality_flags"])
    answers = Counter(code for code in table.column("predicted").to_pylist() if code is not None)
    flags = Counter(flag for flags in table.column("quality_flags").to_pylist() for flag in flags)
    return dict(answers.most_common()), dict(flags.most_common())
