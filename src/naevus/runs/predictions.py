"""The predictions folder: its table, written in parts, and its other files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from naevus.datasets.sources import attribute_mask_file, mask_file
from naevus.errors import NaevusError, RunError
from naevus.io.files import (
    atomic,
    flush,
    flush_together,
    nested,
    original,
    sha256_of,
    sweep,
    write_json,
    write_list,
)
from naevus.io.formats import read_json, read_parquet, read_table
from naevus.taxonomy import ATTRIBUTES
from naevus.types import EngineChoice, EngineName, FailedImage, Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from naevus.images.preprocess import ImageFiles
    from naevus.images.read import Limits


# The table of predictions: one schema, written in parts and joined at the end.

ABOUT = b"naevus"
"""Key of the settings in a table's metadata."""
_FAILED = b"naevus.failed"
_SIZES = b"naevus.sizes"
_ROW_GROUP = 8192


@dataclass(frozen=True)
class Schema:
    """The columns of ``predictions.parquet``.

    ``image_id, path``; ``height, width`` of the image; ``prob_<code>``: natural probabilities;
    ``balanced_prob_<code>``: balanced ones; ``predicted, predicted_balanced``: the codes of their
    maxima; ``prediction_set``: the classes that cannot be ruled out; ``member_probs``: natural
    probabilities of each member, in the order of the metadata; ``confidence``: the largest
    natural probability; ``uncertainty``: its standard deviation over members and TTA;
    ``ood_score``: distance from the training images, flagged above 1; ``quality_flags``;
    ``lesion_area``: fraction of the image; ``presence_<attribute>``: its probability, if the
    bundle predicts attributes; ``crop_mode``: the classifier's actual input; ``age``, ``sex``,
    ``site`` and the other columns of `naevus.types.METADATA`: the job's metadata, if any;
    ``bundle_sha256``: SHA-256 of the bundles, joined by commas. Without a classifier there are no
    probability columns, and columns derived from them are null.

    Args:
        classes: Codes in order; none without a classifier.
        bundles: SHA-256 of the bundles.
        about: Settings and members, for the file's metadata under ``naevus``.
        attributes: The predicted attributes, in order.
        metadata: The columns of metadata, in order.
    """

    classes: tuple[str, ...]
    bundles: tuple[str, ...]
    about: dict[str, Any]
    attributes: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ()

    def arrow(self) -> pa.Schema:
        """Return the schema for Arrow, with its metadata."""
        numbers = [f"{kind}_{code}" for kind in ("prob", "balanced_prob") for code in self.classes]
        fields = [
            ("image_id", pa.string()),
            ("path", pa.string()),
            ("height", pa.int32()),
            ("width", pa.int32()),
            *((name, pa.float64()) for name in numbers),
            ("predicted", pa.string()),
            ("predicted_balanced", pa.string()),
            ("prediction_set", pa.list_(pa.string())),
            ("member_probs", pa.list_(pa.list_(pa.float32()))),
            ("confidence", pa.float64()),
            ("uncertainty", pa.float64()),
            ("ood_score", pa.float64()),
            ("quality_flags", pa.list_(pa.string())),
            ("lesion_area", pa.float64()),
            *((f"presence_{name}", pa.float64()) for name in self.attributes),
            ("crop_mode", pa.string()),
            *((name, pa.float64() if name == "age" else pa.string()) for name in self.metadata),
            ("bundle_sha256", pa.string()),
        ]
        about = json.dumps(self.about, sort_keys=True)
        return pa.schema(fields, metadata={ABOUT: about.encode()})


def write_part(
    path: Path,
    schema: Schema,
    rows: Sequence[Mapping[str, Any]],
    failed: Sequence[FailedImage],
    sizes: Mapping[str, Sequence[int]],
) -> None:
    """Write the rows of one batch, with its failed images in the file's metadata.

    Args:
        path: The file to write.
        schema: The rows' columns.
        rows: Predictions by column (`naevus.inference.prediction.Prediction.to_row`).
        failed: The failed images.
        sizes: Sizes of the files written for each image, in bytes.

    Raises:
        NaevusError: The disk is full or the folder cannot be written.
    """
    bundles = ",".join(schema.bundles)
    values = [{**row, "bundle_sha256": bundles} for row in rows]
    table = pa.Table.from_pylist(values, schema.arrow())
    noted = {_FAILED: json.dumps(failed).encode(), _SIZES: json.dumps(sizes).encode()}
    _write_part(path, table.replace_schema_metadata({**table.schema.metadata, **noted}))


def _write_part(path: Path, table: pa.Table) -> None:
    """Write a part atomically and flush it: a Parquet file followed by its SHA-256.

    Parquet's own checksums do not cover the headers of its pages.
    """
    content = pa.BufferOutputStream()
    pq.write_table(table, content)
    whole = content.getvalue().to_pybytes()
    with atomic(path) as temporary:
        temporary.write_bytes(whole + hashlib.sha256(whole).digest())
        flush(temporary)


def _open_part(path: Path) -> pq.ParquetFile:
    """Open a part; raise a `ValueError` if any byte has changed since it was written."""
    content = path.read_bytes()
    whole, digest = content[:-_DIGEST], content[-_DIGEST:]
    if hashlib.sha256(whole).digest() != digest:
        raise ValueError(f"{path}: damaged")
    return pq.ParquetFile(pa.BufferReader(whole))


_DIGEST: Final = hashlib.sha256().digest_size


class Part(NamedTuple):
    """The content of a complete batch's file.

    Attributes:
        predicted: The ids of its predicted images.
        failed: Its failed images.
        sizes: Sizes of the files written for each image, in bytes.
    """

    predicted: list[str]
    failed: list[FailedImage]
    sizes: dict[str, list[int]]

    @property
    def ids(self) -> list[str]:
        """The ids of all its images, sorted."""
        return sorted([*self.predicted, *(failed.image_id for failed in self.failed)])


def read_part(path: Path) -> Part | None:
    """Read a batch's file; None if it is absent or damaged."""
    try:
        with _open_part(path) as file:
            table = file.read()
        noted = table.schema.metadata
        failed = [FailedImage(*values) for values in json.loads(noted[_FAILED])]
        return Part(table.column("image_id").to_pylist(), failed, json.loads(noted[_SIZES]))
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
        return None


def failed_in(path: Path) -> list[FailedImage]:
    """Return the failed images in an undamaged batch's file, without parsing its rows."""
    with _open_part(path) as file:
        return [FailedImage(*values) for values in json.loads(file.schema_arrow.metadata[_FAILED])]


def ids_of_table(path: Path) -> list[str] | None:
    """Read a table and return its ids; None if it is absent or damaged."""
    try:
        with _open_part(path) as file:
            ids: list[str] = file.read().column("image_id").to_pylist()
    except (pa.ArrowException, OSError, ValueError, KeyError):
        return None
    return ids


def read_rows(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table; unlike ``pq.read_table`` this imports no more of Arrow."""
    with pq.ParquetFile(path) as file:
        return file.read(columns)


def read_predictions(path: Path) -> pd.DataFrame:
    """Read a table of predictions into pandas.

    Raises:
        RunError: It is absent or damaged.
    """
    sizes = ("height", "width", "lesion_area", "age")
    kinds = (*sizes, "prob", "balanced_prob", "uncertainty", "ood_score")
    return read_parquet(path, "predict again into another folder", numbers=kinds, error=RunError)


def join(parts: Sequence[Path], arrow: pa.Schema, path: Path) -> int:
    """Join parts of one schema into one file, with a few thousand rows in memory at a time.

    Returns:
        The number of rows.

    Raises:
        NaevusError: The disk is full or the folder cannot be written.
    """
    rows = 0
    with atomic(path) as temporary, pq.ParquetWriter(temporary, arrow) as writer:
        for table in _groups(parts):
            writer.write_table(table.cast(arrow))
            rows += table.num_rows
    return rows


def about(path: Path) -> dict[str, Any]:
    """Return the settings and members in the metadata of a table of predictions.

    Raises:
        NaevusError: The file is not such a table.
    """
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _no_table(path) from error
    if ABOUT not in metadata:
        raise _no_table(path)
    try:
        settings = json.loads(metadata[ABOUT])
        return {**settings, "classes": [str(code) for code in settings["classes"]]}
    except (ValueError, TypeError, KeyError) as error:
        raise _no_table(path) from error


def _groups(parts: Sequence[Path]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    for part in parts:
        with _open_part(part) as file:
            waiting.append(file.read().replace_schema_metadata())
        if sum(table.num_rows for table in waiting) >= _ROW_GROUP:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def _no_table(path: Path) -> NaevusError:
    return NaevusError(
        f"{path}: is not a table of predictions", "name one that `naevus predict` wrote"
    )


# The table of embeddings: the features before the last layer of a classifier.


def embeddings_schema(about: Mapping[str, Any]) -> pa.Schema:
    """Return the columns of ``embeddings.parquet``: ``image_id``, and ``embedding`` as float16.

    Args:
        about: The file's metadata under ``naevus``.
    """
    fields = [("image_id", pa.string()), ("embedding", pa.list_(pa.float16()))]
    return pa.schema(fields, metadata={ABOUT: json.dumps(about, sort_keys=True).encode()})


def write_embeddings(
    path: Path, schema: pa.Schema, rows: Mapping[str, NDArray[np.float32] | None]
) -> None:
    """Write the embeddings of one batch.

    Args:
        path: The file to write.
        schema: From `embeddings_schema`.
        rows: F features by image id; None if the networks provide none.

    Raises:
        NaevusError: The disk is full or the folder cannot be written.
    """
    features = [None if one is None else one.astype(np.float16) for one in rows.values()]
    columns = [
        pa.array(list(rows), schema.field("image_id").type),
        pa.array(features, schema.field("embedding").type),
    ]
    _write_part(path, pa.table(columns, schema=schema))


SETTINGS: Final = "predict.json"
"""The settings of a folder's predictions; only a job with the same settings may add to them."""


def is_run(folder: Path) -> bool:
    """Return whether a folder is a run (true) or predictions (false).

    Raises:
        RunError: The folder is neither.
    """
    if (folder / "run.toml").exists():
        return True
    if (folder / "predictions.parquet").exists():
        return False
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

    def claim(self, settings: dict[str, Any]) -> None:
        """Record the settings of this folder's predictions; call it with the lock held.

        Raises:
            NaevusError: The folder contains other files, or predictions with other settings.
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
            both = settings | before
            differing = [name for name in both if before.get(name) != settings.get(name)]
            raise NaevusError(
                f"{self.root} holds predictions made with other settings "
                f"({', '.join(differing) or 'of another version'})",
                _ANOTHER_OUT,
            )

    def choice(self) -> EngineChoice | None:
        """Return the engine of the job that is resumed here; None if there is none."""
        try:
            settings = json.loads((self.root / SETTINGS).read_bytes())
            parts = [settings[name] for name in ("segmenter", "classifier")]
            (engine,) = {part["engine"] for part in parts if part}
            (limit,) = {part["instructions"] for part in parts if part}
            one, other = (_computed(part["precision"] if part else "fp32") for part in parts)
        except (OSError, ValueError, KeyError, TypeError):
            return None  # `claim` reports the problem
        known = engine in get_args(EngineName)
        return EngineChoice(engine, one, other, limit, "as the job began") if known else None

    def sweep(self) -> None:
        """Remove half-written files of a killed job; call it with the lock held."""
        parts = self.part("").parent
        images = (self.masks, self.attributes, self.crops, self.heatmaps)
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

        Args:
            key: The batch's key.
            ids: The ids of its images.
            places: Paths of the files wanted for each predicted image, as functions of its id.
                The files must have the sizes recorded with the rows.
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


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


_ANOTHER_OUT = "choose another --out, or delete this folder"
