"""How well a mask covers a lesion, for one picture and over many."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from naevus.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

JACCARD_THRESHOLD = 0.65
"""Below it the challenge counts a mask as failed: the readers' own agreement (Codella 2019)."""


class MaskScore(NamedTuple):
    """How one mask compares with the truth; every value is in [0, 1].

    A ratio without a denominator counts as 1: empty against empty is a perfect answer.
    """

    jaccard: float
    dice: float
    sensitivity: float
    specificity: float
    accuracy: float
    thresholded: float
    """The Jaccard index, or 0 where it is below 0.65."""


def compare_masks(truth: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> MaskScore:
    """Compare two masks pixel by pixel, as ISIC 2018 Task 1 does.

    Args:
        truth: H x W, true on the lesion.
        prediction: H x W, of the same size.

    Returns:
        The scores of this one picture.

    Raises:
        DataError: The masks differ in size.

    Examples:
        >>> truth = np.array([[1, 1, 1, 1], [0, 0, 0, 0]], bool)
        >>> prediction = np.array([[1, 1, 0, 0], [0, 0, 0, 0]], bool)
        >>> score = compare_masks(truth, prediction)
        >>> score.jaccard, score.sensitivity, score.thresholded
        (0.5, 0.5, 0.0)
    """
    if truth.shape != prediction.shape:
        raise DataError(
            f"a mask of {_size(prediction)} pixels against a truth of {_size(truth)}",
            "bring masks to the picture's size before comparing",
        )
    both = int(np.count_nonzero(truth & prediction))
    missed = int(np.count_nonzero(truth)) - both
    extra = int(np.count_nonzero(prediction)) - both
    neither = truth.size - both - missed - extra
    jaccard = _ratio(both, both + missed + extra)
    return MaskScore(
        jaccard=jaccard,
        dice=_ratio(2 * both, 2 * both + missed + extra),
        sensitivity=_ratio(both, both + missed),
        specificity=_ratio(neither, neither + extra),
        accuracy=_ratio(both + neither, truth.size),
        thresholded=jaccard if jaccard >= JACCARD_THRESHOLD else 0.0,
    )


@dataclass(frozen=True)
class SegmentationScores:
    """Task 1 over many pictures: means over pictures, not over pixels."""

    pictures: int
    jaccard: float
    thresholded_jaccard: float
    dice: float
    sensitivity: float
    specificity: float
    accuracy: float
    below_threshold: float
    """The share of pictures with a Jaccard index below 0.65."""
    worst: tuple[tuple[str, float], ...]
    """Image id and Jaccard index of the worst masks, worst first."""

    @classmethod
    def from_table(cls, table: pd.DataFrame, *, worst: int = 10) -> SegmentationScores:
        """Take the means of a table of mask scores.

        Args:
            table: One row a picture: ``image_id`` and the fields of :class:`MaskScore`.
            worst: How many of the worst masks to list.

        Raises:
            DataError: The table is empty, lacks a column, or holds an id twice or a missing score.
        """
        _check(table)
        means = table[list(MaskScore._fields)].astype(float).mean()
        order = table.sort_values(["jaccard", "image_id"]).head(worst)
        return cls(
            pictures=len(table),
            jaccard=float(means["jaccard"]),
            thresholded_jaccard=float(means["thresholded"]),
            dice=float(means["dice"]),
            sensitivity=float(means["sensitivity"]),
            specificity=float(means["specificity"]),
            accuracy=float(means["accuracy"]),
            below_threshold=float((table["jaccard"] < JACCARD_THRESHOLD).mean()),
            worst=tuple(
                (str(image_id), float(jaccard))
                for image_id, jaccard in zip(order["image_id"], order["jaccard"], strict=True)
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as a dictionary that JSON can hold."""
        values = asdict(self)
        values["worst"] = [
            {"image_id": image_id, "jaccard": jaccard} for image_id, jaccard in self.worst
        ]
        return values


def _check(table: pd.DataFrame) -> None:
    absent = [name for name in ("image_id", *MaskScore._fields) if name not in table.columns]
    if absent:
        raise DataError(f"the table of mask scores has no column {', '.join(absent)}")
    if table.empty:
        raise DataError("no mask was scored", "give pictures that have a true mask")
    if table["image_id"].duplicated().any():
        twice = table.loc[table["image_id"].duplicated(), "image_id"].iloc[0]
        raise DataError(f"{twice} was scored twice", "score every picture once")
    missing = table[list(MaskScore._fields)].isna().any(axis="columns")
    if missing.any():
        raise DataError(f"{table.loc[missing, 'image_id'].iloc[0]} has no score")


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def _size(mask: NDArray[np.bool_]) -> str:
    return " x ".join(str(length) for length in mask.shape)
