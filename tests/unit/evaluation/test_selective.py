"""Risk against coverage, compared with a plain loop."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naevus.errors import DataError
from naevus.evaluation.selective import SelectiveScores


def plain_area(wrong: np.ndarray) -> float:
    """Return the mean risk over all coverages, for images in order."""
    return float(np.mean([wrong[: n + 1].mean() for n in range(len(wrong))]))


def test_areas_equal_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(200)
    right = rng.random(200) < confidence
    scores = SelectiveScores.from_predictions(right, confidence, list(range(200)))
    wrong = ~right[np.argsort(-confidence)]
    assert scores.aurc.value == pytest.approx(plain_area(wrong))
    best = plain_area(np.sort(wrong))
    assert scores.excess_aurc.value == pytest.approx(plain_area(wrong) - best)
    assert scores.risk.value == pytest.approx(wrong.mean())
    for coverage, accuracy in scores.accuracy_at.items():
        assert accuracy.value == pytest.approx(1 - wrong[: int(200 * coverage)].mean())
        assert accuracy.low < accuracy.value < accuracy.high
    assert scores.aurc.low < scores.aurc.value < scores.aurc.high
    assert scores.curve["risk"].iloc[-1] == pytest.approx(wrong.mean())
    assert scores.curve["coverage"].is_monotonic_increasing


@settings(max_examples=15)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2)), min_size=1, max_size=5))
def test_ties_are_the_mean_over_their_orders(images: list[tuple[bool, int]]) -> None:
    right, confidence = (np.array(column) for column in zip(*images, strict=True))
    areas = [
        plain_area(~right[list(order)])
        for order in permutations(range(len(right)))
        if (np.diff(confidence[list(order)]) <= 0).all()
    ]
    scores = SelectiveScores.from_predictions(right, confidence, list(range(len(right))))
    assert scores.aurc.value == pytest.approx(np.mean(areas))
    assert scores.excess_aurc.value >= -1e-12


def test_a_perfect_ranking_has_no_excess() -> None:
    right = np.array([1, 1, 0, 1, 0, 1])
    best = SelectiveScores.from_predictions(right, right, list("abcdef"))
    assert best.excess_aurc.value == pytest.approx(0)
    worst = SelectiveScores.from_predictions(right, -right, list("abcdef"))
    assert worst.excess_aurc.value > 0.3


def test_constant_confidence_has_constant_risk() -> None:
    scores = SelectiveScores.from_predictions([1, 0, 1, 1], [0.5] * 4, list("abcd"))
    assert scores.aurc.value == pytest.approx(0.25)
    assert scores.curve["risk"].tolist() == pytest.approx([0.25] * 4)


def test_one_lesion_gives_no_interval_but_of_a_fraction() -> None:
    scores = SelectiveScores.from_predictions([1, 0, 1], [0.9, 0.2, 0.4], ["a"] * 3)
    assert not any(each.known for each in (scores.aurc, *scores.accuracy_at.values()))
    assert scores.risk.low < 0.1 < 0.9 < scores.risk.high
    output = scores.to_dict()
    assert output["groups"] == 1
    assert set(output["accuracy_at"]) == {"0.8", "0.9", "0.95"}
    assert "accuracy at 80%" in str(scores)


def test_invalid_confidences_are_refused() -> None:
    with pytest.raises(DataError, match="not a finite number"):
        SelectiveScores.from_predictions([1], [np.nan], ["a"])
    with pytest.raises(DataError, match="correctness must be 0 or 1"):
        SelectiveScores.from_predictions([0.5], [0.1], ["a"])
    with pytest.raises(DataError, match="there are no images"):
        SelectiveScores.from_predictions([], [], [])
