"""How masks of many pictures are spread: where they fail, how far they are off, by size."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pandas as pd

from naevus.errors import DataError
from naevus.evaluation.bootstrap import means_of, quantiles_of
from naevus.evaluation.intervals import Interval, mean_interval, weighted_intervals, wilson_interval
from naevus.evaluation.mask_metrics import JACCARD_THRESHOLD, BoundaryDistance, MaskScore
from naevus.evaluation.repeatable import repeatable

if TYPE_CHECKING:
    from naevus.evaluation.intervals import Proportion


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


@repeatable
def segmentation_scores(table: pd.DataFrame) -> tuple[SegmentationScores, dict[str, Interval]]:
    """Score out-of-fold masks.

    Args:
        table: ``image_id``, ``group_id`` and the fields of `MaskScore`, one row a picture.

    Returns:
        The scores, and intervals by group of their means.
    """
    groups = table["group_id"].tolist()
    scores = SegmentationScores.from_table(table)
    failed = table["jaccard"] < JACCARD_THRESHOLD
    return scores, {
        "jaccard": mean_interval(table["jaccard"], groups),
        "thresholded_jaccard": mean_interval(table["thresholded"], groups),
        **{
            name: mean_interval(table[name], groups)
            for name in ("dice", "sensitivity", "specificity", "accuracy")
        },
        "below_threshold": Interval(*wilson_interval(failed, groups)[:3]),
    }


def mask_intervals(outlined: pd.DataFrame) -> dict[str, Interval]:
    """Return the mean of every mask score with its interval by group."""
    groups = outlined["group_id"].tolist()
    return {name: mean_interval(outlined[name], groups) for name in MaskScore._fields}


QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
THRESHOLDS: Final = tuple(number / 20 for number in range(21))
"""Of the threshold curve: Jaccard indices below which a mask counts as failed."""
AREAS: Final = (0.0, 0.05, 0.15, 0.3, 0.6, 1.0)
"""Where the bands of lesion size begin and end, in shares of the picture."""


class Circumstance(NamedTuple):
    """Pictures that something makes difficult, and how often their masks fail."""

    name: str
    pictures: int
    failures: int
    failed: Proportion | None
    """The share of them whose mask is below 0.65; None where there is no such picture."""
    elsewhere: Proportion | None
    """The same of all other pictures."""


class SizeBand(NamedTuple):
    """Lesions of about the same size."""

    low: float
    """Larger than this share of the picture (in the first band: or as large)."""
    high: float
    """Up to and with this one."""
    pictures: int
    jaccard: Interval
    failed: Proportion
    surface_distance: Interval
    area_ratio: Interval | None
    """Median of the mask's area over the lesion's; None where no mask meets its lesion."""


@dataclass(frozen=True)
class OutlineScores:
    """Out-of-fold masks beyond their means; intervals are 95 %, by group."""

    pictures: int
    groups: int
    quantiles: dict[float, Interval]
    """Of the Jaccard index, by share of pictures at or below."""
    failed: Proportion
    """The share of masks with a Jaccard index below 0.65."""
    distances: dict[str, Interval]
    """Mean and median of each `BoundaryDistance`, in shares of the diagonal; may be empty."""
    circumstances: tuple[Circumstance, ...]
    """What goes along with failures; they overlap. Empty where nothing was measured."""
    sizes: tuple[SizeBand, ...]
    """By lesion size, where it is known; bands without a lesion are left out."""
    curve: pd.DataFrame
    """``threshold``; ``thresholded`` with ``thresholded_low`` and ``_high``: the mean Jaccard index
    where those below the threshold count 0; ``reached`` likewise: the share at or above it."""

    @classmethod
    @repeatable
    def from_table(cls, table: pd.DataFrame) -> OutlineScores:
        """Score the masks of some pictures.

        Args:
            table: ``group_id``, ``jaccard``, ``sensitivity`` of each picture; boundary distances
                and conditions (`Outline`) where they are known.

        Raises:
            DataError: There is no picture, a column is missing or a score not a number.
        """
        for name in ("group_id", "jaccard", "sensitivity"):
            if name not in table.columns:
                raise DataError(f"the table of masks has no column {name}")
        groups = table["group_id"].tolist()
        found = weighted_intervals(quantiles_of(table["jaccard"], QUANTILES), groups)
        return cls(
            pictures=len(table),
            groups=table["group_id"].nunique(),
            quantiles=dict(zip(QUANTILES, found, strict=True)),
            failed=_failed(table),
            distances=_distances(table),
            circumstances=_circumstances(table),
            sizes=_sizes(table),
            curve=_curve(table),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the scores, without the curve, as a dictionary that JSON can hold."""
        return {
            "pictures": self.pictures,
            "groups": self.groups,
            "quantiles": {str(at): value._asdict() for at, value in self.quantiles.items()},
            "failed": self.failed._asdict(),
            "distances": {name: value._asdict() for name, value in self.distances.items()},
            "circumstances": [_plain(one) for one in self.circumstances],
            "sizes": [_plain(one) for one in self.sizes],
        }


def area_ratios(table: pd.DataFrame) -> pd.Series[float]:
    """Return each mask's area over its lesion's, from sensitivity and Jaccard index.

    With t true pixels, p predicted and b both, s = b / t and J = b / (t + p - b), so that
    p / t = s / J - 1 + s. NaN where mask and lesion do not meet.
    """
    sensitivity, jaccard = table["sensitivity"], table["jaccard"]
    ratios: pd.Series[float] = sensitivity / jaccard.where(jaccard > 0) - 1 + sensitivity
    return ratios


_CIRCUMSTANCES: Final[dict[str, tuple[str, float, float]]] = {
    "lesion under 5 % of the picture": ("area", -np.inf, AREAS[1]),
    "lesion over 60 % of the picture": ("area", AREAS[-2], np.inf),
    "faint: ΔE to the skin under 12": ("contrast", -np.inf, 12.0),
    "hair over 5 % of the skin": ("hair", 0.05, np.inf),
    "lesion touches the border": ("border", 0.0, np.inf),
}
"""Each with its column, and between which values that lies. The cuts were set before failures were
looked at: about a tenth of ISIC 2018's pictures are faint or hairy."""
NONE_OF_THESE: Final = "none of these"


def _circumstances(table: pd.DataFrame) -> tuple[Circumstance, ...]:
    marks = {
        name: table[column].between(low, high, inclusive="neither")
        for name, (column, low, high) in _CIRCUMSTANCES.items()
        if column in table.columns and table[column].notna().any()
    }
    if not marks:
        return ()
    marks[NONE_OF_THESE] = ~pd.concat(marks, axis=1).any(axis=1)
    failed = table["jaccard"] < JACCARD_THRESHOLD
    return tuple(
        Circumstance(
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
    if not {"area", "surface_distance"} <= set(table.columns):
        return ()
    bands = []
    for low, high in pairwise(AREAS):
        above = table["area"] >= low if low == 0 else table["area"] > low
        inside = table[above & (table["area"] <= high)]
        if inside.empty:
            continue
        groups, ratios = inside["group_id"].tolist(), area_ratios(inside)
        met = inside[ratios.notna()]
        bands.append(
            SizeBand(
                low=low,
                high=high,
                pictures=len(inside),
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
    for start, name in ((0, "thresholded"), (len(cuts), "reached")):
        curve[[name, f"{name}_low", f"{name}_high"]] = found[start : start + len(cuts)]
    return curve


def _plain(values: Circumstance | SizeBand) -> dict[str, Any]:
    return {
        name: value._asdict() if hasattr(value, "_asdict") else value
        for name, value in values._asdict().items()
    }
