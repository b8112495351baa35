"""Whole reports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from naevus.evaluation.evaluate import evaluate
from naevus.evaluation.labelled import LabelledPredictions
from naevus.evaluation.priors import rebalance
from naevus.reports.html import write_report
from naevus.reports.report import evaluation_document, make_report
from naevus.runs.evaluate import evaluate_results
from naevus.runs.results import Results
from naevus.taxonomy import ISIC2018
from tests.helpers.tables import table_of_masks

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


@pytest.mark.parametrize(
    ("images", "curves", "calibrated"),
    [
        (20, set(), False),
        (120, set(), False),
        (240, {"reliability"}, True),
        (1000, {"reliability", "net-benefit"}, True),
    ],
)
def test_figures_and_their_tables_need_the_same_number_of_lesions(
    images: int, curves: set[str], calibrated: bool
) -> None:
    document = evaluation_document(evaluate_results(many(images)))
    tables = {table.name: table.frame for table in document.tables}
    for names in ({slot.name for slot in document.figure_slots}, set(tables)):
        assert names & {"reliability", "net-benefit"} == curves
    notes = [note for section in document.sections for note in section.notes]
    for name, title in (("reliability", "Reliability"), ("net-benefit", "Net benefit")):
        missing = [note for note in notes if note.startswith(f"Neither figure nor table “{title}”")]
        assert len(missing) == (name not in curves)
    assert ("calibrated" in tables["scores"].columns) == calibrated
    assert ("classes-calibrated" in tables) == calibrated
    assert (len(tables["calibration"]) == 2) == calibrated
    assert ("... calibrated" in tables["lesions"]["score"].tolist()) == calibrated
    assert any("for a calibration: it needs 100" in note for note in notes) != calibrated


@pytest.mark.parametrize("images", [58, 60])
def test_thresholds_of_few_masks_are_not_listed(images: int) -> None:
    document = evaluation_document(evaluate("masks", masks=table_of_masks(images)))
    shown = images >= 60  # two images of each lesion
    assert ("mask-thresholds" in {table.name for table in document.tables}) == shown
    assert ("thresholds" in {slot.name for slot in document.figure_slots}) == shown


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
