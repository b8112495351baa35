"""Many pictures, in constant memory: masks, crops, a submission and a table of predictions.

Pictures are sorted by id and cut into batches of a fixed size; a batch is the unit of work. Its
rows are written once as a part, named by a hash of its pictures, so that a job that was killed
goes on after the last whole batch, and every job over the same pictures gives the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from naevus.datasets.sources import keep_ids, unique
from naevus.errors import NaevusError
from naevus.evaluation.challenge.classification import write_submission
from naevus.images.read import Limits
from naevus.inference.given import Given
from naevus.inference.pipeline import Job, Plan, plan_of
from naevus.inference.prediction import Prediction
from naevus.io.files import lock
from naevus.io.parallel import Workers, batches, cpu_count
from naevus.runs.predictions import (
    OutFolder,
    _no_table,
    about,
    embeddings_schema,
    join,
    key_of,
    read_rows,
    refused_in,
    write_embeddings,
    write_part,
)
from naevus.taxonomy import TAXONOMIES
from naevus.types import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from naevus.images.preprocess import Source
    from naevus.inference.classifier import Classifier
    from naevus.inference.segmenter import Segmenter
    from naevus.runs.predictions import Schema
    from naevus.types import Decision, Only


def first_predictions(path: Path, count: int) -> list[Prediction]:
    """Return the first predictions of a table, without masks, heatmaps and embeddings.

    Args:
        path: ``predictions.parquet``.
        count: At most so many.

    Raises:
        NaevusError: The file is no such table, or holds no prediction.
    """
    metadata = about(path)
    try:
        with pq.ParquetFile(path) as file:
            rows = next(file.iter_batches(batch_size=count), None)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _no_table(path) from error
    if rows is None or not rows.num_rows:
        raise NaevusError(f"{path}: holds no prediction")
    return [Prediction.from_row(row, metadata) for row in rows.to_pylist()]


_LIMITS: Final = Limits()


@dataclass(frozen=True)
class Outcome:
    """What a job did.

    Attributes:
        out: Where everything is.
        table: The table of predictions.
        predicted: Its rows.
        reused: Rows and refusals taken over from an earlier, interrupted job.
        refused: Pictures that could not be used; they are in ``refused.csv``.
        members: The networks that answered, "bundle/member (architecture)".
        files: What was written, each file or folder.
    """

    out: Path
    table: Path
    predicted: int
    reused: int
    refused: tuple[Refused, ...]
    members: tuple[str, ...]
    files: tuple[Path, ...]


def predict(
    sources: Sequence[Source],
    out: Path,
    *,
    segmenter: Segmenter | None = None,
    classifier: Classifier | None = None,
    decision: Decision = "balanced",
    only: Only | None = None,
    heatmaps: bool = False,
    embeddings: bool = False,
    threads: int | None = None,
    limits: Limits = _LIMITS,
    unusable: Sequence[Refused] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Predict pictures into a folder.

    Writes ``masks/<id>_segmentation.png`` (at the picture's size, 0 and 255), likewise
    ``attributes/<id>_attribute_<attribute>.png`` for each attribute, ``crops/<id>.png``,
    ``predictions.parquet`` (`table.Schema`), ``submission.csv`` where the classes are a known
    taxonomy, and ``refused.csv`` where pictures could not be used; on demand also
    ``heatmaps/<id>.png`` and ``embeddings.parquet``. What an interrupted job with the same settings
    has done is not done again.

    Args:
        sources: The pictures; see `inputs`.
        out: Where to.
        segmenter: Makes the masks.
        classifier: Gives the diagnoses.
        decision: Which probabilities the submission holds.
        only: Write masks alone, or crops alone, and diagnose nothing.
        heatmaps: Write pictures with the heat map of the most probable diagnosis.
        embeddings: Write the networks' embeddings.
        threads: Threads that decode and write; None: as many as processors.
        limits: Which pictures are refused before decoding.
        unusable: What is refused already (`inputs.Found`); it is listed with the others.
        progress: Called with (done, total) pictures.

    Raises:
        ConfigError: Bundles are missing for what is asked, or give no heat maps or embeddings.
        DataError: Two pictures have one id.
        NaevusError: ``out`` holds results of other settings or pictures, is in use, or the disk
            is full.
    """
    plan = plan_of(segmenter, classifier, only, heatmaps=heatmaps, embeddings=embeddings)
    schema = plan.schema()
    ordered = unique(sources)
    pieces = batches(ordered)
    keys = [key_of(piece, limits) for piece in pieces]
    folder = OutFolder(out)
    folder.create()
    with lock(folder.lock):
        folder.claim(plan.settings())
        folder.sweep()
        stale = folder.stale_parts(keys)
        folder.check_covered(stale, ordered)
        keep_ids(out, ordered)
        places = _places(folder, plan)
        todo = [
            number
            for number, (key, piece) in enumerate(zip(keys, pieces, strict=True))
            if not folder.is_done(
                key, [each.image_id for each in piece], places, embeddings=embeddings
            )
        ]
        left = [pieces[number] for number in todo]
        reused = done = len(ordered) - sum(map(len, left))
        job = Job(plan, limits, folder)
        if progress is not None:
            progress(done, len(ordered))
        with Workers(threads or cpu_count()) as workers:
            given = ([Given(each.image_id, each.path) for each in piece] for piece in left)
            answers = zip(todo, job.predict(given, workers), strict=True)

            def write(answer: tuple[int, Sequence[Prediction | Refused]]) -> int:
                number, said = answer
                _write_parts(folder, keys[number], plan, schema, said)
                return len(said)

            for count in workers.behind(write, answers):
                done += count
                if progress is not None:
                    progress(done, len(ordered))
        parts = [folder.part(key) for key in keys]
        predicted = join(parts, schema.arrow(), folder.table)
        refused = [entry for part in parts for entry in refused_in(part)]
        if predicted + len(refused) != len(ordered):
            raise NaevusError(
                f"{folder.table}: {predicted} rows and {len(refused)} refusals are not "
                f"{len(ordered)} pictures",
                "start again; what was changed meanwhile is then made again",
            )
        refused = sorted([*refused, *unusable])
        folder.write_refused(refused)
        written = [folder.table, *_write_submission(folder, plan, decision)]
        if embeddings:
            written.append(folder.embeddings)
            join(
                [folder.embeddings_part(key) for key in keys],
                embeddings_schema(schema.about),
                folder.embeddings,
            )
        folder.remove(stale)
    pictures = (folder.masks, folder.attributes, folder.crops, folder.heatmaps)
    written += [each for each in pictures if each.exists()]  # none where all were refused
    written += [folder.refused] if refused else []
    return Outcome(
        out, folder.table, predicted, reused, tuple(refused), plan.members(), tuple(written)
    )


def _places(folder: OutFolder, plan: Plan) -> list[Callable[[str], Path]]:
    """Return where the pictures go that are made of each picture."""
    lesions = plan.segmenter is not None and plan.segmenter.segments_lesions
    attributes = () if plan.segmenter is None else plan.segmenter.attributes
    made: tuple[tuple[Callable[[str], Path], bool], ...] = (
        (folder.mask, plan.masks and lesions),
        *((partial(folder.attribute, name=name), plan.masks) for name in attributes),
        (folder.crop, bool(plan.forms)),
        (folder.heatmap, plan.heatmaps),
    )
    return [place for place, wanted in made if wanted]


def _write_parts(
    folder: OutFolder, key: str, plan: Plan, schema: Schema, said: Sequence[Prediction | Refused]
) -> None:
    """Write what a batch came to; its rows last, for they tell that it is done."""
    rows = [each for each in said if isinstance(each, Prediction)]
    refused = sorted(each for each in said if isinstance(each, Refused))
    for each in refused:
        folder.forget(each.image_id)
    sizes = folder.settle([row.image_id for row in rows], _places(folder, plan))
    if plan.embeddings:
        embeddings = {row.image_id: row.embedding for row in rows}
        write_embeddings(folder.embeddings_part(key), embeddings_schema(schema.about), embeddings)
    write_part(folder.part(key), schema, [row.to_row() for row in rows], refused, sizes)


def _write_submission(folder: OutFolder, plan: Plan, decision: Decision) -> list[Path]:
    """Write the submission where the classes are all those of a known taxonomy."""
    if plan.classifier is None or plan.classifier.taxonomy is None:
        return []
    taxonomy = TAXONOMIES[plan.classifier.taxonomy]
    if taxonomy.codes != plan.classifier.classes:
        return []
    kind = "b" if decision == "balanced" else "p"
    columns = [f"{kind}_{code}" for code in taxonomy.codes]
    table = read_rows(folder.table, ["image_id", *columns])
    values = np.column_stack([table.column(name).to_numpy() for name in columns])
    write_submission(folder.submission, table.column("image_id").to_pylist(), values, taxonomy)
    return [folder.submission]
