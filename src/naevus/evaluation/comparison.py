"""Compare two recipes by their predictions on the same held-out images, paired by lesion."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np
import pandas as pd

from naevus.errors import DataError
from naevus.evaluation.attributes import cross_fitted_counts, is_attributes_table, jaccard
from naevus.evaluation.bootstrap import repeatable
from naevus.evaluation.mask_metrics import JACCARD_THRESHOLD
from naevus.evaluation.out_of_fold import probabilities, taxonomy_of
from naevus.evaluation.paired_tests import (
    Difference,
    McNemar,
    mcnemar,
    paired_difference,
    pooled_difference,
)
from naevus.evaluation.tables import AGREED, check_finite, in_common, numbers_of, same_folds
from naevus.io.figures import interval_figure
from naevus.io.files import plain
from naevus.taxonomy import ATTRIBUTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from naevus.types import Task, Unit


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
    same_folds: bool = True
    """Whether the folds of both divide the images in the same way, as far as they are known."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """One sentence per difference, the headline first."""
        return tuple(one.sentence(self.a, self.b, self.unit) for one in self.differences)

    def __str__(self) -> str:
        return "\n".join(self.sentences)

    def _repr_html_(self) -> str:
        """Return the differences for a notebook."""
        names = html.escape(f"A: {self.a}, B: {self.b}")
        table = self.to_frame().to_html(index=False, float_format="{:z.3f}".format)
        return f"<p>{names}</p>{table}"

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as a dictionary for JSON."""
        return {
            **{
                name: getattr(self, name)
                for name in (
                    *("task", "a", "b", "images", "groups", "unit", "only_a", "only_b"),
                    "same_folds",
                )
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
        same_folds=same_folds(ours, theirs),
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
