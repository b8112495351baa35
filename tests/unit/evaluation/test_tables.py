"""Tables of answers: ids, finite numbers, and what a join leaves out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from naevus.errors import DataError
from naevus.evaluation.comparison import compare
from naevus.evaluation.ensemble_selection import ensemble_scores
from naevus.evaluation.tables import check_finite, check_ids, combined, numbers_of, probabilities
from naevus.taxonomy import ISIC2018


def answers(count: int = 70, seed: int = 0) -> pd.DataFrame:
    """An out-of-fold table of as many lesions, right more often than not."""
    chance = np.random.default_rng(seed)
    truth = np.array([ISIC2018.codes[n % 7] for n in range(count)])
    table = pd.DataFrame(
        {
            "image_id": [f"i{n:03d}" for n in range(count)],
            "group_id": [f"g{n:03d}" for n in range(count)],
            "truth": truth,
            "fold": np.arange(count) % 5,
        }
    )
    for code in ISIC2018.codes:
        table[f"logit_{code}"] = chance.normal(size=count) + 2 * (truth == code)
        table[f"weight_{code}"] = 1.0
        table[f"share_{code}"] = 1 / 7
    return table


def outlines(count: int = 40) -> pd.DataFrame:
    jaccard = np.random.default_rng(3).uniform(0.5, 1, count)
    names = [f"i{n:03d}" for n in range(count)]
    table = pd.DataFrame({"image_id": names, "group_id": names, "jaccard": jaccard})
    return table.assign(thresholded=np.where(jaccard < 0.65, 0, jaccard))


def test_images_of_one_table_alone_are_an_error_unless_allowed() -> None:
    one, other = answers(), answers(seed=1).iloc[3:]
    with pytest.raises(DataError, match=r"^A and B: 3 images have no answer in B, such as i000"):
        compare(one, other)
    found = compare(one, other, allow_missing=True)
    assert (found.pictures, found.only_a, found.only_b) == (67, 3, 0)
    with pytest.raises(DataError, match="5 images have no answer in A"):
        compare(outlines().iloc[5:], outlines())
    with pytest.raises(DataError, match="3 images have no answer in run 2"):
        combined([one, other], ISIC2018)
    assert len(combined([one, other], ISIC2018, allow_missing=True)) == 67
    tables = {"first": one, "second": other.iloc[:-2]}
    with pytest.raises(DataError, match="5 images have no answer in second"):
        ensemble_scores(tables)
    assert ensemble_scores(tables, allow_missing=True).left_out == 5


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", ["logit_MEL", "weight_DF", "share_VASC"])
def test_no_number_that_is_not_finite_is_counted(column: str, value: float) -> None:
    good, bad = answers(), answers()
    bad.loc[11, column] = value
    with pytest.raises(DataError, match=f"^B: i011: {column} is {value:g}, no finite number"):
        compare(good, bad)
    with pytest.raises(DataError, match=f"second: i011: {column}"):
        ensemble_scores({"first": good, "second": bad})
    with pytest.raises(DataError, match=f"i011: {column}"):
        combined([good, bad], ISIC2018)
    with pytest.raises(DataError, match=f"i011: {column}"):
        probabilities(bad, ISIC2018)
    masks = outlines()
    masks.loc[[2, 7], "thresholded"] = value
    with pytest.raises(DataError, match=r"^A: i002: thresholded .* \(and so for 1 more\)"):
        compare(masks, outlines())


def test_texts_and_empty_cells_are_no_numbers_either() -> None:
    table = pd.DataFrame({"image_id": ["a", "b"], "p_MEL": ["0.5", "a half"]})
    with pytest.raises(DataError, match="t: column p_MEL does not hold numbers"):
        check_finite(table, ["p_MEL"], "t")
    empty = pd.DataFrame({"image_id": ["a", "b"], "p_MEL": pd.array([0.5, None], "Float64")})
    with pytest.raises(DataError, match="t: b: p_MEL is nan"):
        check_finite(empty, numbers_of(empty, "p"), "t")


def test_very_unlikely_is_not_impossible() -> None:
    sure = answers()
    sure["logit_MEL"] = 4000.0
    together = combined([sure, answers(seed=1)], ISIC2018)
    assert np.isfinite(together.filter(like="logit_").to_numpy()).all()
    assert (probabilities(together, ISIC2018)[0].argmax(axis=1) == 0).all()


def test_ids_that_are_not_ids_are_refused() -> None:
    table = answers(7)
    with pytest.raises(DataError, match="t: i003 stands twice"):
        check_ids(pd.concat([table, table.iloc[[3]]]), "t")
    with pytest.raises(DataError, match="row without image_id"):
        check_ids(table.assign(image_id=table["image_id"].mask(table.index == 2)), "t")
    with pytest.raises(DataError, match="no column image_id"):
        check_ids(table.drop(columns="image_id"), "t")
