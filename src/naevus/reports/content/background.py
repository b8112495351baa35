"""Sections about what stands behind the results: training, subgroups, data, provenance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from naevus.evaluation.subgroups import LEAST_OF_CLASS, SMALL, age_bands, subgroup_scores
from naevus.reports.document import Drawing, Section, Table
from naevus.reports.figures.learning import learning_figure

if TYPE_CHECKING:
    from naevus.reports.content.diagnoses import Answers
    from naevus.reports.results import Results

_MANY = 12
"""Rows from which on a table of facts is folded."""
_CURVES = {"loss": "training loss", "inner_score": "score on the inner part"}


def training_section(history: pd.DataFrame) -> Section:
    """Return learning curves and the last epoch of each fold."""
    columns = [name for name in _CURVES if name in history and history[name].notna().any()]
    last = history.groupby("fold").tail(1)
    shown = ["fold", "epoch", *columns, "seconds"]
    return Section(
        "training",
        "Training",
        ("The inner part is of whole lesions, and no picture of it is learnt from.",),
        (Table("last-epochs", "The last epoch", last[[name for name in shown if name in last]]),),
        tuple(
            Drawing(
                f"learning-{name.replace('_', '-')}",
                _CURVES[name].capitalize(),
                learning_figure(history, name, _CURVES[name]),
                f"It ends at {history.loc[history[name].notna(), name].iloc[-1]:.3f}.",
            )
            for name in columns
        ),
    )


def subgroup_section(answers: Answers, records: pd.DataFrame) -> Section | None:
    """Return balanced answers by sex, age, site and how the diagnosis was confirmed, if known."""
    rows = records.reindex(answers.diagnosed.table["image_id"])
    attributes = {
        "sex": rows["sex"].tolist(),
        "age": age_bands(rows["age"].astype("float64")),
        "site": rows["site"].tolist(),
        "confirmed by": rows["confirmation"].tolist(),
    }
    known = {
        name: column for name, column in attributes.items() if pd.notna(pd.Series(column)).any()
    }
    if not known:
        return None
    found = subgroup_scores(answers.truth, answers.balanced, answers.groups, known)
    table = pd.DataFrame(
        {
            "attribute": one.attribute,
            "value": one.value,
            "pictures": one.pictures,
            "lesions": one.groups,
            "balanced accuracy": one.balanced_accuracy and one.balanced_accuracy.value,
            "balanced accuracy_low": one.balanced_accuracy and one.balanced_accuracy.low,
            "balanced accuracy_high": one.balanced_accuracy and one.balanced_accuracy.high,
            "over": " ".join(one.classes),
            "gap": one.gap,
            "gap over": " ".join(one.shared),
            "p": one.p,
            "p, Holm": one.p_holm,
            "small": one.small,
        }
        for one in found
    )
    return Section(
        "subgroups",
        "Subgroups",
        (
            (
                f"Balanced accuracy is over the diagnoses with at least {LEAST_OF_CLASS} lesions "
                "in the subgroup: compare rows only where these are the same."
            ),
            (
                "The gap is the subgroup's minus that of all others, over diagnoses that both "
                "have, each counting the same; p is by dealing the subgroups out anew among the "
                "lesions of each diagnosis, and corrected for all rows after Holm."
            ),
            f"Rows in grey have fewer than {SMALL} lesions.",
        ),
        (Table("subgroups", "Balanced answers by subgroup", table),),
    )


def data_section(results: Results) -> Section:
    """Return how much of everything there is, and what was left out."""
    notes, tables = [], []
    pictures = results.pictures
    together = int((pictures["group_id"].value_counts() > 1).sum())
    notes.append(
        f"{len(pictures):,} pictures of {pictures['group_id'].nunique():,} lesions are judged; "
        f"{together:,} lesions have more than one picture."
    )
    if results.diagnosed is not None:
        by_class = results.diagnosed.table.groupby("truth")
        codes = [code for code in results.diagnosed.taxonomy.codes if code in by_class.groups]
        counts = pd.DataFrame(
            {
                "class": codes,
                "pictures": [int(by_class.size()[code]) for code in codes],
                "lesions": [int(by_class["group_id"].nunique()[code]) for code in codes],
            }
        )
        tables.append(Table("class-counts", "Diagnoses", counts))
    notes += _of_records(results)
    count = len(results.unanswered)
    notes.append(f"{count:,} pictures have no answer." if count else "Every picture has an answer.")
    if count:
        tables.append(Table("unanswered", "Without an answer", results.unanswered))
    return Section("data", "Data", tuple(notes), tuple(tables))


def provenance_section(results: Results) -> Section:
    """Return configuration, versions, hashes, and the command that makes the same again."""
    tables = tuple(
        Table(
            title.lower(),
            title,
            pd.DataFrame({"name": list(facts), "value": list(facts.values())}),
            folded=len(facts) > _MANY,
        )
        for title, facts in results.facts.items()
    )
    return Section(
        "provenance",
        "How it was made",
        ("Folders stand with their last name only; give their whole path.",),
        tables,
        command=results.command,
    )


def _of_records(results: Results) -> list[str]:
    if results.records is None:
        return ["The data set is not at hand: no picture, no subgroup and no duplicate is shown."]
    lesions = results.records.groupby("group_id")["lesion_id"].nunique()
    joined = int((lesions > 1).sum())
    return [
        f"{joined:,} groups join lesions that duplicates connect."
        if joined
        else "No group joins several lesions: no duplicates are known."
    ]
