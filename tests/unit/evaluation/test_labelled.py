"""Predictions joined with ground truth: by id, what is left out, and what is evaluated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from naevus.errors import DataError
from naevus.evaluation.evaluate import ClassificationEvaluation
from naevus.evaluation.labelled import (
    LabelledPredictions,
    evaluated,
    oof_classified,
    with_truth,
)
from naevus.evaluation.priors import rebalance
from naevus.images.read import write_png
from naevus.taxonomy import BINARY, ISIC2018

if TYPE_CHECKING:
    from pathlib import Path


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


def test_images_without_prediction_or_row_are_an_error(tmp_path: Path) -> None:
    known, rows = records(tmp_path), rows_of()
    with pytest.raises(DataError, match=r"^some/table: 1 image .*prediction: d; 1 pred.*x"):
        with_truth(rows, known, name="some/table")
    with pytest.raises(DataError, match="1 image with ground truth has no prediction: d"):
        with_truth(rows[rows["image_id"] != "x"], known)
    with pytest.raises(DataError, match="1 predicted image is not in the data set: x"):
        with_truth(rows, known[known["image_id"] != "d"])
    whole = with_truth(rows[rows["image_id"] != "x"], known[known["image_id"] != "d"])
    assert (whole.left_out, whole.unpredicted) == ((), {})


def test_images_whose_row_has_no_ground_truth_are_left_out_and_counted(tmp_path: Path) -> None:
    known, rows = records(tmp_path), rows_of()
    blank = known["image_id"] == "c"
    bare = known[known["image_id"] != "d"].assign(diagnosis=known["diagnosis"].mask(blank))
    joined = with_truth(rows[rows["image_id"] != "x"], bare)
    assert joined.notes() == ["1 predicted image has no ground truth: c: left out"]
    found = evaluated(joined.table, ISIC2018, tmp_path / "masks")
    assert found.notes(joined.table) == [
        "1 of 2 images have no true diagnosis: its figures leave them out"
    ]
    known.loc[known["image_id"] == "b", ["diagnosis", "mask_path"]] = ["BKL", None]
    joined = with_truth(rows[rows["image_id"] == "b"], known[known["image_id"] == "b"])
    assert evaluated(joined.table, ISIC2018, tmp_path / "masks").notes(joined.table) == []


def test_images_of_other_parts_are_reported_and_not_required(tmp_path: Path) -> None:
    known = records(tmp_path).assign(part="task3", split="train")
    other = known.assign(image_id=known["image_id"] + "-late", split="test")
    both = pd.concat([known[known["image_id"] != "d"], other], ignore_index=True)
    joined = with_truth(rows_of().head(3), both)
    assert joined.unpredicted == {"task3, test": 4}
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


def test_other_natural_probabilities_give_balanced_ones_of_the_same_priors() -> None:
    rng, priors = np.random.default_rng(0), np.array([0.7, 0.3])
    natural, other = rng.dirichlet(np.ones(2), 5), rng.dirichlet(np.ones(2), 5)
    natural[0], other[0] = (1, 0), (1, 0)  # a class that stays impossible
    table = pd.DataFrame({"image_id": list("abcde")})
    before = LabelledPredictions(table, natural, rebalance(natural, priors), BINARY)
    found = before.with_natural(other)
    np.testing.assert_allclose(found.balanced, rebalance(other, priors))
    assert (found.natural == other).all()
    assert found.table is table
