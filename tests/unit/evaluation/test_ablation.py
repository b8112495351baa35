"""Ablations: arms against a reference, by several decisions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from naevus.errors import DataError
from naevus.evaluation.ablation import HEADLINE, ablation, decided
from naevus.evaluation.comparison import compare
from naevus.evaluation.out_of_fold import probabilities, taxonomy_of
from naevus.evaluation.subgroups import holm
from tests.helpers.tables import diagnoses

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from naevus.evaluation.ablation import Ablation

ABOUTS = {"full": "the recipe", "worse": "less sure", "better": "surer"}


def tables() -> dict[str, pd.DataFrame]:
    return {"full": diagnoses(2.0), "worse": diagnoses(0.5), "better": diagnoses(6.0)}


@pytest.fixture(scope="module")
def found() -> Ablation:
    return ablation("What helps", "5 passes", tables(), ABOUTS, "full")


def columns(table: pd.DataFrame, kind: str) -> NDArray[np.float64]:
    names = [f"{kind}_{code}" for code in taxonomy_of(table).codes]
    return table[names].to_numpy(np.float64)


def test_each_arm_is_compared_with_the_reference(found: Ablation) -> None:
    made = tables()
    assert [arm.name for arm in found.arms] == ["worse", "better"]
    for arm in found.arms:
        alone = compare(made["full"], made[arm.name], corrected=False)  # arms are, together
        assert arm.comparison.differences == alone.differences
    p_values = [arm.comparison.differences[0].p for arm in found.arms]
    assert [arm.p for arm in found.arms] == pytest.approx(holm(p_values).tolist())
    assert found.arms[1].p >= p_values[1]


def test_images_missing_in_some_arm_may_be_left_out() -> None:
    made = tables()
    made["worse"] = made["worse"].iloc[:150]
    with pytest.raises(DataError, match=r"tried: \d+ images have no prediction in worse"):
        ablation("tried", "", made, ABOUTS, "full")
    result = ablation("", "", made, ABOUTS, "full", allow_missing=True)
    assert any("no prediction in worse" in line for line in result.lines())
    assert {arm.comparison.images for arm in result.arms} == {150}


def test_table_text_and_json_agree(found: Ablation) -> None:
    table = found.table()
    for arm in found.arms:
        row = table[(table["arm"] == arm.name) & (table["score"] == HEADLINE)].iloc[0]
        one = arm.comparison.differences[0]
        assert tuple(row[["difference", "low", "high"]]) == tuple(one.difference)
        assert row["p_holm"] == arm.p
    assert table.loc[table["score"] != HEADLINE, "p_holm"].isna().all()
    assert table["score"].str.startswith("recall of").any()
    again = json.loads(json.dumps(found.to_dict()))
    assert [arm["p_holm"] for arm in again["arms"]] == [arm.p for arm in found.arms]
    page = found.markdown()
    assert page.startswith("## What helps\n\n5 passes\n\n| arm |")
    value, low, high = (100 * part for part in found.arms[0].comparison.differences[0].difference)
    assert f"{value:+.1f} ({low:+.1f} to {high:+.1f})" in page
    assert "- better: surer" in page
    rows = found.summary()
    assert {len(row) for row in rows} == {6}
    assert [row[0] for row in rows[1:]] == ["full", "worse", "better"]


def test_the_chosen_decision_is_used_everywhere() -> None:
    table = diagnoses(2.0)
    for place, code in enumerate(taxonomy_of(table).codes):
        table[f"class_weight_{code}"] = 1.0 + place
        table[f"class_prior_{code}"] = (place + 1) / 28
    natural, balanced = probabilities(table, taxonomy_of(table))
    for decision, expected in (
        ("raw", columns(table, "logit").argmax(1)),
        ("natural", natural.argmax(1)),
    ):
        pair = probabilities(decided(table, decision), taxonomy_of(table))  # type: ignore[arg-type]
        assert all((each.argmax(1) == expected).all() for each in pair)
        assert (expected != balanced.argmax(1)).any()


@pytest.mark.parametrize("kept", [["full"], ["worse", "better"]])
def test_a_study_needs_two_arms(kept: list[str]) -> None:
    with pytest.raises(DataError, match="nothing to compare"):
        ablation("", "", {name: tables()[name] for name in kept}, ABOUTS, "full")


def test_arms_without_common_images_are_refused() -> None:
    made = tables()
    made["worse"], made["better"] = made["worse"].iloc[:100], made["better"].iloc[100:]
    with pytest.raises(DataError, match="no image in common"):
        ablation("", "", made, ABOUTS, "full")
