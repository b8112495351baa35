"""A against B: two recipes' out-of-fold answers to the same pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from naevus.errors import DataError
from naevus.evaluation.outoffold import probabilities, taxonomy_of
from naevus.evaluation.paired import Difference, McNemar, mcnemar, paired_difference
from naevus.evaluation.pairing import AGREED, in_common
from naevus.evaluation.repeatable import repeatable
from naevus.evaluation.scoring.segmentation import JACCARD_THRESHOLD
from naevus.evaluation.tables import check_finite, numbers_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Task = Literal["classification", "segmentation"]


class Change(NamedTuple):
    """A picture that A and B answer differently."""

    image_id: str
    truth: str
    """The diagnosis; empty for masks."""
    a: str
    """A's diagnosis by the balanced decision, or its Jaccard index."""
    b: str
    effect: Literal["mended", "broken", "other"]
    """Whether B is right where A was wrong, the other way round, or both are wrong."""


@dataclass(frozen=True)
class Comparison:
    """What B changes against A; differences are B - A."""

    task: Task
    a: str
    b: str
    pictures: int
    groups: int
    only_a: int
    """Pictures that only A answered; they are left out."""
    only_b: int
    differences: tuple[Difference, ...]
    """The headline first: balanced accuracy, or thresholded Jaccard."""
    recalls: tuple[Difference, ...]
    """The recall of each class that is present, by the balanced decision."""
    mcnemar: McNemar
    """On right answers by the balanced decision, or on masks that reach 0.65."""
    changed: tuple[Change, ...]
    """Pictures whose answer changed, or whose mask crossed 0.65."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """Each difference in words, the headline first."""
        return tuple(difference.sentence(self.a, self.b) for difference in self.differences)

    def __str__(self) -> str:
        return "\n".join(self.sentences)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as a dictionary that JSON can hold."""
        return {
            **{
                name: getattr(self, name)
                for name in ("task", "a", "b", "pictures", "groups", "only_a", "only_b")
            },
            "sentences": list(self.sentences),
            "differences": [difference.to_dict() for difference in self.differences],
            "recalls": [difference.to_dict() for difference in self.recalls],
            "mcnemar": self.mcnemar._asdict(),
            "changed": [change._asdict() for change in self.changed],
        }

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return ``differences``, ``recalls`` and ``changed`` as tables."""
        figures = ("score", "a", "b", "difference", "low", "high", "p", "groups")
        rows = {
            name: [(*one[:3], *one.difference, *one[4:]) for one in getattr(self, name)]
            for name in ("differences", "recalls")
        }
        tables = {name: pd.DataFrame(found, columns=figures) for name, found in rows.items()}
        return {**tables, "changed": pd.DataFrame(self.changed, columns=Change._fields)}


@repeatable
def compare(
    a: pd.DataFrame,
    b: pd.DataFrame,
    names: tuple[str, str] = ("A", "B"),
    *,
    allow_missing: bool = False,
) -> Comparison:
    """Compare two out-of-fold tables of one task on the pictures they have in common.

    Args:
        a: What `naevus.evaluation.outoffold` reads, of either task.
        b: Likewise, of the same task.
        names: What A and B are called in sentences.
        allow_missing: Whether pictures may be left out that are in one of them alone.

    Raises:
        DataError: The tasks or classes differ, a table lacks a column, holds an id twice or a value
            that is no finite number, a picture is not in both and that is not allowed, or truth
            or groups disagree.
    """
    task = _task(a, names[0])
    if _task(b, names[1]) != task:
        raise DataError(
            f"{names[0]} and {names[1]} are of different tasks", "compare runs of one task"
        )
    for table, name in ((a, names[0]), (b, names[1])):
        check_finite(table, _figures(table, task), name)
    ours, theirs = in_common((a, b), names, _AGREED[task], allow_missing=allow_missing)
    differences, recalls, test, changed = (
        _diagnoses(ours, theirs) if task == "classification" else _masks(ours, theirs)
    )
    return Comparison(
        task=task,
        a=names[0],
        b=names[1],
        pictures=len(ours),
        groups=ours["group_id"].nunique(),
        only_a=len(a) - len(ours),
        only_b=len(b) - len(theirs),
        differences=differences,
        recalls=recalls,
        mcnemar=test,
        changed=changed,
    )


_NEEDED: dict[Task, tuple[str, ...]] = {
    "classification": ("image_id", "group_id", "truth"),
    "segmentation": ("image_id", "group_id", "jaccard", "thresholded"),
}
_AGREED: dict[Task, dict[str, str]] = {
    "classification": AGREED,
    "segmentation": {"group_id": "group"},
}
_Compared = tuple[tuple[Difference, ...], tuple[Difference, ...], McNemar, tuple[Change, ...]]


def _task(table: pd.DataFrame, name: str) -> Task:
    logits = any(str(column).startswith("logit_") for column in table.columns)
    task: Task = "classification" if logits else "segmentation"
    absent = [column for column in _NEEDED[task] if column not in table.columns]
    if absent:
        raise DataError(
            f"{name}: has no column {absent[0]}", "name a run or an out-of-fold table of train"
        )
    return task


def _figures(table: pd.DataFrame, task: Task) -> list[str]:
    if task == "classification":
        return numbers_of(table, ("logit", "share", "weight"))
    return ["jaccard", "thresholded"]


def _diagnoses(a: pd.DataFrame, b: pd.DataFrame) -> _Compared:
    taxonomy = taxonomy_of(a)
    if taxonomy_of(b) != taxonomy:
        raise DataError("A and B tell different classes apart", "compare runs of one taxonomy")
    truth = np.array([taxonomy.index(code) for code in a["truth"]])
    answers = [[each.argmax(1) for each in probabilities(table, taxonomy)] for table in (a, b)]
    probable, balanced = zip(*answers, strict=True)
    present = np.unique(truth)
    by_class = truth[:, None] == present[None, :]
    everything = np.ones((len(truth), 1), bool)
    differences = tuple(
        _accuracy(name, [each == truth for each in pair], inside, a)
        for name, pair, inside in (
            ("balanced accuracy, balanced decision", balanced, by_class),
            ("balanced accuracy, probable decision", probable, by_class),
            ("accuracy, probable decision", probable, everything),
        )
    )
    right = [each == truth for each in balanced]
    recalls = tuple(
        _accuracy(f"recall of {taxonomy.codes[c]}", right, (truth == c)[:, None], a)
        for c in present.tolist()
    )
    names = np.array(taxonomy.codes, object)
    changes = _changes(
        a["image_id"], balanced[0] != balanced[1], names[truth], [names[i] for i in balanced], right
    )
    return differences, recalls, mcnemar(right[0], right[1], a["group_id"].tolist()), changes


def _masks(a: pd.DataFrame, b: pd.DataFrame) -> _Compared:
    groups, every = a["group_id"].tolist(), np.ones((len(a), 1))
    differences = tuple(
        paired_difference(name, a[[column]], b[[column]], every, groups)
        for name, column in (("thresholded Jaccard", "thresholded"), ("Jaccard", "jaccard"))
    )
    overlaps = [table["jaccard"].to_numpy(np.float64) for table in (a, b)]
    good = [overlap >= JACCARD_THRESHOLD for overlap in overlaps]
    said = [np.array([f"{value:.3f}" for value in overlap], object) for overlap in overlaps]
    unnamed = np.full(len(a), "", object)
    changes = _changes(a["image_id"], good[0] != good[1], unnamed, said, good)
    return differences, (), mcnemar(good[0], good[1], groups), changes


def _accuracy(
    name: str, right: Sequence[NDArray[np.bool_]], inside: NDArray[np.bool_], table: pd.DataFrame
) -> Difference:
    """Compare the mean over columns of ``inside`` of the share of right answers there."""
    rows = np.flatnonzero(inside.any(axis=1))
    a, b = (inside[rows] & each[rows, None] for each in right)
    groups, truth = (table[column].iloc[rows].tolist() for column in ("group_id", "truth"))
    return paired_difference(name, a, b, inside[rows], groups, truth)


def _changes(
    ids: pd.Series[str],
    changed: NDArray[np.bool_],
    truth: NDArray[np.object_],
    answers: Sequence[NDArray[np.object_]],
    right: Sequence[NDArray[np.bool_]],
) -> tuple[Change, ...]:
    return tuple(
        Change(
            image_id=str(ids.iloc[n]),
            truth=str(truth[n]),
            a=str(answers[0][n]),
            b=str(answers[1][n]),
            effect="mended" if right[1][n] else "broken" if right[0][n] else "other",
        )
        for n in np.flatnonzero(changed).tolist()
    )
