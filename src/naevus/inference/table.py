"""The table of predictions: one schema, written in parts, joined at the end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from naevus.errors import NaevusError, RunError
from naevus.inference.prediction import Prediction
from naevus.io.files import atomic, flush
from naevus.io.formats import read_parquet
from naevus.types import Refused, explained

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd

ABOUT = b"naevus"
"""Under which name a table's metadata says what it was made with."""
_REFUSED = b"naevus.refused"
_SIZES = b"naevus.sizes"
_ROW_GROUP = 8192


@dataclass(frozen=True)
class Schema:
    """The columns of ``predictions.parquet``.

    ``image_id, path``; ``height, width`` of the picture; ``p_<code>``: natural probabilities;
    ``b_<code>``: balanced ones; ``decision_probable, decision_balanced``: the codes of their
    maxima; ``prediction_set``: the classes that cannot be ruled out; ``members``: natural
    probabilities, member by member, in the order of the metadata's list; ``doubt``: one minus the
    greatest natural probability; ``spread``: how far members and views are apart;
    ``unlikeness``: how unlike the training pictures, above 1 where flagged; ``flags``;
    ``mask_share``: share of the picture; ``crop_mode``: what the classifier really saw;
    ``bundles``: SHA-256 of the bundles, joined by commas. Without a classifier there are no
    probabilities and what follows from them is null.

    Args:
        classes: Codes in order; none without a classifier.
        bundles: SHA-256 of the bundles.
        about: What the file's metadata says under ``naevus``, as JSON: settings and members.
    """

    classes: tuple[str, ...]
    bundles: tuple[str, ...]
    about: dict[str, Any]

    def arrow(self) -> pa.Schema:
        """Return the schema for Arrow, with its metadata."""
        numbers = [f"{kind}_{code}" for kind in "pb" for code in self.classes]
        fields = [
            ("image_id", pa.string()),
            ("path", pa.string()),
            ("height", pa.int32()),
            ("width", pa.int32()),
            *((name, pa.float64()) for name in numbers),
            ("decision_probable", pa.string()),
            ("decision_balanced", pa.string()),
            ("prediction_set", pa.list_(pa.string())),
            ("members", pa.list_(pa.list_(pa.float32()))),
            ("doubt", pa.float64()),
            ("spread", pa.float64()),
            ("unlikeness", pa.float64()),
            ("flags", pa.list_(pa.string())),
            ("mask_share", pa.float64()),
            ("crop_mode", pa.string()),
            ("bundles", pa.string()),
        ]
        about = json.dumps(self.about, sort_keys=True)
        return pa.schema(fields, metadata={ABOUT: about.encode()})

    def values(self, said: Prediction) -> dict[str, Any]:
        """Return a prediction's values by column."""
        values: dict[str, Any] = {
            "image_id": said.image_id,
            "path": str(said.picture),
            "height": said.height,
            "width": said.width,
            "decision_probable": said.diagnosis,
            "decision_balanced": said.balanced_diagnosis,
            "prediction_set": said.prediction_set,
            "members": None if said.members is None else said.members.tolist(),
            "doubt": said.doubt,
            "spread": said.spread,
            "unlikeness": said.unlikeness,
            "flags": list(said.flags),
            "mask_share": said.mask_share,
            "crop_mode": said.crop_mode,
            "bundles": ",".join(self.bundles),
        }
        values |= {f"p_{code}": share for code, share in said.probabilities.items()}
        return values | {f"b_{code}": share for code, share in said.balanced_probabilities.items()}


def write_part(
    path: Path,
    schema: Schema,
    rows: Sequence[Prediction],
    refused: Sequence[Refused],
    sizes: Mapping[str, Sequence[int]],
) -> None:
    """Write the rows of one batch, and in the file's metadata what was refused.

    Args:
        path: Where to.
        schema: The rows' columns.
        rows: What was predicted.
        refused: What was refused.
        sizes: The bytes of the files that were written of each picture.

    Raises:
        NaevusError: The disk is full or the folder cannot be written.
    """
    table = pa.Table.from_pylist([schema.values(row) for row in rows], schema.arrow())
    noted = {_REFUSED: json.dumps(refused).encode(), _SIZES: json.dumps(sizes).encode()}
    write_whole(path, table.replace_schema_metadata({**table.schema.metadata, **noted}))


def write_whole(path: Path, table: pa.Table) -> None:
    """Write a table atomically, so that `read_rows` tells damage, and it survives a power cut."""
    with atomic(path) as temporary:
        pq.write_table(table, temporary, write_page_checksum=True)
        flush(temporary)


class Part(NamedTuple):
    """What is told by a batch's file that is whole.

    Attributes:
        predicted: The ids of its predicted pictures.
        refused: What was refused.
        sizes: The bytes of the files that were written of each picture.
    """

    predicted: list[str]
    refused: list[Refused]
    sizes: dict[str, list[int]]

    @property
    def ids(self) -> list[str]:
        """The ids of all its pictures, sorted."""
        return sorted([*self.predicted, *(refused.image_id for refused in self.refused)])


def read_part(path: Path) -> Part | None:
    """Read all of a batch's file; None where it is absent or damaged in any way."""
    try:
        table = read_rows(path)
        noted = table.schema.metadata
        refused = [Refused(*values) for values in json.loads(noted[_REFUSED])]
        return Part(table.column("image_id").to_pylist(), refused, json.loads(noted[_SIZES]))
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
        return None


def refused_in(path: Path) -> list[Refused]:
    """Return what was refused in a batch's file that is whole; its rows are not read."""
    return [Refused(*values) for values in json.loads(pq.read_schema(path).metadata[_REFUSED])]


def ids_of_table(path: Path) -> list[str] | None:
    """Read all of a table; return its ids, or None where it is absent or damaged."""
    try:
        ids: list[str] = read_rows(path).column("image_id").to_pylist()
    except (pa.ArrowException, OSError, KeyError):
        return None
    return ids


def read_rows(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a file of ours; unlike ``pq.read_table`` this imports no more of Arrow."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        return file.read(columns)


def read_predictions(path: Path) -> pd.DataFrame:
    """Read a table of predictions, as pandas has it.

    Raises:
        RunError: It is absent or damaged.
    """
    kinds = ("p", "b", "height", "width", "mask", "spread", "unlikeness")
    return read_parquet(path, "predict again into another folder", numbers=kinds, error=RunError)


def join(parts: Sequence[Path], arrow: pa.Schema, path: Path) -> int:
    """Join parts of one schema into one file, a few thousand rows in memory at a time.

    Returns:
        How many rows there are.

    Raises:
        NaevusError: The disk is full or the folder cannot be written.
    """
    rows = 0
    with atomic(path) as temporary, pq.ParquetWriter(temporary, arrow) as writer:
        for table in _groups(parts):
            writer.write_table(table.cast(arrow))
            rows += table.num_rows
    return rows


def about(path: Path) -> dict[str, Any]:
    """Return the settings and members that a table of predictions was made with.

    Raises:
        NaevusError: The file is no such table.
    """
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise _no_table(path) from error
    if ABOUT not in metadata:
        raise _no_table(path)
    try:
        told = json.loads(metadata[ABOUT])
        return {**told, "classes": [str(code) for code in told["classes"]]}
    except (ValueError, TypeError, KeyError) as error:
        raise _no_table(path) from error


def first_of(path: Path) -> Prediction:
    """Return the first prediction of a table, without mask, heat map and embedding.

    Raises:
        NaevusError: The file is no such table, or holds no prediction.
    """
    told = about(path)
    try:
        with pq.ParquetFile(path) as file:
            rows = next(file.iter_batches(batch_size=1), None)
    except (pa.ArrowException, OSError) as error:
        raise _no_table(path) from error
    if rows is None or not rows.num_rows:
        raise NaevusError(f"{path}: holds no prediction")
    (row,) = rows.to_pylist()
    within = row["prediction_set"]
    return Prediction(
        row["image_id"],
        Path(row["path"]),
        row["height"],
        row["width"],
        mask_share=row["mask_share"],
        crop_mode=row["crop_mode"],
        probabilities={code: row[f"p_{code}"] for code in told["classes"]},
        balanced_probabilities={code: row[f"b_{code}"] for code in told["classes"]},
        spread=row["spread"],
        unlikeness=row["unlikeness"],
        prediction_set=None if within is None else tuple(within),
        level=told["level"],
        flags=explained(row["flags"]),
        taxonomy=told["taxonomy"],
    )


def _groups(parts: Sequence[Path]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    for part in parts:
        waiting.append(read_rows(part).replace_schema_metadata())
        if sum(table.num_rows for table in waiting) >= _ROW_GROUP:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def _no_table(path: Path) -> NaevusError:
    return NaevusError(f"{path}: no table of predictions", "name one that `naevus predict` wrote")
