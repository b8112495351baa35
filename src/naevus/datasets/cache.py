"""A cache of decoded images: one memory-mapped array, ids inside, resumable and self-checking.

A cache is a folder: ``pixels.npy`` (uint8, one row per image), ``index.csv`` (the ids of the rows),
``failed.csv`` (unusable images with the reason) and ``cache.json``, whose presence marks the
cache as complete. During a build all files are in the subfolder ``.building``; the finished
files are renamed into place, ``cache.json`` last.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from naevus.errors import DataError, ImageError
from naevus.images.preprocess import ImageFiles, InputSpec, files_of, load_input
from naevus.images.read import DECODING, Limits
from naevus.io.files import lock, sha256, sha256_of, write_csv, write_json, writing
from naevus.io.formats import read_json
from naevus.io.parallel import cpu_count

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from types import TracebackType

    from numpy.typing import NDArray


# The files of a finished image cache, and the properties of each row.

SCHEMA = 1
_COLUMNS = ("image_id", "mode", "why", "files")


class Stamp(NamedTuple):
    """Properties that show whether a file changed; ``sha256`` is empty if there is no file."""

    path: str
    size: int
    modified: int
    sha256: str


class Row(NamedTuple):
    """One image of a cache: its crop mode, or ``why`` it failed."""

    image_id: str
    mode: str
    why: str
    files: tuple[Stamp, ...]

    @property
    def contents(self) -> tuple[str, ...]:
        """The SHA-256 of its files."""
        return tuple(stamp.sha256 for stamp in self.files)


def stamp_of(path: Path, known: Stamp | None = None) -> Stamp:
    """Return the stamp of a file; its content is hashed only if ``known`` no longer matches."""
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
    """Write rows as CSV, one per line, in order."""
    write_csv(path, _COLUMNS, ((*row[:3], json.dumps(row.files)) for row in rows))


def read_rows(path: Path) -> list[Row]:
    """Read rows written by `write_rows`.

    Raises:
        DataError: The table is absent or damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            lines = csv.DictReader(stream, strict=True)
            rows = [_row(*(line[name] for name in _COLUMNS)) for line in lines]
            header = tuple(lines.fieldnames or ())
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise DataError(f"{path}: damaged ({error})", "rebuild the cache") from error
    if header != _COLUMNS:
        raise DataError(f"{path}: damaged (no header)", "rebuild the cache")
    return rows


def _row(image_id: str, mode: str, why: str, files: str) -> Row:
    return Row(image_id, mode, why, tuple(Stamp(*stamp) for stamp in json.loads(files)))


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the settings of a finished cache.

    Raises:
        DataError: There is none, or it is damaged or from another version.
    """
    path = folder / "cache.json"
    if not path.exists():
        raise DataError(f"{folder}: no finished image cache", "build it first")
    settings = read_json(path, "rebuild the cache", optional={"key": (str,)})
    if settings.get("schema") != SCHEMA:
        raise DataError(f"{path}: written by another version", "rebuild the cache")
    return settings


def map_pixels(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Map the rows into memory, read-only.

    Raises:
        DataError: They are absent, damaged or of another shape.
    """
    try:
        pixels: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error})", "rebuild the cache") from error
    if pixels.shape != shape or pixels.dtype != np.uint8:
        raise DataError(f"{path}: does not match its index", "rebuild the cache")
    return pixels


# Rows of pixels on disk during a build, and the journal of finished rows.

_CHECKPOINT_SECONDS = 2.0


class RowFile:
    """A ``.npy`` file of rows, read and written by position without a memory map.

    A full disk thus raises an error instead of killing the process, and the rows do not count as
    memory of this process. Threads may share the file.
    """

    def __init__(self, path: Path, offset: int, row_shape: tuple[int, ...]) -> None:
        self.path = path
        self._offset = offset
        self._bytes = int(np.prod(row_shape))
        self._shape = row_shape
        self._stream = path.open("r+b" if os.access(path, os.W_OK) else "rb", buffering=0)
        self._turn = threading.Lock()  # positioned reads and writes exist on POSIX only

    @classmethod
    def create(cls, path: Path, rows: int, row_shape: tuple[int, ...]) -> Self:
        """Create a file of ``rows`` rows of zeros, uint8."""
        layout = {"descr": "|u1", "fortran_order": False, "shape": (rows, *row_shape)}
        with path.open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, layout)
            offset = stream.tell()
            stream.truncate(offset + rows * int(np.prod(row_shape)))
        return cls(path, offset, row_shape)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a file created by `create`."""
        with path.open("rb") as stream:
            np.lib.format.read_magic(stream)
            shape, _, _ = np.lib.format.read_array_header_1_0(stream)
            return cls(path, stream.tell(), shape[1:])

    def read(self, position: int) -> bytes:
        """Return the row at ``position``.

        Raises:
            OSError: The file ends too early.
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
        """Flush the written rows to disk."""
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
    """The finished rows of an unfinished cache, so that a killed build can resume.

    A row is recorded only after its pixels were flushed.
    """

    def __init__(self, path: Path, pixels: RowFile) -> None:
        self._path = path
        self._pixels = pixels
        self._waiting: list[Row] = []
        self._written = time.monotonic()

    def done(self) -> dict[str, Row]:
        """Return the recorded rows by id; a line cut off by a kill is ignored."""
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
        """Record that ``row`` is done; written to disk every few seconds."""
        self._waiting.append(row)
        if time.monotonic() - self._written > _CHECKPOINT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write all recorded rows to disk."""
        if self._waiting:
            self._pixels.sync()
            with self._path.open("a", encoding="ascii") as stream:
                stream.writelines(json.dumps(row) + "\n" for row in self._waiting)
                stream.flush()
                os.fsync(stream.fileno())
        self._waiting.clear()
        self._written = time.monotonic()


# Building an image cache: fresh rows are copied, changed images decoded, failures listed.

_RENDERING = 2  # to be raised when reading of masks, resizing or cropping changes
_PUBLISHED = ("pixels.npy", "index.csv", "failed.csv", "cache.json")  # the last one commits
_LOOK_AHEAD = 4  # images queued per thread


class Build:
    """One run of `ImageCache.build`, under its lock."""

    def __init__(
        self, sources: Sequence[ImageFiles], input_spec: InputSpec, folder: Path, limits: Limits
    ) -> None:
        self.sources, self.input_spec, self.folder, self.limits = (
            sources,
            input_spec,
            folder,
            limits,
        )
        self.building = folder / ".building"
        self.settings = {
            "schema": SCHEMA,
            "rendering": _RENDERING,
            "decoding": DECODING,
            "form": input_spec.settings(),
            "limits": limits.settings(),
        }
        _publish(self.building, folder)
        self.published: dict[str, tuple[int, Row]] = {}
        self.published_ids: list[str] = []
        self._look_at_published()

    def _look_at_published(self) -> None:
        try:
            settings = read_settings(self.folder)
            rows = read_rows(self.folder / "index.csv")
            bad = read_rows(self.folder / "failed.csv")
            map_pixels(self.folder / "pixels.npy", (len(rows), *self.input_spec.shape))
        except DataError:
            return
        if any(
            settings.get(name) != self.settings[name] for name in ("rendering", "decoding", "form")
        ):
            return
        self.published_ids = [row.image_id for row in rows]
        self.published = {row.image_id: (at, row) for at, row in enumerate(rows)}
        if settings.get("limits") == self.settings["limits"]:
            self.published |= {row.image_id: (-1, row) for row in bad}

    def is_current(self) -> bool:
        """Whether the published cache contains exactly these sources, unchanged."""
        if not (self.folder / "cache.json").exists() or len(self.published) != len(self.sources):
            return False
        known = [self.published.get(source.image_id) for source in self.sources]
        good = [entry[1].image_id for entry in known if entry is not None and not entry[1].why]
        return good == self.published_ids and all(
            entry is not None and self._is_fresh(source, entry[1])
            for source, entry in zip(self.sources, known, strict=True)
        )

    def _is_fresh(self, source: ImageFiles, row: Row) -> bool:
        return self._stamped(source, row).contents == row.contents

    def _stamped(self, source: ImageFiles, known: Row | None) -> Row:
        try:
            paths = files_of(source, self.input_spec)
        except ImageError as error:
            return Row(source.image_id, "", str(error), ())
        stamps = dict(zip(paths, known.files, strict=False)) if known is not None else {}
        files = tuple(stamp_of(path, stamps.get(path)) for path in paths)
        return Row(source.image_id, "", "", files)

    def run(self, workers: int, progress: Callable[[int, int], None] | None) -> None:
        """Fill the missing rows, then publish the cache."""
        with self._rows_to_fill() as pixels:
            journal = Journal(self.building / "progress.jsonl", pixels)
            noted = journal.done()
            rows = {
                source.image_id: noted[source.image_id]
                for source in self.sources
                if source.image_id in noted and self._is_fresh(source, noted[source.image_id])
            }
            todo = [
                (position, source)
                for position, source in enumerate(self.sources)
                if source.image_id not in rows
            ]
            try:
                with closing(self._in_parallel(todo, pixels, workers)) as finished:
                    for row in finished:
                        journal.add(row)
                        rows[row.image_id] = row
                        if progress is not None:
                            progress(len(rows), len(self.sources))
            finally:
                journal.flush()
            self._complete([rows[source.image_id] for source in self.sources], pixels)
        _publish(self.building, self.folder)

    def _rows_to_fill(self) -> RowFile:
        plan = sha256_of(json.dumps(self.settings), *(source.image_id for source in self.sources))
        noted, pixels = self.building / "plan", self.building / "pixels.npy"
        if pixels.exists() and noted.exists() and noted.read_text(encoding="utf-8") == plan:
            return RowFile.open(pixels)
        shutil.rmtree(self.building, ignore_errors=True)
        self.building.mkdir()
        opened = RowFile.create(pixels, len(self.sources), self.input_spec.shape)
        noted.write_text(plan, encoding="utf-8")
        return opened

    def _in_parallel(
        self, todo: Iterable[tuple[int, ImageFiles]], pixels: RowFile, workers: int
    ) -> Generator[Row]:
        """Yield finished rows in order; decoders release the interpreter's lock."""
        waiting: deque[Future[Row]] = deque()
        pool = ThreadPoolExecutor(workers)
        old = RowFile.open(self.folder / "pixels.npy") if self.published_ids else None
        try:
            for position, source in todo:
                waiting.append(pool.submit(self._fill, position, source, pixels, old))
                if len(waiting) >= _LOOK_AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
            if old is not None:
                old.close()

    def _fill(self, position: int, source: ImageFiles, pixels: RowFile, old: RowFile | None) -> Row:
        at, known = self.published.get(source.image_id, (-1, None))
        row = self._stamped(source, known)
        if row.why:
            return row
        if known is not None and known.contents == row.contents:
            if old is not None and not known.why:
                pixels.write(position, old.read(at))
            return known._replace(files=row.files)
        try:
            rendered = load_input(source, self.input_spec, self.limits)
        except ImageError as error:
            return row._replace(why=str(error))
        if self._stamped(source, row) != row:
            return row._replace(files=(), why=f"{source.path}: changed while it was read")
        pixels.write(position, np.ascontiguousarray(rendered.pixels).tobytes())
        return row._replace(mode=rendered.mode)

    def _complete(self, rows: list[Row], pixels: RowFile) -> None:
        (self.building / "compact.npy").unlink(missing_ok=True)
        good = [position for position, row in enumerate(rows) if not row.why]
        if len(good) < len(rows):
            self._close_ranks(good, pixels)
        write_rows(self.building / "index.csv", (row for row in rows if not row.why))
        write_rows(self.building / "failed.csv", (row for row in rows if row.why))
        contents = (part for row in rows for part in (row.image_id, *row.contents))
        key = sha256_of(json.dumps(self.settings), *contents)
        write_json(self.building / "cache.json", {**self.settings, "key": key})

    def _close_ranks(self, good: list[int], pixels: RowFile) -> None:
        """Write the rows that did not fail to a new file, without gaps."""
        path = self.building / "compact.npy"
        with RowFile.create(path, len(good), self.input_spec.shape) as compact:
            for row, position in enumerate(good):
                compact.write(row, pixels.read(position))
            compact.sync()


def _publish(building: Path, folder: Path) -> None:
    """Move a finished cache into place; may be interrupted and repeated."""
    if not building.exists():
        return
    if not (building / "cache.json").exists():
        return
    (folder / "cache.json").unlink(missing_ok=True)
    compact = building / "compact.npy"
    if compact.exists():
        compact.replace(building / "pixels.npy")
    for name in _PUBLISHED:
        if (building / name).exists():
            (building / name).replace(folder / name)
    shutil.rmtree(building)


class ImageCache:
    """Decoded images by id.

    Attributes:
        pixels: Rows, N x size x size x 3 uint8 RGB (N x size x size for masks), a read-only
            memory map.
        ids: The image ids of the rows, in order.
        index: Row of each id.
        modes: Actual crop mode of each id (a crop without a usable mask is ``full``).
        failed: The reason why each unusable image has no row.
        contents: A hash over the files of each image, including failed ones.
        input_spec: The format of a row.
        key: SHA-256 over input spec, ids and file contents; equal keys mean equal pixels.
    """

    def __init__(self, folder: Path) -> None:
        settings = read_settings(folder)
        rows = read_rows(folder / "index.csv")
        self.folder = folder
        self.input_spec = InputSpec(**settings["form"])
        self.key = str(settings["key"])
        self.ids = [row.image_id for row in rows]
        self.index = {image_id: position for position, image_id in enumerate(self.ids)}
        self.modes = {row.image_id: row.mode for row in rows}
        bad = read_rows(folder / "failed.csv")
        self.failed = {row.image_id: row.why for row in bad}
        self.contents = {row.image_id: sha256_of(*row.contents)[:16] for row in (*rows, *bad)}
        self.pixels = map_pixels(folder / "pixels.npy", (len(rows), *self.input_spec.shape))

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a finished cache.

        Raises:
            DataError: The folder contains none, or a damaged one.
        """
        return cls(Path(folder))

    @classmethod
    def build(
        cls,
        sources: Sequence[ImageFiles],
        input_spec: InputSpec,
        folder: Path,
        *,
        workers: int | None = None,
        limits: Limits = Limits(),  # noqa: B008
        progress: Callable[[int, int], None] | None = None,
        waiting: Callable[[], None] | None = None,
    ) -> Self:
        """Decode ``sources`` into ``folder``; rows that are already there are kept.

        Rows with unchanged files (size and time, otherwise content) and input spec are copied,
        not decoded. A killed build resumes where it stopped and loses a few seconds of work at
        most. Images smaller than the input size are enlarged. Images that cannot be decoded are
        listed as failed.

        Args:
            sources: The images, in the order of the rows; ids unique.
            input_spec: The format of every row.
            folder: The folder of the cache.
            workers: Decoding threads; by default one per processor.
            limits: Limits on the size of files and images.
            progress: Called with (done, total) images.
            waiting: Called if another process builds here, before waiting for it.

        Raises:
            DataError: An id occurs twice.
            NaevusError: Another process builds here and ``waiting`` is None, or the disk is full.
        """
        folder = Path(folder)
        _refuse_twice(sources)
        with lock(folder / ".lock", waiting=waiting), writing(folder):
            build = Build(sources, input_spec, folder, limits)
            if not build.is_current():
                build.run(workers or cpu_count(), progress)
        if progress is not None:
            progress(len(sources), len(sources))
        return cls(folder)

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self.index

    def __getitem__(self, image_id: str) -> NDArray[np.uint8]:
        """Return the image of ``image_id``.

        Raises:
            DataError: The image has no row in this cache.
        """
        if image_id not in self.index:
            why = self.failed.get(image_id, "it is not in this cache")
            raise DataError(f"{self.folder}: no image {image_id}", why)
        row: NDArray[np.uint8] = self.pixels[self.index[image_id]]
        return row


def _refuse_twice(sources: Sequence[ImageFiles]) -> None:
    seen: set[str] = set()
    for source in sources:
        if source.image_id in seen:
            raise DataError(f"image id {source.image_id} occurs twice", "give each image one id")
        seen.add(source.image_id)
