"""Attribute networks: their outputs, alone, in ensembles, and with lesion networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

import naevus
from naevus.bundles.bundle import Bundle, write_bundle
from naevus.datasets.synthetic import draw_lesion
from naevus.errors import BundleError, ConfigError
from naevus.evaluation.attributes import PEAK_FRACTION, peak, presence_of
from naevus.images.preprocess import LEAST, decode_once
from naevus.inference.segmenter import Segmenter
from naevus.taxonomy import ATTRIBUTES
from tests.helpers.attribute_images import draw
from tests.helpers.onnx_graphs import attributes_bundle, classification_bundle, segmentation_bundle

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("tta", ["none", "d4"])
def test_one_network_segments_lesion_and_attributes(tmp_path: Path, tta: str) -> None:
    attributes_bundle(tmp_path / "bundle")
    predictor = naevus.load(tmp_path / "bundle", tta=tta)  # type: ignore[arg-type]
    for number in range(4):
        pixels, masks = draw(number)
        found = predictor(pixels)
        assert found.mask is not None
        assert (found.mask == masks["lesion"]).all()
        assert list(found.attributes) == list(ATTRIBUTES)
        for name in ATTRIBUTES:
            assert (found.attribute_masks[name] == masks[name]).all()
            if not masks[name].any() or masks[name].mean() > PEAK_FRACTION:
                assert (found.attributes[name] > 0.5) == masks[name].any()
        output = found.to_dict()["attributes"]
        assert output == dict(found.attributes)
        there = [title for name, title in ATTRIBUTES.items() if found.attributes[name] > 0.5]
        assert all(title in str(found) for title in there)


def test_masks_have_the_size_of_the_image(tmp_path: Path) -> None:
    attributes_bundle(tmp_path / "bundle")
    pixels, masks = draw(2)
    wide = np.repeat(np.repeat(pixels, 3, axis=0), 4, axis=1)
    found = naevus.load(tmp_path / "bundle")(wide)
    for name, mask in found.attribute_masks.items():
        assert mask.shape == wide.shape[:2]
        if masks[name].any():
            true = np.repeat(np.repeat(masks[name], 3, axis=0), 4, axis=1)
            assert (mask & true).sum() / (mask | true).sum() > 0.9


def test_images_are_decoded_alike_with_and_without_attributes(tmp_path: Path) -> None:
    lesion = segmentation_bundle(tmp_path / "lesion", size=48)
    maps = attributes_bundle(tmp_path / "maps", size=LEAST + 8, lesion=False)
    spec = lesion.spec.model_copy(update={"attributes": maps.spec.attributes})
    files = {m.file: each.member_path(m) for each in (lesion, maps) for m in each.spec.members}
    both = write_bundle(tmp_path / "both", spec, files)
    path = tmp_path / "large.jpg"
    # Decoded at half size, it would be too small for attributes.
    Image.fromarray(draw_lesion("MEL", 1, size=2 * LEAST + 8)[0]).save(path)
    asked, not_asked, small = (
        decode_once(path, each, keep=True)
        for each in (Segmenter(both, attributes=[both]), Segmenter(both), Segmenter(lesion))
    )
    assert asked.pixels is not None
    assert not_asked.pixels is not None
    assert small.pixels is not None
    assert (asked.pixels == not_asked.pixels).all()
    assert small.pixels.size < asked.pixels.size, "the largest network decides"


def test_attributes_alone_need_no_lesion(tmp_path: Path) -> None:
    attributes_bundle(tmp_path / "bundle", lesion=False)
    found = naevus.load(tmp_path / "bundle")(draw(1)[0])
    assert found.mask is None
    assert found.lesion_area is None
    assert set(found.attribute_masks) == set(ATTRIBUTES)
    classification_bundle(tmp_path / "classes", crop_mode="crop")
    with pytest.raises(ConfigError, match="name a segmentation bundle too"):
        naevus.load([tmp_path / "bundle", tmp_path / "classes"])


def test_attributes_and_lesions_may_come_from_different_bundles(tmp_path: Path) -> None:
    attributes_bundle(tmp_path / "attributes", lesion=False)
    segmentation_bundle(tmp_path / "lesions")
    pixels, masks = draw(3)
    both = naevus.load([tmp_path / "lesions", tmp_path / "attributes"])(pixels)
    alone = naevus.load(tmp_path / "lesions")(pixels)
    assert both.mask is not None
    assert alone.mask is not None
    assert (both.mask == alone.mask).all()
    assert not alone.attributes
    assert all((both.attribute_masks[name] == masks[name]).all() for name in ATTRIBUTES)


def test_thresholds_of_folds_are_averaged(tmp_path: Path) -> None:
    ones = attributes_bundle(tmp_path / "one", thresholds=(0.2,) * 5)
    others = attributes_bundle(tmp_path / "other", thresholds=(0.4,) * 5)
    segmenter = Segmenter([ones, others], attributes=[ones, others])
    maps = np.full((5, 8, 8), np.log(0.3 / 0.7), np.float32)
    maps[:, :4] += 0.1
    maps[:, 4:] -= 0.1
    for _, found in segmenter.attributes_of(maps, 8, 8):
        assert found.mask[:4].all()
        assert not found.mask[4:].any()


def test_presence_follows_from_the_peak_probability(tmp_path: Path) -> None:
    settings = [{"slope": 2.0, "intercept": -1.0}] + [{}] * 4
    bundle = attributes_bundle(tmp_path / "bundle", presence=settings)
    segmenter = Segmenter((), attributes=[bundle])
    maps = np.full((5, 10, 10), -3.0, np.float32)
    maps[:, 0, 0] = 1.0
    found = dict(segmenter.attributes_of(maps, 10, 10))
    assert found["streaks"].presence == pytest.approx(1 / (1 + np.exp(-1)))
    assert found["globules"].presence == pytest.approx(1 / (1 + np.exp(-1.0)))  # 2 * 1 - 1
    assert presence_of(0.0) == pytest.approx(0, abs=1e-5)
    assert peak(np.zeros((3, 3), np.float32)) == 0


def test_a_graph_without_the_bundle_s_outputs_is_refused(tmp_path: Path) -> None:
    bundle = attributes_bundle(tmp_path / "bundle", lesion=False)
    lesions = segmentation_bundle(tmp_path / "lesions")
    graph = lesions.member_path(lesions.segmenter.members[0])
    (bundle.folder / "maps.onnx").write_bytes(graph.read_bytes())
    with pytest.raises(BundleError, match="changed since the bundle was written"):
        Bundle.read(bundle.folder)
    with pytest.raises(BundleError, match="has no output attributes"):
        Segmenter((), attributes=[bundle])
