"""Helpers of the readers: list folders, fill rows, read group files; `ParsedLayout`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from naevus.datasets.dataset import Problem
from naevus.datasets.layouts.labels import to_codes
from naevus.datasets.listing import (
    attribute_of,
    images_below,
    is_mask_name,
    is_output,
    is_text,
    mask_owner,
)
from naevus.errors import DataError
from naevus.images.read import IMAGE_SUFFIXES
from naevus.io.formats import read_table
from naevus.taxonomy import ATTRIBUTES, ISIC2018, Taxonomy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import pandas as pd


@dataclass
class ParsedLayout:
    """Rows as read, the taxonomy of their diagnoses, problems, and further groupings.

    Each of ``ties`` is by image id: images with the same value are one group.
    """

    frame: pd.DataFrame
    taxonomy: Taxonomy = ISIC2018
    problems: list[Problem] = field(default_factory=list)
    ties: list[pd.Series[str]] = field(default_factory=list)


def once(table: pd.DataFrame, key: str, source: Path, problems: list[Problem]) -> pd.DataFrame:
    """Return ``table`` indexed by ``key`` with the first row of each; others become problems."""
    table = table[table[key].notna()]
    again = table.duplicated(key)
    problems.extend(
        Problem("two rows of one id", image_id, f"the later one in {source} was left out")
        for image_id in table.loc[again, key]
    )
    return table[~again].set_index(key)


def fill(frame: pd.DataFrame, column: str, values: pd.Series[str] | Mapping[str, str]) -> None:
    """Fill the unknown values of ``frame[column]`` by image id, in place."""
    new = frame["image_id"].map(values).astype("string")
    old = frame[column] if column in frame.columns else None
    frame[column] = new if old is None else old.fillna(new)


# ``*_Groups.csv`` next to any layout: images that must never be separated.

PATTERN = "*_Groups.csv"


def apply_groups(parsed: ParsedLayout, root: Path) -> None:
    """Add groups, and missing diagnoses, from the ``*_Groups.csv`` files of ``root``.

    Each file has the columns ``image``, ``group_id`` and optionally ``diagnosis``. Its groups are
    joined with the known lesions, patients and groups.

    Raises:
        DataError: A file lacks a column, or assigns an image to two groups.
    """
    folder = root if root.is_dir() else root.parent
    for path in sorted(folder.glob(PATTERN)):
        _apply(parsed, path)


def _apply(parsed: ParsedLayout, path: Path) -> None:
    table = read_table(path, required=("image", "group_id")).dropna(subset=["image", "group_id"])
    table["image"] = table["image"].str.replace(r"(?i)\.(jpe?g|png|bmp|tiff?)$", "", regex=True)
    table = table.drop_duplicates()
    twice = table.loc[table.duplicated("image"), "image"]
    if len(twice):
        raise DataError(
            f"{path}: {twice.iloc[0]} has two groups or diagnoses", "keep one row per image"
        )
    table = table.set_index("image")
    frame = parsed.frame
    named = frame["image_id"].map(table["group_id"]).astype("string")
    if "group_id" in frame.columns:
        parsed.ties.append(frame.set_index("image_id")["group_id"].groupby(level=0).first())
        named = named.fillna(frame["group_id"])
    frame["group_id"] = named
    _note_unknown_ids(parsed, table.index, path)
    if "diagnosis" in table.columns:
        codes, _ = to_codes(table["diagnosis"], parsed.problems, parsed.taxonomy)
        fill(frame, "diagnosis", codes)


def _note_unknown_ids(parsed: ParsedLayout, named: pd.Index[str], path: Path) -> None:
    unknown_ids = named.difference(parsed.frame["image_id"].drop_duplicates().tolist())
    if len(unknown_ids):
        parsed.problems.append(
            Problem(
                "row without image",
                path.name,
                f"{len(unknown_ids)} of its {len(named)} images are not here, "
                f"the first is {unknown_ids[0]}",
            )
        )


# Listing folders of images by name only; no file is opened.


def images_in(folder: Path, problems: list[Problem]) -> dict[str, str]:
    """Return image id → absolute path of the images in ``folder``, sorted by name.

    Mask and superpixel files are left out. Of two images with the same id the first is taken, and
    the other is a problem. A folder that does not exist is empty.
    """
    return _files(folder, problems, masks=False)


def masks_in(folder: Path, problems: list[Problem]) -> dict[str, str]:
    """Return image id → absolute path of the masks in ``folder`` (``<id>_segmentation.png``)."""
    return _files(folder, problems, masks=True)


def attribute_masks_in(folder: Path, problems: list[Problem]) -> dict[str, dict[str, str]]:
    """Return attribute → image id → absolute path of the masks in ``folder``.

    They are named as in the challenge, ``<id>_attribute_<attribute>.png``; an unknown attribute is
    a problem, and so is a second mask of the same image and attribute.
    """
    found: dict[str, dict[str, str]] = {name: {} for name in ATTRIBUTES}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        named = attribute_of(path.stem)
        if named is None or path.suffix.lower() not in IMAGE_SUFFIXES or not is_text(path):
            continue
        image_id, attribute = named
        if attribute not in found:
            problems.append(Problem("unknown attribute", image_id, f"{path.name} was left out"))
        elif image_id in found[attribute]:
            problems.append(Problem("two files of one id", image_id, f"{path} was left out"))
        else:
            found[attribute][image_id] = str(path.absolute())
    return found


def masks_beside(folder: Path) -> dict[str, str]:
    """Return image id → absolute path of the files below ``folder`` with names of masks."""
    return {
        mask_owner(path.stem): str(path.absolute())
        for path in images_below(folder).masks
        if mask_owner(path.stem) != path.stem
    }


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in ``folder``, sorted, without hidden ones and naevus's own results."""
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if not e.name.startswith(".") and e.is_dir()]
    return [path for name in sorted(names) if not is_output(path := folder / name)]


def unnested(folder: Path) -> Path:
    """Return ``folder/<its own name>`` if an archive was unpacked into a folder of its name."""
    inner = folder / folder.name
    return inner if inner.is_dir() else folder


def merged(folders: Iterable[dict[str, str]], problems: list[Problem]) -> dict[str, str]:
    """Return the images of several folders; of images with the same id the first is taken."""
    result: dict[str, str] = {}
    for images in folders:
        again = sorted(result.keys() & images.keys())
        if again:
            first = images[again[0]]
            problems.append(
                Problem("two files of one id", again[0], f"{first} and {len(again) - 1} others")
            )
        result = images | result
    return result


def _files(folder: Path, problems: list[Problem], *, masks: bool) -> dict[str, str]:
    found: dict[str, str] = {}
    if not folder.is_dir():
        return found
    base = str(folder.absolute())
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    for name in names:
        stem, dot, suffix = name.rpartition(".")
        if name.startswith(".") or not stem or f"{dot}{suffix}".lower() not in IMAGE_SUFFIXES:
            continue
        if not is_text(name):  # `load` reports it
            continue
        image_id = mask_owner(stem) if masks else stem
        if not masks and is_mask_name(stem):
            continue
        if image_id in found:
            problems.append(
                Problem("two files of one id", image_id, f"{name} in {base} was left out")
            )
            continue
        found[image_id] = os.path.join(base, name)  # noqa: PTH118 - 20 times faster than Path
    return found
