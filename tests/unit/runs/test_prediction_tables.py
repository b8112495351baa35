"""The predictions folder: rows survive a round trip, and damage is detected."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from naevus.errors import NaevusError
from naevus.inference.prediction import Prediction
from naevus.runs.prediction_tables import (
    Schema,
    about,
    embeddings_schema,
    ids_of_table,
    join,
    read_part,
    read_rows,
    write_embeddings,
    write_part,
)
from naevus.types import explained

ABOUT = {"classes": ["MEL", "NV"], "coverage": 0.9, "taxonomy": None}
PREDICTION = Prediction(
    "i1",
    Path("/images/i1.jpg"),
    60,
    80,
    lesion_area=0.25,
    crop_mode="crop",
    probabilities={"MEL": 0.3, "NV": 0.7},
    balanced_probabilities={"MEL": 0.6, "NV": 0.4},
    members=np.array([[0.25, 0.75], [0.5, 0.5]]),
    uncertainty=0.1,
    prediction_set=("NV",),
    coverage=0.9,
    flags=explained(["hair"]),
    ood_score=0.5,
    bundles=("a", "b"),
)


def test_predictions_survive_a_round_trip(tmp_path: Path) -> None:
    one, path = tmp_path / "one.part", tmp_path / "predictions.parquet"
    schema = Schema(("MEL", "NV"), ("a", "b"), ABOUT)
    write_part(one, schema, [PREDICTION.to_row()], [], {"i1": [3]})
    join([one], schema.arrow(), path)
    (row,) = read_rows(path).to_pylist()
    assert row["bundle_sha256"] == "a,b"
    again = Prediction.from_row(row, about(path))
    assert again.to_dict() == PREDICTION.to_dict()
    assert again.members is not None
    np.testing.assert_allclose(again.members, [[0.25, 0.75], [0.5, 0.5]])
    part = read_part(one)
    assert part is not None
    assert (part.predicted, part.failed, part.sizes) == (["i1"], [], {"i1": [3]})


@pytest.mark.parametrize("flipped", [0xFF, 0x01])
def test_a_part_with_any_changed_byte_counts_as_damaged(tmp_path: Path, flipped: int) -> None:
    rows, features = tmp_path / "rows.part", tmp_path / "features.part"
    schema = Schema(("MEL", "NV"), ("a", "b"), ABOUT)
    write_part(rows, schema, [PREDICTION.to_row()], [], {"i1": [3]})
    write_embeddings(features, embeddings_schema(ABOUT), {"i1": np.ones(3, np.float32)})
    for path, read in ((rows, read_part), (features, ids_of_table)):
        whole = path.read_bytes()
        assert read(path) is not None
        for place in range(0, len(whole), 3):
            damaged = bytearray(whole)
            damaged[place] ^= flipped
            path.write_bytes(damaged)
            assert read(path) is None


@pytest.mark.parametrize("flipped", [0xFF, 0x01])
def test_a_table_with_any_changed_byte_is_read_or_reported_as_damaged(
    tmp_path: Path, flipped: int
) -> None:
    part, path = tmp_path / "rows.part", tmp_path / "predictions.parquet"
    schema = Schema(("MEL", "NV"), ("a", "b"), ABOUT)
    write_part(part, schema, [PREDICTION.to_row()], [], {"i1": [3]})
    join([part], schema.arrow(), path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= flipped
        path.write_bytes(damaged)
        with suppress(NaevusError):
            about(path)
