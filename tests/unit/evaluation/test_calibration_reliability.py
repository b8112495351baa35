"""Reliability curves are scikit-learn's, with intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from naevus.errors import DataError
from naevus.evaluation.calibration import Binning, reliability_curve


@pytest.mark.parametrize(("binning", "theirs"), [("width", "uniform"), ("mass", "quantile")])
def test_curves_agree_with_scikit_learn(binning: Binning, theirs: str) -> None:
    chance = np.random.default_rng(0)
    stated = chance.beta(0.5, 0.5, 400)
    true = chance.random(400) < stated
    curve = reliability_curve(stated, true, list(range(400)), bins=8, binning=binning)
    found, said = calibration_curve(true, stated, n_bins=8, strategy=theirs)
    assert [each.found.value for each in curve] == pytest.approx(found.tolist())
    assert [each.stated for each in curve] == pytest.approx(said.tolist())
    assert sum(each.found.low <= each.stated <= each.found.high for each in curve) >= 6


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
def test_every_picture_is_in_one_bin(pictures: list[tuple[float, bool]]) -> None:
    stated, true = zip(*pictures, strict=True)
    groups = [number // 2 for number in range(len(stated))]
    ways: tuple[Binning, ...] = ("width", "mass")
    for binning in ways:
        curve = reliability_curve(stated, true, groups, binning=binning)
        assert sum(each.pictures for each in curve) == len(stated)
        for each in curve:
            assert each.low - 1e-12 <= each.stated <= each.high + 1e-12
            assert each.found.low <= each.found.value <= each.found.high


def test_equal_probabilities_share_a_bin() -> None:
    (only,) = reliability_curve([0.4] * 5, [1, 0, 0, 0, 0], list("aabcd"))
    assert only.pictures == 5
    assert only.found.groups == 4
    assert only.to_dict()["found"]["value"] == pytest.approx(0.2)


def test_what_is_no_probability_is_refused() -> None:
    with pytest.raises(DataError, match="above 1"):
        reliability_curve([1.2], [1], ["a"])
    with pytest.raises(DataError, match="not a number"):
        reliability_curve([np.nan], [1], ["a"])
    with pytest.raises(DataError, match="values of 2 pictures for 1"):
        reliability_curve([0.1], [1, 0], ["a"])
