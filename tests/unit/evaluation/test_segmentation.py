"""Scores of masks: one picture, and many."""

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
from naevus.evaluation.mask_metrics import MaskScore, compare_masks
from naevus.evaluation.segmentation import SegmentationScores

if TYPE_CHECKING:
    from random import Random

Mask = NDArray[np.bool_]
masks = arrays(np.bool_, (6, 9))


def square(side: int) -> Mask:
    mask = np.zeros((20, 30), dtype=bool)
    mask[:side, :side] = True
    return mask


def test_known_counts() -> None:
    truth, prediction = square(10), square(8)
    assert compare_masks(truth, prediction) == pytest.approx(
        MaskScore(
            jaccard=0.64,
            dice=2 * 64 / 164,
            sensitivity=0.64,
            specificity=1.0,
            accuracy=564 / 600,
            thresholded=0.0,
        )
    )


@settings(deadline=None, max_examples=40)
@given(masks, masks)
def test_torchmetrics_agrees(truth: Mask, prediction: Mask) -> None:
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchmetrics.functional.classification")
    score = compare_masks(truth, prediction)
    y, p = torch.from_numpy(truth).int(), torch.from_numpy(prediction).int()
    if truth.any() or prediction.any():
        assert score.jaccard == pytest.approx(float(functional.binary_jaccard_index(p, y)))
        assert score.dice == pytest.approx(float(functional.binary_f1_score(p, y)))
    if truth.any():
        assert score.sensitivity == pytest.approx(float(functional.binary_recall(p, y)))
    if not truth.all():
        assert score.specificity == pytest.approx(float(functional.binary_specificity(p, y)))
    assert score.accuracy == pytest.approx(float(functional.binary_accuracy(p, y)))


@settings(deadline=None, max_examples=40)
@given(masks, masks)
def test_jaccard_and_dice_say_the_same(truth: Mask, prediction: Mask) -> None:
    score = compare_masks(truth, prediction)
    assert score.dice == pytest.approx(2 * score.jaccard / (1 + score.jaccard))
    assert score.thresholded == (score.jaccard if score.jaccard >= 0.65 else 0)
    assert compare_masks(truth, truth) == (1, 1, 1, 1, 1, 1)
    assert compare_masks(prediction, truth).jaccard == score.jaccard


def test_empty_against_empty_is_perfect() -> None:
    nothing = np.zeros((4, 4), dtype=bool)
    assert compare_masks(nothing, nothing) == (1, 1, 1, 1, 1, 1)
    assert compare_masks(nothing, ~nothing).jaccard == 0


def test_exactly_at_the_threshold_counts() -> None:
    truth = np.zeros((1, 100), dtype=bool)
    truth[0, :] = True
    prediction = truth.copy()
    prediction[0, 65:] = False
    assert compare_masks(truth, prediction).thresholded == 0.65


def test_other_sizes_are_refused() -> None:
    with pytest.raises(DataError, match="20 x 30"):
        compare_masks(square(3), square(3).T)


def table_of(scores: dict[str, MaskScore]) -> pd.DataFrame:
    rows = [(image_id, *score) for image_id, score in scores.items()]
    return pd.DataFrame(rows, columns=["image_id", *MaskScore._fields])


def test_means_over_pictures() -> None:
    scores = {
        "good": compare_masks(square(10), square(10)),
        "bad": compare_masks(square(10), square(5)),
        "edge": compare_masks(square(10), square(9)),
    }
    result = SegmentationScores.from_table(table_of(scores), worst=2)
    assert result.pictures == 3
    assert result.jaccard == pytest.approx((1 + 0.25 + 0.81) / 3)
    assert result.thresholded_jaccard == pytest.approx((1 + 0.81) / 3)
    assert result.below_threshold == pytest.approx(1 / 3)
    assert result.worst == (("bad", 0.25), ("edge", 0.81))
    as_json = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert as_json["worst"][0] == {"image_id": "bad", "jaccard": 0.25}


@settings(deadline=None, max_examples=40)
@given(st.lists(masks, min_size=1, max_size=5), st.randoms())
def test_the_order_of_pictures_does_not_matter(drawn: list[Mask], random: Random) -> None:
    scores = {f"p{n}": compare_masks(mask, drawn[0]) for n, mask in enumerate(drawn)}
    names = list(scores)
    random.shuffle(names)
    one = SegmentationScores.from_table(table_of(scores)).to_dict()
    other = SegmentationScores.from_table(
        table_of({name: scores[name] for name in names})
    ).to_dict()
    assert one.pop("worst") == other.pop("worst")
    assert one == pytest.approx(other)


def test_tables_that_cannot_be_scored() -> None:
    table = table_of({"a": compare_masks(square(3), square(3))})
    with pytest.raises(DataError, match="dice"):
        SegmentationScores.from_table(table.drop(columns="dice"))
    with pytest.raises(DataError, match="no mask"):
        SegmentationScores.from_table(table.head(0))
    with pytest.raises(DataError, match="twice"):
        SegmentationScores.from_table(table.loc[[0, 0]])
    with pytest.raises(DataError, match="a has no score"):
        SegmentationScores.from_table(table.assign(jaccard=np.nan))
