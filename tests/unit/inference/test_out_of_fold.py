from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from naevus.evaluation.mask_metrics import compare_masks
from naevus.images.geometry import resize
from naevus.images.maskfile import read_mask
from naevus.images.read import read, write_png
from naevus.inference.classifier import Classifier
from naevus.inference.out_of_fold import oof_logits, oof_scores
from naevus.inference.segmenter import Segmenter
from tests.helpers.onnx_graphs import classification_bundle, segmentation_bundle

if TYPE_CHECKING:
    from pathlib import Path


def draw(folder: Path, name: str, seed: int, scale: int = 1) -> tuple[str, Path, Path]:
    rng = np.random.default_rng(seed)
    truth = np.zeros((60, 80), bool)
    top, left = rng.integers(5, 20, 2)
    truth[top : top + 30, left : left + 40] = True
    image = np.where(truth[:, :, None], (80, 50, 40), (220, 190, 180)).astype(np.uint8)
    write_png(folder / f"{name}.png", image)
    truth = truth[::scale, ::scale]
    write_png(folder / f"{name}_truth.png", truth)
    return name, folder / f"{name}.png", folder / f"{name}_truth.png"


def test_masks_are_written_and_unreadable_images_left_out(tmp_path: Path) -> None:
    bundle = segmentation_bundle(tmp_path / "s")
    sources = [draw(tmp_path, f"p{number}", number) for number in range(35)]
    sources[33][1].write_bytes(b"")
    moved: list[tuple[int, int]] = []
    table = oof_scores(
        bundle, sources[::-1], out=tmp_path / "out", progress=lambda *at: moved.append(at)
    )
    assert set(table["image_id"]) == {source[0] for source in sources} - {"p33"}
    assert moved == [(32, 35), (35, 35)]
    assert len(list((tmp_path / "out").iterdir())) == 34
    expected = Segmenter(bundle).mask(read(sources[7][1]))
    found = read_mask(tmp_path / "out" / "p7_segmentation.png")
    assert (found == expected).mean() > 0.999


def test_masks_are_scored_at_the_size_of_the_ground_truth(tmp_path: Path) -> None:
    bundle = segmentation_bundle(tmp_path / "s")
    sources = [draw(tmp_path, "b", 1), draw(tmp_path, "a", 2), draw(tmp_path, "half", 3, scale=2)]
    sources.append(draw(tmp_path, "broken", 4))
    sources[3][2].write_bytes(b"")
    table = oof_scores(bundle, sources, out=tmp_path / "out")
    assert table["image_id"].tolist() == ["a", "b", "half"]
    by_hand = compare_masks(
        read_mask(tmp_path / "a_truth.png"), read_mask(tmp_path / "out" / "a_segmentation.png")
    )
    scores = table.iloc[0][list(by_hand._fields)]
    assert scores.to_dict() == pytest.approx(by_hand._asdict())
    assert table["contrast"].between(30, 60).all()
    assert table["lesion_area"].tolist() == pytest.approx([0.25] * 3)
    assert (table["surface_distance"] < 0.05).all()
    assert (table["jaccard"] > 0.8).all()


def test_nothing_to_score_gives_an_empty_table(tmp_path: Path) -> None:
    table = oof_scores(segmentation_bundle(tmp_path / "s"), [])
    assert len(table) == 0
    assert "jaccard" in table.columns


def test_logits_are_those_of_the_resized_images(tmp_path: Path) -> None:
    bundle = classification_bundle(tmp_path / "c")
    rng = np.random.default_rng(0)
    cache = {
        f"p{number:02d}": rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for number in range(40)
    }
    ids = list(cache)[::-1]
    table = oof_logits(bundle, cache, ids)
    assert table["image_id"].tolist() == sorted(ids)
    assert table.columns[1] == "logit_MEL"
    image = resize(cache["p35"], 32, 32)
    np.testing.assert_allclose(
        table.iloc[35, 1:].to_numpy(np.float32),
        Classifier(bundle).logits(image[None])[0],
        atol=1e-5,
    )
