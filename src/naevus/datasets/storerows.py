"""Rows of pixels on disk while a store is built, and the journal of those that are done."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import TYPE_CHECKING, Self

import numpy as np

from naevus.datasets.storefiles import Row, Stamp

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

_CHECKPOINT_SECONDS = 2.0


class RowFile:
    """A ``.npy`` file of rows, read and written by position without being mapped.

    A full disk is thus an error and not a dead process, and the rows never count as memory of this
    process. Threads may share it.
    """

    def __init__(self, path: Path, offset: int, row_shape: tuple[int, ...]) -> None:
        self.path = path
        self._offset = offset
        self._bytes = int(np.prod(row_shape))
        self._shape = row_shape
        self._stream = path.open("r+b" if os.access(path, os.W_OK) else "rb", buffering=0)
        self._turn = threading.Lock()  # no system but POSIX reads and writes at a place

    @classmethod
    def create(cls, path: Path, rows: int, row_shape: tuple[int, ...]) -> Self:
        """Make a file of ``rows`` rows of zeros, uint8."""
        layout = {"descr": "|u1", "fortran_order": False, "shape": (rows, *row_shape)}
        with path.open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, layout)
            offset = stream.tell()
            stream.truncate(offset + rows * int(np.prod(row_shape)))
        return cls(path, offset, row_shape)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a file that `create` made."""
        with path.open("rb") as stream:
            np.lib.format.read_magic(stream)
            shape, _, _ = np.lib.format.read_array_header_1_0(stream)
            return cls(path, stream.tell(), shape[1:])

    def read(self, position: int) -> bytes:
        """Return the row at ``position``.

        Raises:
            OSError: The file ends before it does.
        """
        with self._turn:
            self._stream.seek(self._offset + position * self._bytes)
            row = self._stream.read(self._bytes)
        if row is None or len(row) < self._bytes:
            raise OSError(f"{self.path.name} is cut off")
        return row

    def write(self, position: int, row: bytes) -> None:
        """Write the row at ``position``."""
        view = memoryview(row)
        with self._turn:
            self._stream.seek(self._offset + position * self._bytes)
            while view:
                view = view[self._stream.write(view) :]

    def sync(self) -> None:
        """Wait until what was written is on the disk."""
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Journal:
    """Which rows of an unfinished store are done, so that a killed build goes on from there.

    A row is noted only after its pixels were handed to the disk.
    """

    def __init__(self, path: Path, pixels: RowFile) -> None:
        self._path = path
        self._pixels = pixels
        self._waiting: list[Row] = []
        self._written = time.monotonic()

    def done(self) -> dict[str, Row]:
        """Return the rows noted so far, by id; a line cut off by a kill is forgotten."""
        if not self._path.exists():
            return {}
        text = self._path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) < len(text):
            os.truncate(self._path, len(whole))
        rows = {}
        for line in whole.decode().splitlines():
            image_id, mode, why, files = json.loads(line)
            rows[image_id] = Row(image_id, mode, why, tuple(Stamp(*stamp) for stamp in files))
        return rows

    def add(self, row: Row) -> None:
        """Note that ``row`` is done; written down every few seconds."""
        self._waiting.append(row)
        if time.monotonic() - self._written > _CHECKPOINT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write down everything noted."""
        if self._waiting:
            self._pixels.sync()
            with self._path.open("a", encoding="ascii") as stream:
                stream.writelines(json.dumps(row) + "\n" for row in self._waiting)
                stream.flush()
                os.fsync(stream.fileno())
        self._waiting.clear()
        self._written = time.monotonic()
