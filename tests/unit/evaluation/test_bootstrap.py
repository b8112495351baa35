"""Groups are drawn whole, within their strata, and weights stand for copies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from naevus.errors import DataError
from naevus.evaluation.bootstrap import Groups, bootstrap, means_of


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(1, 120))
def test_every_draw_has_as_many_groups_of_each_stratum(names: list[int], draws: int) -> None:
    strata = [name % 2 for name in names]
    groups = Groups.of(names, strata)
    counts = np.concatenate(list(groups.drawn(draws, seed=1)))
    assert counts.shape == (draws, len(set(names))) == (draws, len(groups))
    for members in groups.strata:
        assert (counts[:, members].sum(axis=1) == len(members)).all()


def test_every_group_is_drawn_as_often() -> None:
    groups = Groups.of(["a", "b", "b", "c", "d"])
    counts = np.concatenate(list(groups.drawn(4000)))
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.05)
    np.testing.assert_allclose(counts.var(axis=0), 3 / 4, atol=0.05)  # multinomial: 4 * 1/4 * 3/4


def test_weights_stand_for_copies_of_pictures() -> None:
    chance = np.random.default_rng(0)
    values, names = chance.normal(size=(20, 2)), chance.integers(0, 7, 20).tolist()
    groups = Groups.of(names)
    found = bootstrap(means_of(values), groups, draws=30, seed=3)
    counts = np.concatenate(list(groups.drawn(30, seed=3)))
    copied = [values[np.repeat(np.arange(20), row[groups.codes].astype(int))] for row in counts]
    np.testing.assert_allclose(found, [pile.mean(axis=0) for pile in copied])


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-10, 10)), min_size=1, max_size=25))
def test_sums_lose_nothing(rows: list[tuple[int, float]]) -> None:
    names, values = zip(*rows, strict=True)
    groups = Groups.of(names)
    sums = groups.sums(values)
    for group, name in enumerate(dict.fromkeys(names)):
        inside = [value for other, value in rows if other == name]
        assert sums[group] == pytest.approx(sum(inside), abs=1e-9)
        assert groups.sizes[group] == len(inside)


def test_the_seed_decides() -> None:
    groups = Groups.of(range(10))
    one, same, other = (next(groups.drawn(5, seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_what_cannot_be_resampled_is_refused() -> None:
    with pytest.raises(DataError, match="there is no picture"):
        Groups.of([])
    with pytest.raises(DataError, match="1 pictures have no group"):
        Groups.of(["a", None])
    with pytest.raises(DataError, match="have no stratum"):
        Groups.of(["a", "b"], ["x", np.nan])
    with pytest.raises(DataError, match="2 groups and 1 strata"):
        Groups.of(["a", "b"], ["x"])
    with pytest.raises(DataError, match="1 of 2 pictures have a value that is not a number"):
        Groups.of(["a", "b"]).sums([1.0, np.nan])
    with pytest.raises(DataError, match="values of 3 pictures for 2"):
        Groups.of(["a", "b"]).sums([1.0, 2.0, 3.0])
