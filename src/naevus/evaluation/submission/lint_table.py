"""What is wrong with Task 3's CSV."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np

from naevus.errors import SubmissionError
from naevus.evaluation.challenge.csvfiles import image_ids, read_table, refusals
from naevus.evaluation.submission.finding import Finding
from naevus.taxonomy import ISIC2018

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pandas as pd

_SUM_TOLERANCE = 0.01


def lint_classification(
    path: Path,
    expected_ids: Sequence[str] | None = None,
    codes: Sequence[str] = ISIC2018.codes,
) -> list[Finding]:
    """Find what the official tool refuses in a Task 3 submission, or counts as wrong.

    Args:
        path: The CSV.
        expected_ids: The pictures of the challenge, if they are known; without them neither a
            missing row nor an extra one can be found.
        codes: The classes that must each have a column.

    Returns:
        Findings, refusals first; none where the submission is sound.

    Raises:
        SubmissionError: The file is not there.
    """
    if not path.is_file():
        raise SubmissionError(f"{path}: no such file", "name the CSV that is to be uploaded")
    try:
        table = read_table(path)
    except SubmissionError as error:
        return [Finding("not a CSV", "refused", path.name, error.message, error.remedy)]
    found = [
        Finding(refusal.kind, "refused", path.name, refusal.message, refusal.remedy)
        for refusal in refusals(table, codes, expected_ids)
    ]
    return [*found, *_silent(table, codes), *_ragged(path)]


def _silent(table: pd.DataFrame, codes: Sequence[str]) -> Iterator[Finding]:
    """Yield what is scored, but not as its author means."""
    present = [code for code in codes if code in table.columns]
    if "image" not in table.columns or len(present) != len(codes) or table.empty:
        return
    numbers = table[present].select_dtypes("number")
    if len(numbers.columns) != len(present):
        return
    ids, values = image_ids(table["image"]), numbers.to_numpy(dtype=np.float64)
    known = np.isfinite(values).all(axis=1)
    largest = values == values.max(axis=1, keepdims=True)
    for row in np.flatnonzero(known & (largest.sum(axis=1) > 1)).tolist():
        names = " and ".join(code for code, top in zip(present, largest[row], strict=True) if top)
        yield Finding(
            "tie",
            "loses points",
            ids.iloc[row],
            f"{names} share the largest value {values[row].max():g}; a tie counts as wrong",
            "write more decimals, or lower all but one of them a little",
        )
    sums = values.sum(axis=1)
    for row in np.flatnonzero(known & (np.abs(sums - 1) > _SUM_TOLERANCE)).tolist():
        yield Finding(
            "sum",
            "tidy",
            ids.iloc[row],
            f"the values sum to {sums[row]:.4g}, not to 1; they are scored as they stand",
            "divide each row by its sum",
        )


def _ragged(path: Path) -> Iterator[Finding]:
    """Yield lines with more cells than the header; what is beyond it is dropped in silence."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.reader(stream)
            width = len(next(rows, []))
            longer = [rows.line_num for row in rows if len(row) > width]
    except (OSError, UnicodeDecodeError, csv.Error):
        return
    if longer:
        yield Finding(
            "extra cells",
            "loses points",
            path.name,
            f"{len(longer)} lines have more cells than the header, line {longer[0]} first; "
            "what is beyond it is dropped",
            "write as many cells in each line as the header has, without a comma at the end",
        )
