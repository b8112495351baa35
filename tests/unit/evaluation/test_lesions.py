"""One answer per lesion: its metrics, what is compared with it, and what is left out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, recall_score, roc_auc_score

from naevus.errors import DataError
from naevus.evaluation.calibration import CalibrationScores
from naevus.evaluation.classification import headline_intervals
from naevus.evaluation.conformal import cross_fitted_sets
from naevus.evaluation.evaluate import ClassificationEvaluation, evaluate
from naevus.evaluation.intervals import recall_intervals
from naevus.evaluation.labelled import LabelledPredictions
from naevus.evaluation.lesions import LesionEvaluation, by_lesion
from naevus.evaluation.priors import rebalance
from naevus.evaluation.scaling import parts_of
from naevus.taxonomy import ISIC2018

if TYPE_CHECKING:
    from naevus.types import Unit

CODES = ISIC2018.codes


def predictions(lesions: int = 200, *, column: str = "lesion_id") -> LabelledPredictions:
    """One to three images per lesion, of four classes, in a random order."""
    rng = np.random.default_rng(0)
    sizes = 1 + np.arange(lesions) % 3
    members = rng.permutation(np.repeat(np.arange(lesions), sizes))
    classes = rng.choice(4, lesions, p=(0.3, 0.4, 0.2, 0.1))[members]
    logits = rng.normal(size=(len(members), len(CODES)))
    logits[np.arange(len(members)), classes] += 1.5
    natural = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    table = pd.DataFrame(
        {
            "image_id": [f"p{n}" for n in range(len(members))],
            "group_id": [f"g{n // 2}" for n in members],
            "diagnosis": [CODES[c] for c in classes],
            "fold": members // 2 % 3,
        }
    )
    table[column] = [f"l{n:03d}" for n in members]
    return LabelledPredictions(table, natural, rebalance(natural, [1 / 7] * 7), ISIC2018)


def test_lesions_have_the_mean_logits_of_their_images() -> None:
    labelled = predictions()
    found = by_lesion(labelled)
    assert found.lesions.table["lesion_id"].tolist() == sorted(set(labelled.table["lesion_id"]))
    logarithms = pd.DataFrame(np.log(labelled.natural)).groupby(labelled.table["lesion_id"]).mean()
    expected = np.exp(logarithms) / np.exp(logarithms).sum(axis=1).to_numpy()[:, None]
    np.testing.assert_allclose(found.lesions.natural, expected)
    truth = labelled.table.drop_duplicates("lesion_id").set_index("lesion_id")["diagnosis"]
    assert found.lesions.truth == truth.sort_index().tolist()


def test_every_level_has_the_metrics_of_scikit_learn() -> None:
    labelled = predictions()
    found = LesionEvaluation.of(labelled)
    assert found is not None
    assert (found.by, found.target) == ("lesion_id", "melanoma")
    sizes = labelled.table.groupby("lesion_id")["image_id"].transform("size").to_numpy()
    several = sizes > 1
    for scores, images in ((found.every, labelled), (found.several, labelled.where(several))):
        own = by_lesion(images).lesions
        weights = 1 / (sizes if images is labelled else sizes[several])
        for level, each, weight in (
            (scores.images, images, None),
            (scores.single, images, weights),
            (scores.together, own, None),
        ):
            melanoma = np.array(each.truth) == "MEL"
            expected = {
                "accuracy": accuracy_score(each.truth, each.natural_codes, sample_weight=weight),
                "balanced_accuracy": recall_score(
                    each.truth, each.balanced_codes, sample_weight=weight, average="macro",
                    labels=CODES[:4],
                ),
                "auc": roc_auc_score(melanoma, each.natural[:, 0], sample_weight=weight),
            }  # fmt: skip
            assert list(level.metrics) == list(expected)
            for name, interval in level.metrics.items():
                assert interval.value == pytest.approx(expected[name]), name
                assert interval.low <= interval.value <= interval.high
        assert scores.single.answers == scores.together.answers == len(own.table)
        assert scores.images.answers == len(images.table)
        for name, gain in scores.gain.items():
            difference = scores.together.metrics[name].value - scores.single.metrics[name].value
            assert gain.value == pytest.approx(difference)
            assert gain.low <= gain.value <= gain.high
        classes = np.array([CODES.index(code) for code in own.truth])
        error = CalibrationScores.from_probabilities(own.natural, classes, own.groups).ece
        assert scores.together.calibration_error == error
        assert scores.together.calibrated_error is None
    assert found.several.gain["accuracy"].value > found.every.gain["accuracy"].value > 0
    json.dumps(found.to_dict(), allow_nan=False)
    rows = found.to_frame().to_numpy().tolist()
    assert len(rows) == 2 * 4 * 3
    assert ["several images", "gain", "auc", *found.several.gain["auc"]] in rows


def test_the_evaluation_lists_metrics_by_lesion() -> None:
    evaluation = evaluate("x", labelled=predictions())
    assert evaluation.classification is not None
    assert evaluation.classification.lesions is not None
    metrics = evaluation.to_frame().set_index(["task", "metric"])["value"]
    together = evaluation.classification.lesions.every.together.metrics
    assert metrics["one answer per lesion", "auc_melanoma"] == together["auc"].value
    assert "one answer per lesion" in str(evaluation)
    assert len(evaluation.tables()["lesions"]) > 0


def test_lesions_that_contradict_themselves_and_unknown_ones_are_counted() -> None:
    labelled = predictions()
    table = labelled.table.copy()
    first = table.index[table["lesion_id"] == "l001"]
    table.loc[first[0], "diagnosis"] = (
        "VASC" if table.loc[first[1], "diagnosis"] != "VASC" else "DF"
    )
    unknown = table.index[table["lesion_id"].isin(["l002", "l003"])]
    table.loc[unknown, "lesion_id"] = None
    found = LesionEvaluation.of(labelled._replace(table=table))
    assert found is not None
    assert found.contradictory == ("l001",)
    assert found.unknown == len(unknown) == 4
    rest = labelled.where(~labelled.table["lesion_id"].isin(["l001", "l002", "l003"]).to_numpy())
    alone = LesionEvaluation.of(rest)
    assert alone is not None
    assert (found.every, found.several) == (alone.every, alone.several)


def test_without_lesions_the_groups_count_and_without_pairs_nothing_does() -> None:
    labelled = predictions(column="other")
    found = LesionEvaluation.of(labelled)
    assert found is not None
    assert found.by == "group_id"
    groups = labelled.table["group_id"].nunique()
    assert found.every.together.answers == groups - len(found.contradictory)
    apart = labelled.table.assign(lesion_id=labelled.table["image_id"])
    assert LesionEvaluation.of(labelled._replace(table=apart)) is None
    assert ClassificationEvaluation.of(labelled._replace(table=apart)).lesions is None


@pytest.mark.parametrize("unit", ["lesion", "patient", "group"])
def test_patients_are_no_lesions(unit: Unit) -> None:
    labelled = predictions(column="other")
    assert (LesionEvaluation.of(labelled, unit=unit) is None) == (unit != "lesion")
    assert (ClassificationEvaluation.of(labelled, unit=unit).lesions is None) == (unit != "lesion")
    labelled.table["lesion_id"] = labelled.table["group_id"]
    found = LesionEvaluation.of(labelled, unit=unit)
    assert found is not None
    assert found.by == "lesion_id"


def test_a_lesion_in_two_groups_is_refused() -> None:
    labelled = predictions()
    row = labelled.table.index[labelled.table["lesion_id"] == "l002"][0]
    table = labelled.table.copy()
    table.loc[row, "group_id"] = "another"
    with pytest.raises(DataError, match="the lesion l002 is in two groups"):
        by_lesion(labelled._replace(table=table))


def test_equal_images_gain_nothing() -> None:
    labelled = predictions()
    first = labelled.table.groupby("lesion_id")["image_id"].transform("idxmin").to_numpy()
    alike = labelled._replace(natural=labelled.natural[first], balanced=labelled.balanced[first])
    found = LesionEvaluation.of(alike)
    assert found is not None
    assert found.differing == 0
    for gain in found.several.gain.values():
        assert gain.value == pytest.approx(0, abs=1e-9)


def test_sets_of_lesions_use_the_thresholds_of_single_images() -> None:
    labelled = predictions(600)
    found = ClassificationEvaluation.of(labelled).lesions
    assert found is not None
    scores = found.every
    assert list(scores.gain)[-2:] == ["covered", "set_size"]
    lesions = by_lesion(labelled)
    classes = np.array([CODES.index(code) for code in labelled.truth])
    parts = parts_of(labelled.table)
    sets = [
        cross_fitted_sets(labelled.natural, classes, labelled.groups, CODES, parts, lesions=each)
        for each in (None, lesions.members)
    ]
    single = np.bincount(lesions.members)[lesions.members] == 1
    assert (sets[0][single] == sets[1][single]).all()
    assert (sets[0] != sets[1]).any()
    first = np.unique(lesions.members, return_index=True)[1]
    held = sets[1][first, classes[first]]
    assert scores.together.metrics["covered"].value == pytest.approx(held.mean())
    assert scores.together.metrics["set_size"].value == pytest.approx(sets[1][first].sum(1).mean())
    assert scores.together.calibrated_error is not None


@pytest.mark.parametrize(
    "known",
    [
        pytest.param(["l001"], id="one lesion, in one fold"),
        pytest.param(["l001", "l002", "l005"], id="a fold without a known lesion"),
    ],
)
def test_thresholds_are_fitted_on_images_of_unknown_lesions_too(known: list[str]) -> None:
    labelled, parts = predictions(), parts_of(predictions().table)
    ids = labelled.table["lesion_id"]
    sparse = labelled._replace(table=labelled.table.assign(lesion_id=ids.where(ids.isin(known))))
    found = LesionEvaluation.of(sparse, parts=parts)
    assert found is not None
    assert found.unknown == (~ids.isin(known)).sum()
    lesions = by_lesion(sparse)
    sets = cross_fitted_sets(
        labelled.natural, labelled.classes, labelled.groups, CODES, parts,
        lesions=pd.factorize(ids)[0],
    )[lesions.rows]  # fmt: skip
    first = np.unique(lesions.members, return_index=True)[1]
    held = sets[first, lesions.lesions.classes].mean()
    assert found.every.together.metrics["covered"].value == pytest.approx(held)


def test_one_known_lesion_is_evaluated() -> None:
    labelled = predictions(60)
    table = labelled.table
    only = table["lesion_id"].where(table["lesion_id"] == "l002")
    found = ClassificationEvaluation.of(labelled._replace(table=table.assign(lesion_id=only)))
    assert found.lesions is not None
    assert found.lesions.every.together.answers == 1
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize("rare", [3, 20])
def test_figures_of_few_lesions_have_no_narrower_intervals_than_their_images(rare: int) -> None:
    lesions, rng = rare + 150, np.random.default_rng(1)
    groups = np.repeat([f"l{n:03d}" for n in range(lesions)], 2)
    truth = np.array(["MEL"] * 2 * rare + ["NV"] * 300)
    right = rng.random(len(truth)) < 0.9
    right[: 2 * rare] = True  # every melanoma
    melanoma = np.where((truth == "MEL") == right, 0.7, 0.3) + rng.normal(0, 0.02, len(truth))
    natural = np.zeros((len(truth), len(CODES)))
    natural[:, [CODES.index("MEL"), CODES.index("NV")]] = np.stack([melanoma, 1 - melanoma], 1)
    ids = [f"i{n:03d}" for n in range(len(truth))]
    table = pd.DataFrame({"image_id": ids, "group_id": groups, "diagnosis": truth})
    labelled = LabelledPredictions(table, natural, natural, ISIC2018)
    found = LesionEvaluation.of(labelled)
    assert found is not None
    by_image = headline_intervals(labelled)
    for scores in (found.every, found.several):
        images = scores.images.metrics
        assert images["balanced_accuracy"] == pytest.approx(by_image["balanced_accuracy"])
        assert images["accuracy"] == pytest.approx(by_image["accuracy"])
        for level in (scores.single, scores.together):
            low, *_ = recall_intervals(["MEL"] * rare, ["MEL"] * rare, list(range(rare))).values()
            interval = level.metrics["balanced_accuracy"]
            assert interval.value - interval.low > (1 - low.low) / 2  # of all, one class's alone
            assert not (level.metrics["auc"].known and rare < 10)
        assert images["auc"].known == (rare >= 10)
        assert scores.gain["balanced_accuracy"].known == (rare >= 10)


def test_fractions_of_lesions_have_wilson_s_interval_where_resamples_do_not_vary() -> None:
    labelled = predictions(45)
    natural = np.eye(len(CODES))[labelled.classes]
    perfect = labelled._replace(natural=natural, balanced=natural)
    found = LesionEvaluation.of(perfect)
    assert found is not None
    for level in (found.every.images, found.every.single, found.every.together):
        assert level.metrics["accuracy"].value == level.metrics["accuracy"].high == 1
        assert level.metrics["accuracy"].low < 1
