"""Ablation studies: the effect of each change to a recipe, on the same held-out images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from naevus.errors import DataError
from naevus.evaluation.classification import headline_intervals
from naevus.evaluation.comparison import compare
from naevus.evaluation.labelled import oof_classified
from naevus.evaluation.out_of_fold import taxonomy_of
from naevus.evaluation.subgroups import holm
from naevus.evaluation.tables import LeftOut, left_out, refuse_left_out
from naevus.io.files import plain
from naevus.io.words import plural

if TYPE_CHECKING:
    from collections.abc import Mapping

    from naevus.evaluation.comparison import Comparison
    from naevus.evaluation.intervals import Interval
    from naevus.types import Unit


OtherDecision = Literal["raw", "natural"]
"""``raw``: the class of the largest logit; ``natural``: of the largest natural probability."""
HEADLINE = "balanced accuracy, balanced decision"
"""The score whose p-values are corrected for the number of arms."""
ACCURACY = "accuracy, natural decision"


@dataclass(frozen=True)
class Arm:
    """One change and its effect.

    Attributes:
        name: The name of the arm.
        about: The difference from the reference, in words.
        comparison: Reference against arm; differences are arm - reference.
        p: The p value of the headline difference, corrected for the number of arms (Holm 1979).
    """

    name: str
    about: str
    comparison: Comparison
    p: float


@dataclass(frozen=True)
class Ablation:
    """Arms with one budget, each compared with the reference.

    Attributes:
        title: The subject of the study.
        budget: The budget of every arm, in words.
        reference: The name of the reference arm.
        scores: Balanced accuracy and accuracy of the reference.
        arms: The other arms.
        left_out: Images that some arm has no prediction for.
        unit: What the groups are.
    """

    title: str
    budget: str
    reference: str
    scores: Mapping[str, Interval]
    arms: tuple[Arm, ...]
    left_out: tuple[LeftOut, ...] = ()
    unit: Unit = "lesion"

    def table(self) -> pd.DataFrame:
        """Return one row per arm and score, including the recall of each class."""
        rows = [
            {
                "arm": arm.name,
                "about": arm.about,
                "score": one.score,
                "reference": one.a,
                "value": one.b,
                "difference": one.difference.value,
                "low": one.difference.low,
                "high": one.difference.high,
                "p": one.p,
                "p_holm": arm.p if one.score == HEADLINE else np.nan,
                "images": arm.comparison.images,
                plural(self.unit): one.groups,
            }
            for arm in self.arms
            for one in (*arm.comparison.differences, *arm.comparison.recalls)
        ]
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the study as a dictionary for JSON, without the list of changed predictions."""
        return {
            "title": self.title,
            "budget": self.budget,
            "reference": self.reference,
            "left_out": [str(found) for found in self.left_out],
            "scores": {name: plain(interval._asdict()) for name, interval in self.scores.items()},
            "arms": [
                {
                    "name": arm.name,
                    "about": arm.about,
                    "p_holm": arm.p,
                    **{k: v for k, v in arm.comparison.to_dict().items() if k != "changed"},
                }
                for arm in self.arms
            ],
        }

    def summary(self) -> list[tuple[str, ...]]:
        """Return the headline figures as text: column names, then one row per arm.

        Differences are in percentage points, with 95 % intervals by group.
        """
        rows: list[tuple[str, ...]] = [
            ("arm", "balanced accuracy", "difference", "p (Holm)", "accuracy", "difference"),
            (
                self.reference,
                f"{self.scores['balanced_accuracy'].value:.3f}",
                "reference",
                "",
                f"{self.scores['accuracy'].value:.3f}",
                "reference",
            ),
        ]
        for arm in self.arms:
            found = {one.score: one for one in arm.comparison.differences}
            (balanced, first), (accuracy, second) = (
                (f"{found[score].b:.3f}", _points(found[score].difference))
                for score in (HEADLINE, ACCURACY)
            )
            rows.append((arm.name, balanced, first, f"{arm.p:.2g}", accuracy, second))
        return rows

    def lines(self) -> list[str]:
        """Return the notes below the table: the reference's intervals and what each arm is."""
        names = (("balanced_accuracy", "balanced accuracy"), ("accuracy", "accuracy"))
        own = "; ".join(f"{words} {self.scores[name]}" for name, words in names)
        return [
            f"{self.reference}: {own}",
            *(f"{arm.name}: {arm.about}" for arm in self.arms),
            *(f"{found}: left out" for found in self.left_out),
        ]

    def markdown(self) -> str:
        """Return title, budget, table and notes in Markdown."""
        head, *rows = self.summary()
        table = [
            f"| {' | '.join(head)} |",
            f"|{'---|' * len(head)}",
            *(f"| {' | '.join(row)} |" for row in rows),
        ]
        notes = [f"- {line}" for line in self.lines()]
        return "\n".join([f"## {self.title}", "", self.budget, "", *table, "", *notes, ""])


def ablation(
    title: str,
    budget: str,
    tables: Mapping[str, pd.DataFrame],
    abouts: Mapping[str, str],
    reference: str,
    *,
    allow_missing: bool = False,
    unit: Unit = "lesion",
) -> Ablation:
    """Compare the arms with the reference on the images that all of them predicted.

    Args:
        title: The subject of the study.
        budget: The budget of every arm.
        tables: Out-of-fold tables of logits by arm, including the reference.
        abouts: The difference from the reference, by arm.
        reference: The name of the reference arm.
        allow_missing: Whether to leave out images that some arm has no prediction for.
        unit: What the groups are.

    Raises:
        DataError: There is no other arm, the tables have no image in common, a prediction is
            missing and ``allow_missing`` is false, or ground truth or groups differ.
    """
    others = [name for name in tables if name != reference]
    if reference not in tables or not others:
        raise DataError("there is nothing to compare", "name the reference and another arm")
    common = set.intersection(*(set(table["image_id"]) for table in tables.values()))
    if not common:
        raise DataError("the arms have no image in common", "compare arms of one fold")
    absent = left_out(
        *(
            (f"images have no prediction in {name}", set(table["image_id"]) ^ every)
            for every in [set().union(*(table["image_id"] for table in tables.values()))]
            for name, table in tables.items()
        )
    )
    refuse_left_out(absent, title, allow_missing=allow_missing)
    kept = {name: table[table["image_id"].isin(common)] for name, table in tables.items()}
    found = [
        compare(kept[reference], kept[name], (reference, name), corrected=False, unit=unit)
        for name in others
    ]
    corrected = holm([one.differences[0].p for one in found])
    scores = headline_intervals(oof_classified(kept[reference]))
    return Ablation(
        title,
        budget,
        reference,
        scores,
        tuple(
            Arm(name, abouts[name], one, float(p))
            for name, one, p in zip(others, found, corrected, strict=True)
        ),
        absent,
        unit,
    )


def decided(table: pd.DataFrame, decision: OtherDecision) -> pd.DataFrame:
    """Return a table whose predictions follow another decision rule.

    Args:
        table: An out-of-fold table.
        decision: ``raw``: the largest logit, without correction for class weights and priors;
            ``natural``: the largest natural probability.
    """
    codes = taxonomy_of(table).codes
    even = {f"class_prior_{code}": 1 / len(codes) for code in codes}
    bare = {f"class_weight_{code}": 1.0 for code in codes} if decision == "raw" else {}
    return table.assign(**even, **bare)


def _points(difference: Interval) -> str:
    value, low, high = (100 * part for part in difference)
    return f"{value:+z.1f} ({low:+z.1f} to {high:+z.1f})" if difference.known else f"{value:+z.1f}"
