"""`tools/oof_diagnoses.py` gives predictions of held-out images the form of out-of-fold tables."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import naevus
from naevus.bundles.bundle import BUILTIN, Bundle, write_bundle
from naevus.bundles.spec import BundleSpec
from naevus.datasets.folds import make_folds
from naevus.datasets.layouts import load
from naevus.evaluation.out_of_fold import probabilities, taxonomy_of
from tests.helpers.onnx_graphs import classification_bundle

sys.path.append(str(Path(__file__).parents[2] / "tools"))  # scripts, not a package

import oof_diagnoses


def held_out(fold: int, place: Path) -> Bundle:
    """Write a calibrated bundle of two networks that held out a fold."""
    made = classification_bundle(place.parent / "any", seeds=(1, 2), crop_mode="full")
    spec: dict[str, Any] = made.spec.model_dump()
    spec["classifier"] |= {"temperature": 0.8, "offsets": (0.3, -0.2, 0.0, 0.1, 0.0, 0.4, -0.6)}
    for member in spec["classifier"]["members"]:
        member["folds"] = (fold,)
    files = {each.file: made.member_path(each) for each in made.spec.members}
    return write_bundle(place, BundleSpec(**spec), files)


def test_a_table_has_what_was_predicted(synthetic: Path, tmp_path: Path) -> None:
    data = load(synthetic)
    folds = make_folds(data, k=2, seed=1)
    folds.write(tmp_path / "folds.csv")
    bundle = held_out(1, tmp_path / "bundle")
    paths = {each.image_id: each.path for each in data.rows() if each.path and each.diagnosis}
    chosen = sorted(set(paths) & set(folds.held_out(1)))
    learnt = min(set(paths) - set(chosen))
    words = ["--bundle", str(bundle.folder), "--folds", str(tmp_path / "folds.csv")]
    words += ["--data", str(synthetic), "--out", str(tmp_path / "oof.parquet")]
    predictor = naevus.load(bundle.folder)

    predictor.to_folder([paths[each] for each in [*chosen, learnt]], tmp_path / "too many")
    with pytest.raises(SystemExit, match=f"1 image not held out by fold 1, such as {learnt}"):
        oof_diagnoses.main([str(tmp_path / "too many"), *words])
    predictor.to_folder([paths[each] for each in chosen], tmp_path / "out")
    with pytest.raises(SystemExit, match="are not by"):
        oof_diagnoses.main([str(tmp_path / "out"), *words, "--bundle", str(BUILTIN)])
    assert not (tmp_path / "oof.parquet").exists()

    oof_diagnoses.main([str(tmp_path / "out"), *words])
    table = pd.read_parquet(tmp_path / "oof.parquet")
    taxonomy = taxonomy_of(table)
    assert table["image_id"].tolist() == chosen
    truth = data.table.set_index("image_id")["diagnosis"]
    assert table["diagnosis"].tolist() == truth[chosen].tolist()
    # With the bundle's calibration, the table's probabilities are those that were predicted.
    spec = bundle.classifier
    natural, _ = probabilities(table, taxonomy)
    calibrated = np.exp(np.log(natural) / spec.temperature + spec.offsets)
    calibrated /= calibrated.sum(axis=1, keepdims=True)
    predicted = pd.read_parquet(tmp_path / "out" / "predictions.parquet").set_index("image_id")
    columns = [f"prob_{code}" for code in taxonomy.codes]
    np.testing.assert_allclose(calibrated, predicted.loc[chosen, columns], atol=1e-5)
