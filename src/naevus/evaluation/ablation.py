"""What each change to a recipe gains or costs, on the same held-out images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from naevus.errors import DataError
from naevus.evaluation.classification import headline_intervals
from naevus.evaluation.comparison import compare
from naevus.evaluation.subgroups import holm
from naevus.evaluation.tables import (
    LeftOut,
    left_out,
    oof_classified,
    refuse_left_out,
    taxonomy_of,
)
from naevus.io.files import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from naevus.evaluation.comparison import Comparison
    from naevus.evaluation.intervals import Interval


OtherDecision = Literal["raw", "natural"]
"""The network's largest logit as it comes, or the largest natural probability."""
HEADLINE = "balanced accuracy, balanced decision"
"""The score whose p-values are corrected for the number of arms."""
ACCURACY = "accuracy, natural decision"


@dataclass(frozen=True)
class Arm:
    """One change, and what it does.

    Attributes:
        name: What it is called.
        about: What differs from the reference, in words.
        comparison: Reference against arm; differences are arm - reference.
        p: Of the headline's difference, corrected for all arms (Holm 1979).
    """

    name: str
    about: str
    comparison: Comparison
    p: float


@dataclass(frozen=True)
class Ablation:
    """Arms with one budget, each against the reference.

    Attributes:
        title: What is tried.
        budget: What every arm was given, in words.
        reference: The name of what the others are compared with.
        scores: The reference's balanced accuracy and accuracy.
        arms: The others.
    """

    title: str
    budget: str
    reference: str
    scores: Mapping[str, Interval]
    arms: tuple[Arm, ...]
    left_out: tuple[LeftOut, ...] = ()
    """Images that some arm does not answer."""

    def table(self) -> pd.DataFrame:
        """Return a row for each arm and score, recalls among them."""
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
                "lesions": one.groups,
            }
            for arm in self.arms
            for one in (*arm.comparison.differences, *arm.comparison.recalls)
        ]
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the whole as a dictionary that JSON can hold; changed answers are left out."""
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
        """Return the headline figures as text: a row of column names, then one an arm.

        Differences are in points (hundredths), with their 95 % intervals by lesion.
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
        """Return what is said under the table: the reference's intervals, and what arms are."""
        names = (("balanced_accuracy", "balanced accuracy"), ("accuracy", "accuracy"))
        own = "; ".join(f"{words} {self.scores[name]}" for name, words in names)
        return [
            f"{self.reference}: {own}",
            *(f"{arm.name}: {arm.about}" for arm in self.arms),
            *(f"{found}: left out" for found in self.left_out),
        ]

    def markdown(self) -> str:
        """Return title, budget, table and notes as Markdown."""
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
) -> Ablation:
    """Compare the arms with the reference on the images that all of them answer.

    Args:
        title: What is tried.
        budget: What every arm was given.
        tables: Out-of-fold tables of logits by arm, the reference among them.
        abouts: What differs, by arm.
        reference: Which arm the others are compared with.
        allow_missing: Whether images may be left out that an arm does not answer.

    Raises:
        DataError: There is no other arm, the tables have no image in common, one does not answer
            all and that is not allowed, or their truths or groups differ.
    """
    others = [name for name in tables if name != reference]
    if reference not in tables or not others:
        raise DataError("there is nothing to compare", "name the reference and another arm")
    common = set.intersection(*(set(table["image_id"]) for table in tables.values()))
    if not common:
        raise DataError("the arms have no image in common", "compare arms of one fold")
    absent = left_out(
        *(
            (f"images have no answer in {name}", set(table["image_id"]) ^ every)
            for every in [set().union(*(table["image_id"] for table in tables.values()))]
            for name, table in tables.items()
        )
    )
    refuse_left_out(absent, title, allow_missing=allow_missing)
    kept = {name: table[table["image_id"].isin(common)] for name, table in tables.items()}
    found = [
        compare(kept[reference], kept[name], (reference, name), corrected=False) for name in others
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
    )


def decided(table: pd.DataFrame, decision: OtherDecision) -> pd.DataFrame:
    """Return a table whose every answer is by another decision.

    Args:
        table: An out-of-fold table.
        decision: ``raw``: the largest logit, neither weights nor shares being taken off;
            ``natural``: the largest natural probability.
    """
    codes = taxonomy_of(table).codes
    even = {f"class_prior_{code}": 1 / len(codes) for code in codes}
    bare = {f"class_weight_{code}": 1.0 for code in codes} if decision == "raw" else {}
    return table.assign(**even, **bare)


def _points(difference: Interval) -> str:
    value, low, high = (100 * part for part in difference)
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})" if difference.known else f"{value:+.1f}"
