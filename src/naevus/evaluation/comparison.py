"""Compare two recipes by their predictions on the same held-out images, paired by lesion."""

from __future__ import annotations

import html
from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np
import pandas as pd

from naevus.errors import DataError
from naevus.evaluation.attributes import cross_fitted_counts, is_attributes_table, jaccard
from naevus.evaluation.bootstrap import SEED, Groups, divided, finite, repeatable
from naevus.evaluation.intervals import Interval
from naevus.evaluation.mask_metrics import JACCARD_THRESHOLD
from naevus.evaluation.out_of_fold import probabilities, taxonomy_of
from naevus.evaluation.tables import AGREED, check_finite, in_common, numbers_of
from naevus.io.figures import interval_figure
from naevus.io.files import plain
from naevus.io.words import counted
from naevus.taxonomy import ATTRIBUTES

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

    from naevus.types import Task, Unit


# Paired differences: their size, intervals and p values.

PERMUTATIONS = 10_000
ERROR: Final = 0.05
"""The family-wise error rate: of finding any difference between equal recipes."""
_CHUNK = 500
_ROUNDING = 1e-12
_STEPS = 30  # of bisection: limits are found to 1e-9


class Difference(NamedTuple):
    """One score of A and B on the same images.

    Interval and p value come from the same test and never contradict each other: the interval
    contains the differences that the test does not reject.
    """

    score: str
    a: float
    b: float
    difference: Interval
    """B - A, with its 95 % interval by group, simultaneous with those of ``tests`` differences."""
    p: float
    """The p value of the permutation test, with Bonferroni's correction for ``tests`` scores."""
    groups: int
    tests: int = 1
    """The number of tests that interval and p are corrected for."""

    @property
    def distinguishable(self) -> bool:
        """Whether p is at most 0.05; the interval then excludes 0."""
        return self.p <= ERROR

    def sentence(self, a: str = "A", b: str = "B", unit: Unit = "lesion") -> str:
        """Describe the difference of A and B in a sentence, in percentage points.

        Args:
            a: The name of A.
            b: The name of B.
            unit: What the groups are.
        """
        value, low, high = (100 * part for part in self.difference)
        groups = counted(self.groups, unit)
        if not self.distinguishable:
            limits = f", 95 % interval {low:.1f} to {high:.1f}" if self.difference.known else ""
            return (
                f"{self.score}: no clear difference between {a} and {b}: {b} - {a} is {value:.1f} "
                f"points{limits}, {groups}"
            )
        better = b
        if value < 0:
            better, value, low, high = a, -value, -high, -low
        limits = f", 95 % interval {low:.1f} to {high:.1f}" if self.difference.known else ""
        return f"{self.score}: {better} is better by {value:.1f} points{limits}, {groups}"

    def to_dict(self) -> dict[str, Any]:
        """Return the difference as a dictionary for JSON."""
        return {**self._asdict(), "difference": self.difference._asdict()}


def paired_difference(
    score: str,
    a: ArrayLike,
    b: ArrayLike,
    denominators: ArrayLike,
    groups: Sequence[Hashable],
    *,
    tests: int = 1,
) -> Difference:
    """Compare the means of K ratios of sums, such as the recalls in a balanced accuracy.

    The permutation test swaps A and B in whole groups; its interval holds each difference d that
    the same test does not refuse after d was taken from B, in each group by its weight.

    Args:
        score: The name of the score.
        a: N x K, the contribution of each image to each numerator of A.
        b: N x K, the same for B.
        denominators: N x K, common to both; every column has a non-zero value.
        groups: N group ids.
        tests: The number of tests that interval and p are corrected for (Bonferroni).

    Raises:
        DataError: There are no images, one has no group, or a value is not a finite number.
    """
    ours, theirs = np.asarray(a, np.float64), np.asarray(b, np.float64)
    whole = np.asarray(denominators, np.float64)
    one, other = (float(divided(each.sum(0), whole.sum(0)).mean()) for each in (ours, theirs))
    counted = np.asarray(groups, object)[whole.any(axis=1)]
    swaps = _Swaps.of(
        ((theirs - ours) / whole.sum(0)).mean(axis=1), (whole / whole.sum(0)).mean(axis=1), groups
    )
    return Difference(
        score=score,
        a=one,
        b=other,
        difference=Interval(other - one, *swaps.limits(ERROR / tests)),
        p=min(1.0, tests * swaps.p(0.0)),
        groups=len(set(counted.tolist())),
        tests=tests,
    )


def swap_test(
    differences: ArrayLike,
    groups: Sequence[Hashable],
    *,
    permutations: int = PERMUTATIONS,
    seed: int = SEED,
) -> float:
    """Return the two-sided p value of a permutation test that swaps A and B in whole groups.

    Under the null hypothesis, A and B are exchangeable within each group. The observed
    arrangement counts as one of the permutations, so p is never 0 (Phipson & Smyth 2010).

    Args:
        differences: N, the contribution of each image to B - A.
        groups: N group ids.
        permutations: The number of random permutations.
        seed: The random seed.

    Raises:
        DataError: There are no images, one has no group, or a value is not a finite number.
    """
    values = finite(differences, len(groups))
    return _Swaps.of(values, np.zeros_like(values), groups, permutations=permutations, seed=seed).p(
        0.0
    )


class _Swaps(NamedTuple):
    """A difference, and its values with A and B swapped in some groups.

    Where d was taken from B first, ``swapped`` is less by d times ``weights``. ``ends`` are the
    least and the largest difference in a group.
    """

    observed: float
    swapped: NDArray[np.float64]
    weights: NDArray[np.float64]
    ends: tuple[float, float]

    @classmethod
    def of(
        cls,
        differences: NDArray[np.float64],
        weights: NDArray[np.float64],
        groups: Sequence[Hashable],
        *,
        permutations: int = PERMUTATIONS,
        seed: int = SEED,
    ) -> _Swaps:
        """Draw arrangements from N images' parts of the difference, and of the score's weight."""
        sums = Groups.of(groups).sums(np.stack([differences, weights], axis=1))
        sums = sums[(sums != 0).any(axis=1)]
        ratios = divided(sums[:, 0], sums[:, 1])
        ends = (float(ratios.min()), float(ratios.max())) if len(sums) else (0.0, 0.0)
        rng = np.random.default_rng(seed)
        found = np.empty((permutations, 2))
        for start in range(0, permutations, _CHUNK):
            size = (min(_CHUNK, permutations - start), len(sums))
            signs = 2.0 * rng.integers(0, 2, size=size, dtype=np.int8) - 1
            found[start : start + len(signs)] = signs @ sums
        return cls(float(sums[:, 0].sum()), found[:, 0], found[:, 1], ends)

    def p(self, difference: float) -> float:
        """Return the two-sided p value of a difference; the observed arrangement counts."""
        far = abs(self.observed - difference) - _ROUNDING
        extreme = np.count_nonzero(np.abs(self.swapped - difference * self.weights) >= far)
        return (1 + int(extreme)) / (1 + len(self.swapped))

    def limits(self, error: float) -> tuple[float, float]:
        """Return the least and the largest difference whose p is above ``error``; NaN for none.

        Beyond the ends of the groups' own differences all are on one side. If not even that can be
        refused, there are too few groups; if all differ alike, the test tells nothing of others.
        """
        low, high = self.ends
        margin = high - low
        if margin < _ROUNDING or self.p(low - margin) > error:
            return np.nan, np.nan
        return self._limit(low - margin, error), self._limit(high + margin, error)

    def _limit(self, outside: float, error: float) -> float:
        inside = self.observed
        for _ in range(_STEPS):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if self.p(middle) > error else (inside, middle)
        return inside


class McNemar(NamedTuple):
    """Discordant predictions (only A or only B is correct), with one image per group."""

    groups: int
    only_a: int
    """The number of images that only A classifies correctly."""
    only_b: int
    p: float
    """The two-sided p value of the exact test: binomial with probability 1/2 (McNemar 1947)."""


def mcnemar(
    right_a: NDArray[np.bool_], right_b: NDArray[np.bool_], groups: Sequence[Hashable]
) -> McNemar:
    """Return McNemar's exact test on the first image of each group.

    Args:
        right_a: N, whether A is correct; the order of the images must be unrelated to this.
        right_b: N, the same for B.
        groups: N group ids.

    Raises:
        DataError: There are no images, one has no group, or lengths differ.
    """
    numbered = Groups.of(groups)
    first = np.unique(numbered.codes, return_index=True)[1]
    ours, theirs = (finite(each, len(numbered.codes))[first] > 0 for each in (right_a, right_b))
    only_a, only_b = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    thrown = only_a + only_b
    tail = sum(comb(thrown, heads) for heads in range(min(only_a, only_b) + 1))
    return McNemar(len(first), only_a, only_b, min(1.0, 2 * tail / 2**thrown))


class Change(NamedTuple):
    """An image with different predictions from A and B."""

    image_id: str
    truth: str
    """The diagnosis; empty for masks."""
    a: str
    """A's prediction by the balanced decision, or the Jaccard index of its mask or attributes."""
    b: str
    effect: Literal["fixed", "broken", "other"]
    """Whether B corrects an error of A, introduces one, or both are wrong."""


@dataclass(frozen=True)
class Comparison:
    """The differences between A and B; all are B - A."""

    task: Task
    a: str
    b: str
    images: int
    groups: int
    only_a: int
    """The number of images left out because only A predicted them."""
    only_b: int
    differences: tuple[Difference, ...]
    """The headline first: balanced accuracy, thresholded Jaccard or pooled Jaccard index."""
    recalls: tuple[Difference, ...]
    """The recall of each class in the ground truth, by the balanced decision."""
    mcnemar: McNemar
    """For correct predictions by the balanced decision, or masks with a Jaccard index from 0.65."""
    changed: tuple[Change, ...]
    """Images with another predicted class, or a Jaccard index on the other side of 0.65."""
    unit: Unit = "lesion"
    """What the groups are."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """One sentence per difference, the headline first."""
        return tuple(one.sentence(self.a, self.b, self.unit) for one in self.differences)

    def __str__(self) -> str:
        return "\n".join(self.sentences)

    def _repr_html_(self) -> str:
        """Return the differences for a notebook."""
        names = html.escape(f"A: {self.a}, B: {self.b}")
        table = self.to_frame().to_html(index=False, float_format="{:.3f}".format)
        return f"<p>{names}</p>{table}"

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as a dictionary for JSON."""
        return {
            **{
                name: getattr(self, name)
                for name in ("task", "a", "b", "images", "groups", "unit", "only_a", "only_b")
            },
            "sentences": list(self.sentences),
            "differences": [plain(difference.to_dict()) for difference in self.differences],
            "recalls": [plain(difference.to_dict()) for difference in self.recalls],
            "mcnemar": self.mcnemar._asdict(),
            "changed": [change._asdict() for change in self.changed],
        }

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return the tables ``differences``, ``recalls`` and ``changed``."""
        figures = ("score", "a", "b", "difference", "low", "high", "p", "groups", "tests")
        rows = {
            name: [(*one[:3], *one.difference, *one[4:]) for one in getattr(self, name)]
            for name in ("differences", "recalls")
        }
        tables = {name: pd.DataFrame(found, columns=figures) for name, found in rows.items()}
        return {**tables, "changed": pd.DataFrame(self.changed, columns=Change._fields)}

    def to_frame(self) -> pd.DataFrame:
        """Return every difference, B - A.

        Columns: ``score, a, b, difference, low, high, p, groups, tests``.
        """
        tables = self.tables()
        return pd.concat([tables["differences"], tables["recalls"]], ignore_index=True)

    def plot(self) -> Figure:
        """Plot every difference, B - A, with its interval.

        Raises:
            NaevusError: matplotlib is not installed.
        """
        rows = [(one.score, *one.difference) for one in (*self.differences, *self.recalls)]
        label = f"B - A with its 95 % interval by {self.unit}"
        return interval_figure(rows, f"A: {self.a}\nB: {self.b}", xlabel=label, reference=0)


@repeatable
def compare(
    a: pd.DataFrame,
    b: pd.DataFrame,
    names: tuple[str, str] = ("A", "B"),
    *,
    allow_missing: bool = False,
    corrected: bool = True,
    unit: Unit = "lesion",
) -> Comparison:
    """Compare two out-of-fold tables of the same task on the images they have in common.

    Args:
        a: An out-of-fold table (see `naevus.evaluation.out_of_fold`) of any task.
        b: Another one, of the same task.
        names: The names of A and B in sentences.
        allow_missing: Whether to leave out images that are in only one table.
        corrected: Whether to correct intervals and p for the number of differences; not if a
            single one is of interest, or if several comparisons are corrected together.
        unit: What the groups are.

    Raises:
        DataError: The tasks or classes differ, a table lacks a column or has an id twice or a
            value that is not finite, an image is in only one table and ``allow_missing`` is
            false, or ground truth or groups differ.
    """
    task = _task(a, names[0])
    if _task(b, names[1]) != task:
        raise DataError(
            f"{names[0]} and {names[1]} are runs of different tasks", "compare runs of one task"
        )
    for table, name in ((a, names[0]), (b, names[1])):
        check_finite(table, _figures(table, task), name)
    ours, theirs = in_common((a, b), names, _AGREED[task], allow_missing=allow_missing)
    compared = {"classification": _diagnoses, "segmentation": _masks, "attributes": _attributes}
    differences, recalls, test, changed = compared[task](ours, theirs, corrected=corrected)
    return Comparison(
        task=task,
        a=names[0],
        b=names[1],
        images=len(ours),
        groups=ours["group_id"].nunique(),
        only_a=len(a) - len(ours),
        only_b=len(b) - len(theirs),
        differences=differences,
        recalls=recalls,
        mcnemar=test,
        changed=changed,
        unit=unit,
    )


_NEEDED: dict[Task, tuple[str, ...]] = {
    "classification": ("image_id", "group_id", "diagnosis"),
    "segmentation": ("image_id", "group_id", "jaccard", "thresholded_jaccard"),
    "attributes": ("image_id", "group_id", *(f"predicted_{name}" for name in ATTRIBUTES)),
}
_AGREED: dict[Task, dict[str, str]] = {
    "classification": AGREED,
    "segmentation": {"group_id": "group"},
    "attributes": {
        "group_id": "group",
        "pixels": "size",
        **{f"true_{name}": f"mask of {title}" for name, title in ATTRIBUTES.items()},
    },
}
_DECISIONS: Final = (
    "balanced accuracy, balanced decision",
    "balanced accuracy, natural decision",
    "accuracy, natural decision",
)
_OVERLAPS: Final = {"thresholded Jaccard": "thresholded_jaccard", "Jaccard": "jaccard"}
_Compared = tuple[tuple[Difference, ...], tuple[Difference, ...], McNemar, tuple[Change, ...]]


def _task(table: pd.DataFrame, name: str) -> Task:
    logits = any(str(column).startswith("logit_") for column in table.columns)
    task: Task = "classification" if logits else "segmentation"
    if is_attributes_table(table):
        task = "attributes"
    absent = [column for column in _NEEDED[task] if column not in table.columns]
    if absent:
        raise DataError(
            f"{name}: has no column {absent[0]}", "name a run or an out-of-fold table of train"
        )
    return task


def _figures(table: pd.DataFrame, task: Task) -> list[str]:
    if task == "classification":
        return numbers_of(table, ("logit", "class_prior", "class_weight"))
    if task == "attributes":
        return ["pixels", *(f"true_{name}" for name in ATTRIBUTES)]
    return ["jaccard", "thresholded_jaccard"]


def _diagnoses(a: pd.DataFrame, b: pd.DataFrame, *, corrected: bool) -> _Compared:
    taxonomy = taxonomy_of(a)
    if taxonomy_of(b) != taxonomy:
        raise DataError("A and B have different classes", "compare runs of one taxonomy")
    truth = np.array([taxonomy.index(code) for code in a["diagnosis"]])
    predicted = [[each.argmax(1) for each in probabilities(table, taxonomy)] for table in (a, b)]
    natural, balanced = zip(*predicted, strict=True)
    present = np.unique(truth)
    by_class = truth[:, None] == present[None, :]
    everything = np.ones((len(truth), 1), bool)
    tests = len(_DECISIONS) + len(present) if corrected else 1
    differences = tuple(
        _accuracy(name, [each == truth for each in pair], inside, a, tests)
        for name, pair, inside in (
            (_DECISIONS[0], balanced, by_class),
            (_DECISIONS[1], natural, by_class),
            (_DECISIONS[2], natural, everything),
        )
    )
    right = [each == truth for each in balanced]
    recalls = tuple(
        _accuracy(f"recall of {taxonomy.codes[c]}", right, (truth == c)[:, None], a, tests)
        for c in present.tolist()
    )
    names = np.array(taxonomy.codes, object)
    changes = _changes(
        a["image_id"], balanced[0] != balanced[1], names[truth], [names[i] for i in balanced], right
    )
    return differences, recalls, mcnemar(right[0], right[1], a["group_id"].tolist()), changes


def _masks(a: pd.DataFrame, b: pd.DataFrame, *, corrected: bool) -> _Compared:
    groups, every = a["group_id"].tolist(), np.ones((len(a), 1))
    differences = tuple(
        paired_difference(
            name, a[[column]], b[[column]], every, groups, tests=len(_OVERLAPS) if corrected else 1
        )
        for name, column in _OVERLAPS.items()
    )
    overlaps = [table["jaccard"].to_numpy(np.float64) for table in (a, b)]
    good = [overlap >= JACCARD_THRESHOLD for overlap in overlaps]
    values = [np.array([f"{value:.3f}" for value in overlap], object) for overlap in overlaps]
    unnamed = np.full(len(a), "", object)
    changes = _changes(a["image_id"], good[0] != good[1], unnamed, values, good)
    return differences, (), mcnemar(good[0], good[1], groups), changes


def _attributes(a: pd.DataFrame, b: pd.DataFrame, *, corrected: bool) -> _Compared:
    """Compare pooled Jaccard indices, each table at its own cross-fitted thresholds."""
    groups = a["group_id"].tolist()
    cuts = [cross_fitted_counts(table) for table in (a, b)]
    parts = {"pooled Jaccard": slice(None)} | {
        f"{title}, pooled Jaccard": slice(k, k + 1) for k, title in enumerate(ATTRIBUTES.values())
    }
    pooled = {name: [cut[:, part].sum(axis=1) for cut in cuts] for name, part in parts.items()}
    shown = {name: pair for name, pair in pooled.items() if all(cut.any() for cut in pair)}
    tests = len(shown) if corrected else 1
    differences = tuple(
        pooled_difference(name, ours, theirs, groups, tests=tests)
        for name, (ours, theirs) in shown.items()
    )
    overlaps = [jaccard(*cut.sum(axis=1).T) for cut in cuts]
    good = [overlap >= JACCARD_THRESHOLD for overlap in overlaps]
    values = [np.array([f"{value:.3f}" for value in overlap], object) for overlap in overlaps]
    unnamed = np.full(len(a), "", object)
    changes = _changes(a["image_id"], good[0] != good[1], unnamed, values, good)
    return differences, (), mcnemar(good[0], good[1], groups), changes


def pooled_difference(
    name: str,
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    groups: Sequence[Hashable],
    *,
    tests: int = 1,
) -> Difference:
    """Compare two pooled Jaccard indices, which have different denominators.

    Each index is linearised at the mean of both: an image contributes what its hits exceed
    mean times union, as a fraction of all unions. The contributions sum exactly to the indices.

    Args:
        name: The name of the score.
        a: N x 3: pixels in both, in the mask, and in the ground truth, as fractions.
        b: The same for B.
        groups: N group ids.
        tests: The number of tests that interval and p are corrected for.
    """
    hits, unions = zip(
        *((cut[:, 0], cut[:, 1] + cut[:, 2] - cut[:, 0]) for cut in (a, b)), strict=True
    )
    whole = [hit.sum() / union.sum() for hit, union in zip(hits, unions, strict=True)]
    middle = float(np.mean(whole))
    weights = np.mean([union / union.sum() for union in unions], axis=0)
    ours, theirs = (
        middle * weights + (hit - middle * union) / union.sum()
        for hit, union in zip(hits, unions, strict=True)
    )
    inside = weights > 0
    kept = [group for group, there in zip(groups, inside.tolist(), strict=True) if there]
    first, second, inner = (each[inside, None] for each in (ours, theirs, weights))
    found = paired_difference(name, first, second, inner, kept, tests=tests)
    return found._replace(a=float(whole[0]), b=float(whole[1]))  # without rounding errors


def _accuracy(
    name: str,
    right: Sequence[NDArray[np.bool_]],
    inside: NDArray[np.bool_],
    table: pd.DataFrame,
    tests: int,
) -> Difference:
    """Compare the mean, over the columns of ``inside``, of the fraction of correct predictions."""
    rows = np.flatnonzero(inside.any(axis=1))
    a, b = (inside[rows] & each[rows, None] for each in right)
    groups = table["group_id"].iloc[rows].tolist()
    return paired_difference(name, a, b, inside[rows], groups, tests=tests)


def _changes(
    ids: pd.Series[str],
    changed: NDArray[np.bool_],
    truth: NDArray[np.object_],
    predicted: Sequence[NDArray[np.object_]],
    right: Sequence[NDArray[np.bool_]],
) -> tuple[Change, ...]:
    return tuple(
        Change(
            image_id=str(ids.iloc[n]),
            truth=str(truth[n]),
            a=str(predicted[0][n]),
            b=str(predicted[1][n]),
            effect="fixed" if right[1][n] else "broken" if right[0][n] else "other",
        )
        for n in np.flatnonzero(changed).tolist()
    )
