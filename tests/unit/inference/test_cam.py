from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from naevus.images.geometry import Box, resize
from naevus.images.preprocess import Form, arrange
from naevus.inference.cam import heat_map, side_for
from naevus.inference.classifier import Classifier
from naevus.taxonomy import ISIC2018
from tests.helpers.onnx_graphs import classification_bundle

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


def test_a_heat_map_is_the_map_whose_mean_is_the_logit(tmp_path: Path) -> None:
    classifier = Classifier(classification_bundle(tmp_path / "b", explained=True))
    pixels, _ = photograph()
    square = resize(pixels[:, 8:56], 32, 32)
    outputs = classifier.members[0].engine.run(square[None])
    np.testing.assert_allclose(outputs["cam"].mean(axis=(2, 3)), outputs["logits"], atol=1e-4)
    for place, code in enumerate(ISIC2018.codes):
        heat = heat_map(classifier, pixels, None, code)
        assert heat is not None
        assert heat.shape == pixels.shape[:2]
        expected = np.zeros_like(heat)
        expected[:, 8:56] = np.maximum(resize(outputs["cam"][0, place], 48, 48), 0)
        np.testing.assert_allclose(heat, expected / max(expected.max(), 1e-9), atol=1e-5)


def test_it_lies_where_the_crop_was_cut_and_means_members_and_views(tmp_path: Path) -> None:
    bundle = classification_bundle(tmp_path / "b", explained=True, seeds=(0, 1), crop_mode="crop")
    classifier = Classifier(bundle, views="dihedral")
    pixels, mask = photograph()
    heats = [heat_map(classifier, pixels, mask, code) for code in ISIC2018.codes]
    box = arrange(pixels, mask, classifier.forms[0]).box
    assert box.width == box.height < 48
    inside = np.zeros(pixels.shape[:2], bool)
    inside[max(box.top, 0) : box.bottom, max(box.left, 0) : box.right] = True
    for heat in heats:
        assert heat is not None
        assert (heat[~inside] == 0).all()
        assert heat.max() == 0 or heat.max() == pytest.approx(1)
    assert any(heat is not None and heat.max() > 0 for heat in heats)
    turned = [heat_map(classifier, pixels[::-1], mask[::-1], code) for code in ISIC2018.codes]
    for heat, other in zip(heats, turned, strict=True):
        assert heat is not None
        assert other is not None
        assert np.abs(heat - other[::-1]).mean() < 0.02  # all views: it turns with the picture


def test_a_network_is_drawn_where_its_bundle_says_that_its_maps_lie(tmp_path: Path) -> None:
    plain = Classifier(classification_bundle(tmp_path / "a", explained=True))
    moved_bundle = classification_bundle(tmp_path / "b", explained=True, cell_offset=(1.0, 0.0))
    moved, turning = Classifier(moved_bundle), Classifier(moved_bundle, views="flips")
    pixels, _ = photograph()
    heat, lower = (heat_map(each, pixels, None, "NV") for each in (plain, moved))
    assert heat is not None
    assert lower is not None
    cell = 48 // 8
    np.testing.assert_allclose(lower[cell:] * heat[:-cell].max(), heat[:-cell], atol=1e-5)
    assert moved.offsets == ((1.0, 0.0),)
    assert turning.offsets == ((0.0, 0.0),)  # those of the views cancel out


def test_a_network_without_a_map_has_no_heat(tmp_path: Path) -> None:
    classifier = Classifier(classification_bundle(tmp_path / "b"))
    assert heat_map(classifier, photograph()[0], None, "MEL") is None


def test_a_small_lesion_asks_for_a_finer_picture(tmp_path: Path) -> None:
    _, mask = photograph()
    cropping = Classifier(classification_bundle(tmp_path / "c", explained=True, crop_mode="crop"))
    whole = Classifier(classification_bundle(tmp_path / "w", explained=True))
    assert side_for(whole, mask) == 32 < side_for(cropping, mask)


def test_a_form_tells_where_its_square_lies() -> None:
    pixels, mask = photograph()
    assert arrange(pixels, None, Form("squash", 16)).box == Box(0, 0, 64, 48)
    assert arrange(pixels, mask, Form("full", 16)).box == Box(8, 0, 56, 48)
    cropped = arrange(pixels, mask, Form("crop", 16, margin=0.0)).box
    assert (cropped.left, cropped.top, cropped.right, cropped.bottom) == (30, 10, 50, 30)
