"""Figures from out-of-fold predictions; nothing is evaluated on the data it was fitted on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from naevus.bundles.card import card_of
from naevus.bundles.spec import BundleSpec
from naevus.evaluation.calibration import CalibrationScores
from naevus.evaluation.classification import headline_intervals
from naevus.evaluation.conformal import SetScores, cross_fitted_sets
from naevus.evaluation.labelled import oof_classified
from naevus.evaluation.lesions import by_lesion
from naevus.evaluation.out_of_fold import probabilities
from naevus.evaluation.patient import PatientModel, cross_fitted_patients, patients_of
from naevus.evaluation.scaling import cross_fitted, fit_scaling, parts_of, scaled
from naevus.evaluation.segmentation import SegmentationEvaluation
from naevus.runs.evidence import ClassificationEvidence, classification, segmentation
from naevus.runs.manifest import add
from naevus.taxonomy import ISIC2018

CODES = ISIC2018.codes
SOURCE = "out-of-fold predictions of the recipe"


def predictions(folds: int = 3, *, lesions: int = 600, overconfident: float = 2.0) -> pd.DataFrame:
    """Predictions calibrated except for their temperature; two images of every third lesion."""
    rng = np.random.default_rng(3)
    rows = []
    for lesion in range(lesions):
        of_lesion = rng.normal(scale=1.5, size=len(CODES)) + np.linspace(0, 1, len(CODES))
        p = np.exp(of_lesion) / np.exp(of_lesion).sum()
        truth = CODES[rng.choice(len(CODES), p=p)]
        for image in range(2 if lesion % 3 == 0 else 1):
            logits = of_lesion + rng.normal(scale=0.1, size=len(CODES))
            rows.append(
                {
                    "image_id": f"p{lesion:04d}{image}",
                    "group_id": f"g{lesion:04d}",
                    "diagnosis": truth,
                    "fold": lesion % folds,
                    **{f"logit_{c}": overconfident * z for c, z in zip(CODES, logits, strict=True)},
                    **dict.fromkeys((f"class_prior_{c}" for c in CODES), 1 / len(CODES)),
                    **dict.fromkeys((f"class_weight_{c}" for c in CODES), 1.0),
                }
            )
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return predictions()


@pytest.fixture(scope="module")
def records(table: pd.DataFrame) -> pd.DataFrame:
    known = table[["image_id", "group_id"]].copy()
    lesion = known["group_id"].str[1:].astype(int)
    known["sex"] = lesion.map(lambda number: "female" if number % 2 else "male").astype("string")
    known["age"] = (20 + lesion % 50).astype("Float64")
    return known.set_index("image_id")


@pytest.fixture(scope="module")
def found(table: pd.DataFrame, records: pd.DataFrame) -> ClassificationEvidence:
    return classification(table.sample(frac=1, random_state=0), SOURCE, records)


def value(found: ClassificationEvidence, name: str, *words: str) -> float:
    (only,) = (
        score.value
        for score in found.scores
        if name in score.name and all(word in score.measured_on for word in words)
    )
    return only


def test_the_bundle_s_scaling_is_fitted_on_all_predictions(
    table: pd.DataFrame, found: ClassificationEvidence
) -> None:
    natural, _ = probabilities(table, ISIC2018)
    truth = np.array([CODES.index(code) for code in table["diagnosis"]])
    assert found.scaling == fit_scaling(natural, truth)
    assert 1.7 < found.scaling.temperature < 2.3
    assert found.conformal.classes == CODES
    assert sum(found.conformal.groups) == table["group_id"].nunique()


def test_calibration_and_sets_are_cross_fitted(
    table: pd.DataFrame, found: ClassificationEvidence
) -> None:
    natural, _ = probabilities(table, ISIC2018)
    truth = np.array([CODES.index(code) for code in table["diagnosis"]])
    groups, parts = table["group_id"].tolist(), parts_of(table)
    assert len(np.unique(parts)) == 3
    crossed = cross_fitted(natural, truth, parts).natural
    before, after = (
        CalibrationScores.from_probabilities(each, truth, groups).ece for each in (natural, crossed)
    )
    error = "expected calibration error"
    assert value(found, f"{error}, uncalibrated") == pytest.approx(before.value)
    assert value(found, f"{error}, 15", "cross-fitted over the 3 folds") == pytest.approx(
        after.value
    )
    assert after.value < before.value
    sets = cross_fitted_sets(natural, truth, groups, CODES, parts)
    expected = SetScores.from_sets(sets, truth, groups, CODES).overall
    assert value(found, "prediction sets, all images") == pytest.approx(expected.images.value)
    assert value(found, "mean number of diagnoses") == pytest.approx(expected.size)
    assert 0.8 < value(found, "prediction sets, one image per lesion") < 0.97


def test_lesions_are_those_of_the_data_set_and_else_the_groups(
    table: pd.DataFrame, records: pd.DataFrame, found: ClassificationEvidence
) -> None:
    name = "one answer per lesion: accuracy"
    lesions = by_lesion(oof_classified(table)).lesions
    right = np.array(lesions.natural_codes) == np.array(lesions.truth)
    assert value(found, name, "200 lesions have two or more") == pytest.approx(right.mean())
    assert value(found, "one answer per lesion: calibration error", "cross-fitted") < 0.1
    apart = records.assign(lesion_id=records.index)
    apart.loc[apart.index[:2], "lesion_id"] = "both"
    other = classification(table, SOURCE, apart)
    assert value(other, name, "1 lesions have two or more") == pytest.approx(
        (np.array(oof_classified(table).natural_codes) == table["diagnosis"]).mean(), abs=0.002
    )


def test_scores_name_the_recipe_as_their_source(
    table: pd.DataFrame, found: ClassificationEvidence
) -> None:
    plain = headline_intervals(oof_classified(table))["balanced_accuracy"]
    assert value(found, "balanced accuracy, balanced decision, uncalibrated") == pytest.approx(
        plain.value
    )
    for score in found.scores:
        assert score.measured_on.startswith(
            f"{SOURCE}: 800 images of 600 lesions, held out in folds 0, 1,"
        )


def test_every_diagnosis_and_subgroup_is_reported(
    table: pd.DataFrame, found: ClassificationEvidence
) -> None:
    assert [one.code for one in found.by_class] == list(CODES)
    for one in found.by_class:
        rows = table[table["diagnosis"] == one.code]
        assert (one.images, one.groups) == (len(rows), rows["group_id"].nunique())
        assert one.recall is not None
        assert one.recall.low is not None
        assert one.covered is not None
    reported = {(one.attribute, one.value) for one in found.subgroups}
    assert {("sex", "female"), ("sex", "male"), ("age", "0 to 29"), ("age", "45 to 59")} <= reported
    sexes = [one for one in found.subgroups if one.attribute == "sex"]
    assert sum(one.groups for one in sexes) == 600


def test_one_fold_is_cross_fitted_by_halves_and_an_absent_class_has_no_figures() -> None:
    table = predictions(folds=1, lesions=300)
    table = table[table["diagnosis"] != "DF"]
    found = classification(table, SOURCE, None)
    assert found.subgroups == ()
    halves = "cross-fitted over two halves of the lesions"
    assert any(score.measured_on.endswith(halves) for score in found.scores)
    (absent,) = (one for one in found.by_class if one.code == "DF")
    assert (absent.images, absent.groups) == (0, 0)
    assert absent.recall is None
    assert absent.auc is None
    assert found.conformal.always == ("DF",)
    assert any(
        "(DF: in every set, too few lesions to fit a threshold)" in s.name for s in found.scores
    )


def test_evidence_by_patient_speaks_of_patients() -> None:
    table = predictions(folds=1, lesions=300)
    found = classification(table[table["diagnosis"] != "DF"], SOURCE, None, "patient")
    text = " ".join(f"{score.name} {score.measured_on}" for score in found.scores)
    assert " patients" in text
    assert "one image per patient" in text
    assert "two halves of the patients" in text
    assert "lesion" not in text
    manifest: dict[str, Any] = {"scores": []}
    for unit, together in (("patient", "patient"), ("patient", "patient"), ("lesion", "group")):
        add(manifest, {"unit": unit})
        assert manifest["unit"] == together


def test_masks_have_both_jaccard_means() -> None:
    rng = np.random.default_rng(0)
    jaccard = rng.uniform(0.4, 1, 50)
    table = pd.DataFrame(
        {
            "image_id": [f"p{n}" for n in range(50)],
            "group_id": [f"g{n // 2}" for n in range(50)],
            "fold": 0,
            "jaccard": jaccard,
            "thresholded_jaccard": np.where(jaccard < 0.65, 0, jaccard),
            **dict.fromkeys(("dice", "sensitivity", "specificity", "accuracy"), 1.0),
        }
    )
    mean, thresholded, below = segmentation(table, SOURCE)
    intervals = SegmentationEvaluation.of(table).metrics
    assert (mean.value, mean.low, mean.high) == intervals["jaccard"]
    assert (thresholded.value, thresholded.low) == intervals["thresholded_jaccard"][:2]
    assert below.value == pytest.approx((jaccard < 0.65).mean())
    assert mean.measured_on == f"{SOURCE}: 50 images of 25 lesions, held out in fold 0"


def test_the_card_shows_the_scores(found: ClassificationEvidence) -> None:
    classifier = {
        "members": [
            {
                "file": "a.onnx",
                "architecture": "tiny",
                "input_size": 8,
                "class_weights": [1.0] * 7,
                "class_priors": [1 / 7] * 7,
            }
        ],
        "taxonomy": "isic2018",
        "classes": CODES,
        "temperature": found.scaling.temperature,
        "offsets": found.scaling.offsets,
        "conformal": found.conformal.to_dict(),
        "calibrated_on": "these answers",
        "patient": found.patient,
    }
    card = card_of(
        BundleSpec.model_validate(
            {
                "classifier": classifier,
                "scores": found.scores,
                "by_class": found.by_class,
                "subgroups": found.subgroups,
            }
        )
    )
    assert f"Temperature: {found.scaling.temperature:.3f} (fitted on these answers)." in card
    melanoma = found.by_class[0]
    assert melanoma.recall is not None
    row = f"| MEL, melanoma | {melanoma.groups} | {melanoma.images} | {melanoma.recall.value:.3f} ("
    assert row in card
    assert "| sex: female | 300 | " in card
    assert found.patient is not None
    factors = " | ".join(f"{np.exp(term):.2f}" for term in found.patient.sex["male"])
    assert f"| male | {factors} |" in card
    for line in card.splitlines():
        if line.startswith("|"):
            assert "nan" not in line
    tables = [block for block in card.split("\n\n") if block.startswith("|")]
    assert len(tables) >= 5
    for each in tables:
        assert len({line.count("|") for line in each.splitlines() if line.startswith("|")}) == 1


def test_the_patient_s_data_are_fitted_on_all_and_scored_cross_fitted(
    table: pd.DataFrame, records: pd.DataFrame, found: ClassificationEvidence
) -> None:
    natural, _ = probabilities(table, ISIC2018)
    truth = np.array([CODES.index(code) for code in table["diagnosis"]])
    patients = patients_of(records.reindex(table["image_id"]))
    model = PatientModel.fit(scaled(natural, found.scaling), truth, patients, CODES)
    assert found.patient is not None
    assert PatientModel.from_dict(found.patient.model_dump()).age[0] == pytest.approx(
        model.age[0], abs=1e-3
    )
    assert found.patient.site == {}  # the data set knows none
    crossed = headline_intervals(cross_fitted_patients(oof_classified(table), patients).given)
    assert value(found, "balanced accuracy, balanced decision, with") == pytest.approx(
        crossed["balanced_accuracy"].value, abs=1e-6
    )
    assert f"age of {len(table):,}" in str(found.patient.fitted_on)


def test_without_data_of_patients_there_is_no_model(
    table: pd.DataFrame, records: pd.DataFrame
) -> None:
    unknown = records.assign(age=pd.array([pd.NA] * len(records), "Float64"))
    unknown["sex"] = pd.array([pd.NA] * len(records), "string")
    for each in (None, unknown):
        evidence = classification(table, SOURCE, each)
        assert evidence.patient is None
        assert not any("patient" in score.name for score in evidence.scores)


@pytest.mark.parametrize(
    ("values", "folds", "made"),
    [
        pytest.param([50.0], [0], False, id="one age"),
        pytest.param([50.0, 60.0, 70.0], [1, 1, 1], False, id="ages in one fold"),
        pytest.param([50.0, 60.0], [0, 2], True, id="ages in two folds"),
    ],
)
def test_a_model_of_patients_needs_known_data_outside_each_fold(
    values: list[float], folds: list[int], made: bool
) -> None:
    table = predictions(lesions=150)
    records = table.set_index("image_id")[["group_id"]].assign(
        age=pd.array([pd.NA] * len(table), "Float64"), sex=None, site="elbow"  # a site of no model
    )  # fmt: skip
    for number, (age, fold) in enumerate(zip(values, folds, strict=True)):
        records.loc[table["image_id"][table["fold"] == fold].iloc[number], "age"] = age
    evidence = classification(table, SOURCE, records)
    assert (evidence.patient is not None) == made
    assert any("patient" in score.name for score in evidence.scores) == made
