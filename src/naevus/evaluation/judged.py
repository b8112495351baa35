"""Predictions beside the truth: what can be judged of a table of them, and what not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from naevus.errors import DataError
from naevus.evaluation.folding import folding_of
from naevus.evaluation.outoffold import probabilities, taxonomy_of
from naevus.evaluation.scoring.folders import compare_folder
from naevus.evaluation.tables import (
    LeftOut,
    check_finite,
    check_ids,
    left_out,
    numbers_of,
    refuse_left_out,
)
from naevus.taxonomy import taxonomy_with

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from naevus.taxonomy import Taxonomy

_KNOWN = {
    "diagnosis": "truth",
    "group_id": "group_id",
    "mask_path": "mask_path",
    "path": "picture_path",
}


class Diagnosed(NamedTuple):
    """Pictures with their true diagnosis and probabilities.

    Attributes:
        table: ``image_id, group_id, truth``; maybe ``fold`` and ``members``.
        natural: N x C.
        balanced: N x C.
        taxonomy: The C diagnoses.
    """

    table: pd.DataFrame
    natural: NDArray[np.float64]
    balanced: NDArray[np.float64]
    taxonomy: Taxonomy


class Joined(NamedTuple):
    """Predictions with what a data set knows of their pictures.

    Attributes:
        table: The rows of known pictures with ``truth``, ``group_id``, ``mask_path`` and
            ``picture_path``.
        left_out: Pictures with an answer and no ground truth, or the other way round.
        unasked: Parts and splits of the data set of which no picture was predicted, and how many
            pictures with ground truth they have: they count for nothing.
    """

    table: pd.DataFrame
    left_out: tuple[LeftOut, ...]
    unasked: dict[str, int]

    def notes(self) -> list[str]:
        """Return what is left out, in sentences."""
        unasked = [
            f"{part}: none of its {count:,} images was predicted, so none counts"
            for part, count in self.unasked.items()
        ]
        return [*(f"{found}: left out" for found in self.left_out), *unasked]


def with_truth(
    predictions: pd.DataFrame,
    records: pd.DataFrame,
    *,
    allow_missing: bool = False,
    name: str = "the predictions",
) -> Joined:
    """Join predictions with what a data set knows of their pictures.

    A picture is due where another of its part and split was predicted.

    Args:
        predictions: One row a picture, with ``image_id``.
        records: A data set's rows: ``image_id, diagnosis, group_id, mask_path, path``, and ``part,
            split`` where it has several. Of a picture that stands in several parts, each column is
            the first that is known.
        allow_missing: Whether pictures may lack an answer or a ground truth.
        name: What the predictions are called in errors.

    Raises:
        DataError: A picture stands twice, a probability is no finite number, or pictures lack an
            answer or a ground truth and that is not allowed.
    """
    check_ids(predictions, name)
    check_finite(predictions, numbers_of(predictions, "pb"), name)
    known = records[["image_id", *_KNOWN]].groupby("image_id").first().rename(columns=_KNOWN)
    answered = set(predictions["image_id"])
    true = records[records["diagnosis"].notna() | records["mask_path"].notna()]
    due: set[str] = set()
    unasked: dict[str, int] = {}
    strata = [column for column in ("part", "split") if column in true.columns]
    for stratum, rows in true.groupby(strata) if strata else [((), true)]:
        ids = set(rows["image_id"])
        if ids & answered:
            due |= ids
        else:
            unasked[", ".join(map(str, stratum))] = len(ids)
    if not due:
        raise DataError(
            f"{name}: the data set has no truth for these pictures",
            "name the one that they are from",
        )
    found = left_out(
        ("images with ground truth have no answer", due - answered),
        ("predicted images are not in the data set", answered.difference(known.index)),
        (
            "predicted images are without ground truth",
            answered.intersection(known.index) - set(true["image_id"]),
        ),
    )
    refuse_left_out(found, name, allow_missing=allow_missing)
    there = predictions[predictions["image_id"].isin(known.index)]
    mine = there.drop(columns=list(known.columns), errors="ignore")
    table = mine.merge(known, left_on="image_id", right_index=True).reset_index(drop=True)
    return Joined(table, found, unasked)


class Judged(NamedTuple):
    """What there is to judge of predictions; at least one of both.

    Attributes:
        diagnosed: Pictures with a true diagnosis.
        outlined: What `compare_folder` gives of pictures with a true mask, and ``group_id``.
        folded: How classes were folded to be scored; empty where they were not.
    """

    diagnosed: Diagnosed | None
    outlined: pd.DataFrame | None
    folded: str = ""

    def notes(self, table: pd.DataFrame) -> list[str]:
        """Return of how many pictures of ``table`` (from `with_truth`) a kind of truth is absent.

        Also what is true of pictures and was not predicted of any.
        """
        told = []
        for kind, column, found in (
            ("diagnosis", "truth", None if self.diagnosed is None else self.diagnosed.table),
            ("mask", "mask_path", self.outlined),
        ):
            true = int(table[column].notna().sum())
            if found is None and true:
                told.append(f"{true:,} images have a true {kind} and none was predicted")
            elif found is not None and len(found) < len(table):
                told.append(
                    f"{len(table) - len(found):,} of {len(table):,} images have no true {kind}: "
                    f"they are not in its figures"
                )
        return told


def judged(
    table: pd.DataFrame, taxonomy: Taxonomy, masks: Path, benign: Sequence[str] = ()
) -> Judged:
    """Judge predictions by their truth.

    Args:
        table: From `with_truth`; ``p_<code>`` and ``b_<code>``, if there are diagnoses, are natural
            and balanced probabilities.
        taxonomy: The diagnoses of the truth.
        masks: The folder of predicted masks; it need not be there.
        benign: Classes that count as benign where they are folded into benign and malignant.

    Raises:
        DataError: There is no truth at all, the taxonomies of truth and predictions do not meet,
            or a predicted mask is absent or of another size.
        PictureError: A mask cannot be read.
    """
    diagnosed, folded = _diagnosed(table, taxonomy, benign) or (None, "")
    if benign and diagnosed is None:
        raise DataError(f"--benign {' '.join(benign)}: no diagnoses are scored", "leave it out")
    found = Judged(diagnosed, _outlined(table, masks), folded)
    if found.diagnosed is None and found.outlined is None:
        raise DataError(
            "the data set has no truth for these pictures", "name the one that they are from"
        )
    return found


def heldout_diagnosed(table: pd.DataFrame) -> Diagnosed:
    """Return what an out-of-fold table of logits says.

    Raises:
        DataError: It is none.
    """
    taxonomy = taxonomy_of(table)
    return Diagnosed(table, *probabilities(table, taxonomy), taxonomy)


def _diagnosed(
    table: pd.DataFrame, taxonomy: Taxonomy, benign: Sequence[str]
) -> tuple[Diagnosed, str] | None:
    codes = predicted_codes(table)
    if not codes:
        return None
    columns = {kind: [f"{kind}_{code}" for code in codes] for kind in "pb"}
    rows = table[table["truth"].notna()].reset_index(drop=True)
    if rows.empty:
        return None
    truth = rows["truth"].tolist()
    folding = folding_of(taxonomy_with(codes), taxonomy, truth, benign)
    rows["truth"] = [folding.true.get(code) for code in truth]
    met = rows["truth"].notna().to_numpy()
    rows = rows[met].reset_index(drop=True)
    natural, balanced = (
        fold(rows[columns[kind]].to_numpy(np.float64))
        for fold, kind in ((folding.natural, "p"), (folding.balanced, "b"))
    )
    return Diagnosed(rows, natural, balanced, folding.taxonomy), folding.told


def predicted_codes(table: pd.DataFrame) -> list[str]:
    """Return the classes that a table of predictions has both kinds of probability of."""
    names = [str(name) for name in table.columns]
    return [name[2:] for name in names if name.startswith("p_") and f"b_{name[2:]}" in names]


def _outlined(table: pd.DataFrame, masks: Path) -> pd.DataFrame | None:
    masked = table[table["mask_path"].notna()]
    if masked.empty or not masks.is_dir():
        return None
    truths = dict(zip(masked["image_id"], map(Path, masked["mask_path"]), strict=True))
    seen = masked[masked["picture_path"].notna()]
    pictures = dict(zip(seen["image_id"], map(Path, seen["picture_path"]), strict=True))
    compared = compare_folder(truths, masks, pictures)
    return compared.merge(masked[["image_id", "group_id"]], on="image_id")
