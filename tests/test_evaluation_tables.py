"""Joining predictions with the truth."""

from __future__ import annotations

import pandas as pd
import pytest

from naevus.errors import DataError
from naevus.evaluation.tables import join_by_id

TRUTH = pd.DataFrame({"image_id": ["a", "b", "c"], "diagnosis": ["MEL", "NV", "DF"]})
PREDICTIONS = pd.DataFrame(
    {"image_id": ["c", "a", "b"], "MEL": [0.1, 0.9, 0.2], "diagnosis": ["?", "?", "?"]},
    index=[7, 8, 9],
)


def test_rows_meet_by_id_and_not_by_position() -> None:
    joined = join_by_id(TRUTH, PREDICTIONS)
    assert joined["image_id"].tolist() == ["a", "b", "c"]
    assert joined["diagnosis"].tolist() == ["MEL", "NV", "DF"]
    assert joined["MEL"].tolist() == [0.9, 0.2, 0.1]


def test_missing_and_strange_pictures_are_refused() -> None:
    with pytest.raises(DataError, match="1 pictures were not predicted, such as c"):
        join_by_id(TRUTH, PREDICTIONS.iloc[1:])
    with pytest.raises(DataError, match="not in the truth, such as c"):
        join_by_id(TRUTH.head(2), PREDICTIONS)
    assert len(join_by_id(TRUTH.head(2), PREDICTIONS, extra=True)) == 2


def test_ids_that_are_not_ids_are_refused() -> None:
    twice = pd.concat([PREDICTIONS, PREDICTIONS.head(1)])
    with pytest.raises(DataError, match="c is in the table of predictions more than once"):
        join_by_id(TRUTH, twice)
    with pytest.raises(DataError, match="truth more than once"):
        join_by_id(TRUTH.iloc[[0, 0, 1, 2]], PREDICTIONS)
    with pytest.raises(DataError, match="without image_id"):
        join_by_id(
            TRUTH,
            PREDICTIONS.assign(image_id=PREDICTIONS["image_id"].where(PREDICTIONS["MEL"] < 0.5)),
        )
    with pytest.raises(DataError, match="no column 'image_id'"):
        join_by_id(TRUTH.drop(columns="image_id"), PREDICTIONS)
