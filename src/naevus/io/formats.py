"""Files of our own read back: whole and of the right kinds, or one line that names file and remedy.

Tables that people write are read by `naevus.datasets.layouts.tables`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from naevus.errors import DataError, NaevusError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import pandas as pd


def read_parquet(
    path: Path,
    remedy: str,
    *,
    text: Sequence[str] = ("image_id",),
    numbers: Iterable[str] = (),
    error: type[NaevusError] = DataError,
) -> pd.DataFrame:
    """Read a Parquet table; the file is closed afterwards.

    Args:
        path: The file.
        remedy: What to do where it is damaged.
        text: Columns that must be there and hold text in every row.
        numbers: Kinds of columns that must hold numbers where they are there: ``p`` for ``p`` and
            ``p_MEL``. Empty and NaN values are let by.
        error: What is raised.

    Raises:
        NaevusError: It is absent, cut, damaged or no Parquet table, or a column is absent or of
            another kind.
    """
    import pandas as pd  # noqa: PLC0415 (naevus.load does without)
    import pyarrow as pa  # noqa: PLC0415

    try:
        with path.open("rb") as stream:
            table = pd.read_parquet(stream)
    except (OSError, ValueError, KeyError, TypeError, EOFError, pa.ArrowException) as problem:
        raise error(f"{path}: {_unread(problem, 'Parquet table')}", remedy) from problem
    for name in text:
        if name not in table.columns:
            raise error(f"{path}: has no column {name}", remedy)
        if not all(isinstance(value, str) for value in table[name]):
            raise error(f"{path}: column {name} does not hold text in every row", remedy)
    kinds = set(numbers)
    for name in map(str, table.columns):
        column = table[name]
        numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
        empty = len(column) == 0 or column.isna().all()
        if name.partition("_")[0] in kinds and not numeric and not empty:
            raise error(f"{path}: column {name} does not hold numbers", remedy)
    return table


def read_csv(path: Path, remedy: str, *, error: type[NaevusError] = DataError) -> pd.DataFrame:
    """Read a CSV table of ours.

    Raises:
        NaevusError: It is absent, damaged or no such table.
    """
    import pandas as pd  # noqa: PLC0415

    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as problem:
        raise error(f"{path}: {_unread(problem, 'CSV table')}", remedy) from problem


def read_json(
    path: Path,
    remedy: str,
    *,
    members: Mapping[str, tuple[type, ...]] | None = None,
    optional: Mapping[str, tuple[type, ...]] | None = None,
    error: type[NaevusError] = DataError,
) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Args:
        path: The file.
        remedy: What to do where it is damaged.
        members: What must be there, and of which types.
        optional: What may be there, and of which types.
        error: What is raised.

    Raises:
        NaevusError: It is absent, damaged or holds something else.
    """
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as problem:
        raise error(f"{path}: {_unread(problem, 'JSON file')}", remedy) from problem
    if not isinstance(found, dict):
        raise error(f"{path}: does not hold an object", remedy)
    for name, types in {**(members or {}), **(optional or {})}.items():
        if name not in found:
            if name in (members or {}):
                raise error(f"{path}: {name} is absent", remedy)
        elif not isinstance(found[name], types):
            raise error(f"{path}: {name} is of another type than it should be", remedy)
    return found


def _unread(problem: Exception, what: str) -> str:
    """Return what is wrong with a file, in a line."""
    if isinstance(problem, FileNotFoundError):
        return "is not there"
    if isinstance(problem, OSError) and problem.strerror:
        return f"cannot be read ({problem.strerror})"
    first = next(iter(str(problem).splitlines()), "") or type(problem).__name__
    return f"is no {what}, or damaged ({first})"
