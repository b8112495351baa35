"""Accuracy in subgroups by sex, age, site and skin tone, with tests of differences."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from naevus.errors import DataError
from naevus.evaluation.bootstrap import DRAWS, SEED, Groups, divided
from naevus.evaluation.intervals import (
    Interval,
    Proportion,
    mean_ratio_interval,
    wilson_interval,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

LEAST_OF_CLASS = 10
"""The minimum number of groups of a class in a subgroup: recalls of fewer are unreliable."""
SMALL = 30
"""Subgroups with fewer groups are marked as small."""
AGE_BANDS = (0, 30, 45, 60, 75)
"""Lower limits of the age bands, in years."""
_CHUNK = 100  # permutations computed at once


@dataclass(frozen=True)
class Subgroup:
    """Predictions for one value of one attribute, such as ``sex = female``."""

    attribute: str
    value: str
    images: int
    groups: int
    correct: Proportion
    """The fraction of images whose answer is right, however few: it depends on the case mix."""
    classes: tuple[str, ...]
    """The classes with at least ten groups in the subgroup."""
    balanced_accuracy: Interval | None
    """Over these classes; None if there are none. The classes differ between subgroups."""
    shared: tuple[str, ...]
    """The classes with at least ten groups both in the subgroup and in the rest."""
    gap: float | None
    """Balanced accuracy minus that of the rest, both over ``shared``: the same case mix."""
    p: float | None
    """The p value of the gap: attribute and predictions are independent given the diagnosis."""
    p_holm: float | None
    """The p value with Holm's correction (1979) for all subgroups tested."""

    @property
    def small(self) -> bool:
        """Whether there are too few groups for a reliable estimate."""
        return self.groups < SMALL

    def to_dict(self) -> dict[str, Any]:
        """Return the subgroup as a dictionary for JSON."""
        accuracy = self.balanced_accuracy
        return {
            **{name: getattr(self, name) for name in ("attribute", "value", "images", "groups")},
            "small": self.small,
            "correct": self.correct._asdict(),
            "classes": list(self.classes),
            "balanced_accuracy": None if accuracy is None else accuracy._asdict(),
            "shared": list(self.shared),
            **{name: getattr(self, name) for name in ("gap", "p", "p_holm")},
        }


def subgroup_scores(
    truth: Sequence[str],
    predicted: Sequence[str],
    groups: Sequence[str],
    attributes: Mapping[str, Sequence[Any]],
    *,
    draws: int = DRAWS,
    seed: int = SEED,
) -> tuple[Subgroup, ...]:
    """Score predictions for every value of some attributes.

    The value of a group is that of its first image with a known value. The gap compares the
    subgroup with all other groups of known value, over the classes that both have, with equal
    weight for each class (direct standardisation). Differences in case mix therefore do not appear
    as differences in accuracy. The two-sided p value comes from permuting the values among the
    groups of each diagnosis (Good, Permutation, Parametric and Bootstrap Tests, 2005).

    Args:
        truth: N diagnoses.
        predicted: N predicted codes.
        groups: N group ids.
        attributes: By name, N values; None, NaN or NA where unknown.
        draws: The number of resamples and of permutations.
        seed: The random seed of both.

    Returns:
        The subgroups in the order of the attributes, values sorted, without unknown values.

    Raises:
        DataError: There are no images, one has no group, or lengths differ.
    """
    if any(len(column) != len(truth) for column in (predicted, groups, *attributes.values())):
        raise DataError("ground truth, predictions, groups and attributes differ in length")
    counted = _Counted.of(truth, predicted, groups)
    found: list[Subgroup] = []
    for name, column in attributes.items():
        values = _value_of_groups(column, counted.groups)
        found += _of_attribute(counted, name, values, draws, seed)
    corrected = holm([np.nan if one.p is None else one.p for one in found])
    return tuple(
        one if one.p is None else replace(one, p_holm=float(p))
        for one, p in zip(found, corrected, strict=True)
    )


KNOWN_BY = {
    "sex": "sex",
    "age": "age",
    "site": "site",
    "confirmed by": "confirmation",
    "skin type": "fitzpatrick_skin_type",
    "image type": "image_type",
    "dermoscopic type": "dermoscopic_type",
    "anatomical site": "anatom_site",
}
"""What images are grouped by, and the column that it is in."""


def attributes_of(records: pd.DataFrame, predictions: pd.DataFrame) -> dict[str, list[Any]]:
    """Return what is known of N images: by the data set, else by the metadata of predictions.

    Args:
        records: N rows of a data set.
        predictions: N rows of predictions, in the same order.

    Returns:
        By the names of `KNOWN_BY` N values each, ages in bands; without what neither table has.
    """
    found: dict[str, list[Any]] = {}
    for name, column in KNOWN_BY.items():
        tables = [table for table in (records, predictions) if column in table.columns]
        if not tables:
            continue
        values = tables[0][column].reset_index(drop=True).astype(object)
        for other in tables[1:]:
            values = values.where(values.notna(), other[column].reset_index(drop=True))
        found[name] = age_bands(pd.to_numeric(values)) if column == "age" else values.tolist()
    return found


def age_bands(ages: ArrayLike) -> list[str | None]:
    """Return the band of each age in years, such as ``"45 to 59"``; None where unknown.

    Examples:
        >>> age_bands([0, 45, 80, float("nan")])
        ['0 to 29', '45 to 59', '75 and over', None]
    """
    names = [f"{low} to {high - 1}" for low, high in pairwise(AGE_BANDS)]
    names.append(f"{AGE_BANDS[-1]} and over")
    values = np.asarray(ages, np.float64)
    bands = np.searchsorted(AGE_BANDS, values, side="right") - 1
    return [
        names[band] if known else None
        for band, known in zip(bands, np.isfinite(values) & (values >= 0), strict=True)
    ]


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return p values with the step-down correction of Holm (Scand. J. Statist. 1979).

    Args:
        p_values: M values; NaN marks an untested value, which stays NaN and does not count.

    Examples:
        >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
        [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, np.float64)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    corrected = np.full(len(p), np.nan)
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected


@dataclass(frozen=True)
class _Counted:
    """Correct predictions and images by group and class, G x C each."""

    groups: Groups
    codes: tuple[str, ...]
    right: NDArray[np.float64]
    images: NDArray[np.float64]
    hits: NDArray[np.bool_]
    """N, whether an image's answer is right."""

    @classmethod
    def of(cls, truth: Sequence[str], predicted: Sequence[str], groups: Sequence[str]) -> _Counted:
        numbered = Groups.of(groups, truth)
        names = np.asarray(truth, object)
        codes = tuple(sorted(set(truth)))
        member = names[:, None] == np.array(codes, object)[None, :]
        hits = names == np.asarray(predicted, object)
        right = member & hits[:, None]
        return cls(numbered, codes, numbered.sums(right), numbered.sums(member), hits)

    def correct(self, groups: NDArray[np.intp]) -> Proportion:
        """Return the fraction of right answers to the images of some groups."""
        own = np.isin(self.groups.codes, groups)
        return wilson_interval(self.hits[own], self.groups.codes[own].tolist())


def _value_of_groups(column: Sequence[Any], groups: Groups) -> NDArray[np.object_]:
    """Return G values: that of the group's first image with a known value, else None."""
    values = pd.Series(list(column), dtype=object)
    known = np.flatnonzero(values.notna().to_numpy())
    codes, first = np.unique(groups.codes[known], return_index=True)
    result = np.full(len(groups), None, object)
    result[codes] = [str(values.iloc[place]) for place in known[first]]
    return result


def _of_attribute(
    counted: _Counted, name: str, values: NDArray[np.object_], draws: int, seed: int
) -> list[Subgroup]:
    known = np.flatnonzero(values != None)  # noqa: E711 - elementwise
    names = sorted(set(values[known]))
    present = counted.images[known] > 0
    inside = np.array([values[known] == each for each in names]).reshape(len(names), len(known))
    here = inside.astype(np.float64) @ present
    enough = here >= LEAST_OF_CLASS
    shared = enough & (present.sum(axis=0) - here >= LEAST_OF_CLASS)
    right, images = counted.right[known], counted.images[known]
    gaps = _gaps(inside[None], right, images, shared)[0]
    p_values = _p_values(gaps, inside, right, images, shared, _strata(counted, known), seed, draws)
    codes = np.array(counted.codes, object)
    return [
        Subgroup(
            attribute=name,
            value=value,
            images=int(images[inside[row]].sum()),
            groups=int(inside[row].sum()),
            correct=counted.correct(known[inside[row]]),
            classes=tuple(codes[enough[row]]),
            balanced_accuracy=_balanced_accuracy(counted, known[inside[row]], enough[row], draws),
            shared=tuple(codes[shared[row]]),
            gap=float(gaps[row]) if shared[row].any() else None,
            p=float(p_values[row]) if shared[row].any() else None,
            p_holm=None,
        )
        for row, value in enumerate(names)
    ]


def _balanced_accuracy(
    counted: _Counted, members: NDArray[np.intp], classes: NDArray[np.bool_], draws: int
) -> Interval | None:
    if not classes.any():
        return None
    right = counted.right[np.ix_(members, classes)]
    images = counted.images[np.ix_(members, classes)]
    strata = _strata(counted, members)
    # There is one row per group, so each row is resampled on its own.
    return mean_ratio_interval(right, images, members.tolist(), strata.tolist(), draws=draws)


def _strata(counted: _Counted, members: NDArray[np.intp]) -> NDArray[np.intp]:
    stratum = np.empty(len(counted.groups), np.intp)
    for number, groups in enumerate(counted.groups.strata):
        stratum[groups] = number
    return stratum[members]


def _gaps(
    inside: NDArray[np.bool_],
    right: NDArray[np.float64],
    images: NDArray[np.float64],
    shared: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Return D x V gaps for D permutations of V values (D x V x G), G x C counts, V x C classes."""
    chosen = inside.astype(np.float64)
    right_here, here = chosen @ right, chosen @ images
    rest, right_rest = images.sum(0) - here, right.sum(0) - right_here
    differences = divided(right_here, here) - divided(right_rest, rest)
    counted = shared & np.isfinite(differences)
    return divided(np.where(counted, differences, 0).sum(axis=2), counted.sum(axis=2))


def _p_values(
    gaps: NDArray[np.float64],
    inside: NDArray[np.bool_],
    right: NDArray[np.float64],
    images: NDArray[np.float64],
    shared: NDArray[np.bool_],
    strata: NDArray[np.intp],
    seed: int,
    draws: int,
) -> NDArray[np.float64]:
    """Return V p values; the observed assignment counts as one of the permutations."""
    rng = np.random.default_rng(seed)
    places = [np.flatnonzero(strata == number) for number in np.unique(strata)]
    as_wide = np.ones(len(gaps))
    for start in range(0, draws, _CHUNK):
        size = min(_CHUNK, draws - start)
        assign_parts = np.tile(np.arange(len(strata)), (size, 1))
        for rows in places:
            assign_parts[:, rows] = rng.permuted(assign_parts[:, rows], axis=1)
        permuted = np.moveaxis(inside[:, assign_parts], 0, 1)
        found = _gaps(permuted, right, images, shared)
        # Rounding must not make an identical permutation count as less extreme.
        as_wide += (np.abs(found) >= np.abs(gaps) - 1e-12).sum(axis=0)
    return as_wide / (1 + draws)
