"""The results of a prediction, judged by a data set's truth."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from naevus import __version__
from naevus.errors import BundleError, DataError, RunError
from naevus.evaluation.tables import judged, with_truth
from naevus.inference.classifier import Classifier
from naevus.io.files import sha256
from naevus.io.formats import read_json, read_table
from naevus.reports.results import Count, Results, flat, in_lines, records_of
from naevus.runs.predictions import SETTINGS, OutFolder, read_predictions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from naevus.bundles.bundle import Bundle
    from naevus.datasets.dataset import Dataset

_CHOICES = ("views", "engine", "precision")


def of_predictions(
    folder: Path,
    dataset: Dataset,
    bundles: Sequence[Bundle] = (),
    *,
    allow_missing: bool = False,
) -> Results:
    """Return the results of a prediction, judged by a data set's truth.

    Args:
        folder: What predict wrote.
        dataset: Where the truth is.
        bundles: The classification bundles it was made with, to draw heat maps with; none: there
            are no heat maps.
        allow_missing: Whether pictures may lack an answer or a ground truth.

    Raises:
        DataError: The data set has no truth for them, or not for all and that is not allowed.
        RunError: A file of the folder cannot be read.
        BundleError: The predictions were made with other bundles.
    """
    out = OutFolder(folder)
    predictions = read_predictions(out.table)
    part = (dict, type(None))
    settings = read_json(
        folder / SETTINGS,
        "predict again into another folder",
        optional={"segmenter": part, "classifier": part},
        error=RunError,
    )
    refused = pd.DataFrame()
    if out.refused.exists():
        refused = read_table(out.refused, required=("image_id", "problem"))
    joined = with_truth(
        predictions, dataset.table, allow_missing=allow_missing, name=str(out.table)
    )
    table = joined.table
    there = judged(table, dataset.taxonomy, out.masks)
    why = dict(zip(refused["image_id"], refused["problem"], strict=True)) if len(refused) else {}
    silent = [image_id for each in joined.left_out if each.answerless for image_id in each.ids]
    why = {**dict.fromkeys(silent, "it was not predicted"), **why}
    unanswered = pd.DataFrame({"image_id": list(why), "why": list(why.values())})
    classifier = _classifier(settings.get("classifier") or {}, bundles)
    if classifier is not None and there.diagnosed is not None:
        strange = set(there.diagnosed.taxonomy.codes) - set(classifier.classes)
        if strange:
            raise DataError(
                f"heat maps are of {', '.join(classifier.classes)}, and diagnoses are scored as "
                f"{', '.join(there.diagnosed.taxonomy.codes)} here",
                "leave out --bundle",
            )
    results = Results(
        name=folder.name,
        unseen=False,
        diagnosed=there.diagnosed,
        outlined=there.outlined,
        masks=out.masks if out.masks.is_dir() else None,
        own_masks=True,
        records=records_of(dataset, table["image_id"], None),
        history=None,
        counts=(
            Count("predicted", len(predictions)),
            *(Count(f"left out: {each.what}", len(each.ids)) for each in joined.left_out),
            Count("known to the data set", len(table), table["group_id"].nunique()),
        ),
        unanswered=unanswered,
        facts={
            "Prediction": dict(flat(settings)),
            "Hashes": {
                "SHA-256 of the table": sha256(out.table),
                "reported by": f"naevus {__version__}",
            },
        },
        command=_predicting(settings, dataset),
        classifier_of=lambda _: classifier,
        notes=(
            *joined.notes(),
            *there.notes(table),
            *([f"diagnoses: {there.folded}"] if there.folded else []),
        ),
    )
    judged_count = Count("judged", len(results.pictures), results.pictures["group_id"].nunique())
    return replace(results, counts=(*results.counts, judged_count))


def _classifier(made_with: Mapping[str, Any], bundles: Sequence[Bundle]) -> Classifier | None:
    """Return the classifier that predictions were made with.

    Raises:
        BundleError: It is another one.
    """
    if not bundles:
        return None
    if sorted(made_with.get("bundles", ())) != sorted(bundle.sha256 for bundle in bundles):
        raise BundleError(
            "the predictions were made with other classification bundles",
            "name with --bundle those that predict was given, or leave it out",
        )
    return Classifier(bundles, views=made_with["views"])


def _predicting(settings: Mapping[str, Any], dataset: Dataset) -> str:
    """Return the commands that predict and report the same again."""
    words = ["naevus", "predict", "PICTURES"]
    chosen: dict[str, set[str]] = {}
    for part in ("segmenter", "classifier"):
        made_with = settings.get(part) or {}
        words += ["--bundle", "BUNDLE"] * len(made_with.get("bundles", ()))
        for name in _CHOICES:
            if name in made_with:
                chosen.setdefault(name, set()).add(str(made_with[name]))
    for name, values in chosen.items():
        if len(values) == 1:  # each task computes in what its bundle bears, if not told otherwise
            words += [f"--{name}", *values]
    return in_lines(
        [*words, "--out", "OUT"], ["naevus", "report", "OUT", "--data", dataset.root.name]
    )
