"""Images without their lesion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage

from naevus.errors import ConfigError, DataError
from naevus.images.geometry import resize
from naevus.images.preprocess import ImageFiles
from naevus.images.read import read, write_png
from naevus.inference.classifier import Classifier
from naevus.workflows.shortcuts import (
    HOLE_SIDE,
    WAYS,
    filled,
    grown,
    mean_hole,
    occluded_features,
    occlusion_of,
    ring_hole,
)
from tests.helpers.onnx_graphs import classification_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from naevus.bundles.bundle import Bundle


Mask = NDArray[np.bool_]


def square(low: int, high: int, side: int = 64) -> Mask:
    mask = np.zeros((side, side), bool)
    mask[low:high, low:high] = True
    return mask


def test_a_mask_grows_by_a_fraction_of_its_longer_side() -> None:
    mask = np.zeros((100, 100), bool)
    mask[40:60, 30:70] = True
    found = grown(mask, 0.1)
    distance = ndimage.distance_transform_edt(~mask)
    assert found[distance < 3.5].all()
    assert not found[distance > 4.5].any()
    assert not grown(np.zeros((9, 9), bool)).any()


@given(arrays(np.bool_, (16, 16)))
def test_a_lesion_is_in_its_grown_mask(mask: Mask) -> None:
    assert (grown(mask) | ~mask).all()


def test_occluded_regions_have_the_colour_of_the_rest() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    hidden = square(10, 40)
    shown = filled(pixels, hidden)
    assert (shown[~hidden] == pixels[~hidden]).all()
    assert len(np.unique(shown[hidden].reshape(-1, 3), axis=0)) == 1
    assert shown[hidden][0] == pytest.approx(pixels[~hidden].mean(axis=0), abs=0.5)
    assert (filled(pixels, np.ones_like(hidden)) == 128).all()
    # Pixels under the mask do not affect the result.
    other = pixels.copy()
    other[hidden] = 0
    assert (filled(other, hidden) == shown).all()


def test_a_ring_has_the_requested_width() -> None:
    hole = ring_hole(64, 0.125)
    assert not hole[:8].any()
    assert not hole[:, -8:].any()
    assert hole[8:-8, 8:-8].all()


def test_the_common_occlusion_is_a_level_set_with_the_requested_coverage() -> None:
    masks = [square(low, 128 - low, 128) for low in range(20, 60)]
    hole = mean_hole(masks, 0.9)
    assert hole.shape == (HOLE_SIDE, HOLE_SIDE)
    total = np.sum(masks, axis=0)
    assert total[hole].sum() >= 0.9 * total.sum()
    assert total[hole].min() > total[~hole].max()
    smaller = mean_hole(masks, 0.5)
    assert (hole | ~smaller).all()
    assert smaller.sum() < hole.sum()


def test_masks_of_all_sizes_count_the_same() -> None:
    sizes = (64, 128, 256)
    one = [square(side // 4, 3 * side // 4, side) for side in sizes]
    assert (mean_hole(one, 0.9) != square(32, 96, 128)).mean() < 0.02  # a blurred edge
    assert not mean_hole([np.zeros((9, 9), bool)]).any()
    assert not mean_hole([]).any()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return classification_bundle(
        tmp_path_factory.mktemp("hidden") / "c", crop_mode="crop", explained=True
    )


def draw(folder: Path, name: str, lesion: tuple[int, int, int], place: int = 24) -> ImageFiles:
    """An image of even skin with a square lesion, and its mask."""
    mask = np.zeros((64, 80), bool)
    mask[place : place + 16, place + 8 : place + 24] = True
    image = np.where(mask[:, :, None], lesion, (220, 190, 180)).astype(np.uint8)
    write_png(folder / f"{name}.png", image)
    write_png(folder / f"{name}_mask.png", mask)
    return ImageFiles(name, folder / f"{name}.png", folder / f"{name}_mask.png")


def test_an_occluded_lesion_does_not_change_the_embedding(bundle: Bundle, tmp_path: Path) -> None:
    sources = [draw(tmp_path, "dark", (40, 20, 20)), draw(tmp_path, "red", (200, 30, 40))]
    moved: list[tuple[int, int]] = []
    found = occluded_features(
        bundle, sources[::-1], occlusion_of(sources), progress=lambda *at: moved.append(at)
    )
    assert found.ids == ["dark", "red"]
    assert tuple(found.embeddings) == WAYS
    assert moved == [(2, 2)]
    whole = found.embeddings["whole"]
    assert np.abs(whole[0] - whole[1]).max() > 0.1
    for way in WAYS[1:]:
        dark, red = found.embeddings[way]
        np.testing.assert_allclose(dark, red, atol=1e-4)


def test_the_network_sees_the_centre_square(bundle: Bundle, tmp_path: Path) -> None:
    source = draw(tmp_path, "a", (40, 20, 20))
    found = occluded_features(bundle, [source], occlusion_of([source]))
    square = resize(read(source.path)[:, 8:72], 32, 32)
    outputs = Classifier(bundle).members[0].engine.run(square[None])
    np.testing.assert_allclose(found.embeddings["whole"], outputs["embedding"], atol=1e-5)


def test_the_common_occlusion_does_not_depend_on_the_lesion(bundle: Bundle, tmp_path: Path) -> None:
    sources = [draw(tmp_path, f"p{place}", (40, 20, 20), place) for place in (20, 24, 28)]
    occlusion = occlusion_of(sources)
    assert occlusion.hole.shape == (HOLE_SIDE, HOLE_SIDE)
    assert "p24" in occlusion.fits
    found = occluded_features(bundle, sources, occlusion)
    fitting = [found.ids.index(name) for name in occlusion.fits]
    for way in ("common hole", "border ring"):
        for row in fitting:
            np.testing.assert_allclose(
                found.embeddings[way][row], found.embeddings[way][fitting[0]], atol=1e-4
            )
    blanked = found.embeddings["blanked"]
    np.testing.assert_allclose(blanked[0], blanked[2], atol=1e-4)  # even skin has one colour


def test_images_without_a_plausible_mask_are_left_out(bundle: Bundle, tmp_path: Path) -> None:
    good, empty, broken = (draw(tmp_path, name, (40, 20, 20)) for name in ("a", "b", "c"))
    assert empty.mask_path is not None
    write_png(empty.mask_path, np.zeros((64, 80), bool))
    broken.path.write_bytes(b"")
    found = occluded_features(bundle, [good, empty, broken], occlusion_of([good, empty, broken]))
    assert found.ids == ["a"]
    with pytest.raises(DataError, match="no image has a plausible mask"):
        occluded_features(bundle, [empty], occlusion_of([empty]))


def test_a_graph_without_embedding_is_reported(tmp_path: Path) -> None:
    source = draw(tmp_path, "a", (40, 20, 20))
    plain = classification_bundle(tmp_path / "plain")
    with pytest.raises(ConfigError, match="the output 'embedding'"):
        occluded_features(plain, [source], occlusion_of([source]))
