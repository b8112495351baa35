"""List images: which files below folders are images, and their ids."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Final, NamedTuple

from naevus.images.read import IMAGE_SUFFIXES
from naevus.io.words import counted, first_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


MASK_ENDINGS: Final = ("_segmentation", "_mask")
"""Endings of mask file names after the image id, in any case."""

NOT_IMAGES: Final = (*MASK_ENDINGS, "_superpixels")
"""Endings of file names, in any case, that are not images although they have images' suffixes."""

_BY_DATA_SET: Final = re.compile(r"(?i)_attribute_[a-z_]+$|^IMD\d+_(lesion|roi\d*)$")
"""Mask names of single data sets: attributes of ISIC 2018, lesions and regions of PH2."""

_ATTRIBUTE: Final = re.compile(r"(?i)^(.+)_attribute_([a-z_]+)$")
"""Name of an attribute mask: the image id, then the attribute."""

LONGEST: Final = 200
"""Largest number of bytes of an id: with ``_segmentation`` and the suffix of a temporary file,
the name stays below the 255 bytes that file systems allow."""

_OUTPUT_FILES: Final = (("predict.json",), ("run.toml", "folds.csv"))
"""The files that tell a folder of predictions, and that of a run, from folders of images."""

_WINDOWS: Final = '<>:"|?*'
_DEVICES: Final = frozenset(
    {"CON", "PRN", "AUX", "NUL"} | {f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10)}
)


class Listing(NamedTuple):
    """The content of a folder.

    Attributes:
        files: The image files, sorted.
        unlisted: Folders that could not be listed, with the reason.
        left_out: Numbers of skipped files by kind: a suffix, ``masks``, ``hidden``.
        masks: The files with names of masks, sorted; they are counted in ``left_out``, too.
        outputs: The skipped folders of naevus's own results (`is_output`), sorted.
    """

    files: list[Path]
    unlisted: list[tuple[Path, str]]
    left_out: Counter[str]
    masks: list[Path]
    outputs: list[Path]


def is_output(folder: str | Path, exists: Callable[[str], bool] = os.path.isfile) -> bool:
    """Return whether a folder holds predictions or a run: its images and masks are naevus's own.

    Args:
        folder: The folder's path or address.
        exists: Whether there is a file of a path or address.
    """
    return any(all(exists(f"{folder}/{name}") for name in names) for names in _OUTPUT_FILES)


def is_mask_name(stem: str) -> bool:
    """Return whether a file name without suffix is that of a mask or superpixels."""
    return stem.lower().endswith(NOT_IMAGES) or _BY_DATA_SET.search(stem) is not None


def attribute_of(stem: str) -> tuple[str, str] | None:
    """Return image id and attribute of an attribute mask, from its file name without suffix.

    Examples:
        >>> attribute_of("ISIC_0000000_attribute_milia_like_cyst")
        ('ISIC_0000000', 'milia_like_cyst')
    """
    found = _ATTRIBUTE.search(stem)
    return None if found is None else (found[1], found[2].lower())


def mask_owner(stem: str) -> str:
    """Return the image id of a mask file, from its name without suffix."""
    for ending in MASK_ENDINGS:
        if stem.lower().endswith(ending):
            return stem[: -len(ending)]
    return stem


def images_below(folder: Path, *, without: Path | None = None) -> Listing:
    """List the image files below a folder.

    Links to folders are followed, and every folder is listed once, under its own name, not that of
    a link. Hidden files, masks and superpixels are left out, and so are folders of naevus's own
    results, unless ``folder`` itself is one: predicted masks are no ground truth.

    Args:
        folder: The folder to search.
        without: A folder that is left out with everything below it.
    """
    found = Listing([], [], Counter(), [], [])
    left_out = None if without is None else Path(os.path.realpath(without))
    if left_out is not None and Path(os.path.realpath(folder)).is_relative_to(left_out):
        return found
    seen = set() if left_out is None else {str(left_out)}
    folders, links = [folder], list[Path]()
    while folders or links:
        place = folders.pop() if folders else links.pop(0)
        real = os.path.realpath(place)
        if real in seen:
            continue
        seen.add(real)
        if place != folder and is_output(place):
            found.outputs.append(place)
            continue
        try:
            with os.scandir(place) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as error:
            why = f"cannot be listed ({error.strerror or error}); check its permissions"
            found.unlisted.append((place, why))
            continue
        for entry in entries:
            if entry.name.startswith("."):
                found.left_out["hidden"] += 1
            elif _is_folder(entry):
                (links if entry.is_symlink() else folders).append(place / entry.name)
            else:
                _take(place, entry.name, found)
    for paths in (found.files, found.masks, found.outputs):
        paths.sort()
    return found


def outputs_left_out(folders: Sequence[str]) -> str:
    """Return how many folders of naevus's own results are left out, with the first names.

    Examples:
        >>> outputs_left_out(["predictions"])
        "1 folder of naevus's own results: predictions"
    """
    count = counted(len(folders), "folder")
    return f"{count} of naevus's own results: {first_of([*map(printable, folders)])}"


def problem_of_id(image_id: str) -> str | None:
    """Return why an id cannot be a file name; None if it can.

    Masks, crops and rows are named by ids: an id has no path separators and no control characters,
    is UTF-8, and has at most `LONGEST` bytes.
    """
    length = len(image_id.encode(errors="surrogateescape"))
    breaking = not image_id.isprintable() and any(map(_breaks, image_id))
    foreign = os.name == "nt" and any(sign in _WINDOWS for sign in image_id)
    device = image_id.partition(".")[0].rstrip().upper() in _DEVICES
    reserved = os.name == "nt" and (device or image_id.endswith((".", " ")))
    faults = (
        (not is_text(image_id), "is not UTF-8"),
        (not image_id.strip(), "is empty"),
        ("/" in image_id or "\\" in image_id, "has a path separator"),
        (image_id.startswith("."), "starts with a dot"),
        (breaking, "has a line break or another control character"),
        (length > LONGEST, f"has {length} bytes, more than {LONGEST}"),
        (foreign, f"has one of {_WINDOWS}, which Windows does not allow"),
        (reserved, "is a device on Windows, or ends with a dot or blank, which Windows removes"),
    )
    return next((fault for found, fault in faults if found), None)


def is_text(name: str | os.PathLike[str]) -> bool:
    """Return whether a file name is UTF-8, as tables are written."""
    return not any("\ud800" <= sign <= "\udfff" for sign in os.fspath(name))


def printable(text: str | os.PathLike[str]) -> str:
    r"""Return a name as one line of UTF-8, with anything else escaped as ``\xe9`` or ``\n``.

    Examples:
        >>> printable("two\nlines"), printable("caf\udce9.jpg")
        ('two\\nlines', 'caf\\xe9.jpg')
    """
    sound = os.fsencode(text).decode("utf-8", "backslashreplace")
    return "".join(
        sign.encode("unicode_escape").decode() if _breaks(sign) else sign for sign in sound
    )


def ids_of(files: Sequence[PurePath], kept: Sequence[str | None] | None = None) -> list[str]:
    """Return an id for each file of a job: its name without suffix, if that is unique.

    Names that several files share, also if they differ only in case, are preceded by their folders,
    joined by ``__``; names that are still equal get the suffix, and names that are equal even then
    are numbered.

    Args:
        files: Paths below the job's folder, whose names without suffix are valid ids.
        kept: Existing ids of files; they stay, and no other file gets them.

    Examples:
        >>> names = ["a/1.jpg", "b/1.jpg", "b/1.png", "2.jpg"]
        >>> ids_of([PurePath(name) for name in names])
        ['a__1', 'b__1.jpg', 'b__1.png', '2']
    """
    ids: list[str | None] = [None] * len(files) if kept is None else list(kept)
    taken = {_folded(each) for each in ids if each is not None}
    stems = Counter(_folded(file.stem) for file in files)

    def alone(file: PurePath) -> str | None:
        return file.stem if stems[_folded(file.stem)] == 1 else None

    proposals: tuple[Callable[[PurePath], str | None], ...] = (
        alone,
        lambda file: _joined(file, file.stem),
        lambda file: _joined(file, file.name),
    )
    for propose in proposals:
        proposed = {
            number: name
            for number, file in enumerate(files)
            if ids[number] is None and (name := propose(file)) and problem_of_id(name) is None
        }
        times = Counter(map(_folded, proposed.values()))
        for number, name in proposed.items():
            if times[_folded(name)] == 1 and _folded(name) not in taken:
                ids[number] = name
        taken.update(_folded(each) for each in ids if each is not None)
    return list(_numbered(files, ids, taken))


def _breaks(sign: str) -> bool:
    """Return whether a character breaks a line or controls a terminal."""
    return unicodedata.category(sign) in {"Cc", "Zl", "Zp"}


def _numbered(
    files: Sequence[PurePath], ids: Sequence[str | None], taken: set[str]
) -> Iterator[str]:
    last: Counter[str] = Counter()
    for file, name in zip(files, ids, strict=True):
        if name is not None:
            yield name
            continue
        while True:
            last[file.stem] += 1
            numbered = f"{file.stem[: LONGEST // 4]}__{last[file.stem]}"
            if _folded(numbered) not in taken:
                break
        taken.add(_folded(numbered))
        yield numbered


def _joined(file: PurePath, name: str) -> str:
    parts = file.parts[1:] if file.anchor else file.parts
    return "__".join((*parts[:-1], name)).lstrip(".")


def _folded(name: str) -> str:
    """Return a name as it is compared.

    Some file systems ignore case and normalisation; the challenge's tool strips ``.jpg``.
    """
    return unicodedata.normalize("NFC", name).casefold().removesuffix(".jpg")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _take(place: Path, name: str, found: Listing) -> None:
    path = place / name
    suffix = path.suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        found.left_out[suffix or "without suffix"] += 1
    elif is_mask_name(path.stem):
        found.left_out["masks"] += 1
        found.masks.append(path)
    else:
        found.files.append(path)
