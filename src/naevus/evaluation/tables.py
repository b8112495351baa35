"""Tables of answers: sound ids, finite numbers, and joins that lose nothing unsaid."""

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
from naevus.taxonomy import taxonomy_with

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from naevus.taxonomy import Taxonomy


ALLOW: Final = "allow it with --allow-missing (from Python allow_missing=True): they are left out"

REMAKE: Final = "predict or train again, or take such rows out and say so"


class LeftOut(NamedTuple):
    """Images that a join leaves out: in words what they are, and their ids (at least one)."""

    what: str
    ids: tuple[str, ...]

    @property
    def answerless(self) -> bool:
        """Whether these are images without an answer."""
        return "no answer" in self.what

    def __str__(self) -> str:
        """Tell how many there are, and one of them."""
        if len(self.ids) == 1:
            one = self.what.replace("images", "image", 1)
            for many, single in (("have", "has"), ("are", "is")):
                one = one.replace(f" {many} ", f" {single} ", 1)
            return f"1 {one}: {self.ids[0]}"
        return f"{len(self.ids):,} {self.what}, such as {self.ids[0]}"


def left_out(*found: tuple[str, Collection[str]]) -> tuple[LeftOut, ...]:
    """Return what is left out of a join, in words and sorted ids, without what there is none of."""
    return tuple(LeftOut(what, tuple(sorted(ids))) for what, ids in found if ids)


def refuse_left_out(found: Sequence[LeftOut], where: str, *, allow_missing: bool) -> None:
    """Refuse a join that leaves images out.

    Args:
        found: What it leaves out.
        where: The file or folder, for the message.
        allow_missing: Whether that is allowed.

    Raises:
        DataError: It does, and it is not allowed.

    Examples:
        >>> found = left_out(("images have no answer", {"b", "a"}), ("others", ()))
        >>> refuse_left_out(found, "answers", allow_missing=True)
        >>> print(*found)
        2 images have no answer, such as a
    """
    if found and not allow_missing:
        raise DataError(f"{where}: {'; '.join(map(str, found))}", ALLOW)


def check_ids(table: pd.DataFrame, name: str) -> None:
    """Refuse a table without image ids, or with one twice.

    Raises:
        DataError: It is one.
    """
    if "image_id" not in table.columns:
        raise DataError(f"{name}: has no column image_id", "name a table of answers")
    if table["image_id"].isna().any():
        raise DataError(f"{name}: has a row without image_id", "make it again")
    twice = table.loc[table["image_id"].duplicated(), "image_id"]
    if len(twice):
        raise DataError(f"{name}: {twice.iloc[0]} stands twice", "keep one row an image")


def check_finite(table: pd.DataFrame, columns: Iterable[str], name: str) -> None:
    """Refuse a table with an empty, NaN or infinite number: it can neither count nor be dropped.

    Args:
        table: One row an image, with ``image_id``.
        columns: Those that must be finite numbers; all of them are there.
        name: The file, for the message.

    Raises:
        DataError: A value is none; the message names the file, the image and the column.
    """
    for column in columns:
        try:
            values = table[column].to_numpy(np.float64, na_value=np.nan)
        except (TypeError, ValueError):
            raise DataError(f"{name}: column {column} does not hold numbers", REMAKE) from None
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            row = wrong[0]
            image = table["image_id"].iloc[row] if "image_id" in table.columns else f"row {row}"
            more = f" (and so for {len(wrong) - 1:,} more)" if len(wrong) > 1 else ""
            raise DataError(
                f"{name}: {image}: {column} is {values[row]:g}, no finite number{more}", REMAKE
            )


def numbers_of(table: pd.DataFrame, kinds: Iterable[str]) -> list[str]:
    """Return the columns of some kinds, such as ``logit_MEL`` and ``logit_NV`` of ``logit``."""
    return [name for name in map(str, table.columns) if is_kind(name, kinds)]


# Tables brought to the images they have in common.

_REMEDY: Final = "name runs over the same data and folds"
AGREED: Final = {"diagnosis": "diagnosis", "group_id": "group"}
"""What tables of diagnoses must agree on."""


def in_common(
    tables: Sequence[pd.DataFrame],
    names: Sequence[str],
    agreed: Mapping[str, str],
    *,
    allow_missing: bool = False,
) -> list[pd.DataFrame]:
    """Return the rows of the images that are in all tables, in the order of their ids.

    Args:
        tables: One row an image each, with ``image_id`` and the columns of ``agreed``.
        names: What the tables are called.
        agreed: Columns that must say the same in all, each with what it is called.
        allow_missing: Whether images may be left out that are not in all tables.

    Raises:
        DataError: A table holds an id twice or none, no image is in all, some are not in all
            and that is not allowed, or they disagree.
    """
    for table, name in zip(tables, names, strict=True):
        check_ids(table, name)
    each = [set(table["image_id"]) for table in tables]
    shared, every = set.intersection(*each), set.union(*each)
    if not shared:
        raise DataError(f"{' and '.join(names)} have no image in common", _REMEDY)
    absent = left_out(
        *(
            (f"images have no answer in {name}", every - ids)
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


# Scores of out-of-fold tables: what a recipe does on images its networks never saw.


def taxonomy_of(table: pd.DataFrame) -> Taxonomy:
    """Return the diagnoses that a table of out-of-fold logits is about.

    Raises:
        DataError: There are no logits.
    """
    names = [str(name) for name in table.columns if str(name).startswith("logit_")]
    codes = tuple(name.removeprefix("logit_") for name in names)
    if not codes:
        raise DataError("the table has no logits", "use one made by `naevus train`")
    return taxonomy_with(codes)


def probabilities(
    table: pd.DataFrame, taxonomy: Taxonomy
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return natural and balanced probabilities, N x C each.

    Each row is freed of the weights and fractions of the fold that predicted it.

    Args:
        table: ``logit_<code>``, ``class_prior_<code>`` and ``class_weight_<code>`` for every
            code, and ``fold`` where several folds stand in one table.
        taxonomy: The diagnoses.

    Raises:
        DataError: A column is missing, or a value is no finite number.
    """
    columns = _columns(table, taxonomy)
    for names in columns.values():
        check_finite(table, names, "the table of answers")
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
    """Return the table of networks that answer as one, each having held the image out.

    As in an ensemble, natural log-probabilities are averaged, and shares geometrically with them.

    Args:
        tables: What :func:`probabilities` reads, of runs over the same folds.
        taxonomy: The diagnoses.
        names: What the runs are called; by default by their number.
        allow_missing: Whether images may be left out that are not in all tables.

    Returns:
        The images that are in all of them, sorted, with weights of 1.

    Raises:
        DataError: A column is missing, no image is in all tables, some are not and that is not
            allowed, or they disagree on what one shows or on its group.
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
    """Return natural log-probabilities, N x C: finite where a probability would come to 0."""
    columns = _columns(table, taxonomy)
    for names in columns.values():
        check_finite(table, names, "the table of answers")
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
        raise DataError(f"the table has no column {absent[0]}", "use one made by `naevus train`")
    return columns


def _trained_alike(table: pd.DataFrame, columns: list[str]) -> list[NDArray[np.intp]]:
    """Return the rows of each fold: those with the same values in ``columns``."""
    found = table.groupby(columns, sort=False, dropna=False).indices.values()
    return [np.asarray(rows, np.intp) for rows in found]


# Predictions beside the truth: what can be judged of a table of them, and what not.

_KNOWN = {
    "diagnosis": "diagnosis",
    "group_id": "group_id",
    "mask_path": "mask_path",
    "path": "image_path",
}


class LabelledPredictions(NamedTuple):
    """Images with their true diagnosis and probabilities.

    Attributes:
        table: ``image_id, group_id, diagnosis``; maybe ``fold`` and ``lesion_id``.
        natural: N x C.
        balanced: N x C.
        taxonomy: The C diagnoses.
        folded: How classes were folded to be scored; empty where they were not.
        sets: N x C, the prediction sets as they were given; None where there are none.
        coverage: What the given sets promise.
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
        """N true codes."""
        codes: list[str] = self.table["diagnosis"].tolist()
        return codes

    @property
    def groups(self) -> list[str]:
        """N groups."""
        names: list[str] = self.table["group_id"].tolist()
        return names

    @property
    def balanced_codes(self) -> list[str]:
        """N codes with the largest balanced probability."""
        return self._codes(self.balanced)

    @property
    def natural_codes(self) -> list[str]:
        """N codes with the largest natural probability."""
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
    """Predictions with what a data set knows of their images.

    Attributes:
        table: The rows of known images with ``diagnosis``, ``group_id``, ``mask_path`` and
            ``image_path``.
        left_out: Images with an answer and no ground truth, or the other way round.
        unasked: Parts and splits of the data set of which no image was predicted, and how many
            images with ground truth they have: they count for nothing.
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
    """Join predictions with what a data set knows of their images.

    An image is due where another of its part and split was predicted.

    Args:
        predictions: One row an image, with ``image_id``.
        records: A data set's rows: ``image_id, diagnosis, group_id, mask_path, path``,
            ``lesion_id`` if known, and ``part, split`` where it has several. Of an image that
            stands in several parts, each column is the first that is known.
        allow_missing: Whether images may lack an answer or a ground truth.
        name: What the predictions are called in errors.

    Raises:
        DataError: An image stands twice, a probability is no finite number, or images lack an
            answer or a ground truth and that is not allowed.
    """
    check_ids(predictions, name)
    check_finite(predictions, numbers_of(predictions, ("prob", "balanced_prob")), name)
    attributes = [column for column in TRUE_MASKS.values() if column in records.columns]
    lesions = ["lesion_id"] if "lesion_id" in records.columns else []
    columns = ["image_id", *_KNOWN, *lesions, *attributes]
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
            f"{name}: the data set has no truth for these images",
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


class Evaluated(NamedTuple):
    """What there is to judge of predictions; at least one of both.

    Attributes:
        classified: Images with a true diagnosis.
        segmented: What `compare_folder` gives of images with a true mask, and ``group_id``.
        attributes: What `compare_attributes` gives of images whose attributes are known.
    """

    classified: LabelledPredictions | None
    segmented: pd.DataFrame | None
    attributes: pd.DataFrame | None = None

    def notes(self, table: pd.DataFrame) -> list[str]:
        """Return of how many images of ``table`` (from `with_truth`) a kind of truth is absent.

        Also what is true of images and was not predicted of any.
        """
        notes = []
        for kind, column, found in (
            ("diagnosis", "diagnosis", None if self.classified is None else self.classified.table),
            ("mask", "mask_path", self.segmented),
            ("mask of attributes", "attribute_streaks", self.attributes),
        ):
            true = int(table[column].notna().sum()) if column in table.columns else 0
            if found is None and true:
                notes.append(f"{true:,} images have a true {kind} and none was predicted")
            elif found is not None and len(found) < len(table):
                notes.append(
                    f"{len(table) - len(found):,} of {len(table):,} images have no true {kind}: "
                    f"they are not in its figures"
                )
        given = "prediction_set" in table.columns and table["prediction_set"].notna().any()
        if self.classified is not None and self.classified.sets is None and given:
            notes.append("prediction sets are not scored: it is not known what they promise")
        return notes


def evaluated(
    table: pd.DataFrame,
    taxonomy: Taxonomy,
    masks: Path,
    benign: Sequence[str] = (),
    attributes: Path | None = None,
    coverage: float | None = None,
) -> Evaluated:
    """Judge predictions by their truth.

    Args:
        table: From `with_truth`; ``prob_<code>`` and ``balanced_prob_<code>``, natural and balanced
            probabilities, if there are diagnoses.
        taxonomy: The diagnoses of the truth.
        masks: The folder of predicted masks; it need not be there.
        benign: Classes that count as benign where they are folded into benign and malignant.
        attributes: The folder of predicted masks of attributes; it need not be there.
        coverage: What the prediction sets of ``table`` promise; None where it has none.

    Raises:
        DataError: There is no truth at all, the taxonomies of truth and predictions do not meet,
            or a predicted mask is absent or of another size.
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
            "the data set has no truth for these images", "name the one that they are from"
        )
    return found


def oof_classified(table: pd.DataFrame) -> LabelledPredictions:
    """Return what an out-of-fold table of logits says.

    Raises:
        DataError: It is none.
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
                f"{image_id}: its prediction_set is {'absent' if inside is None else 'strange'}",
                REMAKE,
            )
    found = [[code in inside for code in codes] for inside in map(set, given)]
    return np.array(found, bool).reshape(len(rows), len(codes))


def predicted_codes(table: pd.DataFrame) -> list[str]:
    """Return the classes that a table of predictions has both kinds of probability of."""
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
