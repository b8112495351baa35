"""Images by id, from files, folders or a split: found, and decoded on demand."""

from __future__ import annotations

import csv
import os
from collections import Counter
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol, cast

import numpy as np

from naevus.datasets.listing import (
    ids_of,
    images_below,
    is_mask_name,
    is_output,
    outputs_left_out,
    printable,
    problem_of_id,
)
from naevus.errors import DataError, ImageError, NaevusError
from naevus.images.geometry import resize
from naevus.images.preprocess import ImageFiles, load_input
from naevus.images.read import IMAGE_SUFFIXES
from naevus.io.files import sha256_of, write_csv
from naevus.io.stores import url_of
from naevus.types import FailedImage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from naevus.datasets.dataset import Dataset
    from naevus.images.preprocess import InputSpec
    from naevus.io.stores import RemoteFile, Store


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


_IDS: Final = ".ids.csv"


class Found(NamedTuple):
    """The images of a job.

    Attributes:
        sources: The usable images, sorted by id.
        failed: Images whose name cannot be an id, and folders that could not be listed.
        renamed: Ids that differ from the file name without suffix, because others have the same.
        left_out: Numbers of skipped files by kind: a suffix, ``masks``, ``hidden``.
        outputs: Skipped folders of naevus's own results (`datasets.listing.is_output`), sorted.
    """

    sources: list[ImageFiles]
    failed: Sequence[FailedImage] = ()
    renamed: Sequence[str] = ()
    left_out: Mapping[str, int] = MappingProxyType({})
    outputs: Sequence[str] = ()


IdKind = Literal["name", "path"]
"""What images are called by: their file's name, or their path below the working directory."""


def find_images(
    paths: Iterable[Path],
    *,
    listed: Iterable[Path] = (),
    without: Path | None = None,
    kept: Mapping[str, str] | None = None,
    ids: IdKind = "name",
) -> Found:
    """Return image files, and all images below folders.

    An image's id is its file name without suffix, if no other image of the job has the same
    (`datasets.listing.ids_of`); a file that is found twice counts once. In folders, links are
    followed, and hidden files, masks (``*_segmentation.png``) and folders of naevus's own results
    are skipped; a file or such a folder that is given by name is always taken.

    Args:
        paths: Files and folders.
        listed: Further paths from a list; absent ones count as failed.
        without: A folder that is left out, such as the output folder.
        kept: The ids of files in an earlier job (`kept_ids`), by absolute path.
        ids: ``path``: each id is the image's path, independent of the other images.

    Raises:
        DataError: A path does not exist, or there is no image.
    """
    listed = list(listed)
    paths = [*paths, *listed]
    allowed = set(listed)
    files: dict[str, Path] = {}
    failed: list[FailedImage] = []
    left_out: Counter[str] = Counter()
    outputs: set[str] = set()
    for path in paths:
        if os.path.isdir(path):  # noqa: PTH112 - unlike Path's it bears any name
            listing = images_below(path, without=without)
            files |= {full_path(file): file for file in listing.files}
            failed += [_failed(*each) for each in listing.unlisted]
            left_out += listing.left_out
            outputs.update(map(str, listing.outputs))
        elif os.path.exists(path):  # noqa: PTH110
            files[full_path(path)] = path
        elif path in allowed:
            failed.append(_failed(path, "does not exist; check the name and the folder"))
        else:
            raise DataError(f"{printable(path)} does not exist", "name image files or folders")
    if not files and not failed:
        raise _nothing(paths, left_out, outputs)
    sound = {}
    for absolute, file in files.items():
        problem = problem_of_id(file.stem) or _problem_of_path(absolute)
        if problem is None:
            sound[absolute] = file
        else:
            failed.append(_failed(file, f"its name {problem}; rename it"))
    names = _once(sound)
    base = _base(paths)
    if ids == "path":
        called = _path_ids(names)
    else:
        given = [(kept or {}).get(name) for name in names]
        called = ids_of([_below(name, base) for name in names], given)
    sources = [
        ImageFiles(image_id, sound[name]) for image_id, name in zip(called, names, strict=True)
    ]
    renamed = [
        source.image_id
        for source in sources
        if ids == "name" and source.image_id != source.path.stem
    ]
    return Found(
        unique(sources),
        sorted(failed),
        sorted(renamed),
        dict(sorted(left_out.items())),
        sorted(outputs),
    )


def remote_images(stores: Iterable[Store], kept: Mapping[str, str] | None = None) -> Found:
    """Return the images of remote stores, named as those of local folders (`find_images`).

    Args:
        stores: Folders, or single images.
        kept: The ids of files in an earlier job (`kept_ids`), by address.

    Raises:
        DataError: There is no image.
        NaevusError: A store cannot be listed.
    """
    files: dict[str, RemoteFile] = {}
    failed: list[FailedImage] = []
    left_out: Counter[str] = Counter()
    outputs: set[str] = set()
    urls = []
    for store in stores:
        urls.append(store.url)
        listed = list(store.listing())
        own = _outputs(store.url, [file.url for file in listed])
        outputs |= own
        for file in listed:
            below = PurePath(file.url.removeprefix(store.url))
            if own and not own.isdisjoint(_folders(store.url, file.url)):
                continue
            if any(part.startswith(".") for part in below.parts):
                left_out["hidden"] += 1
            elif file.suffix.lower() not in IMAGE_SUFFIXES:
                left_out[file.suffix.lower() or "without suffix"] += 1
            elif is_mask_name(file.stem):
                left_out["masks"] += 1
            elif (problem := problem_of_id(file.stem)) is not None:
                failed.append(
                    FailedImage(
                        printable(file.stem), printable(file.url), f"its name {problem}; rename it"
                    )
                )
            else:
                files[file.url] = file
    if not files and not failed:
        raise _nothing([Path(url) for url in urls], left_out, outputs)
    names = sorted(files)
    base = os.path.commonpath([url.partition("://")[2] for url in urls])
    given = [(kept or {}).get(name) for name in names]
    called = ids_of([PurePath(name.partition("://")[2]).relative_to(base) for name in names], given)
    sources = [
        ImageFiles(image_id, cast("Path", files[name]))
        for image_id, name in zip(called, names, strict=True)
    ]
    renamed = sorted(each.image_id for each in sources if each.image_id != each.path.stem)
    return Found(
        unique(sources), sorted(failed), renamed, dict(sorted(left_out.items())), sorted(outputs)
    )


def _folders(store: str, url: str) -> list[str]:
    """Return the folders of a file below its store's, the outermost first."""
    parts = url.removeprefix(store).strip("/").split("/")[:-1]
    return ["/".join((store.rstrip("/"), *parts[: number + 1])) for number in range(len(parts))]


def _outputs(store: str, urls: Sequence[str]) -> set[str]:
    """Return the outermost folders of naevus's own results below a store's."""
    there = set(urls)
    found = {
        folder
        for url in urls
        for folder in _folders(store, url)[-1:]
        if is_output(folder, there.__contains__)
    }
    return {each for each in found if found.isdisjoint(_folders(store, each))}


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
    rows = [(source.image_id, full_path(source.path)) for source in sources]
    for image_id, path in rows:
        if before.get(path, image_id) != image_id:
            raise NaevusError(
                f"{out}: another job has named {path} {before[path]}", "start this one again"
            )
    if {path: image_id for image_id, path in rows} != before:
        write_csv(out / _IDS, ("image_id", "path"), rows)


def _failed(path: Path, problem: str) -> FailedImage:
    return FailedImage(printable(path.stem), printable(path), problem)


def _nothing(
    paths: Sequence[Path], left_out: Mapping[str, int], outputs: Iterable[str]
) -> DataError:
    named = " ".join(map(printable, paths))
    skipped = [f"{number} {kind}" for kind, number in left_out.items()]
    there = ", ".join([*skipped, *([outputs_left_out(sorted(outputs))] if outputs else [])])
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


def _path_ids(names: Sequence[str]) -> list[str]:
    """Return ids that depend on each path alone, so that parts of a list agree about them.

    Folders and name, with its suffix, are joined by ``__``. Where that is no id, or several paths
    would have it, a hash of the path follows the file's name.
    """
    here = Path.cwd()
    below = [
        path.relative_to(here) if path.is_relative_to(here) else path.relative_to(path.anchor)
        for path in map(Path, names)
    ]
    joined = ["__".join(path.parts) for path in below]
    times = Counter(each.casefold() for each in joined)
    return [
        each
        if times[each.casefold()] == 1 and problem_of_id(each) is None
        else f"{path.stem[:50]}__{sha256_of(path.as_posix())[:16]}"
        for each, path in zip(joined, below, strict=True)
    ]


def _base(paths: Sequence[Path]) -> str | None:
    """Return the folder that ids are relative to: the given one, or the common parent."""
    folders = [
        full_path(path if os.path.isdir(path) else path.parent)  # noqa: PTH112
        for path in paths
    ]
    try:
        return os.path.commonpath(folders)
    except ValueError:  # on several drives
        return None


def _below(path: str, base: str | None) -> PurePath:
    return PurePath(path) if base is None else PurePath(path).relative_to(base)


def full_path(path: Path) -> str:
    """Return a path's address, or the path from the root as it is spelled, through links."""
    return url_of(path) or os.path.abspath(path)  # noqa: PTH100
