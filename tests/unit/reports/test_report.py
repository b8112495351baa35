"""Whole reports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from naevus.evaluation.labelled import LabelledPredictions
from naevus.evaluation.priors import rebalance
from naevus.reports.html import write_report
from naevus.reports.report import make_report
from naevus.runs.evaluate import evaluate_results
from naevus.runs.results import Results
from naevus.taxonomy import ISIC2018

if TYPE_CHECKING:
    pass


@pytest.mark.slow
def test_many_images_make_a_page_of_bounded_size(tmp_path: Path) -> None:
    """Curves, listed images and table rows are limited."""
    sizes = {}
    for count in (400, 4_000):
        results = many(count)
        evaluation = evaluate_results(results)
        document = make_report(results, evaluation)
        page = write_report(document, evaluation, tmp_path / str(count))
        assert len(document.tables) > 10
        assert max(len(table.frame) for table in document.tables) <= 2 * 50  # the net benefit
        scores = next(table.frame for table in document.tables if table.name == "scores")
        known = scores.dropna()  # dermatofibromas of 400 images are too few for a mean AUC
        assert len(known) >= len(scores) - 1
        assert (known["value_low"] <= known["value"]).all()
        assert (known["value"] <= known["value_high"]).all()
        confusion = next(table.frame for table in document.tables if table.name == "confusion")
        assert confusion.drop(columns="diagnosis").to_numpy().sum() == count
        sizes[count] = page.stat().st_size
    assert sizes[4_000] < 1_000_000
    assert sizes[4_000] < 1.5 * sizes[400]


def many(count: int) -> Results:
    """Return results with random probabilities, two images per lesion."""
    rng = np.random.default_rng(0)
    class_priors = np.array([0.11, 0.67, 0.05, 0.03, 0.11, 0.01, 0.02])
    truth = rng.choice(7, count // 2, p=class_priors).repeat(2)
    logits = rng.normal(0, 1.3, (count, 7)) + 2 * np.eye(7)[truth]
    natural = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    table = pd.DataFrame(
        {
            "image_id": [f"i{number}" for number in range(count)],
            "group_id": [f"g{number // 2}" for number in range(count)],
            "diagnosis": np.array(ISIC2018.codes, object)[truth],
            "fold": np.arange(count) // 2 % 5,
        }
    )
    records = pd.DataFrame(index=pd.Index(table["image_id"]))
    for name in ("path", "mask_path", "site", "confirmation"):
        records[name] = pd.Series(pd.NA, index=records.index, dtype="string")
    records["lesion_id"] = table["group_id"].to_numpy()
    records["sex"] = np.where(np.arange(count) // 2 % 3 == 0, "female", "male")
    records["age"] = pd.Series(20.0 + np.arange(count) // 2 % 60, index=records.index)
    return Results(
        name="many",
        out_of_fold=True,
        labelled=LabelledPredictions(table, natural, rebalance(natural, class_priors), ISIC2018),
        mask_scores=None,
        records=records,
    )
