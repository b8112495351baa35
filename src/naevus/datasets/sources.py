"""Images by id, from files, folders or a split: found, and decoded on demand."""

from __future__ import annotations

import csv
import os
from collections import Counter
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import numpy as np

from naevus.datasets.listing import ids_of, images_below, printable, problem_of_id
from naevus.errors import DataError, ImageError, NaevusError
from naevus.images.geometry import resize
from naevus.images.preprocess import ImageFiles, load_input
from naevus.images.read import IMAGE_SUFFIXES
from naevus.io.files import write_csv
from naevus.types import FailedImage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from naevus.datasets.dataset import Dataset
    from naevus.images.preprocess import InputSpec


# Images decoded on demand, in the format of a cache.


class DecodedImages:
    """Square images by id.

    Args:
        sources: The files.
        input_spec: The format of the images, as in a cache.
    """

    def __init__(self, sources: Sequence[ImageFiles], input_spec: InputSpec) -> None:
        self._sources = {source.image_id: source for source in sources}
        self._input_spec = input_spec

    def __getitem__(self, image_id: str) -> NDArray[np.uint8]:
        """Return the image, S x S x 3.

        Raises:
            ImageError: It cannot be read.
        """
        return load_input(self._sources[image_id], self._input_spec).pixels

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._sources


class ImagesById(Protocol):
    """Square images by id, such as an `ImageCache`."""

    def __getitem__(self, image_id: str, /) -> NDArray[np.uint8]:
        """Return the image, S x S x 3."""
        ...


def mask_file(folder: Path, image_id: str) -> Path:
    """Return the path of an image's mask, named as in the challenge."""
    return folder / f"{image_id}_segmentation.png"


def attribute_mask_file(folder: Path, image_id: str, attribute: str) -> Path:
    """Return the path of the mask of an image's attribute, named as in the challenge."""
    return folder / f"{image_id}_attribute_{attribute}.png"


# Images by id, at the input size of a network.


class Images(Protocol):
    """Square images by id."""

    def __getitem__(self, image_id: str, /) -> NDArray[np.uint8]:
        """Return the image, S x S x 3."""
        ...

    def __contains__(self, image_id: object, /) -> bool:
        """Return whether the image exists."""
        ...


def stack_images(images: Images, ids: Sequence[str], size: int) -> NDArray[np.uint8]:
    """Return images at a network's input size, N x S x S x 3, without unreadable ones.

    Args:
        images: The source of the images.
        ids: The ids of the images.
        size: S, pixels.

    Raises:
        DataError: None can be read.
    """
    found = []
    for image_id in ids:
        if image_id not in images:
            continue
        try:
            found.append(resize(images[image_id], size, size))
        except ImageError:
            continue
    if not found:
        raise DataError("no image can be read", "name the data set with --data")
    return np.stack(found)


FORMULAS: Final = ("=", "+", "-", "@")
"""First characters of ids that spreadsheets take for formulas."""

_IDS: Final = ".ids.csv"


class Found(NamedTuple):
    """The images of a job.

    Attributes:
        sources: The usable images, sorted by id.
        failed: Images whose name cannot be an id, and folders that could not be listed.
        renamed: Ids that differ from the file name without suffix, because others have the same.
        left_out: Numbers of skipped files by kind: a suffix, ``masks``, ``hidden``.
    """

    sources: list[ImageFiles]
    failed: Sequence[FailedImage] = ()
    renamed: Sequence[str] = ()
    left_out: Mapping[str, int] = MappingProxyType({})


def find_images(
    paths: Iterable[Path], *, without: Path | None = None, kept: Mapping[str, str] | None = None
) -> Found:
    """Return image files, and all images below folders.

    An image's id is its file name without suffix, if no other image of the job has the same
    (`datasets.listing.ids_of`); a file that is found twice counts once. In folders, links are
    followed, and hidden files and masks (``*_segmentation.png``) are skipped; a file that is
    given by name is always taken.

    Args:
        paths: Files and folders.
        without: A folder that is left out, such as the output folder.
        kept: The ids of files in an earlier job (`kept_ids`), by absolute path.

    Raises:
        DataError: A path does not exist, or there is no image.
    """
    paths = list(paths)
    files: dict[str, Path] = {}
    failed: list[FailedImage] = []
    left_out: Counter[str] = Counter()
    for path in paths:
        if os.path.isdir(path):  # noqa: PTH112 - unlike Path's it bears any name
            listing = images_below(path, without=without)
            files |= {_absolute(file): file for file in listing.files}
            failed += [_failed(*each) for each in listing.unlisted]
            left_out += listing.left_out
        elif os.path.exists(path):  # noqa: PTH110
            files[_absolute(path)] = path
        else:
            raise DataError(f"{printable(path)} does not exist", "name image files or folders")
    if not files and not failed:
        raise _nothing(paths, left_out)
    sound = {}
    for absolute, file in files.items():
        problem = problem_of_id(file.stem) or _problem_of_path(absolute)
        if problem is None:
            sound[absolute] = file
        else:
            failed.append(_failed(file, f"its name {problem}; rename it"))
    names = _once(sound)
    base = _base(paths)
    given = [(kept or {}).get(name) for name in names]
    ids = ids_of([_below(name, base) for name in names], given)
    sources = [ImageFiles(*pair) for pair in zip(ids, (sound[name] for name in names), strict=True)]
    renamed = [source.image_id for source in sources if source.image_id != source.path.stem]
    return Found(unique(sources), sorted(failed), sorted(renamed), dict(sorted(left_out.items())))


def images_of_split(
    roots: Sequence[Path],
    split: str,
    part: str | None = None,
    *,
    image_type: str = "auto",
    on_dataset: Callable[[Dataset], None] | None = None,
) -> list[ImageFiles]:
    """Return the images of one split of data sets, sorted by id.

    Args:
        roots: Folders of data sets.
        split: ``train``, ``validation`` or ``test``.
        part: Only this part of each, such as ``task3``; None for all.
        image_type: Only images of this type, see `Dataset.of_type`.
        on_dataset: Called with each data set's split, before images of other types are left out.

    Raises:
        DataError: A folder has no known layout or no such part, the split has no images, or
            two different files have the same id.
    """
    from naevus.datasets.layouts import load  # noqa: PLC0415 (slow: brings pandas)

    found: list[ImageFiles] = []
    for root in roots:
        dataset = load(root)
        whole = (dataset if part is None else dataset.part(part)).split(split).images()
        if on_dataset is not None:
            on_dataset(whole)
        rows = whole.of_type(image_type).rows() if len(whole) else iter(())
        found += [ImageFiles(row.image_id, row.path) for row in rows if row.path is not None]
    if not found:
        named = " ".join(map(str, roots))
        raise DataError(f"{named}: no images in split {split!r}", "choose another split")
    return unique(found)


def unique(sources: Iterable[ImageFiles]) -> list[ImageFiles]:
    """Return sources sorted by id; a file that occurs twice counts once.

    Raises:
        DataError: Two different files have the same id, or an id cannot be a file name.
    """
    by_id: dict[str, ImageFiles] = {}
    for source in sources:
        name = source.image_id
        problem = problem_of_id(name)
        if problem is not None:
            raise DataError(
                f"{printable(source.path)}: the id '{printable(name)}' {problem}",
                "give it an id that can be a file name",
            )
        other = by_id.setdefault(name, source)
        if other.path != source.path and other.path.resolve() != source.path.resolve():
            raise DataError(
                f"image id {name} occurs twice: {other.path} and {source.path}",
                "rename one of them or predict them one after the other",
            )
    return [by_id[name] for name in sorted(by_id)]


def kept_ids(out: Path) -> dict[str, str]:
    """Return the ids given by an earlier job into ``out``, by absolute path; maybe none."""
    try:
        with (out / _IDS).open(newline="", encoding="utf-8") as stream:
            return {path: image_id for image_id, path in list(csv.reader(stream))[1:]}
    except (OSError, ValueError, csv.Error):
        return {}


def keep_ids(out: Path, sources: Sequence[ImageFiles]) -> None:
    """Record the ids of a job into ``out``, so that added files do not rename others.

    Raises:
        NaevusError: Another job recorded different ids in the meantime.
    """
    before = kept_ids(out)
    rows = [(source.image_id, _absolute(source.path)) for source in sources]
    for image_id, path in rows:
        if before.get(path, image_id) != image_id:
            raise NaevusError(
                f"{out}: another job has named {path} {before[path]}", "start this one again"
            )
    if {path: image_id for image_id, path in rows} != before:
        write_csv(out / _IDS, ("image_id", "path"), rows)


def _failed(path: Path, problem: str) -> FailedImage:
    return FailedImage(printable(path.stem), printable(path), problem)


def _nothing(paths: Sequence[Path], left_out: Mapping[str, int]) -> DataError:
    named = " ".join(map(printable, paths))
    there = ", ".join(f"{number} {kind}" for kind, number in left_out.items())
    suffixes = " ".join(sorted(IMAGE_SUFFIXES))
    return DataError(
        f"{named}: no images there{f' ({there})' if there else ''}",
        f"name a folder with {suffixes} files",
    )


def _problem_of_path(path: str) -> str | None:
    """Return why a path cannot be in a table; its last part is a valid id."""
    sound = printable(path) == path
    return None if sound else "is in a folder whose name is not UTF-8 or breaks a line"


def _once(files: Mapping[str, Path]) -> list[str]:
    """Return the absolute paths of files, sorted; a second path to the same file is left out."""
    times = Counter(file.stem for file in files.values())
    alike = [name for name, file in files.items() if times[file.stem] > 1]
    real = {name: os.path.realpath(name) for name in alike}
    first: dict[tuple[str, str], str] = {}
    for name in sorted(alike, key=lambda name: (real[name] != name, name)):
        first.setdefault((real[name], files[name].name), name)
    again = set(alike).difference(first.values())
    return sorted(files.keys() - again)


def _base(paths: Sequence[Path]) -> str | None:
    """Return the folder that ids are relative to: the given one, or the common parent."""
    folders = [
        _absolute(path if os.path.isdir(path) else path.parent)  # noqa: PTH112
        for path in paths
    ]
    try:
        return os.path.commonpath(folders)
    except ValueError:  # on several drives
        return None


def _below(path: str, base: str | None) -> PurePath:
    return PurePath(path) if base is None else PurePath(path).relative_to(base)


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - as it is spelled, through links
