"""Join the predictions of shards into one folder, after checking that they belong together.

The folder is built under a temporary name, from links where the file system has them, and renamed
when it is complete. A killed job therefore leaves no half-made folder, and goes on where it was.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow.parquet as pq

from naevus.bundles.bundle import builtin, find_bundles
from naevus.datasets.listing import printable, problem_of_id
from naevus.datasets.sources import kept_ids
from naevus.errors import BundleError, RunError
from naevus.inference.batch import BatchResult, join_parts
from naevus.inference.classifier import Classifier
from naevus.inference.lesions import LesionCounts, write_lesions
from naevus.inference.sheets import tallies, write_sheets, write_submission_of
from naevus.io.files import flush_together, link, sha256_of, staged, write_csv, write_json
from naevus.io.formats import read_json
from naevus.io.progress import SILENT
from naevus.io.settings import differences
from naevus.runs.gather import ANOTHER, RECORD
from naevus.runs.prediction_tables import Schema, about, read_part
from naevus.runs.predictions import SETTINGS, PredictionsFolder
from naevus.runs.shards import AGAIN, ShardRecord, digest
from naevus.taxonomy import TAXONOMIES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from naevus.bundles.bundle import Bundle
    from naevus.io.progress import Reporter
    from naevus.runs.prediction_tables import Part
    from naevus.types import Decision, FailedImage

_MAY_DIFFER: Final = ("engine", "precision", "instructions", "device")
_IDS: Final = ".ids.csv"
_TOGETHER: Final = "gather only shards of one command (`naevus predict --shard`)"


@dataclass(frozen=True)
class _Shard:
    """A finished shard's folder, with its settings without those that may differ."""

    folder: PredictionsFolder
    record: ShardRecord
    settings: dict[str, Any]
    computed: dict[str, Any]

    @property
    def root(self) -> Path:
        return self.folder.root


@dataclass(frozen=True)
class _Batch:
    """A batch of a shard: its file, and what the file contains."""

    shard: _Shard
    path: Path
    part: Part


def gather_predictions(
    shards: Sequence[Path],
    out: Path,
    *,
    bundles: Sequence[Path] = (),
    reporter: Reporter = SILENT,
) -> BatchResult:
    """Join the predictions of all shards of a job into one folder.

    The tables are those that one process would have written. Calling it again does nothing.

    Args:
        shards: The folders of all shards, in any order.
        out: The folder to write, which must not exist or be empty.
        bundles: Where the bundles are now, if lesions are known and the bundles have moved.
        reporter: Receives progress, and notes on shards that were computed differently.

    Raises:
        RunError: A shard is missing, unfinished, damaged, given twice, or of other images,
            bundles, versions or settings; or an image is in two shards.
        BundleError: Lesions are known, and their bundles are nowhere to be found.
        NaevusError: ``out`` holds other files, or the disk is full.
    """
    with reporter.status("checking the shards"):
        found = sorted(map(_read, shards), key=lambda each: each.record.shard)
        _check_complete(found)
        computed = _check_together(found, reporter)
    batches = _batches(found, reporter)
    _check_ids(found, batches)
    key = sha256_of(
        *(f"{each.shard.record.shard} {each.path.name}" for each in batches),
        *(repr((each.record, each.settings, each.computed)) for each in found),
    )
    if (out / RECORD).exists() and read_json(out / RECORD, ANOTHER).get("key") == key:
        return _result(out, found, batches, reused=True)
    with staged(out, key) as making:
        folder = replace(found[0].folder, root=making)
        _link_files(batches, folder, reporter)
        with reporter.status("writing the tables"):
            lesions = _write_tables(found, batches, folder, computed, bundles)
        roots = {str(each.record.shard): str(each.root) for each in found}
        noted = {"key": key, "shards": roots, "computed": computed, "lesions": lesions}
        write_json(making / RECORD, noted)
        flush_together([folder.table])
    return _result(out, found, batches, reused=False)


def _read(root: Path) -> _Shard:
    """Read what a shard says of itself.

    Raises:
        RunError: It is not a finished shard.
    """
    if not root.is_dir():
        raise RunError(f"{root} does not exist", "name the folders that the shards were written to")
    settings: dict[str, Any] = {}
    if (root / SETTINGS).exists():
        settings = read_json(root / SETTINGS, AGAIN, error=RunError)
    if "shard" not in settings:
        raise RunError(f"{root}: is not a shard of predictions", _TOGETHER)
    record = ShardRecord.read(root)
    if settings.pop("shard") != str(record.shard):
        raise RunError(f"{root}: is of two shards at once", "predict it again into another folder")
    computed: dict[str, Any] = {}
    for name, part in settings.items():
        if isinstance(part, dict):
            computed |= {f"{name}.{key}": part[key] for key in _MAY_DIFFER if key in part}
            settings[name] = {key: part[key] for key in part if key not in _MAY_DIFFER}
    return _Shard(PredictionsFolder(root, bool(settings.get("nested"))), record, settings, computed)


def _check_complete(found: Sequence[_Shard]) -> None:
    """Check that each shard is there once.

    Raises:
        RunError: One is not.
    """
    first = found[0]
    places: dict[int, Path] = {}
    for each in found:
        number, of = each.record.shard
        if of != first.record.shard.of:
            raise RunError(
                f"{each.root}: is shard {each.record.shard}, and {first.root} is shard "
                f"{first.record.shard}",
                _TOGETHER,
            )
        if number in places:
            raise RunError(
                f"{each.root}: is shard {each.record.shard} like {places[number]}",
                "name each shard once",
            )
        places[number] = each.root
    of = first.record.shard.of
    missing = [f"{number}/{of}" for number in range(1, of + 1) if number not in places]
    if missing:
        shown = ", ".join(missing[:8]) + (" and so on" if len(missing) > 8 else "")
        raise RunError(
            f"{len(missing)} of {of} shards are missing: {shown}",
            "name their folders too, or predict them",
        )


def _check_together(found: Sequence[_Shard], reporter: Reporter) -> dict[str, dict[str, list[int]]]:
    """Check that the shards are of one job, and report which were computed differently.

    Returns:
        For each setting that differs, such as ``classifier.precision``, the numbers of the shards
        by value.

    Raises:
        RunError: They are of other images, bundles, versions or settings.
    """
    first = found[0]
    for each in found[1:]:
        pairs = (
            (first.settings, each.settings),
            (_wishes(first.record), _wishes(each.record)),
        )
        for there, now in pairs:
            if there != now:
                raise RunError(
                    f"{first.root} was predicted otherwise than {each.root}: "
                    f"{differences(there, now)}",
                    _TOGETHER,
                )
        if (each.record.ids_sha256, each.record.images) != (
            first.record.ids_sha256, first.record.images
        ):  # fmt: skip
            raise RunError(
                f"{each.root}: is of a list of {each.record.images:,} images, and {first.root} of "
                f"another list of {first.record.images:,}",
                "predict all shards from the same list of images",
            )
    differing: dict[str, dict[str, list[int]]] = {}
    for name in first.computed:
        values: dict[str, list[int]] = {}
        for each in found:
            values.setdefault(str(each.computed.get(name)), []).append(each.record.shard.number)
        if len(values) > 1:
            differing[name] = values
            parts = (f"{value} in {_numbers(shards)}" for value, shards in values.items())
            reporter.warning(f"{name} differs between shards: {'; '.join(parts)}")
    return differing


def _wishes(record: ShardRecord) -> dict[str, Any]:
    """Return what all shards must have in common, beside their settings."""
    return {
        "naevus_version": record.naevus_version,
        "files": list(record.files),
        "lesions": record.lesions,
        "xlsx": record.xlsx,
        "submission": record.submission,
    }


def _numbers(shards: Sequence[int]) -> str:
    shown = ", ".join(map(str, shards[:8]))
    return f"{len(shards)} shards ({shown}{' and so on' if len(shards) > 8 else ''})"


def _batches(found: Sequence[_Shard], reporter: Reporter) -> list[_Batch]:
    """Read the batches of all shards, in the order of their ids.

    Raises:
        RunError: One is damaged.
    """
    paths = [
        (each, path)
        for each in found
        for path in sorted(each.folder.part("").parent.glob("*.part"))
    ]
    batches = []
    with reporter.progress("reading shards", len(paths)) as move:
        for done, (shard, path) in enumerate(paths, 1):
            part = read_part(path)
            if part is None:
                raise RunError(f"{path}: is damaged", f"copy it once more, or {AGAIN}")
            for image_id in part.ids:  # they name files
                if (problem := problem_of_id(image_id)) is not None:
                    raise RunError(f"{path}: the id {printable(image_id)!r} {problem}", _TOGETHER)
            batches.append(_Batch(shard, path, part))
            move(done, len(paths))
    return sorted(batches, key=lambda each: each.part.ids[0])


def _check_ids(found: Sequence[_Shard], batches: Sequence[_Batch]) -> None:
    """Check that every image of the job is in the batches exactly once.

    Raises:
        RunError: One is not.
    """
    last: tuple[str, _Shard] | None = None
    for batch in batches:
        for image_id in batch.part.ids:
            if last is not None and last[0] >= image_id:
                raise RunError(
                    f"image {image_id} is not where it should be: {last[1].root} and "
                    f"{batch.shard.root} overlap",
                    "predict all shards from the same list of images",
                )
            last = image_id, batch.shard
    ids = [image_id for batch in batches for image_id in batch.part.ids]
    record = found[0].record
    if len(ids) != record.images or digest(ids) != record.ids_sha256:
        raise RunError(
            f"the shards have {len(ids):,} of the {record.images:,} images of the job",
            "copy their folders whole, with the hidden folder .parts",
        )


def _link_files(batches: Sequence[_Batch], folder: PredictionsFolder, reporter: Reporter) -> None:
    """Link or copy the parts and each image's files; those that are there already are kept.

    Raises:
        RunError: A file is missing or has another size than when it was written.
    """
    total = sum(len(each.part.predicted) for each in batches)
    done = 0
    with reporter.progress("linking files", total) as move:
        for batch in batches:
            source = batch.shard.folder
            kinds = batch.shard.record.files
            for image_id in batch.part.predicted:
                for kind, size in zip(kinds, batch.part.sizes[image_id], strict=True):
                    _link(source.place(kind, image_id), folder.place(kind, image_id), size)
            name = batch.path.stem
            pairs = [(batch.path, folder.part(name))]
            if source.embeddings_part(name).exists():
                pairs.append((source.embeddings_part(name), folder.embeddings_part(name)))
            for path, target in pairs:
                _link(path, target, path.stat().st_size)
            done += len(batch.part.predicted)
            move(done, total)


def _link(path: Path, target: Path, size: int) -> None:
    try:
        there = path.stat().st_size
    except OSError:
        there = None
    if there != size:
        raise RunError(f"{path}: is missing or has changed", f"copy it once more, or {AGAIN}")
    link(path, target)


def _write_tables(
    found: Sequence[_Shard],
    batches: Sequence[_Batch],
    folder: PredictionsFolder,
    computed: Mapping[str, Any],
    bundles: Sequence[Path],
) -> LesionCounts | None:
    """Write everything that one job would write beside the images' files."""
    record, settings = found[0].record, read_json(found[0].root / SETTINGS, AGAIN)
    del settings["shard"]
    own = {"computed": dict(computed)} if computed else {}
    write_json(folder.root / SETTINGS, settings | own)
    rows = sorted((name, path) for each in found for path, name in kept_ids(each.root).items())
    write_csv(folder.root / _IDS, ("image_id", "path"), rows)
    table = found[0].folder.table
    schema = Schema.of(pq.read_schema(table).names, about(table) | own)
    lesions: dict[str, str] = {}
    if record.lesions:
        schema = schema.with_lesions()
        for each in found:
            lesions |= each.folder.kept_lesions()
    _, failed, _ = join_parts(
        folder,
        [folder.part(each.path.stem) for each in batches],
        schema,
        _unusable(found),
        embeddings=bool(settings["embeddings"]),
        lesions=lesions if record.lesions else None,
    )
    write_sheets(folder, schema, xlsx=record.xlsx)
    counts = None
    if record.submission is not None:
        decision: Decision = "natural" if record.submission == "natural" else "balanced"
        write_submission_of(folder, TAXONOMIES[str(schema.about["taxonomy"])], decision)
    if record.lesions:
        sets_of = None
        if schema.about["coverage"] is not None:
            sets_of = _classifier(found[0], settings, bundles).sets_of
        counts = write_lesions(folder, lesions, failed, sets_of)
    return counts


def _unusable(found: Sequence[_Shard]) -> list[FailedImage]:
    return [failed for each in found for failed in each.record.unusable]


def _classifier(shard: _Shard, settings: Mapping[str, Any], bundles: Sequence[Path]) -> Classifier:
    """Load the classifier, which knows the thresholds of prediction sets.

    Raises:
        BundleError: Its bundles are nowhere to be found.
    """
    options = settings["classifier"]
    places = [*bundles] or [Path(shard.record.bundles[name]) for name in options["bundles"]]
    known: dict[str, Bundle] = {}
    for place in (*places, builtin()):
        with suppress(BundleError):
            known |= {each.sha256: each for each in find_bundles([place])}
    missing = [name for name in options["bundles"] if name not in known]
    if missing:
        raise BundleError(
            f"the sets of lesions need the bundle {missing[0][:12]}, which is not at {places[0]}",
            "name it with --bundle",
        )
    return Classifier(
        [known[name] for name in options["bundles"]],
        tta=options["tta"],
        engine=options["engine"],
        prevalence=options["prevalence"],
    )


def _result(
    out: Path, found: Sequence[_Shard], batches: Sequence[_Batch], *, reused: bool
) -> BatchResult:
    """Return what a finished folder holds."""
    folder = replace(found[0].folder, root=out)
    failed = sorted(failed for each in batches for failed in each.part.failed)
    predicted = sum(len(each.part.predicted) for each in batches)
    counts = read_json(out / RECORD, ANOTHER)["lesions"]
    tables = (
        folder.table, folder.sheet, folder.workbook, folder.submission,
        folder.embeddings, *folder.lesions, *folder.image_folders, folder.failed,
    )  # fmt: skip
    return BatchResult(
        out,
        folder.table,
        predicted,
        predicted if reused else 0,
        tuple(sorted([*failed, *_unusable(found)])),
        found[0].record.members,
        tuple(path for path in tables if path.exists()),
        None if counts is None else LesionCounts(*counts),
        *tallies(folder),
    )
