"""What a layout's reader hands over before the table is typed and checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from naevus.datasets.records import Problem
from naevus.taxonomy import ISIC2018, Taxonomy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd


@dataclass
class Draft:
    """Rows as read, the taxonomy of their diagnoses, what was noticed, and further groupings.

    Each of ``ties`` is by image id: pictures of one value are one group, whatever else groups them.
    """

    frame: pd.DataFrame
    taxonomy: Taxonomy = ISIC2018
    problems: list[Problem] = field(default_factory=list)
    ties: list[pd.Series[str]] = field(default_factory=list)


def once(table: pd.DataFrame, key: str, source: Path, problems: list[Problem]) -> pd.DataFrame:
    """Return ``table`` indexed by ``key``, the first row of each; others become problems."""
    table = table[table[key].notna()]
    again = table.duplicated(key)
    problems.extend(
        Problem("two rows of one id", image_id, f"the later one in {source} was left out")
        for image_id in table.loc[again, key]
    )
    return table[~again].set_index(key)


def fill(frame: pd.DataFrame, column: str, values: pd.Series[str] | Mapping[str, str]) -> None:
    """Fill the unknown places of ``frame[column]`` by image id, in place."""
    new = frame["image_id"].map(values).astype("string")
    old = frame[column] if column in frame.columns else None
    frame[column] = new if old is None else old.fillna(new)
