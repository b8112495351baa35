"""Scores over many masks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from naevus.errors import DataError
from naevus.evaluation.bootstrap import quantiles_of
from naevus.evaluation.mask_metrics import MaskScore, compare_masks
from naevus.evaluation.segmentation import (
    NONE_OF_THESE,
    SegmentationEvaluation,
)
from tests.helpers.tables import table_of_masks

if TYPE_CHECKING:
    from random import Random


Mask = NDArray[np.bool_]
masks = arrays(np.bool_, (6, 9))


def square(side: int) -> Mask:
    mask = np.zeros((20, 30), dtype=bool)
    mask[:side, :side] = True
    return mask


def table_of(scores: dict[str, MaskScore]) -> pd.DataFrame:
    rows = [(image_id, image_id, *score) for image_id, score in scores.items()]
    return pd.DataFrame(rows, columns=["image_id", "group_id", *MaskScore._fields])


def test_means_over_images() -> None:
    scores = {
        "good": compare_masks(square(10), square(10)),
        "bad": compare_masks(square(10), square(5)),
        "edge": compare_masks(square(10), square(9)),
    }
    result = SegmentationEvaluation.of(table_of(scores))
    assert (result.images, result.groups) == (3, 3)
    assert result.metrics["jaccard"].value == pytest.approx((1 + 0.25 + 0.81) / 3)
    assert result.metrics["thresholded_jaccard"].value == pytest.approx((1 + 0.81) / 3)
    assert result.metrics["below_threshold"].value == pytest.approx(1 / 3)
    assert [one[:2] for one in result.worst] == [("bad", 0.25), ("edge", 0.81), ("good", 1)]
    as_json = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert as_json["worst"][0] == {"image_id": "bad", "jaccard": 0.25, "dice": 0.4}


@settings(deadline=None, max_examples=40)
@given(st.lists(masks, min_size=1, max_size=5), st.randoms())
def test_the_order_of_images_does_not_matter(drawn: list[Mask], random: Random) -> None:
    scores = {f"p{n}": compare_masks(mask, drawn[0]) for n, mask in enumerate(drawn)}
    names = list(scores)
    random.shuffle(names)
    one, other = (
        SegmentationEvaluation.of(table_of(each))
        for each in (scores, {name: scores[name] for name in names})
    )
    assert one.worst == other.worst
    for name, interval in one.metrics.items():
        assert interval.value == pytest.approx(other.metrics[name].value)
    for fraction, interval in one.quantiles.items():
        assert interval.value == pytest.approx(other.quantiles[fraction].value)


def test_invalid_tables_are_refused() -> None:
    table = table_of({"a": compare_masks(square(3), square(3))})
    with pytest.raises(DataError, match="dice"):
        SegmentationEvaluation.of(table.drop(columns="dice"))
    with pytest.raises(DataError, match="no mask"):
        SegmentationEvaluation.of(table.head(0))
    with pytest.raises(DataError, match="twice"):
        SegmentationEvaluation.of(table.loc[[0, 0]])
    with pytest.raises(DataError, match="a has no score"):
        SegmentationEvaluation.of(table.assign(jaccard=np.nan))


def test_quantiles_means_and_curve_equal_numpy() -> None:
    table = table_of_masks()
    scores = SegmentationEvaluation.of(table)
    for fraction, interval in scores.quantiles.items():
        expected = np.quantile(table["jaccard"], fraction, method="inverted_cdf")
        assert interval.value == expected
        assert not interval.known or interval.low <= expected <= interval.high
    assert scores.quantiles[0.5].known
    assert scores.distances["mean hausdorff_95"].value == pytest.approx(
        table["hausdorff_95"].mean()
    )
    assert scores.failed.value == (table["jaccard"] < 0.65).mean()
    assert scores.groups == scores.failed.groups == 100
    curve = scores.curve.set_index(scores.curve["threshold"].map("{:.2f}".format))
    assert curve.loc["0.00", "thresholded_jaccard"] == pytest.approx(table["jaccard"].mean())
    kept = table["jaccard"].where(table["jaccard"] >= 0.65, 0)
    assert curve.loc["0.65", "thresholded_jaccard"] == pytest.approx(kept.mean())
    assert curve.loc["0.65", "reached"] == pytest.approx(1 - scores.failed.value)
    assert curve["thresholded_jaccard"].is_monotonic_decreasing
    assert (curve["thresholded_jaccard_low"] <= curve["thresholded_jaccard"] + 1e-12).all()
    json.dumps(scores.to_dict(), allow_nan=False)


def test_failures_are_listed_by_condition() -> None:
    table = table_of_masks()
    scores = SegmentationEvaluation.of(table)
    found = {one.name: one for one in scores.factors}
    small = found["lesion under 5 % of the image"]
    inside = table["lesion_area"] < 0.05
    assert small.images == inside.sum()
    assert small.failures == (inside & (table["jaccard"] < 0.65)).sum()
    assert small.failed is not None
    assert small.elsewhere is not None
    assert small.failed.value > small.elsewhere.value
    assert small.failed.groups == inside.sum() / 2
    hairy = found["hair over 6 % of the image"]
    assert (hairy.images, hairy.failed) == (0, None)
    marked = inside | (table["lesion_area"] > 0.6) | (table["border"] > 0)
    assert found[NONE_OF_THESE].images == (~marked).sum()


def test_size_bands_contain_every_image_once() -> None:
    table = table_of_masks()
    sizes = SegmentationEvaluation.of(table).sizes
    assert sum(band.images for band in sizes) == len(table)
    values = [band.jaccard.value for band in sizes]
    assert values == sorted(values)
    by_hand = table[(table["lesion_area"] > 0.15) & (table["lesion_area"] <= 0.3)]
    band = next(band for band in sizes if band.low == 0.15)
    assert band.jaccard.value == pytest.approx(by_hand["jaccard"].mean())
    assert band.failed.groups == by_hand["group_id"].nunique()


def test_tables_without_conditions_are_read() -> None:
    table = table_of_masks()[["image_id", "group_id", *MaskScore._fields]]
    scores = SegmentationEvaluation.of(table)
    assert (scores.distances, scores.factors, scores.sizes) == ({}, (), ())
    with pytest.raises(DataError, match="no column jaccard"):
        SegmentationEvaluation.of(table.drop(columns="jaccard"))
    with pytest.raises(DataError, match="has no score"):
        SegmentationEvaluation.of(table.assign(jaccard=np.nan))
    with pytest.raises(DataError, match="no mask"):
        SegmentationEvaluation.of(table.head(0))


def test_one_lesion_and_masks_without_overlap_are_handled() -> None:
    table = table_of_masks(2).assign(jaccard=0.0, sensitivity=0.0)
    scores = SegmentationEvaluation.of(table)
    assert scores.quantiles[0.5].value == 0
    assert not any(scores.metrics[name].known for name in ("jaccard", "dice", "accuracy"))
    assert scores.failed.groups == 1
    assert scores.sizes[0].area_ratio is None


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3)), min_size=1, max_size=30))
def test_weighted_quantiles_equal_numpy(images: list[tuple[float, int]]) -> None:
    values, weights = np.array(images, float).T
    if weights.any():
        class_priors = (0.1, 0.25, 0.5, 1.0)
        found = quantiles_of(values, class_priors)(weights[None])[0]
        repeated = np.repeat(values, weights.astype(int))
        expected = np.quantile(repeated, class_priors, method="inverted_cdf")
        assert found.tolist() == expected.tolist()


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
