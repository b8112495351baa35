"""Scores of single masks: overlap, boundary distance, image conditions."""

from __future__ import annotations

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
from naevus.evaluation.mask_metrics import (
    COLUMNS,
    Conditions,
    MaskComparison,
    MaskScore,
    boundary_distance,
    compare_folder,
    compare_masks,
    mask_table,
)
from naevus.evaluation.segmentation import (
    SegmentationEvaluation,
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
    """Compute the same with SciPy's erosion and exact distance transform, without a crop."""
    one, other = (mask & ~ndimage.binary_erosion(mask) for mask in (truth, prediction))
    there = ndimage.distance_transform_edt(~other)[one]
    back = ndimage.distance_transform_edt(~one)[other]
    diagonal = np.hypot(*truth.shape)
    mean = np.concatenate([there, back]).mean()
    return mean / diagonal, max(np.percentile(there, 95), np.percentile(back, 95)) / diagonal


@settings(max_examples=80)
@given(masks, masks)
def test_distances_equal_scipy(truth: Mask, prediction: Mask) -> None:
    if truth.any() and prediction.any():
        found = boundary_distance(truth, prediction)
        assert found == pytest.approx(by_scipy(truth, prediction), abs=1e-6)
        assert boundary_distance(prediction, truth) == pytest.approx(found)
    assert boundary_distance(truth, truth) == (0, 0)


def test_distances_of_lesions_at_the_border_equal_scipy() -> None:
    truth, prediction = disc(30, 10, 25), disc(35, 18, 30)
    found = boundary_distance(truth, prediction)
    assert found == pytest.approx(by_scipy(truth, prediction), abs=1e-6)
    assert 0 < found.surface_distance < found.hausdorff_95 < 0.2


def test_distance_of_rings_is_the_difference_of_radii() -> None:
    found = boundary_distance(disc(30, 40, 10), disc(30, 40, 20))
    assert found.surface_distance * 100 == pytest.approx(10, abs=0.6)
    assert found.hausdorff_95 * 100 == pytest.approx(10, abs=1)


def test_an_empty_mask_has_the_largest_distance() -> None:
    nothing, something = np.zeros((60, 80), bool), disc(30, 40, 3)
    assert boundary_distance(nothing, nothing) == (0, 0)
    assert boundary_distance(nothing, something) == (1, 1)
    assert boundary_distance(something, nothing) == (1, 1)
    with pytest.raises(DataError, match="60, 80"):
        boundary_distance(nothing, something.T)


@given(st.integers(1, 3))
def test_distances_are_independent_of_image_size(times: int) -> None:
    truth, prediction = disc(30, 40, 20), disc(32, 44, 17)
    one, other = (np.kron(mask, np.ones((times, times), bool)) for mask in (truth, prediction))
    small, large = boundary_distance(truth, prediction), boundary_distance(one, other)
    assert large == pytest.approx(small, abs=0.008)


def image_of(lesion: Mask, colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    return np.where(lesion[:, :, None], colour, (220, 180, 160)).astype(np.uint8)


def test_conditions_equal_those_of_the_synthetic_image() -> None:
    lesion = disc(128, 128, 64, (256, 256))
    dark = Conditions.of(image_of(lesion, (90, 60, 50)), lesion)
    faint = Conditions.of(image_of(lesion, (205, 165, 145)), lesion)
    assert dark.lesion_area == pytest.approx(np.pi * 64**2 / 256**2, rel=0.01)
    assert dark.contrast > 40 > 10 > faint.contrast > 1
    assert dark.hair == 0
    assert dark.border == 0
    cut = disc(128, 20, 64, (256, 256))
    assert Conditions.of(image_of(cut, (90, 60, 50)), cut).border > 0.1


def test_image_and_mask_may_differ_in_size() -> None:
    lesion = disc(256, 256, 128, (512, 512))
    image = image_of(lesion, (90, 60, 50))
    whole, small = Conditions.of(image, lesion), Conditions.of(image[::2, ::2], lesion)
    assert small == pytest.approx(whole, rel=0.05)


def test_hair_over_the_skin_is_measured() -> None:
    lesion = disc(128, 128, 40, (256, 256))
    image = image_of(lesion, (90, 60, 50))
    bare = Conditions.of(image, lesion).hair
    image[:, 40:256:30] = image[:, 41:256:30] = 40
    assert Conditions.of(image, lesion).hair > bare + 0.02


def test_unknown_conditions_are_nan() -> None:
    nothing, everything = np.zeros((30, 40), bool), np.ones((30, 40), bool)
    grey = np.full((30, 40, 3), 128, np.uint8)
    assert np.isnan(Conditions.of(grey, nothing).contrast)
    assert np.isnan(Conditions.of(grey, everything).contrast)
    unseen = Conditions.of(None, everything)
    assert unseen.lesion_area == 1
    assert np.isnan(unseen[1:]).all()


def test_tables_keep_every_column_and_sort_by_id(tmp_path: Path) -> None:
    truth, prediction = disc(30, 40, 20), disc(32, 44, 17)
    table = mask_table(
        {
            "b": MaskComparison.of(truth, prediction),
            "a": MaskComparison.of(truth, truth, image_of(truth, (9,) * 3)),
        }
    )
    assert table["image_id"].tolist() == ["a", "b"]
    assert table.columns.tolist() == ["image_id", *COLUMNS]
    row = table.iloc[1]
    assert row["jaccard"] == compare_masks(truth, prediction).jaccard
    assert row["hausdorff_95"] == boundary_distance(truth, prediction).hausdorff_95
    assert SegmentationEvaluation.of(table.assign(group_id="g")).images == 2
    assert len(mask_table({})) == 0


def test_folders_give_conditions_if_images_are_available(tmp_path: Path) -> None:
    truth, prediction = disc(30, 40, 20), disc(32, 44, 17)
    write_png(tmp_path / "truth.png", truth)
    write_png(tmp_path / "a_segmentation.png", prediction)
    write_png(tmp_path / "image.png", image_of(truth, (90, 60, 50)))
    truths = {"a": tmp_path / "truth.png"}
    without = compare_folder(truths, tmp_path).iloc[0]
    reported = compare_folder(truths, tmp_path, {"a": tmp_path / "image.png"}).iloc[0]
    assert np.isnan(without["contrast"])
    assert reported["contrast"] > 40
    for name in ("jaccard", "surface_distance", "lesion_area"):
        assert without[name] == reported[name]


@given(masks, masks)
def test_area_ratios_equal_pixel_counts(truth: Mask, prediction: Mask) -> None:
    if (truth & prediction).any():
        row = pd.DataFrame([compare_masks(truth, prediction)._asdict()])
        assert area_ratios(row)[0] == pytest.approx(prediction.sum() / truth.sum())


small_masks = arrays(np.bool_, (6, 9))


def square(side: int) -> Mask:
    mask = np.zeros((20, 30), dtype=bool)
    mask[:side, :side] = True
    return mask


def test_scores_follow_from_the_counts() -> None:
    truth, prediction = square(10), square(8)
    assert compare_masks(truth, prediction) == pytest.approx(
        MaskScore(
            jaccard=0.64,
            dice=2 * 64 / 164,
            sensitivity=0.64,
            specificity=1.0,
            accuracy=564 / 600,
            thresholded_jaccard=0.0,
        )
    )


@settings(deadline=None, max_examples=40)
@given(small_masks, small_masks)
def test_scores_equal_torchmetrics(truth: Mask, prediction: Mask) -> None:
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
@given(small_masks, small_masks)
def test_jaccard_follows_from_dice(truth: Mask, prediction: Mask) -> None:
    score = compare_masks(truth, prediction)
    assert score.dice == pytest.approx(2 * score.jaccard / (1 + score.jaccard))
    assert score.thresholded_jaccard == (score.jaccard if score.jaccard >= 0.65 else 0)
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
    assert compare_masks(truth, prediction).thresholded_jaccard == 0.65


def test_masks_of_different_sizes_are_refused() -> None:
    with pytest.raises(DataError, match="20 x 30"):
        compare_masks(square(3), square(3).T)
