"""Writing Task 3's CSV so that the official tool accepts it and counts what was meant."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from naevus.errors import SubmissionError
from naevus.io.files import write_csv

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from naevus.taxonomy import Taxonomy

_UNITS = 10**9
"""Probabilities are written in billionths: nine decimals."""

_ROUNDING = 1e-6


def write_submission(
    path: Path,
    ids: Sequence[str],
    probabilities: NDArray[np.floating[Any]],
    taxonomy: Taxonomy,
) -> None:
    """Write a submission in the challenge's format, atomically.

    Every value has a decimal point (the official tool refuses a column of integers), and a largest
    value that would stand in its row twice (counted as wrong) stays with the first of its classes:
    the others are written a billionth smaller. Ids with commas or quotes are quoted.

    Args:
        path: The CSV to write.
        ids: N image ids, each once, in the order of the rows.
        probabilities: N x C, in the taxonomy's order, each row summing to 1.
        taxonomy: The C classes.

    Raises:
        SubmissionError: Lengths differ, an id comes twice, or a row is not probabilities.
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
    """Lower what ties with the class of the largest unrounded value."""
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
            raise SubmissionError(f"{image_id} is there {count} times", "submit it once")
        if not image_id or any(mark in image_id for mark in "\r\n"):
            raise SubmissionError(
                f"the image id {image_id!r} does not fit into a line of a CSV", "rename the picture"
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
