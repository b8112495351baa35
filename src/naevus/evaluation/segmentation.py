"""SegmentationEvaluation: scores of many masks, and conditions associated with failures."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pandas as pd

from naevus.errors import DataError
from naevus.evaluation.bootstrap import means_of, quantiles_of, repeatable
from naevus.evaluation.intervals import Interval, mean_interval, weighted_intervals, wilson_interval
from naevus.evaluation.mask_metrics import JACCARD_THRESHOLD, BoundaryDistance, MaskScore
from naevus.evaluation.tables import has_values
from naevus.io.files import plain

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from naevus.evaluation.intervals import Proportion
    from naevus.types import Unit


WORST: Final = 20
"""The number of worst masks to list."""
_MEANS: Final = {
    "jaccard": "jaccard",
    "thresholded_jaccard": "thresholded_jaccard",
    "dice": "dice",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "accuracy": "accuracy",
}
"""The averaged metrics and their columns."""
QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
THRESHOLDS: Final = tuple(number / 20 for number in range(21))
"""Thresholds of the Jaccard index below which a mask counts as failed."""
AREAS: Final = (0.0, 0.05, 0.15, 0.3, 0.6, 1.0)
"""Limits of the lesion-size bands, as fractions of the image."""


class FailureFactor(NamedTuple):
    """Images with a condition, and how often their masks fail."""

    name: str
    images: int
    failures: int
    failed: Proportion | None
    """The fraction with a Jaccard index below 0.65; None if there are no such images."""
    elsewhere: Proportion | None
    """The same for all other images."""


class SizeBand(NamedTuple):
    """Lesions of similar size."""

    low: float
    """The lower limit, as a fraction of the image; exclusive except in the first band."""
    high: float
    """The upper limit, inclusive."""
    images: int
    jaccard: Interval
    failed: Proportion
    surface_distance: Interval
    area_ratio: Interval | None
    """The median ratio of mask area to lesion area; None if no mask overlaps its lesion."""


def _check(table: pd.DataFrame) -> None:
    absent = [
        name for name in ("image_id", "group_id", *MaskScore._fields) if name not in table.columns
    ]
    if absent:
        raise DataError(f"the table of mask scores has no column {', '.join(absent)}")
    if table.empty:
        raise DataError("there are no masks to evaluate", "give images that have a true mask")
    if table["image_id"].duplicated().any():
        twice = table.loc[table["image_id"].duplicated(), "image_id"].iloc[0]
        raise DataError(f"{twice} occurs twice", "keep one row per image")
    missing = table[list(MaskScore._fields)].isna().any(axis="columns")
    if missing.any():
        raise DataError(f"{table.loc[missing, 'image_id'].iloc[0]} has no score")


class WorstMask(NamedTuple):
    """One of the masks with the smallest Jaccard index."""

    image_id: str
    jaccard: float
    dice: float


class FoldOverlap(NamedTuple):
    """The headline metrics of the masks of one fold."""

    fold: int
    images: int
    groups: int
    jaccard: float
    thresholded_jaccard: float


@dataclass(frozen=True)
class SegmentationEvaluation:
    """Metrics of masks against the ground truth; intervals are 95 %, by group."""

    images: int
    groups: int
    metrics: dict[str, Interval]
    """Means over images, not over pixels: ``jaccard, thresholded_jaccard, dice, sensitivity,
    specificity, accuracy`` and ``below_threshold``, the fraction of Jaccard indices below 0.65."""
    by_fold: tuple[FoldOverlap, ...]
    """Empty unless there are several folds."""
    failed: Proportion
    """The fraction of masks with a Jaccard index below 0.65, with the number of groups."""
    quantiles: dict[float, Interval]
    """Quantiles of the Jaccard index, by the fraction of images at or below."""
    distances: dict[str, Interval]
    """Mean and median of each `BoundaryDistance`, as fractions of the diagonal; may be empty."""
    factors: tuple[FailureFactor, ...]
    """Conditions associated with failures; they overlap. Empty if nothing was measured."""
    sizes: tuple[SizeBand, ...]
    """By lesion size, where known, without empty bands."""
    curve: pd.DataFrame
    """``threshold``; ``thresholded_jaccard``, the mean Jaccard index with values below the
    threshold set to 0; ``reached``, the fraction from it up; both with ``_low`` and ``_high``."""
    worst: tuple[WorstMask, ...]
    """At most `WORST`, the worst first."""
    jaccard: NDArray[np.float64]
    """The Jaccard index of each image, in the table's order."""
    unit: Unit = "lesion"
    """What the groups are."""

    @classmethod
    @repeatable
    def of(cls, table: pd.DataFrame, unit: Unit = "lesion") -> SegmentationEvaluation:
        """Evaluate masks.

        Args:
            table: One row per image: ``image_id``, ``group_id`` and the fields of `MaskScore`;
                ``fold``, boundary distances and conditions (`MaskComparison`) where known.
            unit: What the groups are.

        Raises:
            DataError: The table is empty, lacks a column, has an id twice or a missing score.
        """
        _check(table)
        groups = table["group_id"].tolist()
        quantiles = weighted_intervals(quantiles_of(table["jaccard"], QUANTILES), groups)
        worst = table.sort_values(["jaccard", "image_id"]).head(WORST)
        failed = _failed(table)
        return cls(
            images=len(table),
            groups=table["group_id"].nunique(),
            metrics={
                **{name: mean_interval(table[column], groups) for name, column in _MEANS.items()},
                "below_threshold": Interval(*failed[:3]),
            },
            by_fold=_by_fold(table),
            failed=failed,
            quantiles=dict(zip(QUANTILES, quantiles, strict=True)),
            distances=_distances(table),
            factors=_factors(table),
            sizes=_sizes(table),
            curve=_curve(table),
            worst=tuple(
                WorstMask(str(image_id), float(jaccard), float(dice))
                for image_id, jaccard, dice in zip(
                    worst["image_id"], worst["jaccard"], worst["dice"], strict=True
                )
            ),
            jaccard=table["jaccard"].to_numpy(np.float64),
            unit=unit,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything except the Jaccard index of each image, as a dictionary for JSON."""
        values: dict[str, Any] = {
            "images": self.images,
            "groups": self.groups,
            "metrics": {name: value._asdict() for name, value in self.metrics.items()},
            "by_fold": [one._asdict() for one in self.by_fold],
            "failed": self.failed._asdict(),
            "quantiles": {str(at): value._asdict() for at, value in self.quantiles.items()},
            "distances": {name: value._asdict() for name, value in self.distances.items()},
            "factors": [_plain(one) for one in self.factors],
            "sizes": [_plain(one) for one in self.sizes],
            "curve": self.curve.to_dict(orient="records"),
            "worst": [one._asdict() for one in self.worst],
        }
        return {name: plain(value) for name, value in values.items()}


def _by_fold(table: pd.DataFrame) -> tuple[FoldOverlap, ...]:
    if "fold" not in table or table["fold"].nunique() < 2:
        return ()
    return tuple(
        FoldOverlap(
            fold=int(part["fold"].iloc[0]),
            images=len(part),
            groups=part["group_id"].nunique(),
            jaccard=float(part["jaccard"].mean()),
            thresholded_jaccard=float(part["thresholded_jaccard"].mean()),
        )
        for _, part in table.groupby("fold")
    )


def area_ratios(table: pd.DataFrame) -> pd.Series[float]:
    """Return the ratio of mask area to lesion area, from sensitivity and Jaccard index.

    With t true, p predicted and b common pixels, s = b / t and J = b / (t + p - b), so
    p / t = s / J - 1 + s. NaN where mask and lesion do not overlap.
    """
    sensitivity, jaccard = table["sensitivity"], table["jaccard"]
    ratios: pd.Series[float] = sensitivity / jaccard.where(jaccard > 0) - 1 + sensitivity
    return ratios


_FACTORS: Final[dict[str, tuple[str, float, float]]] = {
    "lesion under 5 % of the image": ("lesion_area", -np.inf, AREAS[1]),
    "lesion over 60 % of the image": ("lesion_area", AREAS[-2], np.inf),
    "faint: ΔE to the skin under 12": ("contrast", -np.inf, 12.0),
    "hair over 6 % of the image": ("hair", 0.06, np.inf),
    "lesion touches the border": ("border", 0.0, np.inf),
}
"""Conditions: a column, and the open range of its values. The limits were set before failures were
considered: about a tenth of the ISIC 2018 images are faint, a sixth have much hair."""
NONE_OF_THESE: Final = "none of these"


def _factors(table: pd.DataFrame) -> tuple[FailureFactor, ...]:
    marks = {
        name: table[column].between(low, high, inclusive="neither")
        for name, (column, low, high) in _FACTORS.items()
        if has_values(table, column)
    }
    if not marks:
        return ()
    marks[NONE_OF_THESE] = ~pd.concat(marks, axis=1).any(axis=1)
    failed = table["jaccard"] < JACCARD_THRESHOLD
    return tuple(
        FailureFactor(
            name,
            int(mark.sum()),
            int((mark & failed).sum()),
            _failed(table[mark]) if mark.any() else None,
            _failed(table[~mark]) if not mark.all() else None,
        )
        for name, mark in marks.items()
    )


def _failed(table: pd.DataFrame) -> Proportion:
    return wilson_interval(table["jaccard"] < JACCARD_THRESHOLD, table["group_id"].tolist())


def _distances(table: pd.DataFrame) -> dict[str, Interval]:
    if not set(BoundaryDistance._fields) <= set(table.columns):
        return {}
    groups = table["group_id"].tolist()
    found = {}
    for name in BoundaryDistance._fields:
        found[f"mean {name}"] = mean_interval(table[name], groups)
        (found[f"median {name}"],) = weighted_intervals(quantiles_of(table[name], (0.5,)), groups)
    return found


def _sizes(table: pd.DataFrame) -> tuple[SizeBand, ...]:
    if not {"lesion_area", "surface_distance"} <= set(table.columns):
        return ()
    bands = []
    for low, high in pairwise(AREAS):
        above = table["lesion_area"] >= low if low == 0 else table["lesion_area"] > low
        inside = table[above & (table["lesion_area"] <= high)]
        if inside.empty:
            continue
        groups, ratios = inside["group_id"].tolist(), area_ratios(inside)
        met = inside[ratios.notna()]
        bands.append(
            SizeBand(
                low=low,
                high=high,
                images=len(inside),
                jaccard=mean_interval(inside["jaccard"], groups),
                failed=_failed(inside),
                surface_distance=mean_interval(inside["surface_distance"], groups),
                area_ratio=_median(ratios[met.index], met["group_id"].tolist()),
            )
        )
    return tuple(bands)


def _median(values: pd.Series[float], groups: list[str]) -> Interval | None:
    if values.empty:
        return None
    (interval,) = weighted_intervals(quantiles_of(values, (0.5,)), groups)
    return interval


def _curve(table: pd.DataFrame) -> pd.DataFrame:
    jaccard, cuts = table["jaccard"].to_numpy(np.float64)[:, None], np.array(THRESHOLDS)
    reached = jaccard >= cuts
    columns = np.concatenate([np.where(reached, jaccard, 0), reached], axis=1)
    found = np.array(weighted_intervals(means_of(columns), table["group_id"].tolist()))
    curve = pd.DataFrame({"threshold": cuts})
    for start, name in ((0, "thresholded_jaccard"), (len(cuts), "reached")):
        curve[[name, f"{name}_low", f"{name}_high"]] = found[start : start + len(cuts)]
    return curve


def _plain(values: FailureFactor | SizeBand) -> dict[str, Any]:
    return {
        name: value._asdict() if hasattr(value, "_asdict") else value
        for name, value in values._asdict().items()
    }
