"""Building a pixel store: what is fresh stays, what changed is decoded, what is bad is told."""

from __future__ import annotations

import json
import shutil
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from naevus.datasets.storefiles import (
    SCHEMA,
    Row,
    map_pixels,
    read_rows,
    read_settings,
    stamp_of,
    write_rows,
)
from naevus.datasets.storerows import Journal, RowFile
from naevus.errors import DataError, PictureError
from naevus.images.preprocess import files_of, render
from naevus.images.read import DECODING
from naevus.io.files import sha256_of, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from pathlib import Path

    from naevus.images.preprocess import Form, Source
    from naevus.images.read import Limits

_RENDERING = 2  # raised whenever masks are read, or pictures resized or cut, in another way
_PUBLISHED = ("pixels.npy", "index.csv", "quarantine.csv", "store.json")  # the last one commits
_LOOK_AHEAD = 4  # pictures waiting for each thread


class Build:
    """One run of `PixelStore.build`, under its lock."""

    def __init__(self, sources: Sequence[Source], form: Form, folder: Path, limits: Limits) -> None:
        self.sources, self.form, self.folder, self.limits = sources, form, folder, limits
        self.building = folder / ".building"
        self.settings = {
            "schema": SCHEMA,
            "rendering": _RENDERING,
            "decoding": DECODING,
            "form": asdict(form),
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
            bad = read_rows(self.folder / "quarantine.csv")
            map_pixels(self.folder / "pixels.npy", (len(rows), *self.form.shape))
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
        """Whether the published store holds exactly these sources, unchanged."""
        if not (self.folder / "store.json").exists() or len(self.published) != len(self.sources):
            return False
        known = [self.published.get(source.image_id) for source in self.sources]
        good = [entry[1].image_id for entry in known if entry is not None and not entry[1].why]
        return good == self.published_ids and all(
            entry is not None and self._is_fresh(source, entry[1])
            for source, entry in zip(self.sources, known, strict=True)
        )

    def _is_fresh(self, source: Source, row: Row) -> bool:
        return self._stamped(source, row).contents == row.contents

    def _stamped(self, source: Source, known: Row | None) -> Row:
        try:
            paths = files_of(source, self.form)
        except PictureError as error:
            return Row(source.image_id, "", str(error), ())
        stamps = dict(zip(paths, known.files, strict=False)) if known is not None else {}
        files = tuple(stamp_of(path, stamps.get(path)) for path in paths)
        return Row(source.image_id, "", "", files)

    def run(self, workers: int, progress: Callable[[int, int], None] | None) -> None:
        """Fill the rows that are not done yet, then put the store in its place."""
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
        opened = RowFile.create(pixels, len(self.sources), self.form.shape)
        noted.write_text(plan, encoding="utf-8")
        return opened

    def _in_parallel(
        self, todo: Iterable[tuple[int, Source]], pixels: RowFile, workers: int
    ) -> Generator[Row]:
        """Yield finished rows in order; the decoders release the interpreter's lock."""
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

    def _fill(self, position: int, source: Source, pixels: RowFile, old: RowFile | None) -> Row:
        at, known = self.published.get(source.image_id, (-1, None))
        row = self._stamped(source, known)
        if row.why:
            return row
        if known is not None and known.contents == row.contents:
            if old is not None and not known.why:
                pixels.write(position, old.read(at))
            return known._replace(files=row.files)
        try:
            rendered = render(source, self.form, self.limits)
        except PictureError as error:
            return row._replace(why=str(error))
        pixels.write(position, np.ascontiguousarray(rendered.pixels).tobytes())
        return row._replace(mode=rendered.mode)

    def _complete(self, rows: list[Row], pixels: RowFile) -> None:
        (self.building / "compact.npy").unlink(missing_ok=True)
        good = [position for position, row in enumerate(rows) if not row.why]
        if len(good) < len(rows):
            self._close_ranks(good, pixels)
        write_rows(self.building / "index.csv", (row for row in rows if not row.why))
        write_rows(self.building / "quarantine.csv", (row for row in rows if row.why))
        contents = (part for row in rows for part in (row.image_id, *row.contents))
        key = sha256_of(json.dumps(self.settings), *contents)
        write_json(self.building / "store.json", {**self.settings, "key": key})

    def _close_ranks(self, good: list[int], pixels: RowFile) -> None:
        """Write the rows that are not quarantined to a file of their own, without gaps."""
        path = self.building / "compact.npy"
        with RowFile.create(path, len(good), self.form.shape) as compact:
            for row, position in enumerate(good):
                compact.write(row, pixels.read(position))
            compact.sync()


def _publish(building: Path, folder: Path) -> None:
    """Move a finished store into place; safe to be killed in and called again."""
    if not building.exists():
        return
    if not (building / "store.json").exists():
        return
    (folder / "store.json").unlink(missing_ok=True)
    compact = building / "compact.npy"
    if compact.exists():
        compact.replace(building / "pixels.npy")
    for name in _PUBLISHED:
        if (building / name).exists():
            (building / name).replace(folder / name)
    shutil.rmtree(building)
