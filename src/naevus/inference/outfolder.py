"""The folder results go to: whose it is, what is done already, what was refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast, get_args

from naevus.datasets.sources import mask_file
from naevus.errors import NaevusError
from naevus.inference.engines.automatic import Choice
from naevus.inference.engines.engine import Precision
from naevus.inference.table import ids_of_table, read_part
from naevus.io.files import flush_together, sha256_of, sweep, write_json, write_list
from naevus.io.formats import read_json
from naevus.types import EngineName, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from naevus.images.preprocess import Source
    from naevus.images.read import Limits


SETTINGS: Final = "predict.json"
"""What the folder's results were made with; only a job with the same settings may add to them."""


@dataclass(frozen=True)
class OutFolder:
    """Paths below the folder ``root``."""

    root: Path

    @property
    def table(self) -> Path:
        """The table of predictions."""
        return self.root / "predictions.parquet"

    @property
    def submission(self) -> Path:
        """The submission to Task 3."""
        return self.root / "submission.csv"

    @property
    def refused(self) -> Path:
        """The list of unusable pictures."""
        return self.root / "refused.csv"

    @property
    def masks(self) -> Path:
        """The folder of masks."""
        return self.root / "masks"

    @property
    def crops(self) -> Path:
        """The folder of crops."""
        return self.root / "crops"

    @property
    def heatmaps(self) -> Path:
        """The folder of pictures with their heat maps."""
        return self.root / "heatmaps"

    @property
    def embeddings(self) -> Path:
        """The table of embeddings."""
        return self.root / "embeddings.parquet"

    @property
    def lock(self) -> Path:
        """What only one process may hold."""
        return self.root / ".lock"

    def mask(self, image_id: str) -> Path:
        """Return where a picture's mask goes."""
        return mask_file(self.masks, image_id)

    def crop(self, image_id: str) -> Path:
        """Return where a picture's crop goes."""
        return self.crops / f"{image_id}.png"

    def heatmap(self, image_id: str) -> Path:
        """Return where a picture's heat map goes."""
        return self.heatmaps / f"{image_id}.png"

    def part(self, key: str) -> Path:
        """Return where a batch's rows go."""
        return self.root / ".parts" / f"{key}.parquet"

    def embeddings_part(self, key: str) -> Path:
        """Return where a batch's embeddings go; they are written before its rows."""
        return self.root / ".parts" / "embeddings" / f"{key}.parquet"

    def create(self) -> None:
        """Make the folder.

        Raises:
            NaevusError: It cannot be made.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NaevusError(
                f"{self.root}: cannot be made ({error.strerror})", "choose another --out"
            ) from error

    def claim(self, settings: dict[str, Any]) -> None:
        """Say what this folder's results are made with; call it with the lock held.

        Raises:
            NaevusError: The folder holds something else, or results of other settings.
        """
        path = self.root / SETTINGS
        if not path.exists():
            others = [entry.name for entry in self.root.iterdir() if entry != self.lock]
            if others:
                raise NaevusError(
                    f"{self.root} holds other files, such as {min(others)}", _ANOTHER_OUT
                )
            write_json(path, settings)
            return
        before = read_json(path, _ANOTHER_OUT)
        if before != json.loads(json.dumps(settings)):
            differing = [name for name in settings if before.get(name) != settings[name]]
            raise NaevusError(
                f"{self.root} holds predictions made with other settings "
                f"({', '.join(differing) or 'of another version'})",
                _ANOTHER_OUT,
            )

    def choice(self) -> Choice | None:
        """Return how the networks of an earlier job are run, which goes on here; None: of none."""
        try:
            settings = json.loads((self.root / SETTINGS).read_bytes())
            parts = [settings[name] for name in ("segmenter", "classifier")]
            (engine,) = {part["engine"] for part in parts if part}
            (limit,) = {part["instructions"] for part in parts if part}
            one, other = (_precision(part["precision"] if part else "f32") for part in parts)
        except (OSError, ValueError, KeyError, TypeError):
            return None  # `claim` tells what is wrong with it
        known = engine in get_args(EngineName)
        return Choice(engine, one, other, limit, "as the job began") if known else None

    def sweep(self) -> None:
        """Remove what a killed job left half-written; call it with the lock held."""
        parts = self.part("").parent
        for folder in (
            self.root,
            self.masks,
            self.crops,
            self.heatmaps,
            parts,
            parts / "embeddings",
        ):
            sweep(folder)

    def is_done(
        self,
        key: str,
        ids: Sequence[str],
        places: Sequence[Callable[[str], Path]] = (),
        *,
        embeddings: bool = False,
    ) -> bool:
        """Tell whether a batch's rows are there and whole, and what else is wanted of it.

        Args:
            key: Of the batch.
            ids: Of its pictures.
            places: Where the pictures that are wanted of each of its predicted pictures go. They
                must have the sizes that were noted with the rows.
            embeddings: Whether embeddings are wanted.
        """
        part = read_part(self.part(key))
        if part is None or part.ids != sorted(ids):
            return False
        if embeddings and ids_of_table(self.embeddings_part(key)) != part.predicted:
            return False
        return all(
            part.sizes.get(name) == [_size(place(name)) for place in places]
            for name in part.predicted
        )

    def settle(
        self, ids: Sequence[str], places: Sequence[Callable[[str], Path]]
    ) -> dict[str, list[int]]:
        """Have the disk keep the pictures made of a batch, before its rows tell that it is done.

        Args:
            ids: Of its predicted pictures.
            places: Where the pictures that were made of each go.

        Returns:
            Their sizes in bytes, in the order of the places.
        """
        made = {name: [place(name) for place in places] for name in ids}
        flush_together([path for paths in made.values() for path in paths])
        return {name: [path.stat().st_size for path in paths] for name, paths in made.items()}

    def forget(self, image_id: str) -> None:
        """Take away the pictures that an earlier job made of one that is refused now."""
        for place in (self.mask, self.crop, self.heatmap):
            place(image_id).unlink(missing_ok=True)

    def stale_parts(self, keys: Sequence[str]) -> list[Path]:
        """Return parts of other batches than these."""
        current = {self.part(key) for key in keys}
        return sorted(set(self.part("").parent.glob("*.parquet")) - current)

    def remove(self, stale: Sequence[Path]) -> None:
        """Take parts away, with their embeddings."""
        for part in stale:
            self.embeddings_part(part.stem).unlink(missing_ok=True)
            part.unlink()

    def check_covered(self, stale: Sequence[Path], sources: Sequence[Source]) -> None:
        """Refuse to go on where results of pictures lie that are not asked for now.

        Raises:
            NaevusError: There are such pictures; table and folder of masks would disagree.
        """
        if not stale:
            return
        asked = {source.image_id for source in sources}
        for part in stale:
            found = read_part(part)
            others = set() if found is None else set(found.ids) - asked
            if others:
                raise NaevusError(
                    f"{self.root} holds predictions of other pictures, such as {min(others)}",
                    _ANOTHER_OUT,
                )

    def write_refused(self, refused: Sequence[Refused]) -> None:
        """Write the list of unusable pictures, or take an old one away where there are none."""
        write_list(self.refused, Refused._fields, refused)


def _precision(name: str) -> Precision:
    if name not in get_args(Precision):
        raise ValueError(name)
    return cast("Precision", name)


def key_of(piece: Sequence[Source], limits: Limits) -> str:
    """Return a name for a batch that changes when a picture or a file's size or time does."""
    parts = [repr(limits.settings())]
    for source in piece:
        try:
            status = source.path.stat()
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            state = "absent"
        parts += [source.image_id, str(source.path), state]
    return sha256_of(*parts)[:32]


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


_ANOTHER_OUT = "choose another --out, or delete this folder"
