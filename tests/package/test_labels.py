"""The committed labels of hair and rulers keep groups together and the halves apart."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

LABELS = Path(__file__).parents[2] / "results" / "labels" / "quality-flags.csv"


def test_no_group_is_in_both_halves_or_beside_an_original() -> None:
    labels = pd.read_csv(LABELS)
    assert labels["image_id"].is_unique
    assert labels.groupby("group_id")["half"].nunique().max() == 1
    neither = labels["half"] == "neither"
    assert (neither == (labels["chosen_by"] == "original")).all()
    assert set(labels["half"]) == {"tuning", "judging", "neither"}
    assert not set(labels.loc[neither, "group_id"]) & set(labels.loc[~neither, "group_id"])


def test_labels_have_their_values_and_both_halves_have_each() -> None:
    labels = pd.read_csv(LABELS)
    halves = labels[labels["half"] != "neither"].groupby("half")
    assert (halves["hair"].agg(set) == {"none", "some", "much"}).all()
    for column in ("ruler", "ink", "bubbles"):
        assert (halves[column].agg(set) == {0, 1}).all()
    assert set(labels["hair_again"].dropna()) <= {"none", "some", "much"}
    assert labels["hair_again"].notna().sum() == labels["ruler_again"].notna().sum() == 40
