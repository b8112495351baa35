"""PH2: a folder per lesion with a BMP image and its mask, and one table as text or workbook.

https://www.fc.up.pt/addi/ph2%20database.html (Mendonca et al., EMBC 2013)
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pandas as pd

from naevus.datasets.dataset import Problem
from naevus.datasets.layouts.images import Images
from naevus.datasets.layouts.parsing import subfolders
from naevus.datasets.layouts.tabular import parsed_layout_of
from naevus.errors import DataError
from naevus.io.formats import key_of, read_table
from naevus.io.limits import SMALLER, TEXT, TooLargeError, check_text, read_limited

if TYPE_CHECKING:
    from pathlib import Path

    from naevus.datasets.layouts.parsing import ParsedLayout
    from naevus.taxonomy import Taxonomy

NAME = "ph2"
DESCRIPTION = "folders IMD002/IMD002_Dermoscopic_Image and so on, and PH2_dataset.txt or .xlsx"

_TABLES = ("PH2_dataset.txt", "PH2_dataset.xlsx")
_CODES = {"0": "common nevus", "1": "atypical nevus", "2": "melanoma"}
_LESIONS = re.compile(r"(?i)^(IMD\d+)_lesion$")


def matches(root: Path) -> bool:
    """Return whether ``root`` or a folder in it has the table, or folders of lesions."""
    return root.is_dir() and (_table(root) is not None or bool(_folders(root)))


def read(root: Path, taxonomy: Taxonomy | None = None) -> ParsedLayout:
    """Read images, masks and clinical diagnoses; regions of interest are left out."""
    problems: list[Problem] = []
    folders = _folders(root)
    masks: dict[str, str] = {}
    images = []
    for folder in folders:
        for inside in subfolders(folder):
            found = _LESIONS.match(inside.name)
            if found:
                masks.update((found[1], str(path)) for path in _files(inside)[:1])
            elif inside.name.lower().endswith("_dermoscopic_image"):
                images.append(inside)
    path = _table(root)
    if path is None:
        problems.append(Problem("no table of diagnoses", str(root), " or ".join(_TABLES)))
    tables = [] if path is None else [(_diagnoses(path), path)]
    parsed = parsed_layout_of(tables, Images(root, images), masks=masks, taxonomy=taxonomy)
    parsed.problems.extend(problems)
    return parsed


def _table(root: Path) -> Path | None:
    for place in (root, *subfolders(root)):
        for name in _TABLES:
            if (place / name).is_file():
                return place / name
    return None


def _folders(root: Path) -> list[Path]:
    """Return the folders of lesions, up to two folders below ``root``."""
    places = [root, *subfolders(root)]
    places += [inner for outer in places[1:] for inner in subfolders(outer)]
    return [
        folder
        for place in dict.fromkeys(places)
        for folder in subfolders(place)
        if re.fullmatch(r"(?i)IMD\d+", folder.name)
    ]


def _files(folder: Path) -> list[Path]:
    return sorted(each.absolute() for each in folder.iterdir() if each.suffix.lower() == ".bmp")


def _diagnoses(path: Path) -> pd.DataFrame:
    """Return ``image_id`` and ``diagnosis`` from the text or the workbook."""
    rows = _from_text(path) if path.suffix.lower() == ".txt" else _from_workbook(path)
    if not rows:
        raise DataError(f"{path}: no row names an image such as IMD002", "use PH2's own file")
    return pd.DataFrame(rows, columns=["image_id", "diagnosis"], dtype="string")


def _from_text(path: Path) -> list[tuple[str, str]]:
    rows = []
    try:
        check_text(path)
        content = read_limited(path, TEXT)
    except TooLargeError as error:
        raise DataError(f"{path}: {error}", SMALLER) from error
    for line in content.decode("utf-8-sig", errors="replace").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("||")]
        if len(cells) > 2 and re.fullmatch(r"(?i)IMD\d+", cells[0]):
            rows.append((cells[0], _CODES.get(cells[2].split("|")[0].strip(), cells[2])))
    return rows


def _from_workbook(path: Path) -> list[tuple[str, str]]:
    """Return each row's name and the heading of its marked diagnosis column."""
    table = read_table(path)
    names = {column: key_of(column).replace("_", " ") for column in table.columns}
    named = next((column for column, name in names.items() if "name" in name), None)
    if named is None:
        return []
    columns = {
        column: diagnosis
        for column, name in names.items()
        for diagnosis in _CODES.values()
        if name.startswith(diagnosis)
    }
    return [
        (str(row[named]), diagnosis)
        for _, row in table.dropna(subset=[named]).iterrows()
        for column, diagnosis in columns.items()
        if not pd.isna(row[column])
    ]
