"""Tables of predictions: ids, finite numbers, and joins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from naevus.errors import DataError
from naevus.evaluation.comparison import compare
from naevus.evaluation.ensemble_selection import ensemble_scores
from naevus.evaluation.out_of_fold import combined, probabilities
from naevus.evaluation.tables import check_finite, check_ids, has_values, numbers_of
from naevus.taxonomy import ISIC2018

if TYPE_CHECKING:
    pass


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
        DataError,
        match=r"^A and B have \d+ images in common: 3 images have no prediction in B, such as i000",
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


@pytest.mark.parametrize(
    ("values", "there"),
    [([1.0, np.nan], True), ([np.nan, np.nan], False), ([None, pd.NA], False), (["", None], True)],
)
def test_a_column_has_values_if_one_cell_is_filled(values: list[object], there: bool) -> None:
    table = pd.DataFrame({"image_id": ["a", "b"], "age": values})
    assert has_values(table, "age") is there
    assert has_values(table.head(0), "age") is False
    assert has_values(table, "sex") is False


def test_invalid_ids_are_refused() -> None:
    table = predictions(7)
    with pytest.raises(DataError, match="t: i003 occurs twice"):
        check_ids(pd.concat([table, table.iloc[[3]]]), "t")
    with pytest.raises(DataError, match="row without image_id"):
        check_ids(table.assign(image_id=table["image_id"].mask(table.index == 2)), "t")
    with pytest.raises(DataError, match="no column image_id"):
        check_ids(table.drop(columns="image_id"), "t")
