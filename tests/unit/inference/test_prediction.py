"""A prediction as a dictionary: its mask as polygons, and what made it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from naevus.images.geometry import Box
from naevus.inference.prediction import Prediction

if TYPE_CHECKING:
    from numpy.typing import NDArray

MASKS = arrays.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def of(mask: NDArray[np.bool_], **values: Any) -> Prediction:
    height, width = mask.shape
    return Prediction("a", Path("a.jpg"), height, width, packed_mask=np.packbits(mask), **values)


def drawn(prediction: Prediction) -> NDArray[np.bool_]:
    values = json.loads(json.dumps(prediction.to_dict()))
    surface = np.zeros((values["height"], values["width"]), np.uint8)
    polygons = [np.array(points, np.int32) for points in values["mask_polygons"]]
    if polygons:
        cv2.fillPoly(surface, polygons, 1)
    return surface.astype(bool)


@given(MASKS)
def test_polygons_draw_any_mask_again(mask: NDArray[np.bool_]) -> None:
    np.testing.assert_array_equal(drawn(of(mask)), mask)


def test_a_rectangle_is_its_corners_and_a_hole_a_further_polygon() -> None:
    mask = np.zeros((12, 20), bool)
    mask[2:8, 3:15] = True
    (corners,) = of(mask).to_dict()["mask_polygons"]
    assert sorted(map(tuple, corners)) == [(3, 2), (3, 7), (14, 2), (14, 7)]
    mask[4:6, 6:9] = False
    assert len(of(mask).to_dict()["mask_polygons"]) == 2


def test_without_a_mask_there_are_no_polygons() -> None:
    assert of(np.zeros((4, 5), bool)).to_dict()["mask_polygons"] == []
    assert Prediction("a", Path("a.jpg"), 4, 5).to_dict()["mask_polygons"] is None


def test_a_dictionary_says_what_made_it() -> None:
    mask = np.ones((4, 5), bool)
    values = of(mask, box=Box(0, 0, 5, 4), bundles=("ab", "cd"), naevus_version="9.8").to_dict()
    assert values["bundle_sha256"] == ["ab", "cd"]
    assert values["naevus_version"] == "9.8"
    assert values["box"] == {"left": 0, "top": 0, "right": 5, "bottom": 4}


@pytest.mark.parametrize("known", [True, False])
def test_a_row_keeps_what_made_it(known: bool) -> None:
    made = Prediction(
        "a", Path("a.jpg"), 4, 5, probabilities={"MEL": 0.4, "NV": 0.6},
        balanced_probabilities={"MEL": 0.5, "NV": 0.5},
    )  # fmt: skip
    about = {"classes": ["MEL", "NV"], "coverage": None, "taxonomy": None}
    row = {**made.to_row(), "bundle_sha256": "ab,cd"}
    assert row["path"] == str(Path.cwd() / "a.jpg")  # found from anywhere
    again = Prediction.from_row(row, {**about, **({"naevus_version": "9.8"} if known else {})})
    assert again.bundles == ("ab", "cd")
    assert again.naevus_version == ("9.8" if known else None)
    assert again.to_dict()["mask_polygons"] is None
