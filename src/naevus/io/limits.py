"""Limits on tables and other files that are read whole: a hostile one is an error in one line.

What is checked is what decides on memory, before it is needed: the size of the file, the numbers of
rows and columns, and what a compressed file becomes.
"""

from __future__ import annotations

import zipfile
from typing import IO, TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import pyarrow as pa
    import pyarrow.parquet as pq

ROWS: Final = 5_000_000
"""Maximum number of rows of a table, and of lines of a text."""
COLUMNS: Final = 1000
CELLS: Final = 250_000_000
"""Maximum number of rows times that of columns."""
CELL: Final = 131_072
"""Maximum number of characters in a cell, as in Python's ``csv``."""
TEXT: Final = 2**29
"""Maximum size of a text file in bytes, and of the parts of a workbook together."""
MEMORY: Final = 2**31
"""Maximum size in bytes of the numbers in a Parquet table in memory, and of the texts."""
SETTINGS: Final = 2**24
"""Maximum size of a TOML file in bytes."""
JSON: Final = 2**28
"""Maximum size of a JSON file in bytes: hashes of two million images."""
JSON_VALUES: Final = 20_000_000
RATIO: Final = 100
"""Maximum ratio of what a ZIP archive is unpacked to its size."""

SMALLER: Final = "leave out what is not needed, or divide it"
"""The remedy."""

_BLOCK: Final = 2**20
_NUMBER: Final = 12  # bytes of the largest number that Parquet stores


class TooLargeError(ValueError):
    """A file is beyond a limit; the message completes "FILE: "."""


def read_limited(path: Path, largest: int) -> bytes:
    """Return a file's content.

    Raises:
        OSError: It cannot be read.
        TooLargeError: It has more than ``largest`` bytes. It is not read then; a device or pipe is
            read up to there.
    """
    with path.open("rb") as stream:
        if path.stat().st_size > largest:
            raise TooLargeError(f"is larger than {_size(largest)}")
        content = stream.read(largest + 1)
    if len(content) > largest:
        raise TooLargeError(f"is larger than {_size(largest)}")
    return content


def _size(limit: int) -> str:
    return f"{limit / 2**20:,.4g} MB"


def read_json_text(path: Path) -> bytes:
    """Return the content of a JSON file that fits into memory when it is parsed.

    Raises:
        OSError: It cannot be read.
        TooLargeError: It is beyond a limit.
    """
    content = read_limited(path, JSON)
    if sum(map(content.count, (b",", b"[", b"{"))) > JSON_VALUES:
        raise TooLargeError(f"has more than {JSON_VALUES:,} values")
    return content


def check_text(path: Path, separator: str | None = None) -> None:
    """Check size and lines of a text file, block by block; a pipe or device is not read.

    Args:
        path: The file.
        separator: Between the columns of a table, whose first line is its heading.

    Raises:
        OSError: It cannot be read.
        TooLargeError: It is beyond a limit.
    """
    if not path.is_file():
        return
    if path.stat().st_size > TEXT:
        raise TooLargeError(f"is larger than {_size(TEXT)}")
    ends, heading = {b"\n": 0, b"\r": 0}, b""
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            if separator and not max(ends.values()):
                heading += block.partition(b"\n")[0]
            ends = {end: count + block.count(end) for end, count in ends.items()}
            check_rows(max(ends.values()) - 1)
    if separator:
        check_width(heading.count(separator.encode()) + 1, max(ends.values()))


def check_rows(rows: int) -> None:
    """Check a number of rows.

    Raises:
        TooLargeError: It is beyond the limit.
    """
    if rows > ROWS:
        raise TooLargeError(f"has more than {ROWS:,} rows")


def check_width(columns: int, rows: int) -> None:
    """Check the number of columns, and of cells if every row has that many.

    Raises:
        TooLargeError: One is beyond the limit.
    """
    if columns > COLUMNS:
        raise TooLargeError(f"has {columns:,} columns, more than {COLUMNS:,}")
    if columns * rows > CELLS:
        raise TooLargeError(f"has more than {CELLS:,} cells: {rows:,} rows of {columns:,}")


def check_longest(longest: int, where: str) -> None:
    """Check the number of characters of the longest cell.

    Raises:
        TooLargeError: It is beyond the limit.
    """
    if longest > CELL:
        raise TooLargeError(f"has a cell of {longest:,} characters{where}, more than {CELL:,}")


class Rows:
    """Rows that are read one by one, as from a workbook, and checked on the way."""

    def __init__(self) -> None:
        """Begin with none."""
        self.kept: list[list[Any]] = []
        self._cells = self._characters = 0

    def add(self, row: Iterable[Any]) -> None:
        """Keep a row without the empty cells at its end.

        Raises:
            TooLargeError: A limit is exceeded.
        """
        cells = list(row)
        while cells and cells[-1] is None:
            cells.pop()
        self.kept.append(cells)
        texts = [len(cell) for cell in cells if isinstance(cell, str)]
        self._cells += len(cells)
        self._characters += sum(texts)
        check_rows(len(self.kept) - 1)
        check_width(len(cells), 1)
        check_longest(max(texts, default=0), "")
        if self._cells > CELLS or self._characters > TEXT:
            raise TooLargeError(f"has more than {CELLS:,} cells or {TEXT:,} characters")


def check_archive(stream: IO[bytes] | Path) -> None:
    """Check what a workbook, which is a ZIP archive, becomes when it is unpacked.

    Raises:
        OSError: It cannot be read.
        TooLargeError: It is beyond the limit.
        zipfile.BadZipFile: It is no archive.
    """
    with zipfile.ZipFile(stream) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > TEXT:
        raise TooLargeError(f"is larger than {_size(TEXT)} when it is unpacked")


def check_ratio(size: int, packed: int, largest: int = RATIO) -> None:
    """Check what an archive becomes when it is unpacked, in proportion to its size.

    Args:
        size: The size of all its files in bytes.
        packed: Their size in the archive.
        largest: The maximum ratio.

    Raises:
        TooLargeError: It is beyond the limit.
    """
    if size > largest * max(packed, 1):
        raise TooLargeError(f"{packed} bytes would unpack to {size}")


def open_parquet(source: Path | pa.Buffer) -> pq.ParquetFile:
    """Open a Parquet table that fits into memory.

    A small file can become a large table: Parquet stores repeated values once.

    Raises:
        OSError: It cannot be read.
        pyarrow.ArrowException: It is damaged.
        TooLargeError: It is beyond a limit.
    """
    import pyarrow.parquet as pq  # noqa: PLC0415 (naevus.load does without)

    file = pq.ParquetFile(source)
    try:
        texts = _check_footer(file.metadata)
        if texts:
            with pq.ParquetFile(source, read_dictionary=texts) as encoded:
                _check_texts(encoded, texts)
    except BaseException:
        file.close()
        raise
    return file


def _check_footer(about: pq.FileMetaData) -> list[str]:
    """Check what the footer says; return the columns whose texts may be larger than it says."""
    groups = [about.row_group(number) for number in range(about.num_row_groups)]
    rows = sum(group.num_rows for group in groups)
    check_rows(rows)
    check_width(about.num_columns, rows)
    values = numbers = unpacked = 0
    expanded = dict.fromkeys(range(about.num_columns), 0)
    for group in groups:
        for place in expanded:
            column = group.column(place)
            values += column.num_values
            unpacked += column.total_uncompressed_size
            if column.physical_type == "BYTE_ARRAY":
                expanded[place] += column.num_values * column.total_uncompressed_size
                if "DELTA_BYTE_ARRAY" in column.encodings:
                    raise TooLargeError("stores texts as differences, which may be of any length")
            else:
                length = about.schema.column(place).length or _NUMBER
                numbers += column.num_values * length
    if max(values, 0) > CELLS or max(numbers, unpacked) > MEMORY:
        raise TooLargeError(f"has more than {CELLS:,} cells, or {_size(MEMORY)} of them")
    if sum(expanded.values()) <= MEMORY:
        return []
    return [about.schema.column(place).path for place, size in expanded.items() if size]


def _check_texts(file: pq.ParquetFile, columns: Sequence[str]) -> None:
    """Add up the texts' lengths, each distinct one read once."""
    import pyarrow as pa  # noqa: PLC0415 (naevus.load does without)
    import pyarrow.compute as pc  # noqa: PLC0415 (as above)

    total = 0
    for number in range(file.num_row_groups):
        for name in columns:
            for column in file.read_row_group(number, columns=[name]).columns:
                for chunk in column.chunks:
                    while pa.types.is_list(chunk.type) or pa.types.is_large_list(chunk.type):
                        chunk = chunk.flatten()  # noqa: PLW2901 (its elements)
                    if not pa.types.is_dictionary(chunk.type):
                        continue
                    lengths = pc.binary_length(chunk.dictionary)
                    check_longest(pc.max(lengths).as_py() or 0, f" in {name}")
                    total += pc.sum(lengths.take(chunk.indices)).as_py() or 0
                    if total > MEMORY:
                        raise TooLargeError(f"has more than {_size(MEMORY)} of text")
