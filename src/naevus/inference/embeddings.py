"""The table of embeddings: what a network makes of a picture before it decides."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from naevus.inference.table import ABOUT, write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from naevus.inference.prediction import Prediction


def embeddings_schema(about: Mapping[str, Any]) -> pa.Schema:
    """Return the columns of ``embeddings.parquet``: ``image_id``, and ``embedding`` in 16 bits.

    Args:
        about: What the file's metadata says under ``naevus``.
    """
    fields = [("image_id", pa.string()), ("embedding", pa.list_(pa.float16()))]
    return pa.schema(fields, metadata={ABOUT: json.dumps(about, sort_keys=True).encode()})


def write_embeddings(path: Path, schema: pa.Schema, rows: Sequence[Prediction]) -> None:
    """Write the embeddings of one batch.

    Raises:
        NaevusError: The disk is full or the folder cannot be written.
    """
    features = [None if row.embedding is None else row.embedding.astype(np.float16) for row in rows]
    columns = [
        pa.array([row.image_id for row in rows], schema.field("image_id").type),
        pa.array(features, schema.field("embedding").type),
    ]
    write_whole(path, pa.table(columns, schema=schema))
