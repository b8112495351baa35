"""Out-of-fold tables: each fold's weights and priors, ensembles, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from naevus.bundles.spec import ClassifierMember
from naevus.errors import DataError
from naevus.evaluation.classification import headline_intervals
from naevus.evaluation.evaluate import ClassificationEvaluation
from naevus.evaluation.labelled import oof_classified
from naevus.evaluation.out_of_fold import combined, probabilities
from naevus.evaluation.priors import balanced_log_probabilities, natural_log_probabilities
from naevus.inference.ensemble import Trained, posterior
from naevus.taxonomy import BINARY, ISIC2018

if TYPE_CHECKING:
    pass


SETTINGS = {
    0: ([0.8, 0.2], [0.5, 3.0]),
    1: ([0.6, 0.4], [1.0, 1.0]),
}


def table(shuffled: bool = False) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(40):
        fold = number % 2
        class_priors, weights = SETTINGS[fold]
        rows.append(
            {
                "image_id": f"p{number:02d}",
                "group_id": f"g{number // 2}",
                "diagnosis": BINARY.codes[number // 2 % 2],
                "fold": fold,
                **dict(zip(["logit_BENIGN", "logit_MALIGNANT"], rng.normal(size=2), strict=True)),
                **dict(
                    zip(["class_prior_BENIGN", "class_prior_MALIGNANT"], class_priors, strict=True)
                ),
                **dict(
                    zip(["class_weight_BENIGN", "class_weight_MALIGNANT"], weights, strict=True)
                ),
            }
        )
    made = pd.DataFrame(rows)
    return made.sample(frac=1, random_state=1) if shuffled else made


@pytest.mark.parametrize("shuffled", [False, True])
def test_each_row_has_its_fold_s_weights(shuffled: bool) -> None:
    given = table(shuffled)
    natural, balanced = probabilities(given, BINARY)
    for row, (one, other) in enumerate(zip(natural, balanced, strict=True)):
        logits = given[["logit_BENIGN", "logit_MALIGNANT"]].to_numpy()[row]
        class_priors, weights = SETTINGS[int(given["fold"].iloc[row])]
        expected = np.exp(natural_log_probabilities(logits, np.array(weights)))
        np.testing.assert_allclose(one, expected)
        expected = np.exp(
            balanced_log_probabilities(logits, np.array(weights), np.array(class_priors))
        )
        np.testing.assert_allclose(other, expected)
    np.testing.assert_allclose(natural.sum(1), 1)
    assert not np.allclose(natural, balanced)


def test_equal_logits_follow_the_priors_of_the_fold() -> None:
    given = table()
    given[["logit_BENIGN", "logit_MALIGNANT"]] = 0.0
    natural, balanced = probabilities(given, BINARY)
    assert natural[0] == pytest.approx([6 / 7, 1 / 7])
    assert natural[1] == pytest.approx([0.5, 0.5])
    assert balanced[1] == pytest.approx([0.4, 0.6])


def test_an_absent_column_is_reported() -> None:
    with pytest.raises(DataError, match="no column class_prior_BENIGN"):
        probabilities(table().drop(columns="class_prior_BENIGN"), BINARY)


def test_a_row_without_weights_is_refused() -> None:
    given = table()
    given.loc[3, "class_weight_BENIGN"] = np.nan
    with pytest.raises(DataError, match="class_weight_BENIGN is nan"):
        probabilities(given, BINARY)


def test_underflowing_probabilities_stay_finite() -> None:
    sure, other = table(), table(shuffled=True)
    sure["logit_BENIGN"] = 4000.0
    together = combined([sure, other], BINARY)
    assert np.isfinite(together.filter(like="logit_").to_numpy()).all()
    assert (probabilities(together, BINARY)[0].argmax(axis=1) == 0).all()


def test_scores_and_their_intervals_agree() -> None:
    labelled = oof_classified(table(shuffled=True).drop(columns="fold"))
    scores = ClassificationEvaluation.of(labelled).as_predicted.scores
    intervals = headline_intervals(labelled)
    assert intervals["balanced_accuracy"].value == pytest.approx(scores.balanced.balanced_accuracy)
    assert intervals["accuracy"].value == pytest.approx(scores.natural.accuracy)
    for interval in intervals.values():
        assert interval.low < interval.value < interval.high


def test_an_absent_class_is_allowed() -> None:
    codes = ISIC2018.codes
    rows = [
        {
            "image_id": f"p{number}",
            "group_id": f"g{number}",
            "diagnosis": codes[number % 3],
            **{f"logit_{code}": 4.0 * (index == number % 3) for index, code in enumerate(codes)},
            **{f"class_prior_{code}": 1 / 7 for code in codes},
            **{f"class_weight_{code}": 1.0 for code in codes},
        }
        for number in range(9)
    ]
    found = ClassificationEvaluation.of(oof_classified(pd.DataFrame(rows))).as_predicted
    assert found.scores.balanced.balanced_accuracy == 1
    # Three lesions of each class, all right: Wilson's distances 0.56, their mean over root 3.
    below = 1 - binomtest(3, 3).proportion_ci(method="wilson").low
    expected = (1, 1 - below / np.sqrt(3), 1)
    assert found.intervals["balanced_accuracy"] == pytest.approx(expected)


def test_combined_runs_equal_an_ensemble() -> None:
    one, other = table(), table(shuffled=True)
    rng = np.random.default_rng(5)
    columns = ["logit_BENIGN", "logit_MALIGNANT"]
    other[columns] = rng.normal(size=(len(other), 2))
    other[["class_weight_BENIGN", "class_weight_MALIGNANT"]] = [2.0, 0.7]
    other[["class_prior_BENIGN", "class_prior_MALIGNANT"]] = [0.55, 0.45]
    other = other[other["image_id"] != "p03"]
    together = combined([one, other], BINARY, allow_missing=True)
    assert "p03" not in set(together["image_id"])
    assert together["image_id"].is_monotonic_increasing
    natural, balanced = probabilities(together, BINARY)

    def member(table: pd.DataFrame, row: int) -> ClassifierMember:
        settings = table.iloc[row]
        return ClassifierMember(
            file="a.onnx",
            architecture="tiny",
            input_size=8,
            class_weights=tuple(settings[["class_weight_BENIGN", "class_weight_MALIGNANT"]]),
            class_priors=tuple(settings[["class_prior_BENIGN", "class_prior_MALIGNANT"]]),
        )

    for row, image_id in enumerate(together["image_id"]):
        same = [each[each["image_id"] == image_id] for each in (one, other)]
        logits = [each[columns].to_numpy(np.float32) for each in same]
        found = posterior(logits, [Trained(member(each, 0), 1.0) for each in same])
        np.testing.assert_allclose(natural[row], found.natural[0], atol=1e-6)
        np.testing.assert_allclose(balanced[row], found.balanced[0], atol=1e-6)
    assert combined([one], BINARY) is one
    strange = other.assign(image_id=other["image_id"] + "x")
    with pytest.raises(
        DataError, match=r"run 1 \(\d+ images.*\) and run 2 \(.*\) have no image in common"
    ):
        combined([one, strange], BINARY)
    with pytest.raises(DataError, match="1 image has no prediction in run 2: p03"):
        combined([one, other], BINARY)
    given_otherwise = one.assign(diagnosis=one["diagnosis"].iloc[::-1].to_numpy())
    with pytest.raises(DataError, match="another diagnosis in run 1 than in run 2"):
        combined([one, given_otherwise], BINARY)
