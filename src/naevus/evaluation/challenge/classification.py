"""Task 3 of the challenge: read, write and score its CSV files."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from naevus.errors import SubmissionError
from naevus.evaluation.classification import auc_above_sensitivity, auc_of, average_precision_of
from naevus.io.files import write_csv
from naevus.io.limits import SMALLER, TooLargeError, check_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from naevus.taxonomy import Taxonomy


# Reading the CSV files of Task 3, and the reasons for refusing them.

WEIGHTS = ("score_weight", "validation_weight")
UNCOUNTED = "ISIC_0035068"
"""An image of the 2018 test set that the challenge later excluded from scoring."""


class Refusal(NamedTuple):
    """A reason for refusing to score a table."""

    kind: str
    message: str
    remedy: str


class Weights(NamedTuple):
    """The weight of each image.

    The official tool sorts images by id but leaves the weights in the order of the ground-truth
    file. It uses weights by id only for the denominators of the balanced accuracy and the partial
    AUC. If the ground truth is sorted by id, as the published files are, both are the same.
    """

    applied: NDArray[np.float64]
    """N weights by id."""
    by_id: NDArray[np.float64]
    """N weights in the order of the file, applied to the sorted images."""


class Truth(NamedTuple):
    """The true classes, sorted by id: ids, codes, N x C values, and both kinds of weight."""

    ids: list[str]
    codes: tuple[str, ...]
    values: NDArray[np.float64]
    score: Weights
    validation: Weights

    @property
    def misplaced(self) -> bool:
        """Whether the order of the file gives images the weights of others."""
        return any(
            not np.array_equal(weights.applied, weights.by_id)
            for weights in (self.score, self.validation)
        )


def read_truth(path: Path) -> Truth:
    """Read a ground truth: ``image``, one column per class, and optionally the two weights.

    Raises:
        SubmissionError: The file is missing, not a CSV, without ids or rows, or not numeric.
    """
    table = read_table(path)
    if "image" not in table.columns or table.empty:
        raise SubmissionError(
            f"{path}: no column 'image', or no rows", "give the challenge's GroundTruth.csv"
        )
    table["image"] = image_ids(table["image"])
    _raise_first(path, _duplicates(table))
    table = table.set_index("image")
    codes = tuple(str(name) for name in table.columns if name not in WEIGHTS)
    numbers = table.apply(pd.to_numeric, errors="coerce")
    if not codes or not np.isfinite(numbers.to_numpy(np.float64)).all():
        raise SubmissionError(
            f"{path}: all columns except 'image' must contain finite numbers",
            "give the challenge's GroundTruth.csv",
        )
    rows = numbers.sort_index()
    return Truth(
        rows.index.tolist(),
        codes,
        rows[list(codes)].to_numpy(dtype=np.float64),
        *(_weights(numbers, name) for name in WEIGHTS),
    )


def _weights(numbers: pd.DataFrame, name: str) -> Weights:
    given = numbers[name] if name in numbers else pd.Series(1.0, index=numbers.index)
    counted = given.astype(np.float64).where(numbers.index != UNCOUNTED, 0.0)
    by_id = counted.sort_index()
    return Weights(np.asarray(counted, np.float64), np.asarray(by_id, np.float64))


def read_prediction(path: Path, truth: Truth) -> NDArray[np.float64]:
    """Read a submission, in the ground truth's order of images and classes.

    Returns:
        N x C probabilities.

    Raises:
        SubmissionError: The official tool refuses it; the message gives the first reason.
    """
    table = read_table(path)
    _raise_first(path, refusals(table, truth.codes, truth.ids))
    table["image"] = image_ids(table["image"])
    ordered = table.set_index("image").loc[truth.ids, list(truth.codes)]
    return ordered.to_numpy(dtype=np.float64)


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV as the official tool does.

    Raises:
        SubmissionError: The file is missing or too large, or cannot be parsed.
    """
    try:
        check_text(path, ",")
        with warnings.catch_warnings():
            # Values beyond the last named column are dropped; the linter reports them.
            warnings.simplefilter("ignore", pd.errors.ParserWarning)
            return pd.read_csv(path, header=0, index_col=False)
    except TooLargeError as error:
        raise SubmissionError(f"{path}: {error}", SMALLER) from error
    except FileNotFoundError as error:
        raise SubmissionError(
            f"{path} does not exist", "name a CSV file, or a folder of masks"
        ) from error
    except OSError as error:
        raise SubmissionError(
            f"{path}: cannot be read ({error.strerror or error})", "name a CSV file"
        ) from error
    except ValueError as error:
        raise SubmissionError(
            f"{path}: could not be parsed as CSV ({error})",
            "write a header line, and one line of the same length per image",
        ) from error


def refusals(
    table: pd.DataFrame, codes: Sequence[str], expected_ids: Sequence[str] | None = None
) -> Iterator[Refusal]:
    """Yield every reason for which the official tool refuses a table, in its order.

    Args:
        table: From :func:`read_table`.
        codes: The classes that need a column.
        expected_ids: The images that need a row, if known.
    """
    if "image" not in table.columns:
        yield Refusal(
            "missing column", "missing column 'image'", "name the column of image ids 'image'"
        )
        return
    table = table.assign(image=image_ids(table["image"]))
    yield from _duplicates(table)
    yield from _columns(table, codes)
    yield from _values(table.set_index("image"), codes)
    if expected_ids is not None:
        yield from _rows(set(table["image"]), set(expected_ids))


def _duplicates(table: pd.DataFrame) -> Iterator[Refusal]:
    twice = table.loc[table["image"].duplicated(), "image"].unique().tolist()
    if twice:
        yield Refusal(
            "duplicate row",
            f"duplicate image rows: {_names(twice)}",
            "keep one row per image",
        )


def _columns(table: pd.DataFrame, codes: Sequence[str]) -> Iterator[Refusal]:
    missing = [code for code in codes if code not in table.columns]
    if missing:
        yield Refusal(
            "missing column",
            f"missing columns: {_names(missing)}",
            f"give a column for each of {', '.join(codes)}",
        )
    extra = [str(name) for name in table.columns if name not in {"image", *codes}]
    if extra:
        yield Refusal(
            "extra column",
            f"extra columns: {_names(extra)}",
            f"keep only image, {', '.join(codes)}",
        )


def _values(table: pd.DataFrame, codes: Sequence[str]) -> Iterator[Refusal]:
    table = table[[code for code in codes if code in table.columns]]
    empty = table.index[table.isna().any(axis="columns")].tolist()
    if empty:
        yield Refusal(
            "missing value", f"missing values for images: {_names(empty)}", "fill every cell"
        )
    floats = (table.dtypes == np.float64).to_numpy()
    if not floats.all():
        names = table.columns[~floats].tolist()
        yield Refusal(
            "not floating-point",
            f"non-floating-point values in columns: {_names(names)}",
            "write every value as a number with a decimal point (0.0, not 0); "
            "a column of integers alone is refused",
        )
    numbers = table.loc[:, floats]
    outside = table.index[((numbers < 0) | (numbers > 1)).any(axis="columns")].tolist()
    if outside:
        yield Refusal(
            "out of range",
            f"values outside the interval [0.0, 1.0] for images: {_names(outside)}",
            "write probabilities, not logits or percentages",
        )


def _rows(given: set[str], expected: set[str]) -> Iterator[Refusal]:
    missing = sorted(expected - given)
    if missing:
        yield Refusal(
            "missing row",
            f"missing images: {_names(missing)}",
            "predict every image of the challenge's input folder",
        )
    extra = sorted(given - expected)
    if extra:
        yield Refusal(
            "extra row",
            f"extra images: {_names(extra)}",
            "delete the rows of images that are not in the challenge's input folder",
        )


def image_ids(column: pd.Series) -> pd.Series:
    """Return ids as the official tool reads them: strings without a final ``.jpg``."""
    return column.astype(str).str.replace(r"\.jpg$", "", case=False, regex=True)


def _names(names: Sequence[object], most: int = 5) -> str:
    shown = ", ".join(str(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _raise_first(path: Path, found: Iterator[Refusal]) -> None:
    for refusal in found:
        raise SubmissionError(f"{path}: {refusal.message}", refusal.remedy)


# Writing Task 3's CSV so that the official tool accepts and scores it as intended.

_UNITS = 10**9
"""Probabilities are written with nine decimals."""

_ROUNDING = 1e-6


def write_submission(
    path: Path,
    ids: Sequence[str],
    probabilities: NDArray[np.floating[Any]],
    taxonomy: Taxonomy,
) -> None:
    """Write a submission in the challenge's format, atomically.

    Every value has a decimal point, because the official tool refuses a column of integers. Ties
    for the largest value, which count as wrong, are broken in favour of the first class by
    lowering the others by a billionth. Ids with commas or quotes are quoted.

    Args:
        path: The CSV to write.
        ids: N unique image ids, in the order of the rows.
        probabilities: N x C, in the taxonomy's order, each row summing to 1.
        taxonomy: The C classes.

    Raises:
        SubmissionError: Lengths differ, an id occurs twice, or a row does not contain
            probabilities.
        NaevusError: The file cannot be written.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    _check(ids, values, taxonomy)
    billionths = _without_ties(np.rint(values.clip(0.0, 1.0) * _UNITS).astype(np.int64), values)
    rows = (
        (image_id, *(f"{n // _UNITS}.{n % _UNITS:09d}" for n in row))
        for image_id, row in zip(ids, billionths.tolist(), strict=True)
    )
    write_csv(path, ("image", *taxonomy.codes), rows)


def _without_ties(billionths: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Lower values that tie with the class of the largest unrounded value."""
    tied = billionths == billionths.max(axis=1, keepdims=True, initial=0)
    tied[np.arange(len(values)), values.argmax(axis=1)] = False
    lowered: NDArray[np.int64] = billionths - tied
    return lowered


def _check(ids: Sequence[str], values: NDArray[np.float64], taxonomy: Taxonomy) -> None:
    if values.shape != (len(ids), len(taxonomy)):
        raise SubmissionError(
            f"{len(ids)} ids and probabilities {values.shape} do not make a submission",
            f"give {len(taxonomy)} probabilities for each id",
        )
    for image_id, count in Counter(ids).items():
        if count > 1:
            raise SubmissionError(f"{image_id} occurs {count} times", "submit it once")
        if not image_id or any(mark in image_id for mark in "\r\n"):
            raise SubmissionError(
                f"the image id {image_id!r} is empty or contains a line break", "rename the image"
            )
    inside = (values >= -_ROUNDING) & (values <= 1 + _ROUNDING)
    summing = np.abs(values.sum(axis=1) - 1) <= 1e-3
    bad = ~(inside.all(axis=1) & summing)
    if bad.any():
        row = int(bad.argmax())
        raise SubmissionError(
            f"{ids[row]}: {values[row].tolist()} are not probabilities",
            "submit values between 0 and 1 that sum to 1",
        )


UNDECIDED = -1
"""The predicted class of a row with a tie for the largest value; it is never correct."""

_THRESHOLD = 0.5
_SENSITIVITY = 0.80


def score_classification(truth_csv: Path, prediction_csv: Path) -> dict[str, Any]:
    """Score a Task 3 submission as in the challenge.

    Args:
        truth_csv: The GroundTruth.csv; the optional columns ``score_weight`` and
            ``validation_weight`` default to 1.
        prediction_csv: The submission.

    Returns:
        ``overall`` (the balanced accuracy), ``validation``, ``per_category`` (by score, then by
        class), ``macro_average``, ``aggregate``. If a class has no image in the ground truth, its
        undefined scores are None, averages are over the other classes, and ``notes`` reports it.

    Raises:
        SubmissionError: The official tool refuses the submission, or the ground truth is invalid.
        NaevusError: scikit-learn is not installed.
    """
    truth = read_truth(truth_csv)
    prediction = read_prediction(prediction_csv, truth)
    actual, predicted = decided(truth.values), decided(prediction)
    overall = _balanced_accuracy(actual, predicted, truth.score)
    if overall is None:
        raise SubmissionError(f"{truth_csv}: no image counts", "give a ground truth with classes")
    scores = {
        code: _category(truth.values[:, c], prediction[:, c], truth.score)  # noqa: PD011
        for c, code in enumerate(truth.codes)
    }
    names = list(next(iter(scores.values())))
    per_category = {name: {code: scores[code][name] for code in truth.codes} for name in names}
    result: dict[str, Any] = {
        "overall": overall,
        "validation": _balanced_accuracy(actual, predicted, truth.validation),
        "per_category": per_category,
        "macro_average": {name: _mean(values) for name, values in per_category.items()},
        "aggregate": {"balanced_accuracy": overall},
    }
    notes = _notes(truth, [code for code in truth.codes if scores[code]["sensitivity"] is None])
    return result | ({"notes": notes} if notes else {})


def _notes(truth: Truth, absent: list[str]) -> list[str]:
    notes = []
    if absent:
        names = ", ".join(absent)
        notes.append(
            f"{names}: no weighted image in the ground truth; averages are over the other classes "
            "(the official tool fails in this case)"
        )
    if truth.misplaced:
        notes.append(
            "the ground truth is not sorted by image id, so weights apply to other images than "
            "those of their rows, as in the official tool; sort it"
        )
    return notes


def decided(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return each row's class, or ``UNDECIDED`` if the largest value occurs twice.

    Args:
        values: N x C.
    """
    largest = values == values.max(axis=1, keepdims=True)
    return np.where(largest.sum(axis=1) == 1, largest.argmax(axis=1), UNDECIDED)


def _balanced_accuracy(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], weights: Weights
) -> float | None:
    """Return the mean weighted recall of the classes with weight; None if there are none."""
    recalls = []
    for category in np.unique(truth[truth != UNDECIDED]):
        of_class = truth == category
        total = weights.by_id[of_class].sum()
        if total > 0:
            recalls.append(weights.applied[of_class & (predicted == category)].sum() / total)
    return float(np.mean(recalls)) if recalls else None


def _category(
    truth: NDArray[np.float64], prediction: NDArray[np.float64], score: Weights
) -> dict[str, float | None]:
    """Score one class against the others; values above 0.5 count as positive."""
    weights = score.applied
    is_true, says_true = truth > _THRESHOLD, prediction > _THRESHOLD
    tp = float(weights[is_true & says_true].sum())
    fn = float(weights[is_true & ~says_true].sum())
    fp = float(weights[~is_true & says_true].sum())
    tn = float(weights[~is_true & ~says_true].sum())
    return {
        "accuracy": _ratio(tp + tn, tp + tn + fp + fn),
        "sensitivity": _ratio(tp, tp + fn) if tp + fn else None,
        "specificity": _ratio(tn, tn + fp) if tn + fp else None,
        "dice": _ratio(2 * tp, 2 * tp + fp + fn),
        "ppv": _ratio(tp, tp + fp),
        "npv": _ratio(tn, tn + fn),
        "auc": auc_of(is_true, prediction, weights),
        "auc_sens_80": auc_above_sensitivity(is_true, prediction, _SENSITIVITY, score.by_id),
        "ap": average_precision_of(is_true, prediction, weights),
    }


def _ratio(part: float, whole: float) -> float:
    """Return ``part / whole``; 1 if the denominator is 0, as in the challenge."""
    return part / whole if whole else 1.0


def _mean(values: dict[str, float | None]) -> float | None:
    known = [value for value in values.values() if value is not None]
    return float(np.mean(known)) if known else None
