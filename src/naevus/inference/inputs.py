"""Which pictures a prediction is about: files, folders, or a split of a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.datasets.forms import Source
from naevus.errors import DataError
from naevus.images.read import PICTURE_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

NOT_PICTURES = ("_segmentation", "_superpixels")
"""How the names of files end that lie among pictures and are none."""


def find_pictures(paths: Iterable[Path], *, without: Path | None = None) -> list[Source]:
    """Return picture files, and all pictures below folders, sorted by id.

    A picture's id is its file's name without suffix. In folders, hidden files and masks
    (``*_segmentation.png``) are passed over; a file that is named is taken as it is.

    Args:
        paths: Files and folders.
        without: A folder that is left out, such as the one results go to.

    Raises:
        DataError: A path is absent, there is no picture, or two different files have one id.
    """
    paths = list(paths)
    named = " ".join(map(str, paths))
    left_out = without.resolve() if without is not None else None
    found = []
    for path in paths:
        if path.is_dir():
            found += [
                file
                for file in _pictures_below(path)
                if left_out is None or not file.resolve().is_relative_to(left_out)
            ]
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"{path} does not exist", "name picture files or folders")
    if not found:
        suffixes = " ".join(sorted(PICTURE_SUFFIXES))
        raise DataError(f"{named}: no pictures there", f"name a folder with {suffixes} files")
    return unique(Source(path.stem, path) for path in found)


def pictures_of_split(roots: Sequence[Path], split: str, part: str | None = None) -> list[Source]:
    """Return the pictures of one split of data sets, sorted by id.

    Args:
        roots: Folders of data sets.
        split: ``train``, ``validation`` or ``test``.
        part: Only this part of each, such as ``task3``; None for all.

    Raises:
        DataError: A folder has no known layout or no such part, the split has no pictures, or
            two different files have one id.
    """
    from naevus.datasets.layouts import load  # noqa: PLC0415 (slow: brings pandas)

    found: list[Source] = []
    for root in roots:
        dataset = load(root)
        rows = (dataset if part is None else dataset.part(part)).split(split).pictures().rows()
        found += [Source(row.image_id, row.path) for row in rows if row.path is not None]
    if not found:
        named = " ".join(map(str, roots))
        raise DataError(f"{named}: no pictures in split {split!r}", "choose another split")
    return unique(found)


def unique(sources: Iterable[Source]) -> list[Source]:
    """Return sources sorted by id; the same file named twice counts once.

    Raises:
        DataError: Two different files have one id, or an id cannot be a file's name.
    """
    by_id: dict[str, Source] = {}
    for source in sources:
        name = source.image_id
        if not name or name.startswith(".") or "/" in name or "\0" in name:
            raise DataError(f"{source.path}: the id {name!r} cannot be a file's name", "rename it")
        other = by_id.setdefault(name, source)
        if other.path != source.path and other.path.resolve() != source.path.resolve():
            raise DataError(
                f"image id {name} occurs twice: {other.path} and {source.path}",
                "rename one of them or predict them one after the other",
            )
    return [by_id[name] for name in sorted(by_id)]


def _pictures_below(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        inside = path.relative_to(folder)
        if (
            path.suffix.lower() in PICTURE_SUFFIXES
            and not any(part.startswith(".") for part in inside.parts)
            and not path.stem.endswith(NOT_PICTURES)
            and path.is_file()
        ):
            yield path
