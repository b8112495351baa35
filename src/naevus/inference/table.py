"""The table of predictions: one schema, written in parts, joined at the end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from naevus.errors import NaevusError
from naevus.files import atomic

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from naevus.inference.prediction import Prediction

_REFUSED = b"naevus.refused"
_ABOUT = b"naevus"
_ROW_GROUP = 8192


class Refused(NamedTuple):
    """A picture that could not be predicted, and why, in one line."""

    image_id: str
    path: str
    problem: str


class Row(NamedTuple):
    """A prediction with where it comes from, and its mask's share of the picture."""

    prediction: Prediction
    path: str
    mask_share: float | None


@dataclass(frozen=True)
class Schema:
    """The columns of ``predictions.parquet``.

    ``image_id, path``; ``p_<code>``: natural probabilities; ``b_<code>``: balanced ones;
    ``decision_probable, decision_balanced``: the codes of their maxima; ``members``: natural
    probabilities, member by member, in the order of the metadata's list; ``doubt``: one minus the
    greatest natural probability; ``flags``; ``mask_share``: share of the picture; ``crop_mode``:
    what the classifier really saw; ``bundles``: SHA-256 of the bundles, joined by commas. Without
    a classifier there are no probabilities and what follows from them is null.

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
            *((name, pa.float64()) for name in numbers),
            ("decision_probable", pa.string()),
            ("decision_balanced", pa.string()),
            ("members", pa.list_(pa.list_(pa.float32()))),
            ("doubt", pa.float64()),
            ("flags", pa.list_(pa.string())),
            ("mask_share", pa.float64()),
            ("crop_mode", pa.string()),
            ("bundles", pa.string()),
        ]
        about = json.dumps(self.about, sort_keys=True)
        return pa.schema(fields, metadata={_ABOUT: about.encode()})

    def values(self, row: Row) -> dict[str, Any]:
        """Return one row's values by column."""
        said = row.prediction
        values: dict[str, Any] = {
            "image_id": said.image_id,
            "path": row.path,
            "decision_probable": said.probable,
            "decision_balanced": said.decision,
            "members": None if said.members is None else said.members.tolist(),
            "doubt": said.doubt,
            "flags": list(said.flags),
            "mask_share": row.mask_share,
            "crop_mode": said.crop_mode,
            "bundles": ",".join(self.bundles),
        }
        if said.natural is not None and said.balanced is not None:
            for position, code in enumerate(self.classes):
                values[f"p_{code}"] = float(said.natural[position])
                values[f"b_{code}"] = float(said.balanced[position])
        return values


def write_part(path: Path, schema: Schema, rows: Sequence[Row], refused: Sequence[Refused]) -> None:
    """Write the rows of one batch, and in the file's metadata what was refused.

    Raises:
        NaevusError: The disk is full or the folder cannot be written.
    """
    table = pa.Table.from_pylist([schema.values(row) for row in rows], schema.arrow())
    metadata = {**table.schema.metadata, _REFUSED: json.dumps(refused).encode()}
    with atomic(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary)


def refused_in(path: Path) -> list[Refused]:
    """Return what was refused in a part."""
    metadata = pq.read_schema(path).metadata
    return [Refused(*values) for values in json.loads(metadata[_REFUSED])]


def ids_in(path: Path) -> list[str]:
    """Return the ids of a part's pictures, predicted and refused."""
    ids: list[str] = pq.read_table(path, columns=["image_id"]).column(0).to_pylist()
    return ids + [refused.image_id for refused in refused_in(path)]


def is_part(path: Path) -> bool:
    """Tell whether a part is there and whole; a damaged one is made again."""
    try:
        return path.exists() and _REFUSED in (pq.read_schema(path).metadata or {})
    except (pa.ArrowException, OSError):
        return False


def join(parts: Sequence[Path], schema: Schema, path: Path) -> int:
    """Join parts into one file, a few thousand rows in memory at a time.

    Returns:
        How many rows there are.

    Raises:
        NaevusError: The disk is full or the folder cannot be written.
    """
    arrow = schema.arrow()
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
    if _ABOUT not in metadata:
        raise _no_table(path)
    told: dict[str, Any] = json.loads(metadata[_ABOUT])
    return told


def _groups(parts: Sequence[Path]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    for part in parts:
        waiting.append(pq.read_table(part).replace_schema_metadata())
        if sum(table.num_rows for table in waiting) >= _ROW_GROUP:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def _no_table(path: Path) -> NaevusError:
    return NaevusError(f"{path}: no table of predictions", "name one that `naevus predict` wrote")
