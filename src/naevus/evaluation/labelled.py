"""Predictions joined with their ground truth, and what can be evaluated of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from naevus.errors import DataError
from naevus.evaluation.attributes import TRUE_MASKS, compare_attributes
from naevus.evaluation.folding import folding_of
from naevus.evaluation.mask_metrics import compare_folder
from naevus.evaluation.out_of_fold import probabilities, taxonomy_of
from naevus.evaluation.tables import (
    REMAKE,
    check_finite,
    check_ids,
    has_values,
    left_out,
    numbers_of,
    refuse_left_out,
)
from naevus.io.words import counted
from naevus.taxonomy import taxonomy_with

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from naevus.evaluation.tables import LeftOut
    from naevus.taxonomy import Taxonomy

_KNOWN = {
    "diagnosis": "diagnosis",
    "group_id": "group_id",
    "mask_path": "mask_path",
    "path": "image_path",
}
_TRUTH = ("diagnosis", "mask_path", *TRUE_MASKS.values())
"""The columns of ground truth."""


class LabelledPredictions(NamedTuple):
    """Images with their true diagnosis and probabilities.

    Attributes:
        table: ``image_id, group_id, diagnosis``; optionally ``fold`` and ``lesion_id``.
        natural: N x C.
        balanced: N x C.
        taxonomy: The C diagnoses.
        folded: How classes were merged for scoring; empty if they were not.
        sets: N x C, the prediction sets of the predictions; None if there are none.
        coverage: The nominal coverage of these sets.
    """

    table: pd.DataFrame
    natural: NDArray[np.float64]
    balanced: NDArray[np.float64]
    taxonomy: Taxonomy
    folded: str = ""
    sets: NDArray[np.bool_] | None = None
    coverage: float | None = None

    @property
    def truth(self) -> list[str]:
        """The true codes, N."""
        codes: list[str] = self.table["diagnosis"].tolist()
        return codes

    @property
    def classes(self) -> NDArray[np.intp]:
        """The positions of the true codes in the taxonomy, N."""
        return np.array([self.taxonomy.index(code) for code in self.truth], np.intp)

    @property
    def groups(self) -> list[str]:
        """The group ids, N."""
        names: list[str] = self.table["group_id"].tolist()
        return names

    @property
    def balanced_codes(self) -> list[str]:
        """The codes with the largest balanced probability, N."""
        return self._codes(self.balanced)

    @property
    def natural_codes(self) -> list[str]:
        """The codes with the largest natural probability, N."""
        return self._codes(self.natural)

    def where(self, rows: NDArray[np.bool_]) -> LabelledPredictions:
        """Return some of the images."""
        table = self.table[rows].reset_index(drop=True)
        return self._replace(
            table=table,
            natural=self.natural[rows],
            balanced=self.balanced[rows],
            sets=None if self.sets is None else self.sets[rows],
        )

    def with_natural(self, natural: NDArray[np.float64]) -> LabelledPredictions:
        """Return the images with other natural probabilities, N x C, and balanced ones of these.

        Both differ by the class priors, row by row. An impossible class, as with a prevalence of 0,
        stays impossible.
        """
        before = self.natural
        ratio = np.divide(self.balanced, before, out=np.zeros_like(before), where=before > 0)
        balanced = natural * ratio
        balanced /= balanced.sum(axis=1, keepdims=True)
        return self._replace(natural=natural, balanced=balanced)

    def _codes(self, probabilities: NDArray[np.float64]) -> list[str]:
        codes = np.array(self.taxonomy.codes, object)
        found: list[str] = codes[probabilities.argmax(axis=1)].tolist()
        return found


class Joined(NamedTuple):
    """Predictions joined with a data set.

    Attributes:
        table: The rows of known images with ``diagnosis``, ``group_id``, ``mask_path`` and
            ``image_path``.
        left_out: Images with only one of prediction and ground truth.
        unpredicted: Parts and splits of the data set without any predicted image, and their numbers
            of images with ground truth; these are not evaluated.
    """

    table: pd.DataFrame
    left_out: tuple[LeftOut, ...]
    unpredicted: dict[str, int]

    def notes(self) -> list[str]:
        """Return sentences about what is left out."""
        unpredicted = [
            f"{part}: none of its {count:,} images was predicted, so none is evaluated"
            for part, count in self.unpredicted.items()
        ]
        return [*(f"{found}: left out" for found in self.left_out), *unpredicted]


def with_truth(
    predictions: pd.DataFrame,
    records: pd.DataFrame,
    *,
    allow_missing: bool = False,
    name: str = "the predictions",
) -> Joined:
    """Join predictions with the ground truth of a data set.

    An image must have a prediction if another image of its part and split has one.

    Args:
        predictions: One row per image, with ``image_id``.
        records: The rows of a data set: ``image_id, diagnosis, group_id, mask_path, path``,
            ``lesion_id, patient_id`` if known, and ``part, split`` if it has several. For an image
            in several parts, each column takes the first known value.
        allow_missing: Whether images may lack a prediction, or a row of the data set. Those whose
            row has no ground truth are always left out.
        name: The name of the predictions in messages.

    Raises:
        DataError: An id occurs twice, a probability is not a finite number, or images lack a
            prediction or a row and ``allow_missing`` is false.
    """
    check_ids(predictions, name)
    check_finite(predictions, numbers_of(predictions, ("prob", "balanced_prob")), name)
    attributes = [column for column in TRUE_MASKS.values() if column in records.columns]
    owners = [name for name in ("lesion_id", "patient_id") if name in records.columns]
    columns = ["image_id", *_KNOWN, *owners, *attributes]
    known = records[columns].groupby("image_id").first().rename(columns=_KNOWN)
    answered = set(predictions["image_id"])
    truth = [column for column in _TRUTH if column in records.columns]
    true = records[records[truth].notna().any(axis="columns")]
    due: set[str] = set()
    unpredicted: dict[str, int] = {}
    strata = [column for column in ("part", "split") if column in true.columns]
    for stratum, rows in true.groupby(strata) if strata else [((), true)]:
        ids = set(rows["image_id"])
        if ids & answered:
            due |= ids
        else:
            unpredicted[", ".join(map(str, stratum))] = len(ids)
    if not due:
        raise DataError(
            f"{name}: the data set has no ground truth for these images",
            "name the data set that they are from, with a column diagnosis or with masks",
        )
    missing = left_out(
        ("images with ground truth have no prediction", due - answered),
        ("predicted images are not in the data set", answered.difference(known.index)),
    )
    refuse_left_out(missing, name, allow_missing=allow_missing)
    unlabelled = answered.intersection(known.index) - set(true["image_id"])
    found = (*missing, *left_out(("predicted images have no ground truth", unlabelled)))
    there = predictions[predictions["image_id"].isin(known.index)]
    mine = there.drop(columns=list(known.columns), errors="ignore")
    table = mine.merge(known, left_on="image_id", right_index=True).reset_index(drop=True)
    return Joined(table, found, unpredicted)


class Evaluated(NamedTuple):
    """The predictions that can be evaluated, by task; at least one is present.

    Attributes:
        classified: Images with a true diagnosis.
        segmented: The result of `compare_folder` with ``group_id``, for images with a true mask.
        attributes: The result of `compare_attributes`, for images with annotated attributes.
    """

    classified: LabelledPredictions | None
    segmented: pd.DataFrame | None
    attributes: pd.DataFrame | None = None

    def notes(self, table: pd.DataFrame) -> list[str]:
        """Return how many images of ``table`` (from `with_truth`) lack a kind of ground truth.

        Images without any are not counted: `Joined.notes` names them. Also reports kinds of ground
        truth that nothing was predicted for.
        """
        notes = []
        kinds = (
            ("diagnosis", "diagnosis", None if self.classified is None else self.classified.table),
            ("mask", "mask_path", self.segmented),
            ("mask of attributes", "attribute_streaks", self.attributes),
        )
        columns = [name for name in _TRUTH if name in table.columns]
        total = int(table[columns].notna().any(axis="columns").sum())
        for kind, column, found in kinds:
            true = int(table[column].notna().sum()) if column in table.columns else 0
            if found is None and true:
                notes.append(f"{counted(true, 'image')} with a true {kind}, but none was predicted")
            elif found is not None and len(found) < total:
                notes.append(
                    f"{total - len(found):,} of {total:,} images have no true {kind}: "
                    f"its figures leave them out"
                )
        given = has_values(table, "prediction_set")
        if self.classified is not None and self.classified.sets is None and given:
            notes.append("prediction sets are not scored: their nominal coverage is unknown")
        return notes


def evaluated(
    table: pd.DataFrame,
    taxonomy: Taxonomy,
    masks: Path,
    benign: Sequence[str] = (),
    attributes: Path | None = None,
    coverage: float | None = None,
) -> Evaluated:
    """Evaluate predictions against their ground truth.

    Args:
        table: From `with_truth`; with natural and balanced probabilities, ``prob_<code>`` and
            ``balanced_prob_<code>``, if there are diagnoses.
        taxonomy: The diagnoses of the ground truth.
        masks: The folder of predicted masks; it may be missing.
        benign: Classes to count as benign when merging into benign and malignant.
        attributes: The folder of predicted attribute masks; it may be missing.
        coverage: The nominal coverage of the prediction sets of ``table``; None without sets.

    Raises:
        DataError: There is no ground truth, the taxonomies of ground truth and predictions do
            not match, or a predicted mask is missing or has another size.
        ImageError: A mask cannot be read.
    """
    found = Evaluated(
        _classified(table, taxonomy, benign, coverage),
        _segmented(table, masks),
        None if attributes is None else compare_attributes(table, attributes),
    )
    if benign and found.classified is None:
        raise DataError(f"--benign {' '.join(benign)}: no diagnoses are scored", "leave it out")
    if all(each is None for each in found):
        raise DataError(
            "the data set has no ground truth for these images",
            "name the data set that they are from",
        )
    return found


def oof_classified(table: pd.DataFrame) -> LabelledPredictions:
    """Return the labelled predictions in an out-of-fold table of logits.

    Raises:
        DataError: The table has no logits.
    """
    taxonomy = taxonomy_of(table)
    return LabelledPredictions(table, *probabilities(table, taxonomy), taxonomy)


def _classified(
    table: pd.DataFrame, taxonomy: Taxonomy, benign: Sequence[str], coverage: float | None
) -> LabelledPredictions | None:
    codes = predicted_codes(table)
    if not codes:
        return None
    columns = {kind: [f"{kind}_{code}" for code in codes] for kind in ("prob", "balanced_prob")}
    rows = table[table["diagnosis"].notna()].reset_index(drop=True)
    if rows.empty:
        return None
    truth = rows["diagnosis"].tolist()
    folding = folding_of(taxonomy_with(codes), taxonomy, truth, benign)
    rows["diagnosis"] = [folding.true.get(code) for code in truth]
    met = rows["diagnosis"].notna().to_numpy()
    rows = rows[met].reset_index(drop=True)
    natural, balanced = (
        fold(rows[columns[kind]].to_numpy(np.float64))
        for fold, kind in ((folding.natural, "prob"), (folding.balanced, "balanced_prob"))
    )
    sets = None if coverage is None else folding.sets(_given_sets(rows, codes))
    return LabelledPredictions(
        rows, natural, balanced, folding.taxonomy, folding.description, sets, coverage
    )


def _given_sets(rows: pd.DataFrame, codes: Sequence[str]) -> NDArray[np.bool_]:
    """Return which classes are in the prediction set of each image, N x C."""
    given = rows["prediction_set"]
    for image_id, inside in zip(rows["image_id"], given, strict=True):
        if inside is None or not set(inside) <= set(codes):
            raise DataError(
                f"{image_id}: its prediction_set is {'missing' if inside is None else 'invalid'}",
                REMAKE,
            )
    found = [[code in inside for code in codes] for inside in map(set, given)]
    return np.array(found, bool).reshape(len(rows), len(codes))


def predicted_codes(table: pd.DataFrame) -> list[str]:
    """Return the classes for which a table of predictions has both kinds of probability."""
    names = [str(name) for name in table.columns]
    return [
        name.removeprefix("prob_")
        for name in names
        if name.startswith("prob_") and f"balanced_{name}" in names
    ]


def _segmented(table: pd.DataFrame, masks: Path) -> pd.DataFrame | None:
    masked = table[table["mask_path"].notna()]
    if masked.empty or not masks.is_dir():
        return None
    truths = dict(zip(masked["image_id"], map(Path, masked["mask_path"]), strict=True))
    seen = masked[masked["image_path"].notna()]
    images = dict(zip(seen["image_id"], map(Path, seen["image_path"]), strict=True))
    compared = compare_folder(truths, masks, images)
    return compared.merge(masked[["image_id", "group_id"]], on="image_id")
