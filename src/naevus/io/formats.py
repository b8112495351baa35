"""Readers for CSV, Parquet, JSON and spreadsheets, with one-line errors.

Tables may be CSV files with commas, semicolons, tabs or bars between values, in UTF-8, UTF-16 or
Windows-1252; and ``.xlsx`` workbooks if openpyxl is installed. Rows above the header of a workbook
are skipped, and values are stripped. Column names match regardless of case, spaces and accents, and
under the synonyms in `COLUMN_NAMES`.
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
import warnings
from typing import TYPE_CHECKING, Any

import pandas as pd

from naevus.errors import DataError, NaevusError
from naevus.io import limits
from naevus.io.files import TABLE_SUFFIXES, neutral
from naevus.io.limits import SMALLER, TooLargeError
from naevus.io.workbooks import read_sheets

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path


# Readers for files that naevus wrote: contents are checked, errors name the file and the remedy.


def read_parquet(
    path: Path,
    remedy: str,
    *,
    text: Sequence[str] = ("image_id",),
    numbers: Iterable[str] = (),
    whole: Iterable[str] = (),
    error: type[NaevusError] = DataError,
) -> pd.DataFrame:
    """Read a Parquet table, and close the file.

    Args:
        path: The file.
        remedy: What to do if it is damaged.
        text: Required columns, which must hold text in every row.
        numbers: Prefixes of columns that must be numeric if present: ``prob`` means ``prob`` and
            ``prob_MEL``. Missing values are allowed.
        whole: Columns that must have a whole number from 0 up in every row if present.
        error: The class of error to raise.

    Raises:
        NaevusError: The file is missing, truncated, damaged, not a Parquet table or too large, or
            a column is missing or has another type.
    """
    import pandas as pd  # noqa: PLC0415 (naevus.load does without)
    import pyarrow as pa  # noqa: PLC0415

    try:
        with path.open("rb") as stream:
            limits.open_parquet(path).close()
            table = pd.read_parquet(stream)
    except TooLargeError as problem:
        raise error(f"{path}: {problem}", SMALLER) from problem
    except (OSError, ValueError, KeyError, TypeError, EOFError, pa.ArrowException) as problem:
        raise error(f"{path}: {_read_failure(problem, 'Parquet table')}", remedy) from problem
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
    for name in table.columns.intersection(list(whole)):
        _check_whole(table[name], f"{path}: column {name}", remedy, error)
    return table


def _check_whole(column: pd.Series[Any], where: str, remedy: str, error: type[NaevusError]) -> None:
    values = pd.to_numeric(column, errors="coerce").to_numpy(float, na_value=-1.0)
    wrong = ~((values >= 0) & (values < 2**31) & (values == values.round()))
    if wrong.any():
        found = column.iloc[int(wrong.argmax())]
        raise error(f"{where} has {found!s:.40}, not a whole number from 0 up", remedy)


def csv_of(table: pd.DataFrame) -> str:
    r"""Return a table as CSV that spreadsheets show and do not run: see `neutral`.

    Examples:
        >>> csv_of(pd.DataFrame({"id": ["=1+1", "b"], "score": [-0.5, 1.0]}))
        "id,score\n'=1+1,-0.5\nb,1.0\n"
    """
    safe = table.rename(columns=_neutral)
    for name in safe:
        if not pd.api.types.is_numeric_dtype(safe[name]):
            safe[name] = safe[name].map(_neutral)
    return str(safe.to_csv(index=False, lineterminator="\n"))


def _neutral(value: Any) -> Any:
    return neutral(value.replace("\r", "\n")) if isinstance(value, str) else value


def is_kind(column: str, kinds: Iterable[str]) -> bool:
    """Return whether a column has one of the prefixes: ``logit_MEL`` has ``logit``."""
    return any(column == kind or column.startswith(f"{kind}_") for kind in kinds)


def read_csv(path: Path, remedy: str, *, error: type[NaevusError] = DataError) -> pd.DataFrame:
    """Read a CSV table that naevus wrote.

    Raises:
        NaevusError: The file is missing, damaged, too large or not a CSV table.
    """
    import pandas as pd  # noqa: PLC0415

    try:
        limits.check_text(path, ",")
        return pd.read_csv(path)
    except TooLargeError as problem:
        raise error(f"{path}: {problem}", SMALLER) from problem
    except (OSError, ValueError) as problem:
        raise error(f"{path}: {_read_failure(problem, 'CSV table')}", remedy) from problem


def read_json(
    path: Path,
    remedy: str,
    *,
    members: Mapping[str, tuple[type, ...]] | None = None,
    optional: Mapping[str, tuple[type, ...]] | None = None,
    error: type[NaevusError] = DataError,
) -> dict[str, Any]:
    """Read a JSON file that contains one object.

    Args:
        path: The file.
        remedy: What to do if it is damaged.
        members: Required members, and their types.
        optional: Optional members, and their types.
        error: The class of error to raise.

    Raises:
        NaevusError: The file is missing, damaged or too large, or a member is missing or has
            another type.
    """
    try:
        found = json.loads(limits.read_json_text(path))
    except (OSError, ValueError, RecursionError) as problem:
        raise error(f"{path}: {_read_failure(problem, 'JSON file')}", remedy) from problem
    if not isinstance(found, dict):
        raise error(f"{path}: does not contain an object", remedy)
    for name, types in {**(members or {}), **(optional or {})}.items():
        if name not in found:
            if name in (members or {}):
                raise error(f"{path}: {name} is absent", remedy)
        elif not isinstance(found[name], types):
            raise error(f"{path}: {name} has the wrong type", remedy)
    return found


def _read_failure(problem: Exception, what: str) -> str:
    """Describe in one line why a file could not be read."""
    if isinstance(problem, FileNotFoundError):
        return "does not exist"
    if isinstance(problem, OSError) and problem.strerror:
        return f"cannot be read ({problem.strerror})"
    if isinstance(problem, TooLargeError):
        return str(problem)
    first = next(iter(str(problem).splitlines()), "") or type(problem).__name__
    return f"is not a {what}, or is damaged ({first})"


COLUMN_NAMES: dict[str, tuple[str, ...]] = {
    "image_id": (
        "image_id", "image", "isic_id", "image_name", "img_id", "img", "image_file",
        "image_filename",
        "filename", "file_name", "file", "photo", "name", "id",
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
             "korperstelle", "koerperstelle", "anatom_site_1"),
    "confirmation": ("confirmation", "dx_type", "diagnosis_confirm_type", "sicherung"),
    "image_type": ("image_type", "modality", "bildart"),
    "fitzpatrick_skin_type": ("fitzpatrick_skin_type", "fitzpatrick", "fitspatrick", "skin_type",
                              "hauttyp"),
    "dermoscopic_type": ("dermoscopic_type",),
    "anatom_site": ("anatom_site", "anatom_site_special"),
    "split": ("split", "set", "partition", "subset"),
    "part": ("part",),
    "attribute_globules": ("attribute_globules",),
    "attribute_milia_like_cyst": ("attribute_milia_like_cyst",),
    "attribute_negative_network": ("attribute_negative_network",),
    "attribute_pigment_network": ("attribute_pigment_network",),
    "attribute_streaks": ("attribute_streaks",),
}  # fmt: skip
"""The columns of a data set's table, and their synonyms. Case, accents and separators between words
are ignored, and the first synonym that a table has is used."""

_HEADER_ROWS = 40
"""Number of rows of a workbook that are searched for its header."""


def key_of(text: object) -> str:
    """Normalise a name: lower case, without accents, words joined by ``_``.

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
    """Read a table with every value as text; missing values are ``pd.NA``.

    Args:
        path: A workbook, or a text file with separated values.
        required: Required columns, each under one of its `COLUMN_NAMES`; they get the names given
            here.
        names: The column names, if the file has no header.

    Raises:
        DataError: The file is not a table or too large, or a required column is missing.
    """
    read = _workbook if path.suffix.lower() == ".xlsx" else _text
    try:
        table = read(path, names)
    except TooLargeError as error:
        raise DataError(f"{path}: {error}", SMALLER) from error
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
    """Return a table's own name of the column ``name`` (see `COLUMN_NAMES`), or None."""
    keys: dict[str, str] = {}
    for column in table.columns:
        keys.setdefault(key_of(column), column)
    wanted = key_of(name)
    spellings = next((known for known in COLUMN_NAMES.values() if wanted in known), ())
    return next((keys[each] for each in (wanted, *spellings) if each in keys), None)


def known_columns(table: pd.DataFrame) -> dict[str, str]:
    """Return the columns of `COLUMN_NAMES` that a table has, with the table's own names."""
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
    if not path.exists():
        raise DataError(f"{path} does not exist", "name a table")
    try:
        limits.check_text(path)
        text = _decoded(limits.read_limited(path, limits.TEXT))
        first, _, rest = text.partition("\n")
        declared = re.fullmatch(r"sep=(.)\s*", first.strip("\r"))  # Excel's own first line
        separator = declared[1] if declared else _separator(text, path)
        limits.check_rows(text.count("\n") - 1)
        limits.check_width(_heading(text).count(separator) + 1, text.count("\n"))
        with warnings.catch_warnings(record=True, category=pd.errors.ParserWarning) as caught:
            warnings.simplefilter("always")
            body = io.StringIO(rest if declared else text)
            table = pd.read_csv(
                body,
                sep=separator,
                dtype="string",
                keep_default_na=False,
                header=None if names else 0,
                names=list(names) if names else None,
                skipinitialspace=True,
                index_col=False,
            )
        if names is None:
            body.seek(0)
            heading = _names(body, separator, table)
            if known_columns(pd.DataFrame(columns=heading)):  # otherwise it may be no heading
                table.columns = pd.Index(heading)
        if caught:  # rows are longer than the heading
            _refuse_values_beyond(
                csv.reader(io.StringIO(text), delimiter=separator), len(table.columns)
            )
    except TooLargeError:
        raise
    except (OSError, ValueError, pd.errors.ParserError, csv.Error) as error:
        what = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as CSV ({what})", "fix the file") from error
    for name, column in table.items():
        longest = column.str.len().max()
        where = f" in the column {name!s:.40}"
        limits.check_longest(0 if pd.isna(longest) else int(longest), where)
    return table.apply(_stripped)


def _refuse_values_beyond(rows: Iterable[list[str]], columns: int) -> None:
    """Reject values without a column; separators alone at the end of a row are harmless."""
    for row in rows:
        if any(value.strip() for value in row[columns:]):
            raise ValueError(f"a row has {len(row)} values for {columns} columns")


def _names(text: io.StringIO, separator: str, table: pd.DataFrame) -> list[str]:
    """Return the names in the heading; pandas has numbered those that are there twice."""
    rows = csv.reader(text, delimiter=separator, skipinitialspace=True)
    heading = next((row for row in rows if len(row) > 1 or "".join(row).strip()), [])
    if len(heading) != len(table.columns):
        return list(table.columns)
    return [name if name.strip() else own for name, own in zip(heading, table.columns, strict=True)]


def _stripped(column: pd.Series[str]) -> pd.Series[str]:
    texts = column.astype("string").str.strip()
    return texts.mask(texts == "")


def _decoded(data: bytes) -> str:
    """Decode UTF-8, UTF-16 (recognised by its mark or its zero bytes), or Windows-1252."""
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
    """Return the most frequent separator in the header, ignoring quoted text."""
    if path.suffix.lower() in {".tab", ".tsv"}:
        return "\t"
    return max(",;\t|", key=_heading(text).count)


def _heading(text: str) -> str:
    """Return the first line that is not blank, without quoted text."""
    line = re.search(r"[^\n]*\S[^\n]*", text)
    return "" if line is None else re.sub(r'"[^"]*"', "", line[0])


def _workbook(path: Path, names: Sequence[str] | None) -> pd.DataFrame:
    """Read the sheet and header row with the most known columns, and the rows below."""
    sheets = read_sheets(path)
    best: tuple[int, int, int] | None = None
    for number, rows in enumerate(sheets):
        for place, row in enumerate(rows[:_HEADER_ROWS]):
            named = [value for value in row if value]
            known = len(known_columns(pd.DataFrame(columns=named)))
            if len(named) > 1 and (best is None or known > best[0]):
                best = known, number, place
    if best is None:
        raise DataError(f"{path}: contains no table", "give it a header and rows")
    _, number, place = best
    rows = sheets[number]
    heading = list(names) if names else [value or "" for value in rows[place]]
    body = rows[place if names else place + 1 :]
    width = len(heading)
    limits.check_width(width, len(body))
    cells = [[*row, *[None] * width][:width] for row in body]
    table = pd.DataFrame(cells, columns=heading, dtype="string")
    named_columns = [k for k, name in enumerate(heading) if name]
    return table.iloc[:, named_columns]
