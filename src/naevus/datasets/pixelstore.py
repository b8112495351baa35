"""A cache of decoded pictures: one memory-mapped array, ids inside, resumable and self-checking.

A store is a folder: ``pixels.npy`` (uint8, one row a picture), ``index.csv`` (the rows' ids),
``quarantine.csv`` (pictures that cannot be used, and why) and ``store.json``, whose presence says
that the rest is whole. While a store is built everything stands in ``.building`` inside the
folder; the finished files are renamed into place, ``store.json`` last.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

from naevus.datasets.storebuild import Build
from naevus.datasets.storefiles import map_pixels, read_rows, read_settings
from naevus.errors import DataError
from naevus.images.preprocess import Form, Source
from naevus.images.read import Limits
from naevus.io.files import lock, sha256_of, writing
from naevus.io.parallel import cpu_count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Form", "PixelStore", "Source"]


class PixelStore:
    """Decoded pictures by id.

    Attributes:
        pixels: Rows, N x size x size x 3 uint8 RGB (N x size x size for the form ``mask``), a
            read-only memory map.
        ids: The rows' image ids, in order.
        index: Row of each id.
        modes: Mode really used for each id (a crop without a usable mask is ``full``).
        quarantined: Why each unusable picture has no row.
        contents: A hash over the files that each picture was made from, quarantined ones too.
        form: What a row looks like.
        key: SHA-256 over form, ids and file contents; equal keys mean equal pixels.
    """

    def __init__(self, folder: Path) -> None:
        settings = read_settings(folder)
        rows = read_rows(folder / "index.csv")
        self.folder = folder
        self.form = Form(**settings["form"])
        self.key = str(settings["key"])
        self.ids = [row.image_id for row in rows]
        self.index = {image_id: position for position, image_id in enumerate(self.ids)}
        self.modes = {row.image_id: row.mode for row in rows}
        bad = read_rows(folder / "quarantine.csv")
        self.quarantined = {row.image_id: row.why for row in bad}
        self.contents = {row.image_id: sha256_of(*row.contents)[:16] for row in (*rows, *bad)}
        self.pixels = map_pixels(folder / "pixels.npy", (len(rows), *self.form.shape))

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a finished store.

        Raises:
            DataError: The folder holds none, or a damaged one.
        """
        return cls(Path(folder))

    @classmethod
    def build(
        cls,
        sources: Sequence[Source],
        form: Form,
        folder: Path,
        *,
        workers: int | None = None,
        limits: Limits = Limits(),  # noqa: B008
        progress: Callable[[int, int], None] | None = None,
    ) -> Self:
        """Decode ``sources`` into ``folder``, doing only what is not done there already.

        Rows whose files (size and time, else content) and form are as before are copied, not
        decoded. A build that was killed goes on where it stopped, a few seconds' work lost at
        most. Pictures smaller than the form's size are enlarged. A picture that cannot be decoded
        is quarantined and the rest goes on.

        Args:
            sources: The pictures, in the order of the rows; ids unique.
            form: What every row looks like.
            folder: Where the store is or shall be.
            workers: Decoding threads; as many as processors by default.
            limits: Largest files and pictures that are decoded.
            progress: Called with (done, total) pictures.

        Raises:
            DataError: An id occurs twice.
            NaevusError: Another process builds here, or the disk is full.
        """
        folder = Path(folder)
        _refuse_twice(sources)
        with lock(folder / ".lock"), writing(folder):
            build = Build(sources, form, folder, limits)
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
        """Return the picture of ``image_id``.

        Raises:
            DataError: It has no row here.
        """
        if image_id not in self.index:
            why = self.quarantined.get(image_id, "it is not in this cache")
            raise DataError(f"{self.folder}: no picture {image_id}", why)
        row: NDArray[np.uint8] = self.pixels[self.index[image_id]]
        return row


def _refuse_twice(sources: Sequence[Source]) -> None:
    seen: set[str] = set()
    for source in sources:
        if source.image_id in seen:
            raise DataError(f"image id {source.image_id} occurs twice", "give each picture one id")
        seen.add(source.image_id)
