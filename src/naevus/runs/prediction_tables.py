"""The tables of predictions and embeddings, written in parts of one batch and joined."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, replace
from filecmp import cmp
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from naevus.errors import NaevusError, RunError
from naevus.evaluation.patient import effects
from naevus.images.geometry import Box
from naevus.images.measurements import COLUMNS, MILLIMETRE_COLUMNS
from naevus.io.files import (
    atomic,
    flush,
)
from naevus.io.formats import read_parquet
from naevus.io.limits import open_parquet
from naevus.types import METADATA, FailedImage, Patient

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray


# The table of predictions: one schema, written in parts and joined at the end.

ABOUT = b"naevus"
"""Key of the settings in a table's metadata."""
LESION: Final = "lesion_id"
"""The column of lesions."""
PIECE = 4096
"""The number of rows that `read_pieces` reads at a time."""
_FAILED = b"naevus.failed"
_SIZES = b"naevus.sizes"
_ROW_GROUP = 8192
_PRESENCE = "presence_"


@dataclass(frozen=True)
class Schema:
    """The columns of ``predictions.parquet``.

    ``image_id, path``; ``height, width`` of the image; ``prob_<code>``: natural probabilities;
    ``balanced_prob_<code>``: balanced ones; ``predicted, predicted_balanced``: the codes of their
    maxima; ``prediction_set``: the classes that cannot be ruled out; ``member_probs``: natural
    probabilities of each member, in the order of the metadata; ``confidence``: the largest
    natural probability; ``uncertainty``: its standard deviation over members and TTA;
    ``ood_score``: distance from the training images, flagged above 1; ``quality_flags``;
    ``lesion_area``: fraction of the image; ``lesion_left, lesion_top, lesion_right,
    lesion_bottom``: the lesion's box in pixels, right and bottom outside it;
    ``lesion_touches_border``: whether it reaches the image's border; its measurements
    (`naevus.images.measurements.COLUMNS`), null if it does or is implausible; with a scale
    ``mm_per_pixel`` and `MILLIMETRE_COLUMNS`; ``presence_<attribute>``: its probability, if the
    bundle predicts attributes; ``crop_mode``: the classifier's actual input; ``age``, ``sex``,
    ``site`` and the other columns of `naevus.types.METADATA`: the job's metadata, if any, and
    the lesions it knows (`with_lesions`);
    ``bundle_sha256``: SHA-256 of the bundles, joined by commas. Without a classifier there are no
    probability columns, and columns derived from them are null.

    Args:
        classes: Codes in order; none without a classifier.
        bundles: SHA-256 of the bundles.
        about: Settings and members, for the file's metadata under ``naevus``.
        attributes: The predicted attributes, in order.
        metadata: The columns of metadata, in order.
        millimetres: Whether the scale of images is given.
    """

    classes: tuple[str, ...]
    bundles: tuple[str, ...]
    about: dict[str, Any]
    attributes: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ()
    millimetres: bool = False

    @classmethod
    def of(cls, columns: Sequence[str], about: Mapping[str, Any]) -> Self:
        """Return the schema of a table that exists.

        Args:
            columns: The names of its columns.
            about: Its metadata, as from `about`.
        """
        attributes = (name for name in columns if name.startswith(_PRESENCE))
        return cls(
            tuple(about["classes"]),
            (),
            dict(about),
            tuple(name.removeprefix(_PRESENCE) for name in attributes),
            tuple(name for name in columns if name in METADATA),
            "mm_per_pixel" in columns,
        )

    def with_lesions(self) -> Self:
        """Return the schema of a job that knows lesions: with ``lesion_id``."""
        columns = {*self.metadata, LESION}
        return replace(self, metadata=tuple(name for name in METADATA if name in columns))

    def arrow(self) -> pa.Schema:
        """Return the schema for Arrow, with its metadata."""
        numbers = [f"{kind}_{code}" for kind in ("prob", "balanced_prob") for code in self.classes]
        fields = [
            ("image_id", pa.string()),
            ("path", pa.string()),
            ("height", pa.int32()),
            ("width", pa.int32()),
            *((name, pa.float64()) for name in numbers),
            ("predicted", pa.string()),
            ("predicted_balanced", pa.string()),
            ("prediction_set", pa.list_(pa.string())),
            ("member_probs", pa.list_(pa.list_(pa.float32()))),
            ("confidence", pa.float64()),
            ("uncertainty", pa.float64()),
            ("ood_score", pa.float64()),
            ("quality_flags", pa.list_(pa.string())),
            ("lesion_area", pa.float64()),
            *((f"lesion_{side}", pa.int32()) for side in Box._fields),
            ("lesion_touches_border", pa.bool_()),
            *(
                (name, pa.int64() if name == COLUMNS["area"] else pa.float64())
                for name in COLUMNS.values()
            ),
            *((name, pa.float64()) for name in self.millimetre_columns),
            *((f"{_PRESENCE}{name}", pa.float64()) for name in self.attributes),
            ("crop_mode", pa.string()),
            *((name, pa.float64() if name == "age" else pa.string()) for name in self.metadata),
            ("bundle_sha256", pa.string()),
        ]
        about = json.dumps(self.about, sort_keys=True)
        return pa.schema(fields, metadata={ABOUT: about.encode()})

    @property
    def millimetre_columns(self) -> tuple[str, ...]:
        """The scale, and the measurements in millimetres; none without a scale."""
        return ("mm_per_pixel", *MILLIMETRE_COLUMNS.values()) if self.millimetres else ()


def write_part(
    path: Path,
    schema: Schema,
    rows: Sequence[Mapping[str, Any]],
    failed: Sequence[FailedImage],
    sizes: Mapping[str, Sequence[int]],
) -> None:
    """Write the rows of one batch, with its failed images in the file's metadata.

    Args:
        path: The file to write.
        schema: The rows' columns.
        rows: Predictions by column (`naevus.inference.prediction.Prediction.to_row`).
        failed: The failed images.
        sizes: Sizes of the files written for each image, in bytes.

    Raises:
        NaevusError: The disk is full or the folder cannot be written.
    """
    bundles = ",".join(schema.bundles)
    values = [{**row, "bundle_sha256": bundles} for row in rows]
    table = pa.Table.from_pylist(values, schema.arrow())
    noted = {_FAILED: json.dumps(failed).encode(), _SIZES: json.dumps(sizes).encode()}
    _write_part(path, table.replace_schema_metadata({**table.schema.metadata, **noted}))


def _write_part(path: Path, table: pa.Table) -> None:
    """Write a part atomically and flush it: a Parquet file followed by its SHA-256.

    Parquet's own checksums do not cover the headers of its pages.
    """
    content = pa.BufferOutputStream()
    pq.write_table(table, content)
    whole = content.getvalue().to_pybytes()
    with atomic(path) as temporary:
        temporary.write_bytes(whole + hashlib.sha256(whole).digest())
        flush(temporary)


def _open_part(path: Path) -> pq.ParquetFile:
    """Open a part; raise a `ValueError` if any byte has changed since it was written."""
    content = path.read_bytes()
    whole, digest = content[:-_DIGEST], content[-_DIGEST:]
    if hashlib.sha256(whole).digest() != digest:
        raise ValueError(f"{path}: damaged")
    return open_parquet(pa.py_buffer(whole))


_DIGEST: Final = hashlib.sha256().digest_size


class Part(NamedTuple):
    """The content of a complete batch's file.

    Attributes:
        predicted: The ids of its predicted images.
        failed: Its failed images.
        sizes: Sizes of the files written for each image, in bytes.
    """

    predicted: list[str]
    failed: list[FailedImage]
    sizes: dict[str, list[int]]

    @property
    def ids(self) -> list[str]:
        """The ids of all its images, sorted."""
        return sorted([*self.predicted, *(failed.image_id for failed in self.failed)])


def read_part(path: Path) -> Part | None:
    """Read a batch's file; None if it is absent or damaged."""
    try:
        with _open_part(path) as file:
            table = file.read()
        noted = table.schema.metadata
        failed = [FailedImage(*values) for values in json.loads(noted[_FAILED])]
        return Part(table.column("image_id").to_pylist(), failed, json.loads(noted[_SIZES]))
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
        return None


def failed_in(path: Path) -> list[FailedImage]:
    """Return the failed images in an undamaged batch's file, without parsing its rows."""
    with _open_part(path) as file:
        return [FailedImage(*values) for values in json.loads(file.schema_arrow.metadata[_FAILED])]


def ids_of_table(path: Path) -> list[str] | None:
    """Read a table and return its ids; None if it is absent or damaged."""
    try:
        with _open_part(path) as file:
            ids: list[str] = file.read().column("image_id").to_pylist()
    except (pa.ArrowException, OSError, ValueError, KeyError):
        return None
    return ids


def read_rows(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table; unlike ``pq.read_table`` this imports no more of Arrow."""
    with pq.ParquetFile(path) as file:
        return file.read(columns)


def read_pieces(path: Path, columns: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Read columns of a table that may be larger than the memory, `PIECE` rows at a time."""
    with pq.ParquetFile(path) as file:
        for piece in file.iter_batches(PIECE, columns=list(columns)):
            yield piece.to_pylist()


def read_predictions(path: Path) -> pd.DataFrame:
    """Read a table of predictions into pandas.

    Raises:
        RunError: It is absent or damaged.
    """
    sizes = ("height", "width", "lesion_area", "age", *COLUMNS.values())
    kinds = (*sizes, "prob", "balanced_prob", "uncertainty", "ood_score")
    return read_parquet(path, "predict again into another folder", numbers=kinds, error=RunError)


def join(
    parts: Sequence[Path],
    arrow: pa.Schema,
    path: Path,
    lesions: Mapping[str, str] | None = None,
    derived: Sequence[Path] = (),
) -> int:
    """Join parts of one schema into one file, with a few thousand rows in memory at a time.

    Args:
        parts: The parts.
        arrow: The columns of the file.
        path: The file to write.
        lesions: The lesion of each image, by image id, as far as it is known. Parts do not depend
            on it, so that a job may be repeated with other lesions. None: as in the parts.
        derived: Files made from an earlier ``path``. They are removed unless it stays the same:
            those that are left are current, even after a kill.

    Returns:
        The number of rows.

    Raises:
        NaevusError: The disk is full or the folder cannot be written.
    """
    rows = 0
    with atomic(path) as temporary:
        with pq.ParquetWriter(temporary, arrow) as writer:
            for table in _groups(parts):
                known = table if lesions is None else _with_lesions(table, lesions)
                writer.write_table(known.select(arrow.names).cast(arrow))
                rows += table.num_rows
        there = [each for each in derived if each.exists()]
        if there and not (path.exists() and cmp(temporary, path, shallow=False)):
            for each in there:
                each.unlink()
    return rows


def _with_lesions(table: pa.Table, lesions: Mapping[str, str]) -> pa.Table:
    names = [lesions.get(image_id) for image_id in table.column("image_id").to_pylist()]
    others = [name for name in table.column_names if name != LESION]
    return table.select(others).append_column(LESION, pa.array(names, pa.string()))


def about(path: Path) -> dict[str, Any]:
    """Return the settings and members in the metadata of a table of predictions.

    Raises:
        NaevusError: The file is not such a table.
    """
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise no_table(path) from error
    if ABOUT not in metadata:
        raise no_table(path)
    try:
        settings = json.loads(metadata[ABOUT])
        return {**settings, "classes": [str(code) for code in settings["classes"]]}
    except (ValueError, TypeError, KeyError) as error:
        raise no_table(path) from error


class Conditions(NamedTuple):
    """What the probabilities of a table depend on beside the images, in sentences.

    Attributes:
        prevalence: That another prevalence was given; empty if it was not.
        patients: Which probabilities include the patient's data; empty if there are none.
        brief: The same in a few words; empty if they depend on the images alone.
    """

    prevalence: str = ""
    patients: str = ""
    brief: str = ""

    @classmethod
    def of(cls, settings: Mapping[str, Any], table: Path) -> Self:
        """Return those of a table.

        Args:
            settings: Its settings, as from `about`.
            table: The table.
        """
        given = (settings.get("classifier") or {}).get("prevalence") is not None
        patients, included = _patients(settings.get("metadata") or {}, table)
        brief = ["for the given prevalence"] * given + ["with the patient's data"] * included
        return cls(
            "Probabilities are for the prevalence that was given." if given else "",
            patients,
            f"probabilities {' and '.join(brief)}" if brief else "",
        )


def _patients(metadata: Mapping[str, Any], table: Path) -> tuple[str, bool]:
    """Return which probabilities include the patient's data, and whether any does."""
    there = {*metadata.get("columns", ())}.intersection(pq.read_schema(table).names)
    names = [name for name in Patient._fields if name in there]
    if not names:
        return "", False
    if "known" not in metadata:
        return "No probability includes the patient's data, which are only shown.", False
    images = included = 0
    each: Counter[str] = Counter()
    for rows in read_pieces(table, names):
        values = [effects(row, metadata["known"]).counted for row in rows]
        each.update(name for counted in values for name in counted)
        images, included = images + len(rows), included + sum(map(bool, values))
    listed = ", ".join(f"{name} of {each[name]:,}" for name in names if each[name])
    return (
        f"The probabilities of {included:,} of {images:,} images include the patient's data"
        f"{listed and ': '}{listed}."
    ), included > 0


def _groups(parts: Sequence[Path]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    for part in parts:
        with _open_part(part) as file:
            waiting.append(file.read().replace_schema_metadata())
        if sum(table.num_rows for table in waiting) >= _ROW_GROUP:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def no_table(path: Path) -> NaevusError:
    """Return the error for a file that is no table of predictions."""
    return NaevusError(
        f"{path}: is not a table of predictions", "name one that `naevus predict` wrote"
    )


# The table of embeddings: the features before the last layer of a classifier.


def embeddings_schema(about: Mapping[str, Any]) -> pa.Schema:
    """Return the columns of ``embeddings.parquet``: ``image_id``, and ``embedding`` as float16.

    Args:
        about: The file's metadata under ``naevus``.
    """
    fields = [("image_id", pa.string()), ("embedding", pa.list_(pa.float16()))]
    return pa.schema(fields, metadata={ABOUT: json.dumps(about, sort_keys=True).encode()})


def write_embeddings(
    path: Path, schema: pa.Schema, rows: Mapping[str, NDArray[np.float32] | None]
) -> None:
    """Write the embeddings of one batch.

    Args:
        path: The file to write.
        schema: From `embeddings_schema`.
        rows: F features by image id; None if the networks provide none.

    Raises:
        NaevusError: The disk is full or the folder cannot be written.
    """
    features = [None if one is None else one.astype(np.float16) for one in rows.values()]
    columns = [
        pa.array(list(rows), schema.field("image_id").type),
        pa.array(features, schema.field("embedding").type),
    ]
    _write_part(path, pa.table(columns, schema=schema))
