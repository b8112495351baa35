"""Tables of predictions: ids, finite numbers, and joins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from naevus.bundles.spec import ClassifierMember
from naevus.errors import DataError
from naevus.evaluation.classification import headline_intervals
from naevus.evaluation.comparison import compare
from naevus.evaluation.ensemble_selection import ensemble_scores
from naevus.evaluation.evaluate import ClassificationEvaluation
from naevus.evaluation.mask_metrics import MaskScore, compare_masks
from naevus.evaluation.priors import balanced_log_probabilities, natural_log_probabilities
from naevus.evaluation.segmentation import SegmentationEvaluation
from naevus.evaluation.tables import (
    check_finite,
    check_ids,
    combined,
    evaluated,
    numbers_of,
    oof_classified,
    probabilities,
    with_truth,
)
from naevus.images.read import write_png
from naevus.inference.ensemble import Trained, posterior
from naevus.taxonomy import BINARY, ISIC2018

if TYPE_CHECKING:
    from pathlib import Path


def predictions(count: int = 70, seed: int = 0) -> pd.DataFrame:
    """Return an out-of-fold table, one image per lesion, mostly correct."""
    rng = np.random.default_rng(seed)
    truth = np.array([ISIC2018.codes[n % 7] for n in range(count)])
    table = pd.DataFrame(
        {
            "image_id": [f"i{n:03d}" for n in range(count)],
            "group_id": [f"g{n:03d}" for n in range(count)],
            "diagnosis": truth,
            "fold": np.arange(count) % 5,
        }
    )
    for code in ISIC2018.codes:
        table[f"logit_{code}"] = rng.normal(size=count) + 2 * (truth == code)
        table[f"class_weight_{code}"] = 1.0
        table[f"class_prior_{code}"] = 1 / 7
    return table


def contours(count: int = 40) -> pd.DataFrame:
    jaccard = np.random.default_rng(3).uniform(0.5, 1, count)
    names = [f"i{n:03d}" for n in range(count)]
    table = pd.DataFrame({"image_id": names, "group_id": names, "jaccard": jaccard})
    return table.assign(thresholded_jaccard=np.where(jaccard < 0.65, 0, jaccard))


def test_images_of_one_table_alone_are_an_error_unless_allowed() -> None:
    one, other = predictions(), predictions(seed=1).iloc[3:]
    with pytest.raises(
        DataError, match=r"^A and B: 3 images have no prediction in B, such as i000"
    ):
        compare(one, other)
    found = compare(one, other, allow_missing=True)
    assert (found.images, found.only_a, found.only_b) == (67, 3, 0)
    with pytest.raises(DataError, match="5 images have no prediction in A"):
        compare(contours().iloc[5:], contours())
    with pytest.raises(DataError, match="3 images have no prediction in run 2"):
        combined([one, other], ISIC2018)
    assert len(combined([one, other], ISIC2018, allow_missing=True)) == 67
    tables = {"first": one, "second": other.iloc[:-2]}
    with pytest.raises(DataError, match="5 images have no prediction in second"):
        ensemble_scores(tables)
    assert ensemble_scores(tables, allow_missing=True).left_out == 5


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", ["logit_MEL", "class_weight_DF", "class_prior_VASC"])
def test_non_finite_numbers_are_refused(column: str, value: float) -> None:
    good, bad = predictions(), predictions()
    bad.loc[11, column] = value
    with pytest.raises(DataError, match=f"^B: i011: {column} is {value:g}, not a finite number"):
        compare(good, bad)
    with pytest.raises(DataError, match=f"second: i011: {column}"):
        ensemble_scores({"first": good, "second": bad})
    with pytest.raises(DataError, match=f"i011: {column}"):
        combined([good, bad], ISIC2018)
    with pytest.raises(DataError, match=f"i011: {column}"):
        probabilities(bad, ISIC2018)
    masks = contours()
    masks.loc[[2, 7], "thresholded_jaccard"] = value
    with pytest.raises(DataError, match=r"^A: i002: thresholded_jaccard .* \(and so for 1 more\)"):
        compare(masks, contours())


def test_text_and_empty_cells_are_refused() -> None:
    table = pd.DataFrame({"image_id": ["a", "b"], "prob_MEL": ["0.5", "a half"]})
    with pytest.raises(DataError, match="t: column prob_MEL is not numeric"):
        check_finite(table, ["prob_MEL"], "t")
    empty = pd.DataFrame({"image_id": ["a", "b"], "prob_MEL": pd.array([0.5, None], "Float64")})
    with pytest.raises(DataError, match="t: b: prob_MEL is nan"):
        check_finite(empty, numbers_of(empty, ["prob"]), "t")


def test_underflowing_probabilities_stay_finite() -> None:
    sure = predictions()
    sure["logit_MEL"] = 4000.0
    together = combined([sure, predictions(seed=1)], ISIC2018)
    assert np.isfinite(together.filter(like="logit_").to_numpy()).all()
    assert (probabilities(together, ISIC2018)[0].argmax(axis=1) == 0).all()


def test_invalid_ids_are_refused() -> None:
    table = predictions(7)
    with pytest.raises(DataError, match="t: i003 occurs twice"):
        check_ids(pd.concat([table, table.iloc[[3]]]), "t")
    with pytest.raises(DataError, match="row without image_id"):
        check_ids(table.assign(image_id=table["image_id"].mask(table.index == 2)), "t")
    with pytest.raises(DataError, match="no column image_id"):
        check_ids(table.drop(columns="image_id"), "t")


def rows_of() -> pd.DataFrame:
    table = pd.DataFrame({"image_id": ["c", "a", "b", "x"]})
    natural = np.random.default_rng(0).dirichlet(np.ones(7), 4)
    for place, code in enumerate(ISIC2018.codes):
        table[f"prob_{code}"] = natural[:, place]
        table[f"balanced_prob_{code}"] = natural[::-1, place]
    return table


def records(folder: Path) -> pd.DataFrame:
    """Return records; ``a`` has its mask in one part and its diagnosis in another."""
    for name in "ab":
        mask = np.zeros((20, 30), bool)
        mask[5:15, 5:15] = True
        write_png(folder / "truth" / f"{name}.png", mask)
        write_png(folder / "masks" / f"{name}_segmentation.png", mask if name == "a" else ~mask)
    rows = [
        ("a", None, "g1", str(folder / "truth" / "a.png")),
        ("a", "MEL", "g1", None),
        ("b", None, "g2", str(folder / "truth" / "b.png")),
        ("c", "NV", "g1", None),
        ("d", "NV", "g3", None),
    ]
    columns = ["image_id", "diagnosis", "group_id", "mask_path"]
    return pd.DataFrame(rows, columns=columns).assign(path=None).astype("string")


def test_predictions_are_joined_with_ground_truth_by_id(tmp_path: Path) -> None:
    joined = with_truth(rows_of(), records(tmp_path), allow_missing=True)
    table = joined.table
    assert table["image_id"].tolist() == ["c", "a", "b"]
    assert {found.what: found.ids for found in joined.left_out} == {
        "images with ground truth have no prediction": ("d",),
        "predicted images are not in the data set": ("x",),
    }
    found = evaluated(table, ISIC2018, tmp_path / "masks")
    assert found.classified is not None
    assert found.classified.table["image_id"].tolist() == ["c", "a"]
    assert found.classified.table["diagnosis"].tolist() == ["NV", "MEL"]
    assert found.classified.table["group_id"].tolist() == ["g1", "g1"]
    given = rows_of().set_index("image_id").loc[["c", "a"]]
    np.testing.assert_array_equal(
        found.classified.natural, given[[f"prob_{code}" for code in ISIC2018.codes]]
    )
    np.testing.assert_array_equal(
        found.classified.balanced, given[[f"balanced_prob_{code}" for code in ISIC2018.codes]]
    )
    assert found.segmented is not None
    assert found.segmented["image_id"].tolist() == ["a", "b"]
    assert found.segmented["jaccard"].tolist() == [1.0, 0.0]
    assert found.segmented["group_id"].tolist() == ["g1", "g2"]
    assert found.notes(table) == [
        "1 of 3 images have no true diagnosis: its figures leave them out",
        "1 of 3 images have no true mask: its figures leave them out",
    ]


def test_images_without_prediction_or_ground_truth_are_an_error(tmp_path: Path) -> None:
    known, rows = records(tmp_path), rows_of()
    with pytest.raises(DataError, match=r"^some/table: 1 image .*prediction: d; 1 pred.*x"):
        with_truth(rows, known, name="some/table")
    with pytest.raises(DataError, match="1 image with ground truth has no prediction: d"):
        with_truth(rows[rows["image_id"] != "x"], known)
    with pytest.raises(DataError, match="1 predicted image is not in the data set: x"):
        with_truth(rows, known[known["image_id"] != "d"])
    blank = known["image_id"] == "c"
    bare = known[known["image_id"] != "d"].assign(diagnosis=known["diagnosis"].mask(blank))
    with pytest.raises(DataError, match="1 predicted image has no ground truth: c"):
        with_truth(rows[rows["image_id"] != "x"], bare)
    whole = with_truth(rows[rows["image_id"] != "x"], known[known["image_id"] != "d"])
    assert (whole.left_out, whole.unasked) == ((), {})


def test_images_of_other_parts_are_reported_and_not_required(tmp_path: Path) -> None:
    known = records(tmp_path).assign(part="task3", split="train")
    other = known.assign(image_id=known["image_id"] + "-late", split="test")
    both = pd.concat([known[known["image_id"] != "d"], other], ignore_index=True)
    joined = with_truth(rows_of().head(3), both)
    assert joined.unasked == {"task3, test": 4}
    assert joined.notes() == [
        "task3, test: none of its 4 images was predicted, so none is evaluated"
    ]
    with pytest.raises(DataError, match="3 images with ground truth have no prediction"):
        with_truth(
            pd.concat([rows_of().head(3), rows_of().tail(1)]).replace(
                {"image_id": {"x": "a-late"}}
            ),
            both,
        )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, None])
@pytest.mark.parametrize("column", ["prob_MEL", "prob_VASC", "balanced_prob_NV"])
def test_rows_with_non_finite_numbers_are_refused(
    tmp_path: Path, column: str, value: float | None
) -> None:
    rows = rows_of()
    rows.loc[1, column] = value
    with pytest.raises(DataError, match=f"^out/predictions: a: {column} is .*not a finite number"):
        with_truth(rows, records(tmp_path), allow_missing=True, name="out/predictions")


def test_a_duplicate_id_is_an_error(tmp_path: Path) -> None:
    twice = pd.concat([rows_of(), rows_of().head(1)])
    with pytest.raises(DataError, match="c occurs twice"):
        with_truth(twice, records(tmp_path), allow_missing=True)


def test_prediction_sets_are_scored_as_they_were_given(tmp_path: Path) -> None:
    table = with_truth(rows_of(), records(tmp_path), allow_missing=True).table
    given = {"a": ["MEL", "BKL"], "c": ["MEL"]}
    table["prediction_set"] = [given.get(image_id, ["NV"]) for image_id in table["image_id"]]
    found = evaluated(table, ISIC2018, tmp_path / "masks", coverage=0.9)
    assert found.classified is not None
    sets = found.classified.sets
    assert sets is not None
    inside = [{ISIC2018.codes[c] for c in np.flatnonzero(row)} for row in sets]
    assert inside == [{"MEL"}, {"MEL", "BKL"}]
    assert not any("prediction sets" in note for note in found.notes(table))
    scores = ClassificationEvaluation.of(found.classified, fit_sets=False)
    assert scores.sets is not None
    assert scores.sets_given
    assert scores.sets.overall.images.value == 0.5  # c is a naevus
    assert scores.sets.overall.size == 1.5
    without = evaluated(table, ISIC2018, tmp_path / "masks")
    assert "prediction sets are not scored: their nominal coverage is unknown" in without.notes(
        table
    )
    for wrong in (None, ["XYZ"]):
        table["prediction_set"] = pd.Series([wrong] * len(table), dtype=object)
        with pytest.raises(DataError, match="its prediction_set is"):
            evaluated(table, ISIC2018, tmp_path / "masks", coverage=0.9)


def test_prediction_sets_are_folded_with_their_classes(tmp_path: Path) -> None:
    table = with_truth(rows_of(), records(tmp_path), allow_missing=True).table
    table["diagnosis"] = ["BENIGN", "MALIGNANT", *table["diagnosis"].iloc[2:]]
    table["prediction_set"] = [["NV", "BKL"]] * len(table)
    table.loc[1, "prediction_set"] = ["NV", "BCC"]
    found = evaluated(table.iloc[:2], BINARY, tmp_path / "masks", coverage=0.9)
    assert found.classified is not None
    assert found.classified.sets is not None
    assert found.classified.sets.tolist() == [[True, False], [True, True]]


def test_tables_without_ground_truth_are_not_scored(tmp_path: Path) -> None:
    table = with_truth(rows_of(), records(tmp_path), allow_missing=True).table
    without = evaluated(table, ISIC2018, tmp_path / "nowhere")
    assert without.segmented is None
    assert "2 images with a true mask, but none was predicted" in without.notes(table)
    masks_alone = table[["image_id", "diagnosis", "group_id", "mask_path", "image_path"]]
    assert evaluated(masks_alone, ISIC2018, tmp_path / "masks").classified is None
    with pytest.raises(DataError, match="no ground truth"):
        evaluated(masks_alone, ISIC2018, tmp_path / "nowhere")
    unknown_ids = rows_of().assign(image_id=[f"other-{n}" for n in range(4)])
    with pytest.raises(DataError, match="no ground truth for these"):
        with_truth(unknown_ids, records(tmp_path), allow_missing=True)


def test_held_out_logits_are_corrected_for_weights_and_priors() -> None:
    table = pd.DataFrame({"image_id": ["a"], "group_id": ["g"], "diagnosis": ["MEL"]})
    for code in ISIC2018.codes:
        table[f"logit_{code}"] = np.log(2.0) if code == "MEL" else 0.0
        table[f"class_weight_{code}"] = 2.0 if code == "MEL" else 1.0
        table[f"class_prior_{code}"] = 1 / 7
    found = oof_classified(table)
    assert found.taxonomy is ISIC2018
    np.testing.assert_allclose(found.natural, np.full((1, 7), 1 / 7))


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


def test_masks_are_scored_by_image_and_by_group() -> None:
    truth = np.zeros((10, 10), bool)
    truth[:5] = True
    rows = []
    for number in range(24):
        guess = np.zeros_like(truth)
        guess[: 2 + number % 4] = True
        score = compare_masks(truth, guess)
        rows.append({"image_id": f"p{number}", "group_id": f"g{number // 2}", **score._asdict()})
    metrics = SegmentationEvaluation.of(pd.DataFrame(rows)).metrics
    jaccard = metrics["jaccard"]
    assert jaccard.value == pytest.approx(np.mean([0.4, 0.6, 0.8, 1.0]))
    assert metrics["thresholded_jaccard"].value == pytest.approx(np.mean([0, 0, 0.8, 1.0]))
    assert jaccard.low < jaccard.value < jaccard.high
    assert set(MaskScore._fields) <= set(rows[0])


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
    with pytest.raises(DataError, match="run 1 and run 2 have no image in common"):
        combined([one, strange], BINARY)
    with pytest.raises(DataError, match="1 image has no prediction in run 2: p03"):
        combined([one, other], BINARY)
    given_otherwise = one.assign(diagnosis=one["diagnosis"].iloc[::-1].to_numpy())
    with pytest.raises(DataError, match="another diagnosis in run 1 than in run 2"):
        combined([one, given_otherwise], BINARY)
