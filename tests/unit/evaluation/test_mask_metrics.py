"""What is told of masks beyond overlap: distances, what made them difficult, their spread."""

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
from scipy import ndimage

from naevus.errors import DataError
from naevus.evaluation.bootstrap import quantiles_of
from naevus.evaluation.mask_metrics import (
    COLUMNS,
    Conditions,
    Outline,
    boundary_distance,
    compare_folder,
    compare_masks,
    outline_table,
)
from naevus.evaluation.segmentation import (
    NONE_OF_THESE,
    OutlineScores,
    SegmentationScores,
    area_ratios,
)
from naevus.images.read import write_png

if TYPE_CHECKING:
    from pathlib import Path

Mask = NDArray[np.bool_]
masks = arrays(np.bool_, (9, 14))


def disc(row: float, column: float, radius: float, shape: tuple[int, int] = (60, 80)) -> Mask:
    rows, columns = np.indices(shape)
    return np.asarray((rows - row) ** 2 + (columns - column) ** 2 <= radius**2)


def by_scipy(truth: Mask, prediction: Mask) -> tuple[float, float]:
    """The same by SciPy's erosion and exact distance transform, over the whole frame."""
    one, other = (mask & ~ndimage.binary_erosion(mask) for mask in (truth, prediction))
    there = ndimage.distance_transform_edt(~other)[one]
    back = ndimage.distance_transform_edt(~one)[other]
    diagonal = np.hypot(*truth.shape)
    mean = np.concatenate([there, back]).mean()
    return mean / diagonal, max(np.percentile(there, 95), np.percentile(back, 95)) / diagonal


@settings(max_examples=80)
@given(masks, masks)
def test_scipy_finds_the_same_distances(truth: Mask, prediction: Mask) -> None:
    if truth.any() and prediction.any():
        found = boundary_distance(truth, prediction)
        assert found == pytest.approx(by_scipy(truth, prediction), abs=1e-6)
        assert boundary_distance(prediction, truth) == pytest.approx(found)
    assert boundary_distance(truth, truth) == (0, 0)


def test_scipy_finds_the_same_of_lesions_that_leave_the_picture() -> None:
    truth, prediction = disc(30, 10, 25), disc(35, 18, 30)
    found = boundary_distance(truth, prediction)
    assert found == pytest.approx(by_scipy(truth, prediction), abs=1e-6)
    assert 0 < found.surface_distance < found.hausdorff_95 < 0.2


def test_rings_are_as_far_apart_as_their_radii() -> None:
    found = boundary_distance(disc(30, 40, 10), disc(30, 40, 20))
    assert found.surface_distance * 100 == pytest.approx(10, abs=0.6)
    assert found.hausdorff_95 * 100 == pytest.approx(10, abs=1)


def test_nothing_against_something_is_the_worst() -> None:
    nothing, something = np.zeros((60, 80), bool), disc(30, 40, 3)
    assert boundary_distance(nothing, nothing) == (0, 0)
    assert boundary_distance(nothing, something) == (1, 1)
    assert boundary_distance(something, nothing) == (1, 1)
    with pytest.raises(DataError, match="60, 80"):
        boundary_distance(nothing, something.T)


@given(st.integers(1, 3))
def test_the_picture_s_size_does_not_count(times: int) -> None:
    truth, prediction = disc(30, 40, 20), disc(32, 44, 17)
    one, other = (np.kron(mask, np.ones((times, times), bool)) for mask in (truth, prediction))
    small, large = boundary_distance(truth, prediction), boundary_distance(one, other)
    assert large == pytest.approx(small, abs=0.008)


def picture_of(lesion: Mask, colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    return np.where(lesion[:, :, None], colour, (220, 180, 160)).astype(np.uint8)


def test_conditions_are_what_was_drawn() -> None:
    lesion = disc(128, 128, 64, (256, 256))
    dark = Conditions.of(picture_of(lesion, (90, 60, 50)), lesion)
    faint = Conditions.of(picture_of(lesion, (205, 165, 145)), lesion)
    assert dark.area == pytest.approx(np.pi * 64**2 / 256**2, rel=0.01)
    assert dark.contrast > 40 > 10 > faint.contrast > 1
    assert dark.hair == 0
    assert dark.border == 0
    cut = disc(128, 20, 64, (256, 256))
    assert Conditions.of(picture_of(cut, (90, 60, 50)), cut).border > 0.1


def test_a_picture_of_another_size_is_measured_in_the_same_frame() -> None:
    lesion = disc(256, 256, 128, (512, 512))
    picture = picture_of(lesion, (90, 60, 50))
    whole, small = Conditions.of(picture, lesion), Conditions.of(picture[::2, ::2], lesion)
    assert small == pytest.approx(whole, rel=0.05)


def test_hair_over_the_skin_is_told() -> None:
    lesion = disc(128, 128, 40, (256, 256))
    picture = picture_of(lesion, (90, 60, 50))
    bare = Conditions.of(picture, lesion).hair
    picture[:, 40:256:30] = picture[:, 41:256:30] = 40
    assert Conditions.of(picture, lesion).hair > bare + 0.02


def test_what_is_not_known_is_not_a_number() -> None:
    nothing, everything = np.zeros((30, 40), bool), np.ones((30, 40), bool)
    grey = np.full((30, 40, 3), 128, np.uint8)
    assert np.isnan(Conditions.of(grey, nothing).contrast)
    assert np.isnan(Conditions.of(grey, everything).contrast)
    unseen = Conditions.of(None, everything)
    assert unseen.area == 1
    assert np.isnan(unseen[1:]).all()


def test_tables_keep_every_column_and_sort_by_id(tmp_path: Path) -> None:
    truth, prediction = disc(30, 40, 20), disc(32, 44, 17)
    table = outline_table(
        {
            "b": Outline.of(truth, prediction),
            "a": Outline.of(truth, truth, picture_of(truth, (9,) * 3)),
        }
    )
    assert table["image_id"].tolist() == ["a", "b"]
    assert table.columns.tolist() == ["image_id", *COLUMNS]
    row = table.iloc[1]
    assert row["jaccard"] == compare_masks(truth, prediction).jaccard
    assert row["hausdorff_95"] == boundary_distance(truth, prediction).hausdorff_95
    assert SegmentationScores.from_table(table).pictures == 2
    assert len(outline_table({})) == 0


def test_folders_tell_conditions_where_the_pictures_are(tmp_path: Path) -> None:
    truth, prediction = disc(30, 40, 20), disc(32, 44, 17)
    write_png(tmp_path / "truth.png", truth)
    write_png(tmp_path / "a_segmentation.png", prediction)
    write_png(tmp_path / "picture.png", picture_of(truth, (90, 60, 50)))
    truths = {"a": tmp_path / "truth.png"}
    without = compare_folder(truths, tmp_path).iloc[0]
    told = compare_folder(truths, tmp_path, {"a": tmp_path / "picture.png"}).iloc[0]
    assert np.isnan(without["contrast"])
    assert told["contrast"] > 40
    for name in ("jaccard", "surface_distance", "area"):
        assert without[name] == told[name]


def table_of_masks(pictures: int = 200) -> pd.DataFrame:
    """Two pictures a lesion; small lesions are outlined worse, large ones touch the border."""
    chance = np.random.default_rng(0)
    area = np.repeat(chance.uniform(0.01, 0.9, pictures // 2), 2)
    jaccard = np.clip(chance.normal(0.5 + 0.5 * np.sqrt(area), 0.1), 0, 1)
    return pd.DataFrame(
        {
            "image_id": [f"p{n:03d}" for n in range(pictures)],
            "group_id": [f"g{n // 2}" for n in range(pictures)],
            "jaccard": jaccard,
            "sensitivity": np.clip(jaccard + 0.05, 0, 1),
            "surface_distance": (1 - jaccard) / 10,
            "hausdorff_95": (1 - jaccard) / 4,
            "area": area,
            "contrast": np.where(area < 0.03, np.nan, 30.0),
            "hair": 0.0,
            "border": np.where(area > 0.6, 0.3, 0.0),
        }
    )


def test_quantiles_means_and_curve_are_numpy_s() -> None:
    table = table_of_masks()
    scores = OutlineScores.from_table(table)
    for share, interval in scores.quantiles.items():
        expected = np.quantile(table["jaccard"], share, method="inverted_cdf")
        assert interval.value == expected
        assert interval.low <= expected <= interval.high
    assert scores.distances["mean hausdorff_95"].value == pytest.approx(
        table["hausdorff_95"].mean()
    )
    assert scores.failed.value == (table["jaccard"] < 0.65).mean()
    assert scores.groups == scores.failed.groups == 100
    curve = scores.curve.set_index(scores.curve["threshold"].map("{:.2f}".format))
    assert curve.loc["0.00", "thresholded"] == pytest.approx(table["jaccard"].mean())
    kept = table["jaccard"].where(table["jaccard"] >= 0.65, 0)
    assert curve.loc["0.65", "thresholded"] == pytest.approx(kept.mean())
    assert curve.loc["0.65", "reached"] == pytest.approx(1 - scores.failed.value)
    assert curve["thresholded"].is_monotonic_decreasing
    assert (curve["thresholded_low"] <= curve["thresholded"] + 1e-12).all()
    json.dumps(scores.to_dict(), allow_nan=False)


def test_failures_are_told_with_what_goes_along_with_them() -> None:
    table = table_of_masks()
    scores = OutlineScores.from_table(table)
    found = {one.name: one for one in scores.circumstances}
    small = found["lesion under 5 % of the picture"]
    inside = table["area"] < 0.05
    assert small.pictures == inside.sum()
    assert small.failures == (inside & (table["jaccard"] < 0.65)).sum()
    assert small.failed is not None
    assert small.elsewhere is not None
    assert small.failed.value > small.elsewhere.value
    assert small.failed.groups == inside.sum() / 2
    hairy = found["hair over 5 % of the skin"]
    assert (hairy.pictures, hairy.failed) == (0, None)
    marked = inside | (table["area"] > 0.6) | (table["border"] > 0)
    assert found[NONE_OF_THESE].pictures == (~marked).sum()


def test_bands_of_size_hold_every_picture_once() -> None:
    table = table_of_masks()
    sizes = OutlineScores.from_table(table).sizes
    assert sum(band.pictures for band in sizes) == len(table)
    values = [band.jaccard.value for band in sizes]
    assert values == sorted(values)
    by_hand = table[(table["area"] > 0.15) & (table["area"] <= 0.3)]
    band = next(band for band in sizes if band.low == 0.15)
    assert band.jaccard.value == pytest.approx(by_hand["jaccard"].mean())
    assert band.failed.groups == by_hand["group_id"].nunique()


@given(masks, masks)
def test_area_ratios_are_those_of_the_pixels(truth: Mask, prediction: Mask) -> None:
    if (truth & prediction).any():
        row = pd.DataFrame([compare_masks(truth, prediction)._asdict()])
        assert area_ratios(row)[0] == pytest.approx(prediction.sum() / truth.sum())


def test_tables_from_before_conditions_are_read() -> None:
    table = table_of_masks()[["group_id", "jaccard", "sensitivity"]]
    scores = OutlineScores.from_table(table)
    assert (scores.distances, scores.circumstances, scores.sizes) == ({}, (), ())
    with pytest.raises(DataError, match="no column jaccard"):
        OutlineScores.from_table(table.drop(columns="jaccard"))
    with pytest.raises(DataError, match="not a number"):
        OutlineScores.from_table(table.assign(jaccard=np.nan))
    with pytest.raises(DataError, match="no picture"):
        OutlineScores.from_table(table.head(0))


def test_one_lesion_and_masks_that_miss_are_told() -> None:
    table = table_of_masks(2).assign(jaccard=0.0, sensitivity=0.0)
    scores = OutlineScores.from_table(table)
    assert tuple(scores.quantiles[0.5]) == (0, 0, 0)
    assert scores.failed.groups == 1
    assert scores.sizes[0].area_ratio is None


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3)), min_size=1, max_size=30))
def test_weighted_quantiles_are_numpy_s(pictures: list[tuple[float, int]]) -> None:
    values, weights = np.array(pictures, float).T
    if weights.any():
        shares = (0.1, 0.25, 0.5, 1.0)
        found = quantiles_of(values, shares)(weights[None])[0]
        repeated = np.repeat(values, weights.astype(int))
        expected = np.quantile(repeated, shares, method="inverted_cdf")
        assert found.tolist() == expected.tolist()
