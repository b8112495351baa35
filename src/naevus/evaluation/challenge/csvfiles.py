"""The CSV files of Task 3: reading them, and what is refused in them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from naevus.errors import SubmissionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

WEIGHTS = ("score_weight", "validation_weight")
UNCOUNTED = "ISIC_0035068"
"""The one picture of the 2018 test set that the challenge took out of the count afterwards."""


class Refusal(NamedTuple):
    """Something for which a table is not scored at all."""

    kind: str
    message: str
    remedy: str


class Weights(NamedTuple):
    """How much each picture counts.

    The official tool sorts pictures by id but leaves the weights in the order of the truth file,
    and takes them by id only in the denominators of the balanced accuracy and in the partial AUC.
    In a truth sorted by id, as the published ones are, both are the same.
    """

    applied: NDArray[np.float64]
    """N, as they fall on the sorted pictures."""
    by_id: NDArray[np.float64]
    """N, as the truth file gives them to the sorted pictures."""


class Truth(NamedTuple):
    """The true classes, sorted by id: ids, codes, N x C values, and the two kinds of weight."""

    ids: list[str]
    codes: tuple[str, ...]
    values: NDArray[np.float64]
    score: Weights
    validation: Weights

    @property
    def misplaced(self) -> bool:
        """Whether the file's order makes a weight fall on another picture."""
        return any(
            not np.array_equal(weights.applied, weights.by_id)
            for weights in (self.score, self.validation)
        )


def read_truth(path: Path) -> Truth:
    """Read a ground truth: ``image``, a column a class, and optionally the two weights.

    Raises:
        SubmissionError: The file is absent, not a CSV, without ids or rows, or not numbers.
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
            f"{path}: a ground truth holds only finite numbers beside the column 'image'",
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
    """Read a submission and bring it into the truth's order of pictures and classes.

    Returns:
        N x C probabilities.

    Raises:
        SubmissionError: The official tool refuses it; the message names what it names first.
    """
    table = read_table(path)
    _raise_first(path, refusals(table, truth.codes, truth.ids))
    table["image"] = image_ids(table["image"])
    ordered = table.set_index("image").loc[truth.ids, list(truth.codes)]
    return ordered.to_numpy(dtype=np.float64)


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV as the official tool does.

    Raises:
        SubmissionError: The file is absent or cannot be parsed.
    """
    try:
        with warnings.catch_warnings():
            # Values beyond the last named column are dropped; the linter tells of them.
            warnings.simplefilter("ignore", pd.errors.ParserWarning)
            return pd.read_csv(path, header=0, index_col=False)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SubmissionError(
            f"{path}: could not be parsed as CSV ({reason})",
            "write a header line and one line of the same length for each picture",
        ) from error


def refusals(
    table: pd.DataFrame, codes: Sequence[str], expected_ids: Sequence[str] | None = None
) -> Iterator[Refusal]:
    """Yield everything for which the official tool refuses a table, in its order.

    Args:
        table: As :func:`read_table` returns it.
        codes: The classes that must each have a column.
        expected_ids: The pictures that must each have a row, if they are known.
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
            "keep one row for each picture",
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
            "predict every picture of the challenge's input folder",
        )
    extra = sorted(given - expected)
    if extra:
        yield Refusal(
            "extra row",
            f"extra images: {_names(extra)}",
            "take out rows of pictures that are not in the challenge's input folder",
        )


def image_ids(column: pd.Series) -> pd.Series:
    """Return ids as the official tool understands them: texts, without a final ``.jpg``."""
    return column.astype(str).str.replace(r"\.jpg$", "", case=False, regex=True)


def _names(names: Sequence[object], most: int = 5) -> str:
    shown = ", ".join(str(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _raise_first(path: Path, found: Iterator[Refusal]) -> None:
    for refusal in found:
        raise SubmissionError(f"{path}: {refusal.message}", refusal.remedy)
