"""Evaluation of predictions, compared with scikit-learn."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import (
    accuracy_score,
    precision_recall_curve,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from naevus.errors import DataError
from naevus.evaluation.bootstrap import Ranking
from naevus.evaluation.classification import auc_intervals
from naevus.evaluation.evaluate import ClassificationEvaluation, Subject, evaluate
from naevus.evaluation.intervals import bca_interval
from naevus.evaluation.labelled import LabelledPredictions
from naevus.evaluation.mask_metrics import MaskScore
from naevus.evaluation.priors import rebalance
from naevus.taxonomy import BINARY, ISIC2018

CODES = ISIC2018.codes


def predictions(lesions: int = 300, folds: int = 3, skill: float = 2.0) -> LabelledPredictions:
    """Return two images per lesion, of classes 0 to 3, the last one rare."""
    rng = np.random.default_rng(0)
    classes = np.repeat(rng.choice(4, lesions, p=(0.3, 0.4, 0.25, 0.05)), 2)
    logits = rng.normal(size=(2 * lesions, len(CODES)))
    logits[np.arange(2 * lesions), classes] += skill
    natural = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    table = pd.DataFrame(
        {
            "image_id": [f"p{n}" for n in range(2 * lesions)],
            "group_id": [f"g{n // 2}" for n in range(2 * lesions)],
            "diagnosis": [CODES[c] for c in classes],
            "fold": [n // 2 % folds for n in range(2 * lesions)],
        }
    )
    return LabelledPredictions(table, natural, rebalance(natural, [1 / 7] * 7), ISIC2018)


def test_metrics_equal_scikit_learn_and_have_intervals() -> None:
    labelled = predictions()
    table, natural = labelled.table, labelled.natural
    found = ClassificationEvaluation.of(labelled)
    plain, calibrated = found.as_predicted, found.calibrated
    assert calibrated is not None
    truth = table["diagnosis"].to_numpy()
    assert tuple(plain.recalls) == CODES[:4]
    for code, recall in plain.recalls.items():
        assert recall.value == pytest.approx(
            recall_score(truth, labelled.balanced_codes, labels=[code], average=None)[0]
        )
        area = found.aucs[code]
        assert area.value == pytest.approx(
            roc_auc_score(truth == code, natural[:, CODES.index(code)])
        )
        assert area.low < area.value < area.high
        assert area.groups == recall.groups == table.loc[truth == code, "group_id"].nunique()
    assert found.mean_auc is not None
    assert found.mean_auc.value == pytest.approx(np.mean([a.value for a in found.aucs.values()]))
    names = ["melanoma", "malignant"]
    assert [one.name for one in found.targets] == list(found.decision_curves) == names
    assert list(found.target_curves) == names
    melanoma = found.targets[0]
    assert melanoma.auc.value == pytest.approx(found.aucs["MEL"].value)
    assert melanoma.fold_auc is not None
    by_fold = [
        roc_auc_score(truth[rows] == "MEL", natural[rows, 0])
        for rows in table.groupby("fold").indices.values()
    ]
    assert melanoma.fold_auc.value == pytest.approx(np.mean(by_fold))
    assert len(found.scalings) == 3
    assert calibrated.calibration.nll.value < plain.calibration.nll.value
    assert found.sets is not None
    assert set(found.sets.classes) == set(CODES[:4])
    wrong = 1 - (natural.argmax(1) == [CODES.index(code) for code in truth]).mean()
    assert found.selective.risk.value == pytest.approx(wrong)
    assert plain.intervals["balanced_accuracy"].value == pytest.approx(
        np.mean([recall.value for recall in plain.recalls.values()])
    )
    json.dumps(found.to_dict(), allow_nan=False)


def test_curves_equal_scikit_learn() -> None:
    labelled = predictions(60)
    truth = np.array(labelled.truth) == "NV"
    curve = ClassificationEvaluation.of(labelled).curves["NV"]
    fpr, tpr, thresholds = roc_curve(truth, labelled.natural[:, 1], drop_intermediate=False)
    np.testing.assert_allclose(curve.sensitivity, tpr)
    np.testing.assert_allclose(curve.false_positive_rate, fpr)
    np.testing.assert_allclose(curve.thresholds, thresholds)
    precision, recall, _ = precision_recall_curve(truth, labelled.natural[:, 1])
    np.testing.assert_allclose(curve.precision[1:], precision[:-1][::-1])
    np.testing.assert_allclose(curve.sensitivity[1:], recall[:-1][::-1])


def test_folds_have_their_own_accuracy() -> None:
    labelled = predictions()
    found = ClassificationEvaluation.of(labelled)
    assert [one.fold for one in found.by_fold] == [0, 1, 2]
    table = labelled.table.assign(answer=labelled.balanced_codes, natural=labelled.natural_codes)
    for one in found.by_fold:
        rows = table[table["fold"] == one.fold]
        assert (one.images, one.groups) == (len(rows), rows["group_id"].nunique())
        assert one.balanced_accuracy == pytest.approx(
            recall_score(
                rows["diagnosis"],
                rows["answer"],
                labels=rows["diagnosis"].unique(),
                average="macro",
            )
        )
        assert one.accuracy == pytest.approx(accuracy_score(rows["diagnosis"], rows["natural"]))
    one_fold = labelled._replace(table=labelled.table.assign(fold=0))
    assert ClassificationEvaluation.of(one_fold).by_fold == ()


def test_subgroups_are_scored_as_predicted_and_calibrated() -> None:
    labelled = predictions()
    sex = np.where(np.arange(len(labelled.table)) // 2 % 2, "female", "male").tolist()
    unknown = [None] * len(sex)
    found = ClassificationEvaluation.of(labelled, {"sex": sex, "site": unknown})
    assert found.calibrated is not None
    for metrics in (found.as_predicted, found.calibrated):
        assert {(one.attribute, one.value) for one in metrics.subgroups} == {
            ("sex", "female"),
            ("sex", "male"),
        }
    assert ClassificationEvaluation.of(labelled, {"site": unknown}).as_predicted.subgroups == ()


def test_an_impossible_class_stays_impossible_when_calibrated() -> None:
    labelled = predictions()
    natural, balanced = labelled.natural, labelled.balanced
    natural[:, 6], balanced[:, 6] = 0, 0.01  # as with a prevalence of 0
    natural /= natural.sum(axis=1, keepdims=True)
    balanced /= balanced.sum(axis=1, keepdims=True)
    found = ClassificationEvaluation.of(labelled)
    assert found.calibrated is not None
    before, after = (
        metrics.intervals["balanced_accuracy"] for metrics in (found.as_predicted, found.calibrated)
    )
    assert after.value == pytest.approx(before.value, abs=0.1)


def test_rare_classes_have_bca_intervals() -> None:
    labelled = predictions()
    natural, truth, groups = labelled.natural, labelled.truth, labelled.groups
    _, aucs = auc_intervals(natural, truth, groups, ISIC2018)
    rare = CODES[3]
    assert aucs[rare].groups < 100
    ranking = Ranking.of(np.array(truth) == rare, natural[:, 3])
    assert aucs[rare][:3] == bca_interval(ranking.auc, groups, truth)
    common = Ranking.of(np.array(truth) == "NV", natural[:, 1])
    assert aucs["NV"].groups > 100
    assert aucs["NV"][:3] != bca_interval(common.auc, groups, truth)


def test_metrics_that_need_more_classes_or_lesions_are_left_out() -> None:
    labelled = predictions(5, 1)
    table = labelled.table
    alone = ClassificationEvaluation.of(labelled._replace(table=table.assign(diagnosis="NV")))
    assert (alone.mean_auc, alone.aucs, alone.targets) == (None, {}, ())
    assert (alone.curves, alone.decision_curves) == ({}, {})
    json.dumps(alone.to_dict(), allow_nan=False)
    two = LabelledPredictions(
        table.head(2).assign(diagnosis=["MEL", "NV"], group_id=["a", "b"]),
        labelled.natural[:2],
        labelled.balanced[:2],
        ISIC2018,
    )
    few = ClassificationEvaluation.of(two)
    assert (few.sets, few.scalings, few.calibrated, few.in_every_set) == (None, (), None, ())
    with pytest.raises(DataError, match="two parts or more"):
        ClassificationEvaluation.of(
            two._replace(table=two.table.assign(group_id="a")), always_calibrated=True
        )


def test_no_prediction_sets_are_fitted_on_the_images_that_they_are_judged_by() -> None:
    labelled = predictions(100)
    fitted = evaluate("run", labelled=labelled, out_of_fold=True).classification
    assert fitted is not None
    assert fitted.sets is not None
    assert not fitted.sets_given
    without = evaluate("predictions", labelled=labelled).classification
    assert without is not None
    assert (without.sets, without.in_every_set) == (None, ())
    everything = np.ones_like(labelled.natural, bool)
    given = evaluate("p", labelled=labelled._replace(sets=everything, coverage=0.8)).classification
    assert given is not None
    assert given.sets is not None
    assert (given.sets.coverage, given.sets.overall.size, given.sets_given) == (0.8, 7, True)
    assert given.in_every_set == ()


def test_constant_scores_have_an_area_of_one_half() -> None:
    labelled = predictions(60)
    flat = np.full_like(labelled.natural, 1 / 7)
    found = ClassificationEvaluation.of(labelled._replace(natural=flat, balanced=flat))
    assert {area.value for area in found.aucs.values()} == {0.5}
    assert found.mean_auc is not None
    assert (found.mean_auc.value, found.mean_auc.known) == (0.5, False)
    assert found.selective.excess_aurc.value > 0


def test_a_taxonomy_without_melanoma_has_its_malignant_class() -> None:
    labelled = predictions(60)
    table, natural = labelled.table, labelled.natural
    table["diagnosis"] = [BINARY.codes[n // 2 % 2] for n in range(len(table))]
    two = natural[:, :2] / natural[:, :2].sum(1, keepdims=True)
    found = ClassificationEvaluation.of(
        LabelledPredictions(table.drop(columns="fold"), two, two, BINARY)
    )
    assert [one.name for one in found.targets] == ["malignant"]
    assert found.targets[0].fold_auc is None


def test_values_other_than_probabilities_are_refused() -> None:
    labelled = predictions(20)
    labelled.natural[3, 0] = np.nan
    with pytest.raises(DataError, match="are not finite"):
        ClassificationEvaluation.of(labelled)


def test_an_evaluation_names_its_subject() -> None:
    labelled = predictions()
    masks = pd.DataFrame(
        {
            "image_id": [f"p{n}" for n in range(590, 610)],
            "group_id": [f"g{n // 2}" for n in range(590, 610)],
            **dict.fromkeys(MaskScore._fields, 0.8),
        }
    )
    both = evaluate("run", labelled=labelled, masks=masks, out_of_fold=True)
    assert both.subject == Subject("run", 610, 305, (0, 1, 2), out_of_fold=True)
    output = json.loads(json.dumps(both.to_dict(), allow_nan=False))
    assert list(output) == ["subject", "classification", "segmentation", "attributes"]
    assert output["segmentation"]["metrics"]["jaccard"]["value"] == pytest.approx(0.8)
    alone = evaluate("predictions", masks=masks)
    assert alone.subject == Subject("predictions", 20, 10, (), out_of_fold=False)
    assert alone.classification is None
