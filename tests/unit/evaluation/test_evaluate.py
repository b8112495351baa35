"""Diagnoses beyond accuracy, put together."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.metrics import recall_score, roc_auc_score

from naevus.errors import DataError
from naevus.evaluation.bootstrap import Ranking
from naevus.evaluation.classification import auc_intervals
from naevus.evaluation.evaluate import AS_GIVEN, FITTED, DiagnosticScores
from naevus.evaluation.intervals import bca_interval
from naevus.evaluation.priors import rebalance
from naevus.taxonomy import BINARY, ISIC2018

CODES = ISIC2018.codes
Answers = tuple[pd.DataFrame, NDArray[np.float64], NDArray[np.float64]]


def answers(lesions: int = 300, folds: int = 3, skill: float = 2.0) -> Answers:
    """Two pictures a lesion, classes 0 to 3, the last of them rare."""
    chance = np.random.default_rng(0)
    classes = np.repeat(chance.choice(4, lesions, p=(0.3, 0.4, 0.25, 0.05)), 2)
    logits = chance.normal(size=(2 * lesions, len(CODES)))
    logits[np.arange(2 * lesions), classes] += skill
    natural = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    table = pd.DataFrame(
        {
            "image_id": [f"p{n}" for n in range(2 * lesions)],
            "group_id": [f"g{n // 2}" for n in range(2 * lesions)],
            "truth": [CODES[c] for c in classes],
            "fold": [n // 2 % folds for n in range(2 * lesions)],
        }
    )
    return table, natural, rebalance(natural, [1 / 7] * 7)


def test_every_figure_is_scikit_learn_s_and_has_an_interval() -> None:
    table, natural, balanced = answers()
    scores = DiagnosticScores.of(table, natural, balanced, ISIC2018)
    truth = table["truth"].to_numpy()
    said = np.array(CODES)[balanced.argmax(1)]
    assert tuple(scores.recalls) == CODES[:4]
    for code, recall in scores.recalls.items():
        assert recall.value == pytest.approx(
            recall_score(truth, said, labels=[code], average=None)[0]
        )
        area = scores.aucs[code]
        assert area.value == pytest.approx(
            roc_auc_score(truth == code, natural[:, CODES.index(code)])
        )
        assert area.low < area.value < area.high
        assert area.groups == recall.groups == table.loc[truth == code, "group_id"].nunique()
    assert scores.mean_auc is not None
    assert scores.mean_auc.value == pytest.approx(np.mean([a.value for a in scores.aucs.values()]))
    assert [one.name for one in scores.clinic] == list(scores.benefit) == ["melanoma", "malignant"]
    melanoma = scores.clinic[0]
    assert melanoma.auc.value == pytest.approx(scores.aucs["MEL"].value)
    assert melanoma.fold_auc is not None
    by_fold = [
        roc_auc_score(truth[rows] == "MEL", natural[rows, 0])
        for rows in table.groupby("fold").indices.values()
    ]
    assert melanoma.fold_auc.value == pytest.approx(np.mean(by_fold))
    assert list(scores.calibration) == [AS_GIVEN, FITTED]
    assert len(scores.scalings) == 3
    assert scores.calibration[FITTED].nll.value < scores.calibration[AS_GIVEN].nll.value
    assert scores.sets is not None
    assert set(scores.sets.classes) == set(CODES[:4])
    wrong = 1 - (natural.argmax(1) == [CODES.index(code) for code in truth]).mean()
    assert scores.selective.risk.value == pytest.approx(wrong)
    assert scores.balanced_accuracy[AS_GIVEN].value == pytest.approx(
        np.mean([recall.value for recall in scores.recalls.values()])
    )
    json.dumps(scores.to_dict(), allow_nan=False)


def test_a_class_that_cannot_be_stays_impossible_when_calibrated() -> None:
    table, natural, balanced = answers()
    natural[:, 6], balanced[:, 6] = 0, 0.01  # as a clinic's prevalence of 0 makes it
    natural /= natural.sum(axis=1, keepdims=True)
    balanced /= balanced.sum(axis=1, keepdims=True)
    scores = DiagnosticScores.of(table, natural, balanced, ISIC2018)
    as_given, fitted = scores.balanced_accuracy.values()
    assert fitted.value == pytest.approx(as_given.value, abs=0.1)


def test_rare_classes_have_bca_intervals() -> None:
    table, natural, _ = answers()
    truth, groups = table["truth"].tolist(), table["group_id"].tolist()
    _, aucs = auc_intervals(natural, truth, groups, ISIC2018)
    rare = CODES[3]
    assert aucs[rare].groups < 100
    ranking = Ranking.of(np.array(truth) == rare, natural[:, 3])
    assert aucs[rare][:3] == bca_interval(ranking.auc, groups, truth)
    common = Ranking.of(np.array(truth) == "NV", natural[:, 1])
    assert aucs["NV"].groups > 100
    assert aucs["NV"][:3] != bca_interval(common.auc, groups, truth)


def test_one_class_alone_and_few_lesions_leave_out_what_needs_more() -> None:
    table, natural, balanced = answers(5, 1)
    table["truth"] = "NV"
    scores = DiagnosticScores.of(table, natural, balanced, ISIC2018)
    assert (scores.mean_auc, scores.aucs, scores.clinic, scores.benefit) == (None, {}, (), {})
    json.dumps(scores.to_dict(), allow_nan=False)
    few = DiagnosticScores.of(
        table.head(2).assign(truth=["MEL", "NV"], group_id=["a", "b"]),
        natural[:2],
        balanced[:2],
        ISIC2018,
    )
    assert (few.sets, few.scalings, list(few.calibration)) == (None, (), [AS_GIVEN])


def test_constant_scores_rank_nothing() -> None:
    table, natural, _ = answers(60)
    flat = np.full_like(natural, 1 / 7)
    scores = DiagnosticScores.of(table, flat, flat, ISIC2018)
    assert {area[:3] for area in scores.aucs.values()} == {(0.5, 0.5, 0.5)}
    assert scores.mean_auc == (0.5, 0.5, 0.5)
    assert scores.selective.excess_aurc.value > 0


def test_a_taxonomy_without_melanoma_has_its_malignant_class() -> None:
    table, natural, _ = answers(60)
    table["truth"] = [BINARY.codes[n // 2 % 2] for n in range(len(table))]
    two = natural[:, :2] / natural[:, :2].sum(1, keepdims=True)
    scores = DiagnosticScores.of(table.drop(columns="fold"), two, two, BINARY)
    assert [one.name for one in scores.clinic] == ["malignant"]
    assert scores.clinic[0].fold_auc is None


def test_what_is_no_probability_is_refused() -> None:
    table, natural, balanced = answers(20)
    natural[3, 0] = np.nan
    with pytest.raises(DataError, match="not a number"):
        DiagnosticScores.of(table, natural, balanced, ISIC2018)
