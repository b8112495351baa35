"""Find the images named in tables: by path, file name or id, with any suffix."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from naevus.datasets.dataset import Problem
from naevus.datasets.listing import ids_of, images_below, is_text
from naevus.images.read import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterable

SPLIT_WORDS: Final = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation",
    "validation": "validation", "dev": "validation", "test": "test", "testing": "test",
}  # fmt: skip
"""Words that name a split in tables and in the names of folders and tables."""

_MASK_FOLDERS = re.compile(
    r"(?i)(^|_)(masks?|masken|segmentations?(class)?|annotations?|labels?(tr|ts)?|gt|ground_?truth)(_|$)"
)
_SHRUNK = "_downsampled"


def split_of(*parts: str) -> str | None:
    """Return the split named by folders or files, the innermost first."""
    for part in reversed(parts):
        for word in re.findall(r"[a-z]+", part.lower()):
            if word in SPLIT_WORDS:
                return SPLIT_WORDS[word]
    return None


def is_mask_folder(name: str) -> bool:
    """Return whether a folder has the name of a mask folder: ``masks``, ``segmentations`` ..."""
    return _MASK_FOLDERS.search(re.sub(r"[\W]+", "_", name)) is not None


class Images:
    """The images below a folder, found by their names in tables.

    Masks, superpixels, hidden files, and folders of masks are left out.

    Args:
        root: The folder.
        folders: Subfolders to search, with everything below; by default the whole folder. They
            contain copies of one set: of files with the same name, the first folder's is taken.

    Attributes:
        root: The folder.
        paths: Path below the root, with ``/`` → absolute path.
    """

    def __init__(self, root: Path, folders: Iterable[Path] | None = None) -> None:
        self.root = root
        self.paths: dict[str, str] = {}
        base = root.absolute()
        names: set[str] = set()
        for folder in [base] if folders is None else [each.absolute() for each in folders]:
            inside = sorted(_below(folder))
            fresh = [name for name in inside if Path(name).name not in names]
            names.update(Path(name).name for name in inside)
            for name in fresh:
                full = os.path.join(folder, name)  # noqa: PTH118 - 20 times faster than Path
                self.paths[os.path.relpath(full, base).replace(os.sep, "/")] = full
        self._by_name: defaultdict[str, list[str]] = defaultdict(list)
        self._by_stem: defaultdict[str, list[str]] = defaultdict(list)
        for name in self.paths:
            last = name.rpartition("/")[2].casefold()
            self._by_name[last].append(name)
            self._by_stem[last.rpartition(".")[0]].append(name)
        self.taken: set[str] = set()

    def find(self, named: str, problems: list[Problem]) -> str | None:
        """Return the path below the root of the image called ``named`` in a table, or None.

        Tried in this order: the path (with either slash), the file name, the name with another
        suffix, the id with or without ``_downsampled``. Case matters only between two files that
        differ in nothing else.
        """
        wanted = re.sub(r"^(\./)+", "", named.strip().replace("\\", "/"))
        last = wanted.rpartition("/")[2].casefold()
        stem = last.rpartition(".")[0] if _is_image(last) else last
        found: list[str] = []
        for among in (
            self._by_name.get(last),
            self._by_stem.get(stem),
            self._by_stem.get(stem + _SHRUNK),
            self._by_stem.get(stem.removesuffix(_SHRUNK)),
        ):
            if among:
                found = among
                break
        chosen = _best(wanted, found)
        if chosen is None:
            return None
        if len(found) > 1 and _stands_alike(wanted, chosen, found):
            problems.append(
                Problem("two files of one id", named, f"{chosen} was taken, not {found[-1]}")
            )
        self.taken.add(chosen)
        return chosen

    def id_of(self, place: str, named: str) -> str:
        """Return the id of the image at a path below the root, called ``named`` in a table.

        It is the file name without suffix. If several files have the same, but for case, and the
        table distinguishes them by folder, suffix or case, it is the id that `ids_of` gives it
        among all files.
        """
        alike = [PurePosixPath(each) for each in self._by_stem[stem_of(place).casefold()]]
        exact = sum(named in {each.name, each.stem} for each in alike) == 1
        if len(alike) > 1 and (exact or re.search(r"[/\\]", named)):
            return self.job_ids[place]
        return stem_of(place)

    @cached_property
    def job_ids(self) -> dict[str, str]:
        """The ids that a job with all images gives them, by path below the root."""
        places = list(self.paths)
        return dict(zip(places, ids_of([PurePosixPath(each) for each in places]), strict=True))

    def rest(self) -> list[str]:
        """Return the paths below the root that no table mentions, sorted."""
        return sorted(self.paths.keys() - self.taken)


def stem_of(named: str) -> str:
    r"""Return the id in a table's name of an image: without folders and suffix.

    Examples:
        >>> stem_of("bilder\\\\ISIC_0024402.JPG")
        'ISIC_0024402'
    """
    last = named.strip().replace("\\", "/").rpartition("/")[2]
    return last.rpartition(".")[0] if _is_image(last.casefold()) else last


def _is_image(name: str) -> bool:
    stem, dot, suffix = name.rpartition(".")
    return bool(stem) and f"{dot}{suffix}" in IMAGE_SUFFIXES


def _best(wanted: str, found: list[str]) -> str | None:
    """Return the path that agrees most with ``wanted`` from its end; the first of equals."""
    folded = wanted.casefold()

    def alike(name: str) -> tuple[bool, bool, bool]:
        return (
            f"/{name}".endswith(f"/{wanted}"),
            f"/{name.casefold()}".endswith(f"/{folded}"),
            f"/{name}".rpartition(".")[0].endswith(f"/{stem_of(wanted)}"),
        )

    return max(found, key=alike, default=None)


def _stands_alike(wanted: str, chosen: str, found: list[str]) -> bool:
    """Return whether another of ``found`` matches as well as the chosen one."""

    def key(name: str) -> tuple[bool, str]:
        exact = f"/{name}".endswith(f"/{wanted}")
        return exact, name.rpartition("/")[2].rpartition(".")[0] if not exact else ""

    return sum(key(name) == key(chosen) for name in found) > 1


def _below(folder: Path) -> list[str]:
    """Return the paths of the images below a folder, without those in mask folders."""
    files = [file.relative_to(folder) for file in images_below(folder).files if is_text(file)]
    return [str(file) for file in files if not any(map(is_mask_folder, file.parts[:-1]))]
