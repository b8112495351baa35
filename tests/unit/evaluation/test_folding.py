"""Mapping of fine classes to coarse ones, and taxonomies that do not match."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from naevus.errors import DataError
from naevus.evaluation.folding import folding_of
from naevus.evaluation.labelled import evaluated
from naevus.taxonomy import BINARY, ISIC2018, ISIC2019, MILK10K, own_taxonomy, taxonomy_with

ROWS = np.array([[0.3, 0.4, 0.1, 0.05, 0.05, 0.05, 0.05], [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]])


def test_seven_classes_fold_into_benign_and_malignant() -> None:
    folding = folding_of(ISIC2018, BINARY, ["BENIGN", "MALIGNANT"])
    assert folding.taxonomy is BINARY
    np.testing.assert_allclose(folding.natural(ROWS), [[0.55, 0.45], [0.0, 1.0]])
    sides = np.array([0.55 / 4, 0.45 / 3])
    np.testing.assert_allclose(folding.balanced(ROWS)[0], sides / sides.sum())
    assert folding.description == (
        "predictions folded into benign (NV, BKL, DF, VASC) and malignant (MEL, BCC, AKIEC)"
    )


def test_actinic_keratoses_may_count_as_benign() -> None:
    folding = folding_of(ISIC2018, BINARY, ["BENIGN"], benign=["AKIEC"])
    np.testing.assert_allclose(folding.natural(ROWS), [[0.6, 0.4], [1.0, 0.0]])
    assert "benign (NV, AKIEC, BKL, DF, VASC)" in folding.description
    with pytest.raises(DataError, match="--benign SCC: not one of the classes"):
        folding_of(ISIC2018, BINARY, ["BENIGN"], benign=["SCC"])
    with pytest.raises(DataError, match="--benign AKIEC: no classes are folded"):
        folding_of(ISIC2018, ISIC2018, ["MEL"], benign=["AKIEC"])


def test_binary_predictions_are_scored_against_finer_ground_truth() -> None:
    folding = folding_of(BINARY, MILK10K, ["INF", "SCCKA"])
    assert (folding.true["INF"], folding.true["SCCKA"]) == ("BENIGN", "MALIGNANT")
    assert folding.description.startswith("ground truth folded into benign (BEN_OTH, BKL")
    np.testing.assert_array_equal(folding.natural(np.eye(2)), np.eye(2))


def test_equal_taxonomies_are_unchanged() -> None:
    for taxonomy in (ISIC2018, taxonomy_with(("MEL", "NV"))):
        folding = folding_of(taxonomy, ISIC2018, ["MEL", "NV"])
        assert folding.description == ""
        rows = np.random.default_rng(0).dirichlet(np.ones(len(taxonomy)), 5)
        np.testing.assert_array_equal(folding.natural(rows), rows)
        np.testing.assert_array_equal(folding.balanced(rows), rows)


def test_classes_are_renamed_and_absent_classes_left_out() -> None:
    folding = folding_of(ISIC2018, ISIC2019, ["AK", "SCC", "SCC", "NV"])
    assert folding.true["AK"] == "AKIEC"
    assert folding.true["SCC"] is None
    assert folding.description == (
        "ground truth AK as AKIEC; left out, because it is not predicted: 2 images of SCC"
    )
    assert folding_of(ISIC2019, MILK10K, ["SCCKA"]).true["SCCKA"] == "SCC"


def test_unrelated_taxonomies_are_refused() -> None:
    with pytest.raises(DataError, match=r"do not match: predicted are MEL, NV, the .* has wart"):
        folding_of(taxonomy_with(("MEL", "NV")), own_taxonomy(("wart",)), ["wart"])
    with pytest.raises(DataError, match="whether wart are benign or malignant"):
        folding_of(own_taxonomy(("MEL", "wart")), BINARY, ["BENIGN"])


def test_predictions_of_seven_classes_are_scored_against_two(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "image_id": ["a", "b"],
            "group_id": ["a", "b"],
            "diagnosis": ["BENIGN", "MALIGNANT"],
            "mask_path": [None, None],
            "image_path": [None, None],
        }
    )
    for kind in ("prob", "balanced_prob"):
        for place, code in enumerate(ISIC2018.codes):
            table[f"{kind}_{code}"] = ROWS[:, place]
    found = evaluated(table, BINARY, tmp_path)
    assert found.classified is not None
    assert found.classified.taxonomy is BINARY
    assert found.classified.natural.argmax(axis=1).tolist() == [0, 1]
    assert found.classified.folded.startswith("predictions folded into benign")
    other = evaluated(table.assign(diagnosis=["SCC", "NV"]), ISIC2019, tmp_path)
    assert other.classified is not None
    assert other.classified.table["image_id"].tolist() == ["b"]
    assert "1 image of SCC" in other.classified.folded
