"""No column of a table collides with what pandas calls its own, or with another kind of column."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from naevus.datasets.folds import make_folds
from naevus.datasets.layouts import load
from naevus.evaluation.comparison import compare
from naevus.evaluation.evaluate import evaluate
from naevus.evaluation.labelled import oof_classified
from naevus.inference.lesions import lesions_schema
from naevus.inference.sheets import sheet_columns
from naevus.runs.prediction_tables import Schema, embeddings_schema
from naevus.taxonomy import ATTRIBUTES, ISIC2018
from naevus.types import FailedImage
from tests.helpers.tables import diagnoses, masks, table_of_masks

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


def columns() -> Iterator[tuple[str, list[str]]]:
    """Yield the columns of every table that naevus writes or returns, by its name."""
    about = {"taxonomy": "isic2018", "coverage": 0.9}
    schema = Schema(ISIC2018.codes, (), about, tuple(ATTRIBUTES))
    yield "predictions.parquet", schema.arrow().names
    yield "predictions.csv", sheet_columns(schema)
    yield "lesions.parquet", lesions_schema(ISIC2018.codes, about).names
    yield "embeddings.parquet", embeddings_schema(about).names
    yield "failed.csv", list(FailedImage._fields)
    dataset = load(ROOT / "tests" / "data" / "ISIC2018")
    yield "Dataset.table", list(dataset.table.columns)
    yield "folds.csv", list(make_folds(dataset, k=2).table.columns)
    for path in sorted((ROOT / "results" / "oof").glob("*.parquet")):
        yield path.name, pq.read_schema(path).names
    labelled = oof_classified(diagnoses(2.0).assign(fold=np.arange(240) // 2 % 2))
    found = evaluate("x", labelled=labelled, masks=table_of_masks())
    for name, table in found.tables().items():
        if name != "confusion":  # its columns are codes
            yield f"Evaluation: {name}", list(map(str, table.columns))
    assert found.classification is not None
    assert found.classification.lesions is not None
    yield "LesionEvaluation", list(found.classification.lesions.to_frame().columns)
    for pair in ((diagnoses(), diagnoses(2.0)), (masks(), masks(-0.03))):
        for name, table in compare(*pair).tables().items():
            yield f"Comparison: {name}", list(table.columns)


@pytest.fixture(scope="module")
def tables() -> dict[str, list[str]]:
    return dict(columns())


def test_no_column_is_an_attribute_of_a_data_frame(tables: dict[str, list[str]]) -> None:
    assert len(tables) > 20
    assert hasattr(pd.DataFrame, "flags")  # which quality flags would hide
    hidden = [
        f"{name}: {column}"
        for name, found in tables.items()
        for column in found
        if hasattr(pd.DataFrame, column)
    ]
    assert not hidden


def test_columns_of_probabilities_are_all_of_a_diagnosis(tables: dict[str, list[str]]) -> None:
    for name, found in tables.items():
        named = [column for column in found if column.startswith("prob_")]
        assert named in ([], [f"prob_{code}" for code in ISIC2018.codes]), name
