"""Tables as people and spreadsheets write them: one reader for every layout.

Read are CSV files whose values are separated by commas, semicolons, tabs or bars, in UTF-8 (with a
byte-order mark or without), UTF-16, or Windows' Latin-1; and ``.xlsx`` workbooks where openpyxl is
installed. Lines above the heading of a workbook are passed over. Values lose the spaces round them.
Columns are found whatever their case, spaces and accents, and under the names of `COLUMN_NAMES`.
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from typing import TYPE_CHECKING, Any

import pandas as pd

from naevus.errors import DataError, NaevusError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path


# Files of our own read back: whole and of the right kinds, or one line that names file and remedy.
#
# Tables that people write are read by `naevus.io.formats`.


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
        numbers: Kinds of columns that must hold numbers where they are there: ``prob`` for ``prob``
            and ``prob_MEL``. Empty and NaN values are let by.
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
    kinds = tuple(numbers)
    for name in map(str, table.columns):
        column = table[name]
        numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
        empty = len(column) == 0 or column.isna().all()
        if is_kind(name, kinds) and not numeric and not empty:
            raise error(f"{path}: column {name} does not hold numbers", remedy)
    return table


def is_kind(column: str, kinds: Iterable[str]) -> bool:
    """Whether a column is of one of the kinds: ``logit`` and ``logit_MEL`` are of ``logit``."""
    return any(column == kind or column.startswith(f"{kind}_") for kind in kinds)


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


TABLE_SUFFIXES = (".csv", ".tsv", ".tab", ".txt", ".xlsx")
"""The kinds of files that hold tables."""

COLUMN_NAMES: dict[str, tuple[str, ...]] = {
    "image_id": (
        "image_id", "image", "isic_id", "image_name", "img_id", "img", "image_file",
        "image_filename",
        "filename", "file_name", "file", "image", "photo", "name", "id",
        "bild", "bild_id", "bildname", "bilddatei", "datei", "dateiname", "foto",
    ),
    "path": (
        "path", "image_path", "img_path", "file_path", "filepath", "pfad", "bildpfad", "dateipfad",
    ),
    "mask_path": ("mask_path", "mask", "segmentation", "mask_file", "maske", "maskenpfad"),
    "diagnosis": (
        "diagnosis", "dx", "label", "class", "diagnostic", "category", "ground_truth", "class_name",
        "diagnose", "klasse", "befund", "histologie",
    ),
    "benign_malignant": ("benign_malignant", "target", "malignant", "dignitat", "dignitaet"),
    "lesion_id": ("lesion_id", "lesion", "lesionid", "lasion", "laesion", "lasion_id", "laesion_id",
                  "lasions_id", "laesions_id", "lasionsnummer"),
    "group_id": ("group_id", "group", "gruppe", "gruppen_id"),
    "patient_id": ("patient_id", "patient", "patientid", "patient_nr", "patienten_id",
                   "patientennummer", "subject", "subject_id", "case_id"),
    "age": ("age", "age_approx", "age_approximate", "alter"),
    "sex": ("sex", "gender", "geschlecht"),
    "site": ("site", "localization", "localisation", "anatom_site_general",
             "anatom_site_general_challenge", "location", "region", "body_site", "lokalisation",
             "korperstelle", "koerperstelle"),
    "confirmation": ("confirmation", "dx_type", "diagnosis_confirm_type", "sicherung"),
    "image_type": ("image_type", "modality", "bildart"),
    "split": ("split", "set", "partition", "subset"),
    "part": ("part",),
    "attribute_globules": ("attribute_globules",),
    "attribute_milia_like_cyst": ("attribute_milia_like_cyst",),
    "attribute_negative_network": ("attribute_negative_network",),
    "attribute_pigment_network": ("attribute_pigment_network",),
    "attribute_streaks": ("attribute_streaks",),
}  # fmt: skip
"""The table's columns, and the names under which each is read: case, accents and what stands
between words do not count, and the first name that a table has is taken."""

_HEADER_ROWS = 40
"""How far down a workbook its heading is looked for."""


def key_of(text: object) -> str:
    """Return a name in lower case, without accents, with words joined by ``_``.

    Examples:
        >>> key_of(" Läsion-ID ")
        'lasion_id'
    """
    plain = unicodedata.normalize("NFKD", str(text).casefold())
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return "_".join(re.findall(r"\w+", plain.replace("_", " ")))


def read_table(
    path: Path, required: Iterable[str] = (), names: Sequence[str] | None = None
) -> pd.DataFrame:
    """Read a table with every value as text; absent values are ``pd.NA``.

    Args:
        path: A file of `TABLE_SUFFIXES`, or any other with values separated by commas and so on.
        required: Columns that must be there, each under one of its `COLUMN_NAMES`; they are
            renamed to what is asked for.
        names: The columns' names where the file has no heading.

    Raises:
        DataError: It is no table, or one of the ``required`` columns is absent.
    """
    table = _workbook(path, names) if path.suffix.lower() == ".xlsx" else _text(path, names)
    table.columns = pd.Index([str(name).strip() for name in table.columns])
    if table.columns.has_duplicates:
        twice = table.columns[table.columns.duplicated()][0]
        raise DataError(f"{path}: two columns are called {twice!r}", "rename one of them")
    table = table.dropna(how="all").reset_index(drop=True)
    for name in required:
        if name not in table.columns:
            found = column_of(table, name)
            if found is None:
                raise DataError(
                    f"{path}: no column {name!r} (it has {', '.join(table.columns)})",
                    f"give it the columns {', '.join(required)}",
                )
            table = table.rename(columns={found: name})
    return table


def column_of(table: pd.DataFrame, name: str) -> str | None:
    """Return what a table calls the column ``name`` (see `COLUMN_NAMES`), or None."""
    keys: dict[str, str] = {}
    for column in table.columns:
        keys.setdefault(key_of(column), column)
    wanted = key_of(name)
    spellings = next((known for known in COLUMN_NAMES.values() if wanted in known), ())
    return next((keys[each] for each in (wanted, *spellings) if each in keys), None)


def known_columns(table: pd.DataFrame) -> dict[str, str]:
    """Return which columns of `COLUMN_NAMES` a table has, and what it calls them."""
    found: dict[str, str] = {}
    for name in COLUMN_NAMES:
        column = column_of(table, name)
        if column is not None and column not in found.values():
            found[name] = column
    return found


def tables_in(folder: Path) -> list[Path]:
    """Return the files of `TABLE_SUFFIXES` in a folder, sorted, without hidden and lock files."""
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in TABLE_SUFFIXES
        and not path.name.startswith((".", "~$"))
        and path.is_file()
    )


def _text(path: Path, names: Sequence[str] | None) -> pd.DataFrame:
    try:
        text = _decoded(path.read_bytes())
        first, _, rest = text.partition("\n")
        declared = re.fullmatch(r"sep=(.)\s*", first.strip("\r"))  # Excel's own first line
        separator = declared[1] if declared else _separator(text, path)
        table = pd.read_csv(
            io.StringIO(rest if declared else text),
            sep=separator,
            dtype="string",
            keep_default_na=False,
            header=None if names else 0,
            names=list(names) if names else None,
            skipinitialspace=True,
            index_col=False,
        )
    except (OSError, ValueError, pd.errors.ParserError, csv.Error) as error:
        what = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as CSV ({what})", "mend the file") from error
    return table.apply(_stripped)


def _stripped(column: pd.Series[str]) -> pd.Series[str]:
    texts = column.astype("string").str.strip()
    return texts.mask(texts == "")


def _decoded(data: bytes) -> str:
    """Return text in UTF-8, UTF-16 (told by its mark or its zeros), or else Windows' Latin-1."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = data.decode("utf-16")
    elif b"\0" in data[:200]:
        even, odd = data[0:200:2].count(0), data[1:200:2].count(0)
        if max(even, odd) < len(data[:200]) // 4:
            raise ValueError("it holds zero bytes")
        text = data.decode("utf-16-le" if odd > even else "utf-16-be")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("cp1252", errors="replace")
    if "\0" in text:
        raise ValueError("it holds zero bytes")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _separator(text: str, path: Path) -> str:
    """Return what stands most often between the names of the heading, outside quotes."""
    if path.suffix.lower() in {".tab", ".tsv"}:
        return "\t"
    heading = next((line for line in text.splitlines() if line.strip()), "")
    bare = re.sub(r'"[^"]*"', "", heading)
    return max(",;\t|", key=bare.count)


def _workbook(path: Path, names: Sequence[str] | None) -> pd.DataFrame:
    """Return the sheet and the rows below the heading that name the most known columns."""
    try:
        import openpyxl  # noqa: PLC0415 (an extra)
    except ImportError:
        raise DataError(
            f"{path}: reading workbooks needs openpyxl",
            'install it with pip install "naevus[excel]", or save the table as CSV',
        ) from None
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        sheets = [[list(row) for row in sheet.iter_rows(values_only=True)] for sheet in book]
        book.close()
    except Exception as error:
        raise DataError(f"{path}: cannot be read as a workbook ({error})", "mend it") from error
    best: tuple[int, int, int] | None = None
    for number, rows in enumerate(sheets):
        for place, row in enumerate(rows[:_HEADER_ROWS]):
            named = [value for value in row if _cell(value)]
            known = len(known_columns(pd.DataFrame(columns=[_cell(value) for value in named])))
            if len(named) > 1 and (best is None or known > best[0]):
                best = known, number, place
    if best is None:
        raise DataError(f"{path}: holds no table", "give it a heading and rows")
    _, number, place = best
    rows = sheets[number]
    heading = list(names) if names else [_cell(value) or "" for value in rows[place]]
    body = rows[place if names else place + 1 :]
    width = len(heading)
    cells = [[_cell(value) for value in [*row, *[None] * width][:width]] for row in body]
    table = pd.DataFrame(cells, columns=heading, dtype="string")
    named_columns = [k for k, name in enumerate(heading) if name]
    return table.iloc[:, named_columns]


def _cell(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None
