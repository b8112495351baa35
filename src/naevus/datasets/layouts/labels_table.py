"""A table of labels next to images: ``labels.csv``, ``GroundTruth.csv``, a workbook, any name.

The table has a column that names the images, and any other column that is known: of diagnoses or
one per class, of lesions, patients, ages ... Masks may be in a folder next to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.datasets.layouts.images import Images, stem_of
from naevus.datasets.layouts.tabular import (
    class_columns,
    ignored_columns,
    masks_below,
    parsed_layout_of,
)
from naevus.errors import DataError
from naevus.io.formats import known_columns, read_table, tables_in

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from naevus.datasets.layouts.parsing import ParsedLayout
    from naevus.taxonomy import Taxonomy

NAME = "labels_table"
DESCRIPTION = "a table with a column that names images and another known one, beside images"


def matches(root: Path) -> bool:
    """Return whether a table in ``root`` (or ``root`` itself) lists images and their labels."""
    return any(_fits(path) for path in _candidates(root))


def read(root: Path, taxonomy: Taxonomy | None = None) -> ParsedLayout:
    """Read the tables, the images anywhere below, and masks in mask folders."""
    folder = root.parent if root.is_file() else root
    images = Images(folder)
    tables = [(_table(path), path) for path in _candidates(root) if _fits(path)]
    tables.sort(key=lambda each: not _has_labels(each[0]))
    problems = [problem for table in tables for problem in ignored_columns(*table)]
    masks = masks_below(folder, problems)
    parsed = parsed_layout_of(tables, images, masks=masks, taxonomy=taxonomy)
    parsed.problems.extend(problems)
    if not parsed.frame["path"].notna().any():
        first = parsed.frame["image_id"].iloc[0] if len(parsed.frame) else "any"
        raise DataError(
            f"{tables[0][1] if tables else root}: none of the images it names lies below "
            f"{folder}, the first is {first}",
            "put the table next to the folder of images",
        )
    return parsed


def _candidates(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    return [path for path in tables_in(root) if not path.name.endswith("_Groups.csv")]


def _fits(path: Path) -> bool:
    """Return whether a table lists images; an unreadable file does not."""
    try:
        table = read_table(path)
    except DataError:
        if path.suffix.lower() == ".txt":  # licences and readmes
            return False
        raise
    columns = known_columns(table)
    names = {"image_id", "path"} & columns.keys()
    if names and (columns.keys() - names or len(class_columns(table)) > 1):
        return True
    return not columns and _headless(table)


def _headless(table: pd.DataFrame) -> bool:
    """Return whether a table of two columns starts with an image's name instead of a header."""
    first = str(table.columns[0])
    return len(table.columns) == 2 and stem_of(first) != first


def _table(path: Path) -> pd.DataFrame:
    table = read_table(path)
    if not known_columns(table) and _headless(table):
        return read_table(path, names=("image_id", "diagnosis"))
    return table


def _has_labels(table: pd.DataFrame) -> bool:
    columns = known_columns(table)
    return "diagnosis" in columns or len(class_columns(table)) > 1
