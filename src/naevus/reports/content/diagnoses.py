"""The section about diagnoses: headline scores, scores by class and fold, confusion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from naevus.reports.content.columns import interval_table, percent, percent_range, spread
from naevus.reports.document import Drawing, Key, Section, Table
from naevus.reports.figures.confusion import confusion_figure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from naevus.evaluation.evaluate import Answers


def summary(answers: Answers, which: str) -> str:
    """Return the result in a sentence.

    Args:
        answers: The answers.
        which: What is to be said of the pictures, such as ``", held out while training,"``.
    """
    accuracy, balanced = (answers.intervals[name] for name in ("accuracy", "balanced_accuracy"))
    text = (
        f"Of {len(answers.truth):,} pictures of {len(set(answers.groups)):,} lesions{which} "
        f"{_share(accuracy)} get the right diagnosis. The mean over the {len(answers.recalls)} "
        f"diagnoses (balanced accuracy) is {_share(balanced)}"
    )
    if "MEL" in answers.recalls:
        text += f"; of melanomas, {_share(answers.recalls['MEL'])} are found"
    return text + "."


def keys(answers: Answers) -> list[Key]:
    """Return the figures that matter most."""
    found = [
        Key(name, percent(interval.value), percent_range(interval))
        for name, interval in (
            ("balanced accuracy", answers.intervals["balanced_accuracy"]),
            ("accuracy", answers.intervals["accuracy"]),
            *((("melanomas found", answers.recalls["MEL"]),) if "MEL" in answers.recalls else ()),
        )
    ]
    groups = f"of {len(set(answers.groups)):,} lesions"
    return [*found, Key("pictures diagnosed", f"{len(answers.truth):,}", groups)]


def score_section(answers: Answers) -> Section:
    """Return headline scores, scores by class, and the confusion matrix."""
    scores, codes = answers.scores, answers.diagnosed.taxonomy.codes
    headline = interval_table("score", answers.intervals)
    rows = []
    for one, diagnosis in zip(
        scores.balanced.classes, answers.diagnosed.taxonomy.diagnoses, strict=True
    ):
        recall = answers.recalls.get(one.code)
        rows.append(
            {
                "class": one.code,
                "name": diagnosis.name,
                "pictures": one.pictures,
                "lesions": 0 if recall is None else recall.groups,
                **spread("recall", recall),
                "precision": one.precision,
                "specificity": one.specificity,
                "AUC": scores.auc[one.code],
                "average precision": scores.average_precision[one.code],
            }
        )
    shares = scores.balanced.normalised_confusion()
    mean = np.nanmean(np.diag(shares))
    return Section(
        "scores",
        "Diagnoses",
        (
            (
                "Intervals are 95 %, by lesion, given the trained networks. Balanced answers are "
                "the best ones were all diagnoses equally common; accuracy is of the most probable."
            ),
            *scores.notes,
        ),
        (
            Table("scores", "Scores", headline),
            *_by_fold(answers),
            Table("classes", "By diagnosis, balanced answers", pd.DataFrame(rows)),
            Table(
                "confusion",
                "Confusion, counts",
                _confusion(scores.balanced.confusion, codes),
                folded=True,
            ),
        ),
        (
            Drawing(
                "confusion",
                "Confusion of balanced answers",
                confusion_figure(scores.balanced.confusion, codes),
                f"Rows are the truth, columns the answers; the diagonal's mean is {mean:.3f}.",
            ),
        ),
    )


def _by_fold(answers: Answers) -> list[Table]:
    """Return the scores of each fold, where there are several."""
    diagnosed = answers.diagnosed
    if answers.folds is None:
        return []
    codes = np.array(diagnosed.taxonomy.codes, object)
    judged = diagnosed.table[["fold", "group_id", "truth"]].assign(
        balanced=np.array(answers.balanced, object) == diagnosed.table["truth"].to_numpy(object),
        probable=codes[diagnosed.natural.argmax(axis=1)] == diagnosed.table["truth"],
    )
    rows = [
        {
            "fold": fold,
            "pictures": len(part),
            "lesions": part["group_id"].nunique(),
            "balanced accuracy": part.groupby("truth")["balanced"].mean().mean(),
            "accuracy": part["probable"].mean(),
        }
        for fold, part in judged.groupby("fold")
    ]
    return [Table("folds", "By fold", pd.DataFrame(rows))]


def _share(interval: Any) -> str:
    return f"{percent(interval.value)} ({percent_range(interval)})"


def _confusion(counts: Any, codes: Sequence[str]) -> pd.DataFrame:
    table = pd.DataFrame(counts, columns=list(codes))
    table.insert(0, "truth", list(codes))
    return table
