"""Accuracy in subgroups by sex, age, site and skin tone, with tests of differences."""

from __future__ import annotations

import math
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
    """The classes with at least ten groups both in the subgroup and among the other images."""
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

    An image counts for its own value, so that a group whose images differ (a patient with lesions
    of several sites) is in several subgroups; intervals resample groups. The gap compares the
    subgroup with all other images of known value, over the classes that both have, with equal
    weight for each class (direct standardisation). Differences in case mix therefore do not appear
    as differences in accuracy. The two-sided p value comes from permuting the values among the
    blocks of each diagnosis (Good, Permutation, Parametric and Bootstrap Tests, 2005). A block is
    the images of a group that share a value, so no block is split. Blocks of one group never
    share a value but may after a permutation, which can only make p larger.

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
    if not len(truth):
        raise DataError("there are no images", "give at least one")
    names, hits = np.asarray(truth, object), np.equal(np.asarray(truth, object), predicted)
    found: list[Subgroup] = []
    for name, column in attributes.items():
        values = pd.Series(list(column), dtype=object)
        known = values.notna().to_numpy()
        if not known.any():
            continue
        texts = values[known].map(str).to_numpy(object)
        own = pd.Series(list(groups), dtype=object)[known]
        blocks = _Blocks.of(names[known], hits[known], own.tolist(), texts)
        found += _of_attribute(name, blocks, draws, seed)
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
class _Blocks:
    """The images of known value by block, which is a group and a value, and by class: B x C."""

    numbered: Groups
    """The blocks of the images, with their diagnoses as strata."""
    owners: NDArray[np.intp]
    """B, the number of each block's group."""
    shared: NDArray[np.object_]
    """B, the value that a block's images share."""
    codes: tuple[str, ...]
    right: NDArray[np.float64]
    images: NDArray[np.float64]
    hits: NDArray[np.bool_]
    """N, whether an image's answer is right."""

    @classmethod
    def of(
        cls,
        truth: NDArray[np.object_],
        hits: NDArray[np.bool_],
        groups: Sequence[str],
        values: NDArray[np.object_],
    ) -> _Blocks:
        owners = Groups.of(groups).codes
        numbered = Groups.of(list(zip(owners.tolist(), values, strict=True)), truth.tolist())
        first = np.unique(numbered.codes, return_index=True)[1]  # all images of a block agree
        codes = tuple(sorted(set(truth)))
        member = truth[:, None] == np.array(codes, object)[None, :]
        right = member & hits[:, None]
        sums = numbered.sums(right), numbered.sums(member)
        return cls(numbered, owners[first], values[first], codes, *sums, hits)

    def correct(self, blocks: NDArray[np.intp]) -> Proportion:
        """Return the fraction of right answers to the images of some blocks."""
        own = np.isin(self.numbered.codes, blocks)
        return wilson_interval(self.hits[own], self.owners[self.numbered.codes[own]].tolist())

    def groups_with(self, blocks: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Count the groups that have an image of each class in some blocks, C."""
        present = self.images[blocks] > 0
        return np.array([len(np.unique(self.owners[blocks][each])) for each in present.T], np.intp)

    def strata(self, blocks: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the number of the stratum of each of some blocks."""
        stratum = np.empty(len(self.numbered), np.intp)
        for number, members in enumerate(self.numbered.strata):
            stratum[members] = number
        return stratum[blocks]


def _of_attribute(name: str, blocks: _Blocks, draws: int, seed: int) -> list[Subgroup]:
    names = sorted(set(blocks.shared))
    labels = np.searchsorted(np.array(names, object), blocks.shared)
    inside = labels == np.arange(len(names))[:, None]
    enough = np.array([blocks.groups_with(each) for each in inside]) >= LEAST_OF_CLASS
    others = np.array([blocks.groups_with(~each) for each in inside]) >= LEAST_OF_CLASS
    shared = enough & others
    right, images = blocks.right, blocks.images
    gaps = _gaps(labels[None], right, images, shared)[0]
    every = np.arange(len(blocks.numbered))
    p_values = _p_values(gaps, labels, right, images, shared, blocks.strata(every), seed, draws)
    codes = np.array(blocks.codes, object)
    return [
        Subgroup(
            attribute=name,
            value=value,
            images=int(images[inside[row]].sum()),
            groups=int(inside[row].sum()),  # a group has one block of a value at most
            correct=blocks.correct(np.flatnonzero(inside[row])),
            classes=tuple(codes[enough[row]]),
            balanced_accuracy=_balanced_accuracy(
                blocks, np.flatnonzero(inside[row]), enough[row], draws
            ),
            shared=tuple(codes[shared[row]]),
            gap=float(gaps[row]) if shared[row].any() else None,
            p=float(p_values[row]) if shared[row].any() else None,
            p_holm=None,
        )
        for row, value in enumerate(names)
    ]


def _balanced_accuracy(
    blocks: _Blocks, members: NDArray[np.intp], classes: NDArray[np.bool_], draws: int
) -> Interval | None:
    if not classes.any():
        return None
    right = blocks.right[np.ix_(members, classes)]
    images = blocks.images[np.ix_(members, classes)]
    # There is one row per group, so each row is resampled on its own.
    strata = blocks.strata(members).tolist()
    return mean_ratio_interval(right, images, members.tolist(), strata, draws=draws)


def _gaps(
    labels: NDArray[np.intp],
    right: NDArray[np.float64],
    images: NDArray[np.float64],
    shared: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Return D x V gaps: D x B numbers of values, B x C counts, V x C classes."""
    right_here, here = (_sums(labels, counts, len(shared)) for counts in (right, images))
    rest, right_rest = images.sum(0) - here, right.sum(0) - right_here
    differences = divided(right_here, here) - divided(right_rest, rest)
    counted = shared & np.isfinite(differences)
    return divided(np.where(counted, differences, 0).sum(axis=2), counted.sum(axis=2))


def _sums(
    labels: NDArray[np.intp], counts: NDArray[np.float64], values: int
) -> NDArray[np.float64]:
    """Sum B x C counts within each of V values, D x V x C, for D x B numbers of values."""
    shape = len(labels), values, counts.shape[1]
    blocks, classes = np.nonzero(counts)  # a block's images are of one class, save exceptions
    places = (np.arange(shape[0])[:, None] * values + labels[:, blocks]) * shape[2] + classes
    weights = np.broadcast_to(counts[blocks, classes], places.shape)
    sums = np.bincount(places.ravel(), weights.ravel(), math.prod(shape))
    return sums.astype(np.float64).reshape(shape)


def _p_values(
    gaps: NDArray[np.float64],
    labels: NDArray[np.intp],
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
        permuted = np.tile(labels, (min(_CHUNK, draws - start), 1))
        for rows in places:
            permuted[:, rows] = rng.permuted(permuted[:, rows], axis=1)
        found = _gaps(permuted, right, images, shared)
        # Rounding must not make an identical permutation count as less extreme.
        as_wide += (np.abs(found) >= np.abs(gaps) - 1e-12).sum(axis=0)
    return as_wide / (1 + draws)
