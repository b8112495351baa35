"""Out-of-fold tables: each row is freed of its own fold's weights and shares."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from naevus.bundles.spec import ClassifierMember
from naevus.errors import DataError
from naevus.evaluation.evaluate import classification_scores
from naevus.evaluation.mask_metrics import MaskScore, compare_masks
from naevus.evaluation.priors import balanced_log_probabilities, natural_log_probabilities
from naevus.evaluation.segmentation import segmentation_scores
from naevus.evaluation.tables import combined, probabilities, rebalanced
from naevus.inference.ensemble import Trained, posterior
from naevus.taxonomy import BINARY, ISIC2018

SETTINGS = {
    0: ([0.8, 0.2], [0.5, 3.0]),
    1: ([0.6, 0.4], [1.0, 1.0]),
}


def table(shuffled: bool = False) -> pd.DataFrame:
    chance = np.random.default_rng(0)
    rows = []
    for number in range(40):
        fold = number % 2
        shares, weights = SETTINGS[fold]
        rows.append(
            {
                "image_id": f"p{number:02d}",
                "group_id": f"g{number // 2}",
                "truth": BINARY.codes[number // 2 % 2],
                "fold": fold,
                **dict(
                    zip(["logit_BENIGN", "logit_MALIGNANT"], chance.normal(size=2), strict=True)
                ),
                **dict(zip(["share_BENIGN", "share_MALIGNANT"], shares, strict=True)),
                **dict(zip(["weight_BENIGN", "weight_MALIGNANT"], weights, strict=True)),
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
        shares, weights = SETTINGS[int(given["fold"].iloc[row])]
        expected = np.exp(natural_log_probabilities(logits, np.array(weights)))
        np.testing.assert_allclose(one, expected)
        expected = np.exp(balanced_log_probabilities(logits, np.array(weights), np.array(shares)))
        np.testing.assert_allclose(other, expected)
    np.testing.assert_allclose(natural.sum(1), 1)
    assert not np.allclose(natural, balanced)


def test_equal_logits_are_answered_by_the_fold_s_shares() -> None:
    given = table()
    given[["logit_BENIGN", "logit_MALIGNANT"]] = 0.0
    natural, balanced = probabilities(given, BINARY)
    assert natural[0] == pytest.approx([6 / 7, 1 / 7])
    assert natural[1] == pytest.approx([0.5, 0.5])
    assert balanced[1] == pytest.approx([0.4, 0.6])


def test_an_absent_column_is_told() -> None:
    with pytest.raises(DataError, match="no column share_BENIGN"):
        probabilities(table().drop(columns="share_BENIGN"), BINARY)


def test_a_row_without_weights_is_not_scored_by_chance() -> None:
    given = table()
    given.loc[3, "weight_BENIGN"] = np.nan
    with pytest.raises(DataError, match="weight_BENIGN is nan"):
        probabilities(given, BINARY)


def test_scores_and_their_intervals_agree() -> None:
    scores, intervals = classification_scores(table(shuffled=True), BINARY)
    assert intervals["balanced_accuracy"].value == pytest.approx(scores.balanced.balanced_accuracy)
    assert intervals["accuracy"].value == pytest.approx(scores.probable.accuracy)
    for interval in intervals.values():
        assert interval.low < interval.value < interval.high


def test_a_class_that_is_not_there_is_let_by() -> None:
    codes = ISIC2018.codes
    rows = [
        {
            "image_id": f"p{number}",
            "group_id": f"g{number}",
            "truth": codes[number % 3],
            **{f"logit_{code}": 4.0 * (index == number % 3) for index, code in enumerate(codes)},
            **{f"share_{code}": 1 / 7 for code in codes},
            **{f"weight_{code}": 1.0 for code in codes},
        }
        for number in range(9)
    ]
    scores, intervals = classification_scores(pd.DataFrame(rows), ISIC2018)
    assert scores.balanced.balanced_accuracy == 1
    assert intervals["balanced_accuracy"] == (1, 1, 1)


def test_masks_are_scored_by_picture_and_by_group() -> None:
    truth = np.zeros((10, 10), bool)
    truth[:5] = True
    rows = []
    for number in range(12):
        guess = np.zeros_like(truth)
        guess[: 2 + number % 4] = True
        score = compare_masks(truth, guess)
        rows.append({"image_id": f"p{number}", "group_id": f"g{number // 2}", **score._asdict()})
    scores, intervals = segmentation_scores(pd.DataFrame(rows))
    assert scores.jaccard == pytest.approx(np.mean([0.4, 0.6, 0.8, 1.0]))
    assert scores.thresholded_jaccard == pytest.approx(np.mean([0, 0, 0.8, 1.0]))
    assert intervals["jaccard"].value == pytest.approx(scores.jaccard)
    assert intervals["thresholded_jaccard"].value == pytest.approx(scores.thresholded_jaccard)
    assert intervals["jaccard"].low < scores.jaccard < intervals["jaccard"].high
    assert set(MaskScore._fields) <= set(rows[0])


def test_rebalancing_is_by_each_row_s_shares() -> None:
    given = table(shuffled=True)
    natural, balanced = probabilities(given, BINARY)
    np.testing.assert_allclose(rebalanced(given, natural, BINARY), balanced)


def test_runs_are_combined_as_an_ensemble_is() -> None:
    one, other = table(), table(shuffled=True)
    chance = np.random.default_rng(5)
    columns = ["logit_BENIGN", "logit_MALIGNANT"]
    other[columns] = chance.normal(size=(len(other), 2))
    other[["weight_BENIGN", "weight_MALIGNANT"]] = [2.0, 0.7]
    other[["share_BENIGN", "share_MALIGNANT"]] = [0.55, 0.45]
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
            weights=tuple(settings[["weight_BENIGN", "weight_MALIGNANT"]]),
            shares=tuple(settings[["share_BENIGN", "share_MALIGNANT"]]),
        )

    for row, image_id in enumerate(together["image_id"]):
        same = [each[each["image_id"] == image_id] for each in (one, other)]
        logits = [each[columns].to_numpy(np.float32) for each in same]
        found = posterior(logits, [Trained(member(each, 0), 1.0) for each in same])
        np.testing.assert_allclose(natural[row], found.natural[0], atol=1e-6)
        np.testing.assert_allclose(balanced[row], found.balanced[0], atol=1e-6)
    assert combined([one], BINARY) is one
    strange = other.assign(image_id=other["image_id"] + "x")
    with pytest.raises(DataError, match="run 1 and run 2 have no picture in common"):
        combined([one, strange], BINARY)
    with pytest.raises(DataError, match="1 image has no answer in run 2: p03"):
        combined([one, other], BINARY)
    told_otherwise = one.assign(truth=one["truth"].iloc[::-1].to_numpy())
    with pytest.raises(DataError, match="another diagnosis in run 1 than in run 2"):
        combined([one, told_otherwise], BINARY)
