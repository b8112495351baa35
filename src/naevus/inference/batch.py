"""Many pictures, in constant memory: masks, crops, a submission and a table of predictions.

Pictures are sorted by id and cut into batches of a fixed size; a batch is the unit of work. Its
rows are written once as a part, named by a hash of its pictures, so that a job that was killed
goes on after the last whole batch, and every job over the same pictures gives the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import pyarrow.parquet as pq

from naevus.errors import PictureError
from naevus.evaluation.submission import write_submission
from naevus.files import lock
from naevus.images.geometry import Box, box_of
from naevus.images.masks import area_share
from naevus.images.read import Limits, write_png
from naevus.inference.inputs import unique
from naevus.inference.outfolder import OutFolder, key_of
from naevus.inference.plan import Plan, plan_of
from naevus.inference.prediction import (
    Cut,
    Look,
    Prediction,
    cut_for,
    flags_of,
    look,
    stacked,
)
from naevus.inference.stream import Workers, batches, processors
from naevus.inference.table import Refused, Row, join, refused_in, write_part
from naevus.taxonomy import TAXONOMIES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from naevus.datasets.forms import Source
    from naevus.evaluation.decisions import Decision
    from naevus.inference.plan import Only
    from naevus.inference.predictor import Classifier, Segmenter

_LIMITS: Final = Limits()


@dataclass(frozen=True)
class Outcome:
    """What a job did.

    Attributes:
        out: Where everything is.
        predicted: Rows of the table.
        reused: Rows and refusals taken over from an earlier, interrupted job.
        refused: Pictures that could not be used; they are in ``refused.csv``.
        members: The networks that answered, "bundle/member (architecture)".
        files: What was written, each file or folder.
    """

    out: Path
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
    threads: int | None = None,
    limits: Limits = _LIMITS,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Predict pictures into a folder.

    Writes ``masks/<id>_segmentation.png`` (at the picture's size, 0 and 255), ``crops/<id>.png``,
    ``predictions.parquet`` (`table.Schema`), ``submission.csv`` where the classes are a known
    taxonomy, and ``refused.csv`` where pictures could not be used. What an interrupted job with
    the same settings has done is not done again.

    Args:
        sources: The pictures; see `inputs`.
        out: Where to.
        segmenter: Makes the masks.
        classifier: Gives the diagnoses.
        decision: Which probabilities the submission holds.
        only: Write masks alone, or crops alone, and diagnose nothing.
        threads: Threads that decode and write; None: as many as processors.
        limits: Which pictures are refused before decoding.
        progress: Called with (done, total) pictures.

    Raises:
        ConfigError: Bundles are missing for what is asked.
        DataError: Two pictures have one id.
        NaevusError: ``out`` holds results of other settings or pictures, is in use, or the disk
            is full.
    """
    plan = plan_of(segmenter, classifier, only)
    ordered = unique(sources)
    pieces = batches(ordered)
    keys = [key_of(piece, limits) for piece in pieces]
    folder = OutFolder(out)
    folder.create()
    with lock(folder.lock):
        folder.claim(plan.settings())
        stale = folder.stale_parts(keys)
        folder.check_covered(stale, ordered)
        todo = [number for number, key in enumerate(keys) if not folder.is_done(key)]
        left = [pieces[number] for number in todo]
        reused = done = len(ordered) - sum(map(len, left))
        job = _Job(plan, folder, limits)
        if progress is not None:
            progress(done, len(ordered))
        with Workers(threads or processors()) as workers:
            for number, (piece, seen) in zip(todo, workers.ahead(job.see, left), strict=True):
                rows, refused = job.predict(piece, seen, workers)
                write_part(folder.part(keys[number]), plan.schema(), rows, refused)
                done += len(piece)
                if progress is not None:
                    progress(done, len(ordered))
        parts = [folder.part(key) for key in keys]
        predicted = join(parts, plan.schema(), folder.table)
        refused = [entry for part in parts for entry in refused_in(part)]
        folder.write_refused(refused)
        written = [folder.table, *_write_submission(folder, plan, decision)]
        for part in stale:
            part.unlink()
    written += [folder.masks] if plan.masks else []
    written += [folder.crops] if plan.forms else []
    written += [folder.refused] if refused else []
    return Outcome(out, predicted, reused, tuple(refused), plan.members(), tuple(written))


class _Seen(NamedTuple):
    """A picture on its way: where it is from, and its lesion probability where that is known."""

    source: Source
    look: Look | None
    probability: NDArray[np.float32] | None


class _Finished(NamedTuple):
    """A picture whose mask and crop are written; only what the table needs is kept."""

    source: Source
    box: Box | None
    mask_share: float | None
    flags: tuple[str, ...]
    cut: Cut | None


@dataclass(frozen=True)
class _Job:
    plan: Plan
    folder: OutFolder
    limits: Limits

    def see(self, source: Source) -> Look | None:
        """Decode a picture for the segmenter."""
        if self.plan.segmenter is None:
            return None
        return look(source.path, self.plan.segmenter, self.limits)

    def predict(
        self, piece: Sequence[Source], seen: Sequence[Look | PictureError | None], workers: Workers
    ) -> tuple[list[Row], list[Refused]]:
        """Take one batch all the way."""
        refused: list[Refused] = []
        good: list[tuple[Source, Look | None]] = []
        for source, result in zip(piece, seen, strict=True):
            if isinstance(result, PictureError):
                refused.append(_refusal(source, result))
            else:
                good.append((source, result))
        finished: list[_Finished] = []
        outcomes = workers.each(self._finish, self._segment(good))
        for (source, _), outcome in zip(good, outcomes, strict=True):
            if isinstance(outcome, PictureError):
                refused.append(_refusal(source, outcome))
            else:
                finished.append(outcome)
        return self._rows(finished), sorted(refused)

    def _segment(self, good: Sequence[tuple[Source, Look | None]]) -> list[_Seen]:
        squares = [seen.squares for _, seen in good if seen is not None]
        if self.plan.segmenter is None or not squares:
            return [_Seen(source, seen, None) for source, seen in good]
        probabilities = self.plan.segmenter.probabilities(stacked(squares))
        return [
            _Seen(source, seen, probability)
            for (source, seen), probability in zip(good, probabilities, strict=True)
        ]

    def _finish(self, seen: _Seen) -> _Finished:
        mask = None
        if self.plan.segmenter and seen.look is not None and seen.probability is not None:
            mask = self.plan.segmenter.mask_of(seen.probability, seen.look.height, seen.look.width)
        name = seen.source.image_id
        cut = None
        if self.plan.forms:
            cut = cut_for(seen.source.path, mask, self.plan.forms, self.limits)
            write_png(self.folder.crop(name), cut.squares[0])
        if mask is None:
            return _Finished(seen.source, None, None, flags_of(mask), cut)
        if self.plan.masks:
            write_png(self.folder.mask(name), mask)
        return _Finished(seen.source, box_of(mask), area_share(mask), flags_of(mask), cut)

    def _rows(self, finished: Sequence[_Finished]) -> list[Row]:
        crops = [each.cut.squares for each in finished if each.cut is not None]
        said = None
        if self.plan.classifier is not None and crops:
            said = self.plan.classifier.posterior(stacked(crops))
        rows = []
        for number, each in enumerate(finished):
            prediction = Prediction(
                each.source.image_id,
                box=each.box,
                crop_mode=None if each.cut is None else each.cut.mode,
                classes=() if self.plan.classifier is None else self.plan.classifier.classes,
                logits=said and said.logits[number],
                natural=said and said.natural[number],
                balanced=said and said.balanced[number],
                members=said and said.members[number],
                flags=each.flags,
            )
            rows.append(Row(prediction, str(each.source.path), each.mask_share))
        return rows


def _refusal(source: Source, error: PictureError) -> Refused:
    line = " ".join(str(error).removeprefix(f"{source.path}: ").split())
    return Refused(source.image_id, str(source.path), line)


def _write_submission(folder: OutFolder, plan: Plan, decision: Decision) -> list[Path]:
    """Write the submission where the classes are those of a known taxonomy."""
    if plan.classifier is None or plan.classifier.taxonomy is None:
        return []
    taxonomy = TAXONOMIES[plan.classifier.taxonomy]
    kind = "b" if decision == "balanced" else "p"
    columns = [f"{kind}_{code}" for code in taxonomy.codes]
    table = pq.read_table(folder.table, columns=["image_id", *columns]).to_pandas()
    write_submission(
        folder.submission, table["image_id"].tolist(), table[columns].to_numpy(), taxonomy
    )
    return [folder.submission]
