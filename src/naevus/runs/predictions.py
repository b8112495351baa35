"""The predictions folder: its table, written in parts, and its other files."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast, get_args

import pyarrow.parquet as pq

from naevus import __version__
from naevus.datasets.sources import attribute_mask_file, mask_file
from naevus.errors import NaevusError, RunError
from naevus.images.read import TRANSIENT
from naevus.io.files import (
    flush_together,
    nested,
    original,
    sha256_of,
    sweep,
    write_csv,
    write_json,
    write_list,
)
from naevus.io.formats import read_json, read_table
from naevus.io.limits import read_json_text
from naevus.io.outputs import check_free
from naevus.io.settings import names_of_differences
from naevus.runs.prediction_tables import ABOUT, ids_of_table, read_part
from naevus.taxonomy import ATTRIBUTES
from naevus.types import EngineChoice, EngineName, FailedImage, Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from naevus.images.preprocess import ImageFiles
    from naevus.images.read import Limits


SETTINGS: Final = "predict.json"
"""The settings of a folder's predictions; only a job with the same settings may add to them."""

_VERSION: Final = "naevus_version"
"""The version that began a job; a later one continues it if its settings are the same."""
_OPTIONAL: Final = {"metadata", "shard"}
"""Settings that only some jobs have; all others tell versions apart."""


_LESIONS: Final = ".lesions.csv"


def is_run(folder: Path) -> bool:
    """Return whether a folder is a run (true) or predictions (false).

    Raises:
        RunError: The folder is neither.
    """
    if (folder / "run.toml").exists():
        return True
    if (folder / "predictions.parquet").exists():
        return False
    if (folder / SETTINGS).exists():
        raise RunError(f"{folder}: is unfinished", "run its `naevus predict` command again")
    problem = ": is neither a run nor predictions" if folder.exists() else " does not exist"
    raise RunError(f"{folder}{problem}", "name the --out of `naevus train` or `naevus predict`")


@dataclass(frozen=True)
class PredictionsFolder:
    """Paths below the folder ``root``.

    Args:
        root: The folder.
        nested: Whether the images written into it are in 256 subfolders (`io.files.nested`).
    """

    root: Path
    nested: bool = False

    @property
    def table(self) -> Path:
        """The table of predictions."""
        return self.root / "predictions.parquet"

    @property
    def sheet(self) -> Path:
        """The table of predictions for a spreadsheet."""
        return self.root / "predictions.csv"

    @property
    def submission(self) -> Path:
        """The submission to Task 3."""
        return self.root / "submission.csv"

    @property
    def failed(self) -> Path:
        """The list of failed images."""
        return self.root / "failed.csv"

    @property
    def masks(self) -> Path:
        """The folder of masks."""
        return self.root / "masks"

    @property
    def attributes(self) -> Path:
        """The folder of the attributes' masks."""
        return self.root / "attributes"

    @property
    def crops(self) -> Path:
        """The folder of crops."""
        return self.root / "crops"

    @property
    def heatmaps(self) -> Path:
        """The folder of images with their heatmaps."""
        return self.root / "heatmaps"

    @property
    def embeddings(self) -> Path:
        """The table of embeddings."""
        return self.root / "embeddings.parquet"

    @property
    def lesions(self) -> tuple[Path, Path]:
        """The table of lesions, as Parquet and as CSV."""
        return self.root / "lesions.parquet", self.root / "lesions.csv"

    @property
    def workbook(self) -> Path:
        """The same for Excel."""
        return self.root / "predictions.xlsx"

    @property
    def derived(self) -> tuple[Path, ...]:
        """The files made from the table that a repeated job may not ask for."""
        return self.workbook, self.submission, *self.lesions

    @property
    def lock(self) -> Path:
        """The lock file, which one process holds at a time."""
        return self.root / ".lock"

    def mask(self, image_id: str) -> Path:
        """Return the path of an image's mask."""
        return self._place(mask_file(self.masks, image_id), image_id)

    def attribute(self, image_id: str, name: str) -> Path:
        """Return the path of the mask of an image's attribute."""
        return self._place(attribute_mask_file(self.attributes, image_id, name), image_id)

    def crop(self, image_id: str) -> Path:
        """Return the path of an image's crop."""
        return self._place(self.crops / f"{image_id}.png", image_id)

    def heatmap(self, image_id: str) -> Path:
        """Return the path of an image's heatmap."""
        return self._place(self.heatmaps / f"{image_id}.png", image_id)

    @property
    def image_folders(self) -> tuple[Path, ...]:
        """The folders of files that are written for each image."""
        return self.masks, self.attributes, self.crops, self.heatmaps

    def place(self, kind: str, image_id: str) -> Path:
        """Return the path of an image's ``mask``, ``crop``, ``heatmap`` or ``attribute NAME``."""
        if kind.startswith("attribute "):
            return self.attribute(image_id, kind.removeprefix("attribute "))
        return {"mask": self.mask, "crop": self.crop, "heatmap": self.heatmap}[kind](image_id)

    def places(self, kinds: Sequence[str]) -> list[Callable[[str], Path]]:
        """Return functions from an image id to each of its files (`place`)."""
        return [partial(self.place, kind) for kind in kinds]

    def _place(self, path: Path, image_id: str) -> Path:
        return nested(path, image_id) if self.nested else path

    def part(self, key: str) -> Path:
        """Return the path of a batch's rows."""
        return self.root / ".parts" / f"{key}.part"

    def embeddings_part(self, key: str) -> Path:
        """Return the path of a batch's embeddings, which are written before its rows."""
        return self.root / ".parts" / "embeddings" / f"{key}.part"

    def create(self) -> None:
        """Create the folder.

        Raises:
            NaevusError: It cannot be created.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NaevusError(
                f"{self.root}: cannot be created ({error.strerror})", "choose another --out"
            ) from error

    def check_free(self) -> None:
        """Check that the folder holds nothing but predictions, if it exists.

        Raises:
            NaevusError: It contains other files.
        """
        check_free(self.root, SETTINGS)

    def claim(self, settings: dict[str, Any]) -> None:
        """Record the settings of this folder's predictions; call it with the lock held.

        Raises:
            NaevusError: The folder contains other files, or predictions with other settings.
        """
        path = self.root / SETTINGS
        if not path.exists():
            self.check_free()
            write_json(path, {**settings, _VERSION: __version__})
            return
        before = read_json(path, _ANOTHER_OUT)
        version = before.pop(_VERSION, None)
        now = json.loads(json.dumps(settings))
        if before == now:
            return
        differing = [each.removesuffix(".sha256") for each in names_of_differences(before, now)]
        unknown = (before.keys() ^ now.keys()) - _OPTIONAL
        if unknown or version not in (None, __version__):
            maker = f"naevus {version}" if version not in (None, __version__) else "another version"
            raise NaevusError(
                f"{self.root} holds predictions of {maker}; naevus {__version__} has other "
                f"settings ({', '.join(differing)})",
                _ANOTHER_OUT,
            )
        raise NaevusError(
            f"{self.root} holds predictions made with other settings ({', '.join(differing)})",
            _ANOTHER_OUT,
        )

    def choice(self) -> EngineChoice | None:
        """Return the engine of the job that is resumed here; None if there is none."""
        try:
            settings = json.loads(read_json_text(self.root / SETTINGS))
            parts = [settings[name] for name in ("segmenter", "classifier")]
            (engine,) = {part["engine"] for part in parts if part}
            (device,) = {str(part["device"]) for part in parts if part}
            (limit,) = {part["instructions"] for part in parts if part}
            one, other = (_computed(part["precision"] if part else "fp32") for part in parts)
        except (OSError, ValueError, KeyError, TypeError):
            return None  # `claim` reports the problem
        known = engine in get_args(EngineName)
        if not known:
            return None
        where = device if "+" not in device else "auto"
        return EngineChoice(engine, one, other, limit, "as the job began", device=where)

    def sweep(self) -> None:
        """Remove half-written files of a killed job; call it with the lock held."""
        parts = self.part("").parent
        images = self.image_folders
        below = [each for folder in images for each in folder.glob("??")] if self.nested else []
        for folder in (self.root, *images, *below, parts, parts / "embeddings"):
            sweep(folder)

    def is_done(
        self,
        key: str,
        ids: Sequence[str],
        places: Sequence[Callable[[str], Path]] = (),
        *,
        embeddings: bool = False,
    ) -> bool:
        """Return whether a batch's rows and its other wanted files are complete.

        A batch with files that the system could not read is not: it may be able to now.

        Args:
            key: The batch's key.
            ids: The ids of its images.
            places: Paths of the files wanted for each predicted image, as functions of its id.
                The files must have the sizes recorded with the rows. Empty: files are elsewhere.
            embeddings: Whether embeddings are wanted.
        """
        part = read_part(self.part(key))
        if part is None or part.ids != sorted(ids):
            return False
        if any(failed.problem.startswith(TRANSIENT) for failed in part.failed):
            return False
        if embeddings and ids_of_table(self.embeddings_part(key)) != part.predicted:
            return False
        return not places or all(
            part.sizes.get(name) == [_size(place(name)) for place in places]
            for name in part.predicted
        )

    def settle(
        self, ids: Sequence[str], places: Sequence[Callable[[str], Path]]
    ) -> dict[str, list[int]]:
        """Flush a batch's image files to disk, before its rows mark it as done.

        Args:
            ids: The ids of its predicted images.
            places: Paths of the files written for each image, as functions of its id.

        Returns:
            Sizes in bytes by image id, in the order of the places.
        """
        made = {name: [place(name) for place in places] for name in ids}
        flush_together([path for paths in made.values() for path in paths])
        return {name: [path.stat().st_size for path in paths] for name, paths in made.items()}

    def forget(self, image_id: str) -> None:
        """Remove the files that an earlier job wrote for an image that now fails."""
        attributes = [self.attribute(image_id, name) for name in ATTRIBUTES]
        for path in (self.mask(image_id), self.crop(image_id), self.heatmap(image_id), *attributes):
            path.unlink(missing_ok=True)

    def stale_parts(self, keys: Sequence[str]) -> list[Path]:
        """Return the parts of all other batches."""
        current = {self.part(key) for key in keys}
        return sorted(set(self.part("").parent.glob("*.part")) - current)

    def remove(self, stale: Sequence[Path]) -> None:
        """Remove parts with their embeddings."""
        for part in stale:
            self.embeddings_part(part.stem).unlink(missing_ok=True)
            part.unlink()

    def check_covered(self, stale: Sequence[Path], sources: Sequence[ImageFiles]) -> None:
        """Refuse a folder with predictions of images that are not among the inputs.

        Raises:
            NaevusError: There are such images; the table and the mask folder would disagree.
        """
        if not stale:
            return
        asked = {source.image_id for source in sources}
        for part in stale:
            found = read_part(part)
            others = set() if found is None else set(found.ids) - asked
            if others:
                raise NaevusError(
                    f"{self.root} holds predictions of other images, such as {min(others)}",
                    _ANOTHER_OUT,
                )

    def coverage(self) -> float | None:
        """Return what the table's prediction sets promise; None where it does not say so."""
        given = (pq.read_schema(self.table).metadata or {}).get(ABOUT)
        return None if given is None else json.loads(given).get("coverage")

    def problems(self) -> dict[str, str]:
        """Return the reason of each failed image, by id."""
        if not self.failed.exists():
            return {}
        table = read_table(self.failed, required=("image_id", "problem"))
        return dict(zip(map(original, table["image_id"]), table["problem"], strict=True))

    def keep_lesions(self, lesions: Mapping[str, str], sources: Sequence[ImageFiles]) -> None:
        """Record the lesions of some images, for the job that needs those of all shards."""
        ids = (source.image_id for source in sources)
        rows = [(each, lesions[each]) for each in ids if each in lesions]
        if rows:
            write_csv(self.root / _LESIONS, ("image_id", "lesion_id"), rows)
        else:
            (self.root / _LESIONS).unlink(missing_ok=True)

    def kept_lesions(self) -> dict[str, str]:
        """Return the recorded lesion of each image, by id; maybe none.

        Raises:
            RunError: The record is damaged.
        """
        path = self.root / _LESIONS
        if not path.exists():
            return {}
        try:
            with path.open(newline="", encoding="utf-8") as stream:
                return dict(list(csv.reader(stream))[1:])
        except (OSError, ValueError, csv.Error) as error:
            raise RunError(f"{path}: is damaged", "run the command again") from error

    def write_failed(self, failed: Sequence[FailedImage]) -> None:
        """Write the list of failed images, or remove an old list if there are none."""
        write_list(self.failed, FailedImage._fields, failed)


def _computed(name: str) -> Precision:
    if name not in get_args(Precision):
        raise ValueError(name)
    return cast("Precision", name)


def key_of(piece: Sequence[ImageFiles], limits: Limits) -> str:
    """Return a key for a batch that changes with its images and their files' sizes and times."""
    parts = [repr(limits.settings())]
    for source in piece:
        try:
            status = source.path.stat()
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            state = "absent"
        parts += [source.image_id, str(source.path), state]
    return sha256_of(*parts)[:32]


def key_after(key: str, piece: Sequence[ImageFiles], limits: Limits) -> str:
    """Return the key of a batch that was read: its key before, unless a file changed meanwhile.

    It is then unknown what was read, and a key that no later job has makes the next job read again.
    """
    now = key_of(piece, limits)
    return key if now == key else sha256_of(key, now)[:32]


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


_ANOTHER_OUT = "choose another --out, or delete this folder"
