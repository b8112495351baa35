"""`tools/oof_masks.py` predicts each image by the networks that held it out, together."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from naevus.bundles.bundle import Bundle, write_bundle
from naevus.bundles.spec import BundleSpec
from naevus.datasets.folds import make_folds
from naevus.datasets.layouts import load
from naevus.inference.out_of_fold import oof_scores
from tests.helpers.onnx_graphs import segmentation_bundle

sys.path.append(str(Path(__file__).parents[2] / "tools"))  # scripts, not a package

import oof_masks


def held_out(fold: int, place: Path, seed: int = 0) -> Bundle:
    """Write the bundle of a network that held out a fold."""
    made = segmentation_bundle(place.parent / f"{place.name}-any", seeds=(seed,))
    spec: dict[str, Any] = made.spec.model_dump()
    spec["segmenter"]["members"][0]["folds"] = (fold,)
    files = {each.file: made.member_path(each) for each in made.spec.members}
    return write_bundle(place, BundleSpec(**spec), files)


def test_each_image_is_segmented_by_the_networks_that_held_it_out(
    synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = load(synthetic)
    folds = make_folds(data, k=2, seed=1)
    folds.write(tmp_path / "folds.csv")
    bundles = {}
    for name, first in (("a", 0), ("b", 10)):
        for fold in range(2):
            bundles[name, fold] = held_out(fold, tmp_path / f"{name}-{fold}", first + fold)
    places = [str(tmp_path / "a-{}"), str(tmp_path / "b-{}")]
    rest = [str(synthetic), "--folds", str(tmp_path / "folds.csv"), "--bundles"]
    oof_masks.main([*rest, *places, "--out", str(tmp_path / "t.parquet")])
    table = pd.read_parquet(tmp_path / "t.parquet")
    assert capsys.readouterr().out.count("mean Jaccard index") == 2
    assert table["image_id"].tolist() == sorted([*folds.held_out(0), *folds.held_out(1)])
    both = [bundles["a", 1], bundles["b", 1]]
    sources = [
        (each.image_id, each.path, each.mask_path)
        for each in data.rows()
        if each.image_id in folds.held_out(1) and each.path and each.mask_path
    ]
    expected = oof_scores(both, sources).set_index("image_id")["jaccard"]
    found = table[table["fold"] == 1].set_index("image_id")["jaccard"]
    pd.testing.assert_series_equal(found.sort_index(), expected.sort_index(), check_dtype=False)
    with pytest.raises(SystemExit, match="did not hold out fold 0"):
        oof_masks.main([*rest, str(tmp_path / "a-1"), "--out", str(tmp_path / "no.parquet")])
    assert not (tmp_path / "no.parquet").exists()


def test_images_that_are_left_out_are_counted(
    synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(synthetic, data)
    folds = make_folds(load(data), k=2, seed=1)
    folds.write(tmp_path / "folds.csv")
    rows = [each for each in load(data).rows() if each.image_id in folds.held_out(0)]
    (no_mask, cut), whole = rows[:2], rows[2:]
    assert no_mask.mask_path is not None
    no_mask.mask_path.unlink()
    assert cut.path is not None
    cut.path.write_bytes(cut.path.read_bytes()[:100])
    held_out(0, tmp_path / "fold-0")
    out = tmp_path / "t.parquet"
    rest = [str(data), "--folds", str(tmp_path / "folds.csv"), "--fold", "0", "--out", str(out)]
    oof_masks.main([*rest, "--bundles", str(tmp_path / "fold-{}")])
    assert set(pd.read_parquet(out)["image_id"]) == {each.image_id for each in whole}
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "fold 0: 1 image left out, without file or mask",
        "fold 0: 1 image left out, unreadable",
    ]
