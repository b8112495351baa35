"""Tables of predictions: checks of ids and numbers, and joins that report what they leave out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from naevus.errors import DataError
from naevus.evaluation.attributes import TRUE_MASKS, compare_attributes
from naevus.evaluation.folding import folding_of
from naevus.evaluation.mask_metrics import compare_folder
from naevus.evaluation.priors import (
    balanced_log_probabilities,
    natural_log_probabilities,
)
from naevus.io.formats import is_kind
from naevus.io.words import counted
from naevus.taxonomy import taxonomy_with

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from naevus.taxonomy import Taxonomy


ALLOW: Final = "allow it with --allow-missing (allow_missing=True in Python): they are left out"

REMAKE: Final = "predict or train again, or delete these rows and report it"


class LeftOut(NamedTuple):
    """Images that a join leaves out: a description and their ids (at least one)."""

    what: str
    ids: tuple[str, ...]

    @property
    def answerless(self) -> bool:
        """Whether these are images without a prediction."""
        return "no prediction" in self.what

    def __str__(self) -> str:
        """Return how many images there are, and an example."""
        if len(self.ids) == 1:
            one = self.what.replace("images", "image", 1)
            for many, single in (("have", "has"), ("are", "is")):
                one = one.replace(f" {many} ", f" {single} ", 1)
            return f"1 {one}: {self.ids[0]}"
        return f"{len(self.ids):,} {self.what}, such as {self.ids[0]}"


def left_out(*found: tuple[str, Collection[str]]) -> tuple[LeftOut, ...]:
    """Return what a join leaves out, as descriptions with sorted ids; empty entries are dropped."""
    return tuple(LeftOut(what, tuple(sorted(ids))) for what, ids in found if ids)


def refuse_left_out(found: Sequence[LeftOut], where: str, *, allow_missing: bool) -> None:
    """Raise an error if a join leaves images out, unless this is allowed.

    Args:
        found: The images left out.
        where: The file or folder, for the message.
        allow_missing: Whether images may be left out.

    Raises:
        DataError: Images are left out and ``allow_missing`` is false.

    Examples:
        >>> found = left_out(("images have no prediction", {"b", "a"}), ("others", ()))
        >>> refuse_left_out(found, "predictions", allow_missing=True)
        >>> print(*found)
        2 images have no prediction, such as a
    """
    if found and not allow_missing:
        raise DataError(f"{where}: {'; '.join(map(str, found))}", ALLOW)


def check_ids(table: pd.DataFrame, name: str) -> None:
    """Raise an error if a table has no image ids, or an id twice.

    Raises:
        DataError: A column or an id is missing, or an id occurs twice.
    """
    if "image_id" not in table.columns:
        raise DataError(f"{name}: has no column image_id", "name a table of predictions")
    if table["image_id"].isna().any():
        raise DataError(f"{name}: has a row without image_id", "create it again")
    twice = table.loc[table["image_id"].duplicated(), "image_id"]
    if len(twice):
        raise DataError(f"{name}: {twice.iloc[0]} occurs twice", "keep one row per image")


def check_finite(table: pd.DataFrame, columns: Iterable[str], name: str) -> None:
    """Raise an error if a table has an empty, NaN or infinite number.

    Args:
        table: One row per image, with ``image_id``.
        columns: The columns that must contain finite numbers; all must exist.
        name: The file, for the message.

    Raises:
        DataError: A value is not finite; the message names the file, the image and the column.
    """
    for column in columns:
        try:
            values = table[column].to_numpy(np.float64, na_value=np.nan)
        except (TypeError, ValueError):
            raise DataError(f"{name}: column {column} is not numeric", REMAKE) from None
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            row = wrong[0]
            image = table["image_id"].iloc[row] if "image_id" in table.columns else f"row {row}"
            more = f" (and so for {len(wrong) - 1:,} more)" if len(wrong) > 1 else ""
            raise DataError(
                f"{name}: {image}: {column} is {values[row]:g}, not a finite number{more}", REMAKE
            )


def numbers_of(table: pd.DataFrame, kinds: Iterable[str]) -> list[str]:
    """Return the columns of some kinds, such as ``logit_MEL`` and ``logit_NV`` for ``logit``."""
    return [name for name in map(str, table.columns) if is_kind(name, kinds)]


# Tables restricted to the images they have in common.

_REMEDY: Final = "name runs over the same data and folds"
AGREED: Final = {"diagnosis": "diagnosis", "group_id": "group"}
"""The columns that tables of diagnoses must agree on, with their names in messages."""


def in_common(
    tables: Sequence[pd.DataFrame],
    names: Sequence[str],
    agreed: Mapping[str, str],
    *,
    allow_missing: bool = False,
) -> list[pd.DataFrame]:
    """Return the rows of the images that are in all tables, sorted by id.

    Args:
        tables: One row per image, with ``image_id`` and the columns of ``agreed``.
        names: The names of the tables.
        agreed: Columns whose values must be the same in all tables, each with its name.
        allow_missing: Whether to leave out images that are missing in some table.

    Raises:
        DataError: An id is missing or occurs twice, no image is in all tables, some are not
            and ``allow_missing`` is false, or values disagree.
    """
    for table, name in zip(tables, names, strict=True):
        check_ids(table, name)
    each = [set(table["image_id"]) for table in tables]
    shared, every = set.intersection(*each), set.union(*each)
    if not shared:
        raise DataError(f"{' and '.join(names)} have no image in common", _REMEDY)
    absent = left_out(
        *(
            (f"images have no prediction in {name}", every - ids)
            for name, ids in zip(names, each, strict=True)
        )
    )
    refuse_left_out(absent, " and ".join(names), allow_missing=allow_missing)
    common = sorted(shared)
    first, *others = (table.set_index("image_id").loc[common].reset_index() for table in tables)
    for other, name in zip(others, names[1:], strict=True):
        for column, what in agreed.items():
            differ = first[column].astype(object) != other[column].astype(object)
            if differ.any():
                raise DataError(
                    f"{int(differ.sum())} images have another {what} in {names[0]} than in "
                    f"{name}, such as {first.loc[differ, 'image_id'].iloc[0]}",
                    _REMEDY,
                )
    return [first, *others]


# Probabilities from out-of-fold tables.


def taxonomy_of(table: pd.DataFrame) -> Taxonomy:
    """Return the diagnoses in a table of out-of-fold logits.

    Raises:
        DataError: There are no logits.
    """
    names = [str(name) for name in table.columns if str(name).startswith("logit_")]
    codes = tuple(name.removeprefix("logit_") for name in names)
    if not codes:
        raise DataError("the table has no logits", "use one from `naevus train`")
    return taxonomy_with(codes)


def probabilities(
    table: pd.DataFrame, taxonomy: Taxonomy
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return natural and balanced probabilities, N x C each.

    Each row is corrected for the class weights and priors of the fold that predicted it.

    Args:
        table: ``logit_<code>``, ``class_prior_<code>`` and ``class_weight_<code>`` for every
            code, and ``fold`` if the table has several folds.
        taxonomy: The diagnoses.

    Raises:
        DataError: A column is missing, or a value is not a finite number.
    """
    columns = _columns(table, taxonomy)
    for names in columns.values():
        check_finite(table, names, "the table of predictions")
    natural = np.empty((len(table), len(taxonomy)))
    balanced = np.empty_like(natural)
    for rows in _trained_alike(table, columns["class_prior"] + columns["class_weight"]):
        logits = table[columns["logit"]].to_numpy(np.float64)[rows]
        class_priors, weights = (
            table[columns[kind]].to_numpy(np.float64)[rows[0]]
            for kind in ("class_prior", "class_weight")
        )
        natural[rows] = np.exp(natural_log_probabilities(logits, weights))
        balanced[rows] = np.exp(balanced_log_probabilities(logits, weights, class_priors))
    return natural, balanced


def combined(
    tables: Sequence[pd.DataFrame],
    taxonomy: Taxonomy,
    names: Sequence[str] = (),
    *,
    allow_missing: bool = False,
) -> pd.DataFrame:
    """Return the out-of-fold table of an ensemble of networks that all held out the images.

    Natural log-probabilities are averaged, as in an ensemble, and class priors geometrically.

    Args:
        tables: Tables for :func:`probabilities`, of runs over the same folds.
        taxonomy: The diagnoses.
        names: The names of the runs; by default their numbers.
        allow_missing: Whether to leave out images that are missing in some table.

    Returns:
        The images that are in all tables, sorted by id, with class weights of 1.

    Raises:
        DataError: A column is missing, no image is in all tables, some are not and
            ``allow_missing`` is false, or diagnoses or groups disagree.
    """
    if len(tables) == 1:
        return tables[0]
    columns = _columns(tables[0], taxonomy)
    numbered = [f"run {number}" for number in range(1, len(tables) + 1)]
    same = in_common(tables, names or numbered, AGREED, allow_missing=allow_missing)
    logits = np.mean([_natural_logarithms(table, taxonomy) for table in same], axis=0)
    with np.errstate(divide="ignore"):
        class_priors = [
            table[_columns(table, taxonomy)["class_prior"]].to_numpy(np.float64) for table in same
        ]
        fraction = np.exp(np.mean(np.log(class_priors), axis=0))
    result = same[0].copy()
    result[columns["logit"]] = logits
    result[columns["class_prior"]] = fraction / fraction.sum(axis=1, keepdims=True)
    result[columns["class_weight"]] = 1.0
    return result


def _natural_logarithms(table: pd.DataFrame, taxonomy: Taxonomy) -> NDArray[np.float64]:
    """Return natural log-probabilities, N x C: finite even where a probability underflows."""
    columns = _columns(table, taxonomy)
    for names in columns.values():
        check_finite(table, names, "the table of predictions")
    found = np.empty((len(table), len(taxonomy)))
    for rows in _trained_alike(table, columns["class_weight"]):
        logits = table[columns["logit"]].to_numpy(np.float64)[rows]
        weights = table[columns["class_weight"]].to_numpy(np.float64)[rows[0]]
        found[rows] = natural_log_probabilities(logits, weights)
    return found


def _columns(table: pd.DataFrame, taxonomy: Taxonomy) -> dict[str, list[str]]:
    codes = taxonomy.codes
    columns = {
        kind: [f"{kind}_{code}" for code in codes]
        for kind in ("logit", "class_prior", "class_weight")
    }
    absent = [name for names in columns.values() for name in names if name not in table.columns]
    if absent:
        raise DataError(f"the table has no column {absent[0]}", "use one from `naevus train`")
    return columns


def _trained_alike(table: pd.DataFrame, columns: list[str]) -> list[NDArray[np.intp]]:
    """Return the rows of each set of equal values in ``columns``, such as one fold."""
    found = table.groupby(columns, sort=False, dropna=False).indices.values()
    return [np.asarray(rows, np.intp) for rows in found]


# Predictions joined with the ground truth, and what can be evaluated of them.

_KNOWN = {
    "diagnosis": "diagnosis",
    "group_id": "group_id",
    "mask_path": "mask_path",
    "path": "image_path",
}


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
        unasked: Parts and splits of the data set without any predicted image, and their numbers
            of images with ground truth; these are not evaluated.
    """

    table: pd.DataFrame
    left_out: tuple[LeftOut, ...]
    unasked: dict[str, int]

    def notes(self) -> list[str]:
        """Return sentences about what is left out."""
        unasked = [
            f"{part}: none of its {count:,} images was predicted, so none is evaluated"
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
    """Join predictions with the ground truth of a data set.

    An image must have a prediction if another image of its part and split has one.

    Args:
        predictions: One row per image, with ``image_id``.
        records: The rows of a data set: ``image_id, diagnosis, group_id, mask_path, path``,
            ``lesion_id, patient_id`` if known, and ``part, split`` if it has several. For an image
            in several parts, each column takes the first known value.
        allow_missing: Whether images may lack a prediction or a ground truth.
        name: The name of the predictions in messages.

    Raises:
        DataError: An id occurs twice, a probability is not a finite number, or images lack a
            prediction or a ground truth and ``allow_missing`` is false.
    """
    check_ids(predictions, name)
    check_finite(predictions, numbers_of(predictions, ("prob", "balanced_prob")), name)
    attributes = [column for column in TRUE_MASKS.values() if column in records.columns]
    owners = [name for name in ("lesion_id", "patient_id") if name in records.columns]
    columns = ["image_id", *_KNOWN, *owners, *attributes]
    known = records[columns].groupby("image_id").first().rename(columns=_KNOWN)
    answered = set(predictions["image_id"])
    true = records[records[["diagnosis", "mask_path", *attributes]].notna().any(axis="columns")]
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
            f"{name}: the data set has no ground truth for these images",
            "name the data set that they are from, with a column diagnosis or with masks",
        )
    found = left_out(
        ("images with ground truth have no prediction", due - answered),
        ("predicted images are not in the data set", answered.difference(known.index)),
        (
            "predicted images have no ground truth",
            answered.intersection(known.index) - set(true["image_id"]),
        ),
    )
    refuse_left_out(found, name, allow_missing=allow_missing)
    there = predictions[predictions["image_id"].isin(known.index)]
    mine = there.drop(columns=list(known.columns), errors="ignore")
    table = mine.merge(known, left_on="image_id", right_index=True).reset_index(drop=True)
    return Joined(table, found, unasked)


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

        Also reports kinds of ground truth that nothing was predicted for.
        """
        notes = []
        for kind, column, found in (
            ("diagnosis", "diagnosis", None if self.classified is None else self.classified.table),
            ("mask", "mask_path", self.segmented),
            ("mask of attributes", "attribute_streaks", self.attributes),
        ):
            true = int(table[column].notna().sum()) if column in table.columns else 0
            if found is None and true:
                notes.append(f"{counted(true, 'image')} with a true {kind}, but none was predicted")
            elif found is not None and len(found) < len(table):
                notes.append(
                    f"{len(table) - len(found):,} of {len(table):,} images have no true {kind}: "
                    f"its figures leave them out"
                )
        given = "prediction_set" in table.columns and table["prediction_set"].notna().any()
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
