"""The files of a finished pixel store, and what is known of each row."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from naevus.errors import DataError
from naevus.io.files import sha256, write_csv
from naevus.io.formats import read_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

SCHEMA = 1
_COLUMNS = ("image_id", "mode", "why", "files")


class Stamp(NamedTuple):
    """What tells whether a file changed; ``sha256`` is empty where there is no file."""

    path: str
    size: int
    modified: int
    sha256: str


class Row(NamedTuple):
    """One picture of a store: the mode really used, or ``why`` it is quarantined."""

    image_id: str
    mode: str
    why: str
    files: tuple[Stamp, ...]

    @property
    def contents(self) -> tuple[str, ...]:
        """The content hashes of the files it was made from."""
        return tuple(stamp.sha256 for stamp in self.files)


def stamp_of(path: Path, known: Stamp | None = None) -> Stamp:
    """Return the stamp of ``path``; its content is read only where ``known`` does not fit."""
    path = path.absolute()
    try:
        status = path.stat()
        seen = (str(path), status.st_size, status.st_mtime_ns)
        if known is not None and known[:3] == seen:
            return known
        return Stamp(*seen, sha256(path))
    except OSError:
        return Stamp(str(path), -1, -1, "")


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as CSV, one a line, in order."""
    write_csv(path, _COLUMNS, ((*row[:3], json.dumps(row.files)) for row in rows))


def read_rows(path: Path) -> list[Row]:
    """Read what `write_rows` wrote.

    Raises:
        DataError: The table is absent or damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            lines = csv.DictReader(stream, strict=True)
            rows = [_row(*(line[name] for name in _COLUMNS)) for line in lines]
            header = tuple(lines.fieldnames or ())
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise DataError(f"{path}: damaged ({error})", "build the cache anew") from error
    if header != _COLUMNS:
        raise DataError(f"{path}: damaged (no header)", "build the cache anew")
    return rows


def _row(image_id: str, mode: str, why: str, files: str) -> Row:
    return Row(image_id, mode, why, tuple(Stamp(*stamp) for stamp in json.loads(files)))


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the settings a finished store was made with.

    Raises:
        DataError: There is none, or it is damaged or of another version.
    """
    path = folder / "store.json"
    if not path.exists():
        raise DataError(f"{folder}: no finished pixel store", "build it first")
    settings = read_json(path, "build the cache anew", optional={"key": (str,)})
    if settings.get("schema") != SCHEMA:
        raise DataError(f"{path}: made by another version", "build the cache anew")
    return settings


def map_pixels(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Map the rows read-only.

    Raises:
        DataError: They are absent, damaged or of another shape.
    """
    try:
        pixels: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error})", "build the cache anew") from error
    if pixels.shape != shape or pixels.dtype != np.uint8:
        raise DataError(f"{path}: does not fit its index", "build the cache anew")
    return pixels
