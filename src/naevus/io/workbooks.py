"""Excel workbooks: their cells as text, and tables written for Excel. Both need openpyxl."""

from __future__ import annotations

import re
import shutil
import zipfile
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from naevus.errors import DataError, NaevusError
from naevus.io import limits
from naevus.io.extras import how_to_install
from naevus.io.files import atomic, workspace
from naevus.io.limits import TooLargeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

WORKBOOK_ROWS: Final = 1_048_575
"""Rows below the header that Excel reads."""


def check_workbooks(rows: int) -> None:
    """Refuse to begin what ends with a workbook that cannot be written.

    Raises:
        NaevusError: openpyxl is not installed, or there are too many rows.
    """
    try:
        import openpyxl  # noqa: F401, PLC0415 (an extra)
    except ImportError:
        raise NaevusError(
            "writing workbooks needs openpyxl",
            f"{how_to_install('excel')}, or take the CSV file",
        ) from None
    if rows > WORKBOOK_ROWS:
        raise NaevusError(
            f"{rows:,} rows do not fit into a workbook, which has {WORKBOOK_ROWS:,}",
            "take the CSV file",
        )


def write_workbook(
    path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], formats: Mapping[str, str]
) -> None:
    """Write rows to ``path`` atomically, as an ``.xlsx`` workbook with a frozen, filtered header.

    Texts are written as texts: none is a formula. The same rows give the same bytes.

    Args:
        path: The file.
        header: The columns.
        rows: Their values.
        formats: How Excel shows the fractional numbers of some columns, such as ``0.0%``.

    Raises:
        NaevusError: It cannot be written.
    """
    import openpyxl  # noqa: PLC0415 (an extra)
    from openpyxl.cell import WriteOnlyCell  # noqa: PLC0415 (as above)
    from openpyxl.worksheet._writer import WorksheetWriter  # noqa: PLC0415 (as above)
    from openpyxl.writer.excel import ExcelWriter  # noqa: PLC0415 (as above)

    book = openpyxl.Workbook(write_only=True)
    book.properties.created = book.properties.modified = _WRITTEN
    sheet = book.create_sheet("predictions")
    sheet.freeze_panes = "B2"

    def cell(value: Any, number: Any) -> Any:
        if isinstance(value, float):
            number.value = value
            return number
        if not isinstance(value, str):
            return value
        made = WriteOnlyCell(sheet, ILLEGAL.sub("\ufffd", value))
        made.data_type = "s"
        return made

    numbers = [WriteOnlyCell(sheet) for _ in header]  # rows are written one by one
    for name, number in zip(header, numbers, strict=True):
        number.number_format = formats.get(name, "General")

    with atomic(path) as temporary, workspace(path) as folder:
        # Not in the system's folder for temporary files, where a kill would leave it.
        writer = sheet._writer = WorksheetWriter(sheet, str(folder / "sheet.xml"))  # noqa: SLF001
        writer.cleanup = lambda: None  # the folder is removed
        try:
            writer.write_top()
            sheet.append(list(header))
            height = 1
            for row in rows:
                sheet.append(list(map(cell, row, numbers)))
                height += 1
            width = openpyxl.utils.get_column_letter(len(header))
            sheet.auto_filter.ref = f"A1:{width}{height}"
            with _Undated(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
                ExcelWriter(book, archive).save()
        finally:
            # After a failure they would fail again when they are collected, and print that.
            for stream in (sheet._rows, writer.xf):  # noqa: SLF001
                with suppress(OSError, AttributeError):
                    stream.close()


_WRITTEN: Final = datetime(1980, 1, 1)  # noqa: DTZ001 (workbooks have no time zone)


class _Undated(zipfile.ZipFile):
    """An archive whose entries have a fixed date, so that the same content gives the same bytes."""

    def writestr(self, zinfo_or_arcname: Any, data: Any, *_: Any, **__: Any) -> None:
        super().writestr(self._entry(zinfo_or_arcname), data)

    def write(self, filename: Any, arcname: Any = None, *_: Any, **__: Any) -> None:
        entry = self._entry(arcname)
        entry.file_size = Path(filename).stat().st_size
        with Path(filename).open("rb") as source, self.open(entry, "w") as target:
            shutil.copyfileobj(source, target)

    def _entry(self, name: str) -> zipfile.ZipInfo:
        entry = zipfile.ZipInfo(name, _WRITTEN.timetuple()[:6])
        entry.compress_type = self.compression
        return entry


ILLEGAL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
"""Characters that a workbook cannot hold."""


def read_sheets(path: Path) -> list[list[list[str | None]]]:
    """Read the cells of every sheet, stripped; an empty one is None.

    Raises:
        DataError: The file is not a workbook, or openpyxl is not installed.
        TooLargeError: It, or a sheet of it, is too large.
    """
    try:
        import openpyxl  # noqa: PLC0415 (an extra)
    except ImportError:
        raise DataError(
            f"{path}: reading workbooks needs openpyxl",
            f"{how_to_install('excel')}, or save the table as CSV",
        ) from None
    try:
        limits.check_archive(path)
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        sheets = [_rows(sheet) for sheet in book.worksheets]
        book.close()
    except TooLargeError:
        raise
    except Exception as error:
        raise DataError(f"{path}: cannot be read as a workbook ({error})", "fix it") from error
    return sheets


def _rows(sheet: Any) -> list[list[str | None]]:
    sheet.reset_dimensions()  # those that the file states may be a million times too large
    rows = limits.Rows()
    for row in sheet.iter_rows(values_only=True):
        rows.add(row)
    return [[_text(value) for value in row] for row in rows.kept]


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None
