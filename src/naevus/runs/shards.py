"""Shards: jobs that predict parts of one list of images, each into a folder of its own."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeVar

from naevus.errors import ConfigError, RunError
from naevus.io.files import sha256_of, write_json
from naevus.io.formats import read_json
from naevus.taxonomy import ATTRIBUTES
from naevus.types import FailedImage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    Item = TypeVar("Item")

RECORD: Final = "shard.json"
"""The record of a finished shard, in its folder."""
AGAIN: Final = "run its command again"
FILES: Final = ("mask", "crop", "heatmap", *(f"attribute {name}" for name in ATTRIBUTES))
"""The kinds of files that a job may write for each image."""
_ANY: Final = (str, type(None))
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "shard": (str,), "images": (int,), "ids_sha256": (str,), "naevus_version": (str,),
    "files": (list,), "members": (list,), "bundles": (dict,), "unusable": (list,),
    "lesions": (bool,), "xlsx": (bool,), "submission": _ANY,
}  # fmt: skip


class Shard(NamedTuple):
    """One of several equal parts of a list of images.

    Attributes:
        number: Which part, from 1.
        of: The number of parts.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``2/16``.

        Raises:
            ConfigError: It is not two numbers, or there is no such part.

        Examples:
            >>> Shard.parse("2/16")
            Shard(number=2, of=16)
        """
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise ConfigError(
                f"--shard {text}: is not a number from 1 to the number of shards, such as 2/16",
                "write NUMBER/SHARDS",
            )
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def part(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this part of some items: every n-th one.

        Applied to the batches of all images, sorted by id, it gives each batch to one shard
        whatever the order of the list. Batches stay whole, since their composition changes the
        last bits of predictions.

        Examples:
            >>> [Shard(number, 2).part("abcde") for number in (1, 2)]
            ['ace', 'bd']
        """
        return items[self.number - 1 :: self.of]


@dataclass(frozen=True)
class ShardRecord:
    """What a finished shard says of itself, in ``shard.json``.

    Attributes:
        shard: Which part it is.
        images: The number of images of all shards.
        ids_sha256: `digest` of the ids of all shards.
        naevus_version: The version that predicted.
        files: The kinds of files written for each image (`PredictionsFolder.place`).
        members: The networks.
        bundles: The folder of each bundle, by SHA-256.
        unusable: Images that failed before prediction.
        lesions: Whether lesions are known.
        xlsx: Whether a workbook is wanted.
        submission: The decision of the submission, if one is wanted.
    """

    shard: Shard
    images: int
    ids_sha256: str
    naevus_version: str
    files: tuple[str, ...]
    members: tuple[str, ...]
    bundles: dict[str, str]
    unusable: tuple[FailedImage, ...] = ()
    lesions: bool = False
    xlsx: bool = False
    submission: str | None = None

    def write(self, folder: Path) -> None:
        """Write the record into a shard's folder; it marks the shard as finished."""
        write_json(folder / RECORD, asdict(self) | {"shard": str(self.shard)})

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the record of a shard's folder.

        Raises:
            RunError: The shard is not finished, or the record is damaged.
        """
        path = folder / RECORD
        if not path.exists():
            raise RunError(f"{folder}: is not a finished shard (no {RECORD})", AGAIN)
        found: dict[str, Any] = read_json(path, AGAIN, members=_TYPES, error=RunError)
        if strange := [kind for kind in found["files"] if kind not in FILES]:
            raise RunError(f"{path}: {strange[0]!r} is no kind of file", AGAIN)
        try:
            return cls(
                **found
                | {
                    "shard": Shard.parse(found["shard"]),
                    "files": tuple(found["files"]),
                    "members": tuple(found["members"]),
                    "unusable": tuple(FailedImage(*each) for each in found["unusable"]),
                }
            )
        except (ConfigError, TypeError) as error:
            raise RunError(f"{path}: is not a record of a shard ({error})", AGAIN) from error


def digest(ids: Iterable[str]) -> str:
    """Return the SHA-256 of sorted ids."""
    return sha256_of(*ids)
