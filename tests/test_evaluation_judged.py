from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from naevus.errors import DataError
from naevus.evaluation.judged import heldout_diagnosed, judged, with_truth
from naevus.images.read import write_png
from naevus.taxonomy import ISIC2018

if TYPE_CHECKING:
    from pathlib import Path


def predictions() -> pd.DataFrame:
    table = pd.DataFrame({"image_id": ["c", "a", "b", "x"]})
    natural = np.random.default_rng(0).dirichlet(np.ones(7), 4)
    for place, code in enumerate(ISIC2018.codes):
        table[f"p_{code}"] = natural[:, place]
        table[f"b_{code}"] = natural[::-1, place]
    return table


def records(folder: Path) -> pd.DataFrame:
    """``a`` stands in two parts: with its mask in one, with its diagnosis in the other."""
    for name in "ab":
        mask = np.zeros((20, 30), bool)
        mask[5:15, 5:15] = True
        write_png(folder / "truth" / f"{name}.png", mask)
        write_png(folder / "masks" / f"{name}_segmentation.png", mask if name == "a" else ~mask)
    rows = [
        ("a", None, "g1", str(folder / "truth" / "a.png")),
        ("a", "MEL", "g1", None),
        ("b", None, "g2", str(folder / "truth" / "b.png")),
        ("c", "NV", "g1", None),
        ("d", "NV", "g3", None),
    ]
    columns = ["image_id", "diagnosis", "group_id", "mask_path"]
    return pd.DataFrame(rows, columns=columns).assign(path=None).astype("string")


def test_predictions_meet_their_truth_by_id(tmp_path: Path) -> None:
    table = with_truth(predictions(), records(tmp_path))
    assert table["image_id"].tolist() == ["c", "a", "b"]  # x is not known, d was not predicted
    found = judged(table, ISIC2018, tmp_path / "masks")
    assert found.diagnosed is not None
    assert found.diagnosed.table["image_id"].tolist() == ["c", "a"]
    assert found.diagnosed.table["truth"].tolist() == ["NV", "MEL"]
    assert found.diagnosed.table["group_id"].tolist() == ["g1", "g1"]
    given = predictions().set_index("image_id").loc[["c", "a"]]
    np.testing.assert_array_equal(
        found.diagnosed.natural, given[[f"p_{code}" for code in ISIC2018.codes]]
    )
    np.testing.assert_array_equal(
        found.diagnosed.balanced, given[[f"b_{code}" for code in ISIC2018.codes]]
    )
    assert found.outlined is not None
    assert found.outlined["image_id"].tolist() == ["a", "b"]
    assert found.outlined["jaccard"].tolist() == [1.0, 0.0]
    assert found.outlined["group_id"].tolist() == ["g1", "g2"]


def test_what_is_absent_is_not_judged(tmp_path: Path) -> None:
    table = with_truth(predictions(), records(tmp_path))
    assert judged(table, ISIC2018, tmp_path / "nowhere").outlined is None
    masks_alone = table[["image_id", "truth", "group_id", "mask_path", "picture_path"]]
    assert judged(masks_alone, ISIC2018, tmp_path / "masks").diagnosed is None
    with pytest.raises(DataError, match="no truth"):
        judged(masks_alone, ISIC2018, tmp_path / "nowhere")


def test_held_out_logits_are_freed_of_their_training() -> None:
    table = pd.DataFrame({"image_id": ["a"], "group_id": ["g"], "truth": ["MEL"]})
    for code in ISIC2018.codes:
        table[f"logit_{code}"] = np.log(2.0) if code == "MEL" else 0.0
        table[f"weight_{code}"] = 2.0 if code == "MEL" else 1.0
        table[f"share_{code}"] = 1 / 7
    found = heldout_diagnosed(table)
    assert found.taxonomy is ISIC2018
    np.testing.assert_allclose(found.natural, np.full((1, 7), 1 / 7))
