from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from naevus.errors import DataError
from naevus.evaluation.tables import heldout_diagnosed, judged, with_truth
from naevus.images.read import write_png
from naevus.taxonomy import ISIC2018

if TYPE_CHECKING:
    from pathlib import Path


def predictions() -> pd.DataFrame:
    table = pd.DataFrame({"image_id": ["c", "a", "b", "x"]})
    natural = np.random.default_rng(0).dirichlet(np.ones(7), 4)
    for place, code in enumerate(ISIC2018.codes):
        table[f"p_{code}"] = natural[:, place]
        table[f"b_{code}"] = natural[::-1, place]
    return table


def records(folder: Path) -> pd.DataFrame:
    """``a`` stands in two parts: with its mask in one, with its diagnosis in the other."""
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


def test_predictions_meet_their_truth_by_id(tmp_path: Path) -> None:
    joined = with_truth(predictions(), records(tmp_path), allow_missing=True)
    table = joined.table
    assert table["image_id"].tolist() == ["c", "a", "b"]
    assert {found.what: found.ids for found in joined.left_out} == {
        "images with ground truth have no answer": ("d",),
        "predicted images are not in the data set": ("x",),
    }
    found = judged(table, ISIC2018, tmp_path / "masks")
    assert found.diagnosed is not None
    assert found.diagnosed.table["image_id"].tolist() == ["c", "a"]
    assert found.diagnosed.table["truth"].tolist() == ["NV", "MEL"]
    assert found.diagnosed.table["group_id"].tolist() == ["g1", "g1"]
    given = predictions().set_index("image_id").loc[["c", "a"]]
    np.testing.assert_array_equal(
        found.diagnosed.natural, given[[f"p_{code}" for code in ISIC2018.codes]]
    )
    np.testing.assert_array_equal(
        found.diagnosed.balanced, given[[f"b_{code}" for code in ISIC2018.codes]]
    )
    assert found.outlined is not None
    assert found.outlined["image_id"].tolist() == ["a", "b"]
    assert found.outlined["jaccard"].tolist() == [1.0, 0.0]
    assert found.outlined["group_id"].tolist() == ["g1", "g2"]
    assert found.notes(table) == [
        "1 of 3 images have no true diagnosis: they are not in its figures",
        "1 of 3 images have no true mask: they are not in its figures",
    ]


def test_images_without_an_answer_or_a_truth_are_an_error(tmp_path: Path) -> None:
    known, rows = records(tmp_path), predictions()
    with pytest.raises(DataError, match=r"^some/table: 1 image .*answer: d; 1 pred.*x"):
        with_truth(rows, known, name="some/table")
    with pytest.raises(DataError, match="1 image with ground truth has no answer: d"):
        with_truth(rows[rows["image_id"] != "x"], known)
    with pytest.raises(DataError, match="1 predicted image is not in the data set: x"):
        with_truth(rows, known[known["image_id"] != "d"])
    blank = known["image_id"] == "c"
    bare = known[known["image_id"] != "d"].assign(diagnosis=known["diagnosis"].mask(blank))
    with pytest.raises(DataError, match="1 predicted image is without ground truth: c"):
        with_truth(rows[rows["image_id"] != "x"], bare)
    whole = with_truth(rows[rows["image_id"] != "x"], known[known["image_id"] != "d"])
    assert (whole.left_out, whole.unasked) == ((), {})


def test_parts_that_nobody_asked_for_are_told_and_not_due(tmp_path: Path) -> None:
    known = records(tmp_path).assign(part="task3", split="train")
    other = known.assign(image_id=known["image_id"] + "-late", split="test")
    both = pd.concat([known[known["image_id"] != "d"], other], ignore_index=True)
    joined = with_truth(predictions().head(3), both)
    assert joined.unasked == {"task3, test": 4}
    assert joined.notes() == ["task3, test: none of its 4 images was predicted, so none counts"]
    with pytest.raises(DataError, match="3 images with ground truth have no answer"):
        with_truth(
            pd.concat([predictions().head(3), predictions().tail(1)]).replace(
                {"image_id": {"x": "a-late"}}
            ),
            both,
        )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, None])
@pytest.mark.parametrize("column", ["p_MEL", "p_VASC", "b_NV"])
def test_a_row_that_is_no_number_is_an_error_and_never_dropped(
    tmp_path: Path, column: str, value: float | None
) -> None:
    rows = predictions()
    rows.loc[1, column] = value
    with pytest.raises(DataError, match=f"^out/predictions: a: {column} is .*no finite number"):
        with_truth(rows, records(tmp_path), allow_missing=True, name="out/predictions")


def test_an_id_twice_is_an_error(tmp_path: Path) -> None:
    twice = pd.concat([predictions(), predictions().head(1)])
    with pytest.raises(DataError, match="c stands twice"):
        with_truth(twice, records(tmp_path), allow_missing=True)


def test_what_is_absent_is_not_judged(tmp_path: Path) -> None:
    table = with_truth(predictions(), records(tmp_path), allow_missing=True).table
    without = judged(table, ISIC2018, tmp_path / "nowhere")
    assert without.outlined is None
    assert "2 images have a true mask and none was predicted" in without.notes(table)
    masks_alone = table[["image_id", "truth", "group_id", "mask_path", "picture_path"]]
    assert judged(masks_alone, ISIC2018, tmp_path / "masks").diagnosed is None
    with pytest.raises(DataError, match="no truth"):
        judged(masks_alone, ISIC2018, tmp_path / "nowhere")
    strangers = predictions().assign(image_id=[f"other-{n}" for n in range(4)])
    with pytest.raises(DataError, match="no truth for these"):
        with_truth(strangers, records(tmp_path), allow_missing=True)


def test_held_out_logits_are_freed_of_their_training() -> None:
    table = pd.DataFrame({"image_id": ["a"], "group_id": ["g"], "truth": ["MEL"]})
    for code in ISIC2018.codes:
        table[f"logit_{code}"] = np.log(2.0) if code == "MEL" else 0.0
        table[f"weight_{code}"] = 2.0 if code == "MEL" else 1.0
        table[f"share_{code}"] = 1 / 7
    found = heldout_diagnosed(table)
    assert found.taxonomy is ISIC2018
    np.testing.assert_allclose(found.natural, np.full((1, 7), 1 / 7))
