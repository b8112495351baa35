"""Which row of a table is of which image: by file, file name or id."""

from __future__ import annotations

import os
import posixpath
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Self

from naevus.datasets.layouts.images import stem_of
from naevus.datasets.listing import ids_of
from naevus.datasets.sources import full_path
from naevus.io.stores import url_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from naevus.images.preprocess import ImageFiles


@dataclass(frozen=True)
class RowNames:
    """What the rows of a table call their images.

    A name may be an id, a file name or a path. Of a path the last part counts, unless several
    folders have an image of that name; such rows are found by their file, or by the id that a job
    gives it (`naevus.datasets.listing.ids_of`).

    Attributes:
        keys: The key of each row: the id, or the whole path where several folders have the name.
        aliases: Other names of images, and their keys.
        files: The files that rows name by paths, and their keys.
    """

    keys: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, names: Iterable[str], folder: Path | None = None, *, paths_only: bool = False
    ) -> Self:
        """Read the names in a table's column.

        Args:
            names: The names.
            folder: The folder that paths start from; None: files are not known.
            paths_only: Whether names without folders are paths, too.
        """
        paths = [_plain(name) for name in names]
        stems = [stem_of(path).casefold() for path in paths]
        folders: defaultdict[str, set[str]] = defaultdict(set)
        for path, stem in zip(paths, stems, strict=True):
            folders[stem].add(posixpath.dirname(path))
        keys = [
            path if len(folders[stem]) > 1 else posixpath.basename(path)
            for path, stem in zip(paths, stems, strict=True)
        ]
        aliases = _without_suffix({key for key in keys if "/" not in key})
        keys = [aliases.get(key, key) for key in keys]
        files = {
            _file(folder, path): key
            for path, key in zip(paths, keys, strict=True)
            if folder is not None and (paths_only or "/" in path)
        }
        for image_id, key in _as_in_a_job(sorted({key for key in keys if "/" in key})).items():
            aliases.setdefault(image_id, key)
        return cls(tuple(keys), aliases, files)

    def key_of(self, image_id: str) -> str:
        """Return the key of an image's row, by its id."""
        return self.aliases.get(image_id, image_id)

    def keys_of(self, sources: Iterable[ImageFiles]) -> dict[str, str]:
        """Return the key of each image's row by image id, as far as rows name the images.

        Rows name images by their file, their id, or a file name that one image alone has, with or
        without its suffix: case and suffix tell images apart, as in data sets.
        """
        sources, known = list(sources), set(self.keys)
        of_ids = {self.key_of(each.image_id) for each in sources}
        times = Counter(name for each in sources for name in {each.path.name, each.path.stem})
        found = {}
        for each in sources:
            names = [name for name in (each.path.name, each.path.stem) if times[name] == 1]
            by_name = [key for key in map(self.key_of, names) if key not in of_ids]
            keys = (self.files.get(full_path(each.path)), self.key_of(each.image_id), *by_name)
            key = next((key for key in keys if key in known), None)
            if key is not None:
                found[each.image_id] = key
        return found

    def other_files(self, keys: Mapping[str, Path]) -> dict[str, str]:
        """Return the existing files that rows name in place of those of the images, by key.

        Args:
            keys: The file of the image that each row was found for, by the row's key.
        """
        named = {key: file for file, key in self.files.items()}
        return {
            key: named[key]
            for key, path in keys.items()
            if key in named and not _same(named[key], path)
        }


def _plain(name: str) -> str:
    """Return a name with ``/`` between its parts, and without needless ones."""
    plain = name.replace("\\", "/")
    return plain if "/" not in plain or url_of(plain) else posixpath.normpath(plain)


def _file(folder: Path, path: str) -> str:
    return full_path(Path(path) if url_of(path) else folder / path)


def _same(named: str, path: Path) -> bool:
    """Return whether a row's file is an image's, or not there to say otherwise."""
    if named == full_path(path) or not os.path.isfile(named):  # noqa: PTH113 - raises nothing
        return True
    try:
        return os.path.samefile(named, path)  # noqa: PTH121
    except OSError:
        return False


def _without_suffix(names: Iterable[str]) -> dict[str, str]:
    """Return the id of each name that has a suffix, unless several differ in their suffix alone."""
    stems = {name: stem_of(name) for name in names}
    several = Counter(stem for name, stem in stems.items() if stem != name)
    return {name: stem for name, stem in stems.items() if stem != name and several[stem] == 1}


def _as_in_a_job(paths: Sequence[str]) -> dict[str, str]:
    """Return the paths by the ids that a job in their common folder gives them."""
    try:
        base = posixpath.commonpath([posixpath.dirname(path) for path in paths])
    except ValueError:  # none, or absolute and relative ones
        return {}
    below = [PurePosixPath(posixpath.relpath(path, base or ".")) for path in paths]
    return dict(zip(ids_of(below), paths, strict=True))
