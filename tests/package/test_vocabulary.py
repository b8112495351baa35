"""Names and texts use the terms of the field, and not the project's older words."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.helpers import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORDS = {
    "picture": "image", "pictures": "images", "outline": "segment, mask or contour",
    "outlined": "segmented", "outlines": "segments, masks or contours", "dealt": "assigned",
    "told": "said, reported or predicted", "looked": "inspected", "unlikeness": "ood_score",
    "doubt": "warning or flag", "quarantined": "failed", "squares": "boxes or crops",
    "views": "tta", "dihedral": "d4", "heldout": "out-of-fold or held_out",
}  # fmt: skip
"""What is not written, alone or as a part of a name, and what is written for it."""
PAIRS = {("pixel", "store"): "image cache", ("inner", "share"): "validation_share"}
"""Two parts of one name that are not written one after the other."""
CLASSES = {"Refused": "FailedImage"}
"""Names of classes; in a sentence these words are ordinary ones."""

FOLDERS = ("src", "docs", "tests", "benchmarks", "tools", "recipes")
FILES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile", "pyproject.toml")
TEXTS = frozenset(
    {".css", ".csv", ".html", ".ipynb", ".json", ".md", ".py", ".rst", ".svg", ".toml", ".txt"}
)

OTHERS = (
    r"outline(?:-\w+)?\s*:",  # a property of CSS
    r"\b[Mm]ulti-[Pp]icture\b",  # the Multi-Picture Format (MPO)
    r"\b[Ll]east[ -]squares\b|\b[Ss]ums? of squares\b",  # statistics
    r"\b[Cc]entre squares\b",  # geometry: the plural of a crop's name
    r"base64,[A-Za-z0-9+/=\s]+",  # embedded files
)
"""What other standards and libraries call it: not read."""


def parts(name: str) -> list[str]:
    """Split ``snake_case`` and ``CamelCase`` into words.

    >>> parts("_read_BigTIFFPages2")
    ['read', 'Big', 'TIFF', 'Pages']
    """
    return re.findall(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+", name)


def old_words(text: str) -> Iterator[str]:
    """Yield the names in a text that contain old words."""
    for pattern in OTHERS:
        text = re.sub(pattern, " ", text)
    for name in re.findall(r"[A-Za-z_]+", text):
        words = parts(name)
        lower = [word.lower() for word in words]
        old_class = CLASSES.keys() & set(words) and (len(words) > 1 or f"`{name}`" in text)
        if WORDS.keys() & set(lower) or PAIRS.keys() & set(pairwise(lower)) or old_class:
            yield name


def old_classes(source: str) -> Iterator[str]:
    """Yield old class names in the code of a module, not in its comments and texts."""
    for name in CLASSES:
        used = rf"^\s*class {name}\b|\bimport .*\b{name}\b|\b{name}[(|\]]|[:\[|] ?{name}\b"
        if re.search(used, source, re.MULTILINE):
            yield name


def read_files() -> list[Path]:
    files = [ROOT / name for name in FILES if (ROOT / name).exists()]
    for folder in FOLDERS:
        files += [path for path in (ROOT / folder).rglob("*") if path.suffix in TEXTS]
    own = {"test_vocabulary.py", "convert_formats.py"}  # both must name what they replace
    return [path for path in files if path.name not in own]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("one picture, and no pictogram", ["picture"]),
        ("PICTURES_OF and MaskOutlines", ["PICTURES_OF", "MaskOutlines"]),
        ("_heldout_rows", ["_heldout_rows"]),
        ("inner_share = PixelStore.build()", ["inner_share", "PixelStore"]),
        ("held out; an inner part that shares pixels; reviews", []),
        ("Refused: a cut file. `Refused` and RefusedImage", ["Refused", "Refused", "RefusedImage"]),
        ("button:focus { outline: 2px } in a Multi-Picture file by least squares", []),
    ],
)
def test_old_words_are_found_alone_and_in_names(text: str, found: list[str]) -> None:
    assert list(old_words(text)) == found


def test_old_classes_are_found_in_code() -> None:
    assert list(old_classes("from naevus import A, Refused")) == ["Refused"]
    assert list(old_classes('def f() -> A | Refused:\n    """Refused: no."""')) == ["Refused"]
    assert not list(old_classes('"""Refused are those that cannot be read."""'))


def test_no_old_word_is_written() -> None:
    files = read_files()
    assert len(files) > 300
    found = []
    for path in files:
        place = path.relative_to(ROOT).as_posix()
        names = list(old_words(place))
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".py":
            names += old_classes(text)
        names += old_words(text)
        found += [f"{place}: {', '.join(sorted(set(names)))}"] if names else []
    assert not found, "\n" + "\n".join(found) + f"\nwrite instead: {WORDS | PAIRS | CLASSES}"
