"""What a layout's reader hands over before the table is typed and checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from naevus.datasets.records import Problem
from naevus.errors import DataError
from naevus.taxonomy import ISIC2018, Taxonomy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


@dataclass
class Draft:
    """Rows as read, the taxonomy of their diagnoses, and what was noticed."""

    frame: pd.DataFrame
    taxonomy: Taxonomy = ISIC2018
    problems: list[Problem] = field(default_factory=list)


def read_csv(path: Path, required: Iterable[str] = ()) -> pd.DataFrame:
    """Read a table with every value as text; absent values are ``pd.NA``.

    Values are separated by commas, or by tabs in files that end in ``.tab`` or ``.tsv``.

    Raises:
        DataError: It is not a CSV file, or one of the ``required`` columns is absent.
    """
    try:
        table = pd.read_csv(
            path,
            sep="\t" if path.suffix in {".tab", ".tsv"} else ",",
            dtype="string",
            keep_default_na=False,
            na_values=[""],
            encoding="utf-8-sig",
        )
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error})", "mend the file") from error
    table.columns = table.columns.str.strip()
    absent = [name for name in required if name not in table.columns]
    if absent:
        raise DataError(
            f"{path}: no column {absent[0]!r} (it has {', '.join(table.columns)})",
            f"give it the columns {', '.join(required)}",
        )
    return table


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
