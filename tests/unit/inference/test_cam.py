from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from naevus.images.geometry import Box, resize
from naevus.images.preprocess import InputSpec, preprocess
from naevus.inference import cam
from naevus.inference.cam import (
    Activation,
    cam_offset,
    cam_over,
    class_activation_map,
    overlay,
    side_for,
)
from naevus.inference.classifier import Classifier
from naevus.taxonomy import ISIC2018
from tests.helpers.onnx_graphs import (
    classification_bundle,
    write_classifier,
    write_displaced,
    write_explained,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def photograph(height: int = 48, width: int = 64) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    pixels = np.full((height, width, 3), 220, np.uint8)
    pixels += np.random.default_rng(0).integers(0, 20, pixels.shape, dtype=np.uint8)
    mask = np.zeros((height, width), bool)
    mask[10:30, 30:50] = True
    pixels[mask] //= 3
    return pixels, mask


def test_the_mean_of_a_cam_is_the_logit(tmp_path: Path) -> None:
    classifier = Classifier(classification_bundle(tmp_path / "b", explained=True))
    pixels, _ = photograph()
    square = resize(pixels[:, 8:56], 32, 32)
    outputs = classifier.members[0].engine.run(square[None])
    np.testing.assert_allclose(outputs["cam"].mean(axis=(2, 3)), outputs["logits"], atol=1e-4)
    for place, code in enumerate(ISIC2018.codes):
        one = class_activation_map(classifier, pixels, None, code)
        assert one is not None
        assert one.shape == pixels.shape[:2]
        expected = np.zeros_like(one)
        expected[:, 8:56] = np.maximum(resize(outputs["cam"][0, place], 48, 48), 0)
        np.testing.assert_allclose(one, expected / max(expected.max(), 1e-9), atol=1e-5)


def test_a_heatmap_covers_the_crop_and_averages_members_and_tta(tmp_path: Path) -> None:
    bundle = classification_bundle(tmp_path / "b", explained=True, seeds=(0, 1), crop_mode="crop")
    classifier = Classifier(bundle, tta="d4")
    pixels, mask = photograph()
    cams = [class_activation_map(classifier, pixels, mask, code) for code in ISIC2018.codes]
    box = preprocess(pixels, mask, classifier.input_specs[0]).box
    assert box.width == box.height < 48
    inside = np.zeros(pixels.shape[:2], bool)
    inside[max(box.top, 0) : box.bottom, max(box.left, 0) : box.right] = True
    for one in cams:
        assert one is not None
        assert (one[~inside] == 0).all()
        assert one.max() == 0 or one.max() == pytest.approx(1)
    assert any(one is not None and one.max() > 0 for one in cams)
    turned = [
        class_activation_map(classifier, pixels[::-1], mask[::-1], code) for code in ISIC2018.codes
    ]
    for one, other in zip(cams, turned, strict=True):
        assert one is not None
        assert other is not None
        assert np.abs(one - other[::-1]).mean() < 0.02  # all transforms: it turns with the image


def test_the_cam_offset_of_the_bundle_is_applied(tmp_path: Path) -> None:
    plain = Classifier(classification_bundle(tmp_path / "a", explained=True))
    moved_bundle = classification_bundle(tmp_path / "b", explained=True, cam_offset=(1.0, 0.0))
    moved, turning = Classifier(moved_bundle), Classifier(moved_bundle, tta="flips")
    pixels, _ = photograph()
    one, lower = (class_activation_map(each, pixels, None, "NV") for each in (plain, moved))
    assert one is not None
    assert lower is not None
    cell = 48 // 8
    np.testing.assert_allclose(lower[cell:] * one[:-cell].max(), one[:-cell], atol=1e-5)
    assert moved.offsets == ((1.0, 0.0),)
    assert turning.offsets == ((0.0, 0.0),)  # those of the transforms cancel out


def test_a_network_without_maps_has_no_heatmap(tmp_path: Path) -> None:
    classifier = Classifier(classification_bundle(tmp_path / "b"))
    assert class_activation_map(classifier, photograph()[0], None, "MEL") is None


def test_a_small_lesion_needs_a_larger_image(tmp_path: Path) -> None:
    _, mask = photograph()
    cropping = Classifier(classification_bundle(tmp_path / "c", explained=True, crop_mode="crop"))
    whole = Classifier(classification_bundle(tmp_path / "w", explained=True))
    assert side_for(whole, mask) == 32 < side_for(cropping, mask)


def test_an_input_spec_gives_its_box() -> None:
    pixels, mask = photograph()
    assert preprocess(pixels, None, InputSpec("squash", 16)).box == Box(0, 0, 64, 48)
    assert preprocess(pixels, mask, InputSpec("full", 16)).box == Box(8, 0, 56, 48)
    cropped = preprocess(pixels, mask, InputSpec("crop", 16, margin=0.0)).box
    assert (cropped.left, cropped.top, cropped.right, cropped.bottom) == (30, 10, 50, 30)


CORNER = np.array([[0, 0], [0, 3]], np.float32)


def test_a_map_is_pasted_where_the_crop_was() -> None:
    one = cam_over([Activation(CORNER, Box(20, 0, 80, 60), (60, 100))], 60, 100)
    assert one.shape == (60, 100)
    assert (one[:, :20] == 0).all()
    assert (one[:, 80:] == 0).all()
    assert one.max() == 1
    row, column = divmod(int(one.argmax()), 100)
    assert row >= 45
    assert column >= 65
    assert one[5, 25] == 0


@pytest.mark.parametrize("box", [Box(-10, 0, 50, 60), Box(0, -5, 40, 35), Box(-3, -3, 43, 43)])
def test_a_box_larger_than_the_image_is_clipped(box: Box) -> None:
    one = cam_over([Activation(np.ones((5, 5), np.float32), box, (30, 40))], 30, 40)
    inside = np.zeros((30, 40), bool)
    inside[max(box.top, 0) : box.bottom, max(box.left, 0) : box.right] = True
    np.testing.assert_array_equal(one > 0, inside)


def test_evidence_against_the_class_is_not_shown() -> None:
    against = Activation(np.full((5, 5), -2, np.float32), Box(0, 0, 20, 20), (20, 20))
    assert (cam_over([against], 20, 20) == 0).all()


def test_a_cam_scales_with_the_size_of_the_image() -> None:
    activation = Activation(CORNER, Box(20, 0, 80, 60), (60, 100))
    small, large = cam_over([activation], 60, 100), cam_over([activation], 240, 400)
    shrunk = large.reshape(60, 4, 100, 4).mean((1, 3))
    assert np.abs(shrunk - small).max() < 0.05
    assert cam_over([activation], 1, 1).shape == (1, 1)  # a box keeps at least one pixel


@pytest.mark.parametrize(("offset", "place"), [((1, 0), (2, 2)), ((0, -2), (1, 0)), ((3, 3), None)])
def test_the_offset_moves_a_map_onto_its_object(
    offset: tuple[float, float], place: tuple[int, int] | None
) -> None:
    cells = np.zeros((4, 4), np.float32)
    cells[1, 2] = 1
    one = cam_over([Activation(cells, Box(4, 8, 44, 48), (50, 50), offset)], 50, 50)
    synthetic = one[8:48, 4:44].reshape(4, 10, 4, 10).mean((1, 3))
    if place is None:
        assert one.max() == 0
    else:
        assert np.unravel_index(synthetic.argmax(), synthetic.shape) == place
    assert (one[:8] == 0).all()
    assert (one[48:] == 0).all()


def test_members_are_averaged_before_negative_values_are_removed() -> None:
    one = Activation(np.array([[2, -6]], np.float32), Box(0, 0, 2, 1), (1, 2))
    other = Activation(np.array([[2, 2]], np.float32), Box(0, 0, 2, 1), (1, 2))
    np.testing.assert_allclose(cam_over([one, other], 1, 2), [[1, 0]])


def test_the_overlay_is_grey_without_evidence_and_yellow_with_most() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    cold = overlay(pixels, np.zeros((8, 9), np.float32))
    assert cold.shape == pixels.shape
    assert cold.dtype == np.uint8
    assert np.ptp(cold, axis=2).mean() < 0.5 * np.ptp(pixels, axis=2).mean()  # paled
    one = np.zeros((8, 9), np.float32)
    one[3, 4], one[5, 5] = 1, 0.4
    synthetic = overlay(pixels, one)
    np.testing.assert_array_equal(synthetic[one == 0], cold[one == 0])
    yellow = np.array([253, 231, 37])  # viridis ends with it
    np.testing.assert_allclose(synthetic[3, 4], 0.25 * cold[3, 4] + 0.75 * yellow, atol=1)
    assert (synthetic[5, 5] != cold[5, 5]).any()


SIZE, CELL = 50, 10


def photographs(size: int, count: int = 20) -> NDArray[np.uint8]:
    """Return images of blurred spots at random positions."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, (count, size, size, 3)).astype(np.float32)
    soft = np.stack([cv2.GaussianBlur(each, (0, 0), CELL) for each in noise])
    return np.asarray(np.clip(128 + 40 * soft / soft.std(), 0, 255), np.uint8)


@pytest.mark.parametrize(("down", "right"), [(0, 0), (5, 5), (7, -1), (-3, 0), (0, 9)])
def test_the_measured_offset_is_the_true_one(down: int, right: int, tmp_path: Path) -> None:
    graph = write_displaced(tmp_path / "g.onnx", size=SIZE, cell=CELL, down=down, right=right)
    measured = cam_offset(graph, photographs(SIZE))
    np.testing.assert_allclose(measured, (down / CELL, right / CELL), atol=0.1)


def test_without_evidence_the_offset_is_zero(tmp_path: Path) -> None:
    graph = write_displaced(tmp_path / "g.onnx", size=SIZE, cell=CELL, down=5, right=5)
    assert cam_offset(graph, np.zeros((3, SIZE, SIZE, 3), np.uint8)) == (0, 0)
    assert cam_offset(graph, photographs(SIZE)[:0]) == (0, 0)


@pytest.mark.parametrize("seed", range(3))
def test_inconsistent_maps_give_no_offset(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)

    class Random:
        outputs = ("logits", "cam")

        def run(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
            maps = rng.normal(size=(len(pixels), 2, 5, 5)).astype(np.float32)
            return {"logits": maps.mean((2, 3)), "cam": maps}

    monkeypatch.setattr(cam, "open_engine", lambda _graph: Random())
    assert cam_offset(Path("any"), photographs(SIZE)) == (0, 0)


def test_a_graph_without_maps_or_with_coarse_ones_has_none(tmp_path: Path) -> None:
    assert cam_offset(write_classifier(tmp_path / "c.onnx", size=32), photographs(32)) == (0, 0)
    coarse = write_explained(tmp_path / "e.onnx", size=12)
    assert cam_offset(coarse, photographs(12)) == (0, 0)
