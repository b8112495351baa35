"""Write the out-of-fold table of diagnoses that a bundle gave to the images it held out.

    naevus predict --input-list held-out.txt --tta d4 --out predictions
    python tools/oof_diagnoses.py predictions --folds FOLDS.csv --data DATA --out TABLE

The table has the logits of the ensemble before calibration, for the crops, copies and transforms of
these predictions. `naevus evaluate` and `naevus compare` read it like those of training.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from naevus.bundles.bundle import BUILTIN, Bundle
from naevus.datasets.folds import Folds
from naevus.datasets.layouts import load
from naevus.errors import DataError, NaevusError
from naevus.inference.ensemble import Trained, class_priors_of
from naevus.io.files import atomic
from naevus.io.words import counted
from naevus.runs.prediction_tables import read_predictions
from naevus.runs.predictions import PredictionsFolder

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("--bundle", type=Path, default=BUILTIN, help="by default the built-in one")
    parser.add_argument("--folds", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="data set with the diagnoses")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        predictions = read_predictions(PredictionsFolder(options.predictions).table)
        table = oof_diagnoses(
            predictions, Bundle.read(options.bundle), Folds.read(options.folds), options.data
        )
        with atomic(options.out) as temporary:
            table.to_parquet(temporary, index=False, compression="zstd")
    except NaevusError as error:
        sys.exit(f"error: {error}")
    print(counted(len(table), "image"))


def oof_diagnoses(
    predictions: pd.DataFrame, bundle: Bundle, folds: Folds, data: Path
) -> pd.DataFrame:
    """Return the table, sorted by image id.

    Raises:
        DataError: The predictions are another bundle's, or of images that a network learnt from.
    """
    if set(predictions["bundle_sha256"]) != {bundle.sha256}:
        raise DataError(f"the predictions are not by {bundle.folder}", "name their --bundle")
    classifier = bundle.classifier
    (fold,) = {fold for member in classifier.members for fold in member.folds}
    held_out = folds.held_out(fold)
    if learnt := set(predictions["image_id"]) - set(held_out):
        raise DataError(
            f"{counted(len(learnt), 'image')} not held out by fold {fold}, such as {min(learnt)}",
            "predict images of that fold only",
        )
    truth = load(data).table.dropna(subset=["diagnosis"]).set_index("image_id")["diagnosis"]
    groups = folds.table.set_index("image_id")["group_id"]
    table = predictions[["image_id"]].sort_values("image_id", ignore_index=True)
    rows = predictions.set_index("image_id").loc[table["image_id"]]
    codes = classifier.classes
    priors = class_priors_of([Trained(member, 1.0) for member in classifier.members])
    offsets = classifier.offsets or [0.0] * len(codes)
    for code, prior, offset in zip(codes, priors, offsets, strict=True):
        calibrated = np.log(np.maximum(rows[f"prob_{code}"].to_numpy(np.float64), 1e-30))
        table[f"logit_{code}"] = (classifier.temperature * (calibrated - offset)).astype(np.float32)
        table[f"class_prior_{code}"] = prior
        table[f"class_weight_{code}"] = 1.0  # natural probabilities are without class weights
    return table.assign(
        diagnosis=table["image_id"].map(truth), group_id=table["image_id"].map(groups), fold=fold
    )


if __name__ == "__main__":
    main()
