"""Check submissions for what the challenge would refuse or score as wrong."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from naevus.errors import ImageError, SubmissionError
from naevus.evaluation.challenge.attributes import attribute_in, matching_attribute
from naevus.evaluation.challenge.classification import image_ids, read_table, refusals
from naevus.evaluation.challenge.segmentation import (
    FOREGROUND_ABOVE,
    files_in,
    grey_values,
    matching,
    number_of,
    one_bit,
    size_text,
)
from naevus.images.read import IMAGE_SUFFIXES, probe
from naevus.io.words import counted
from naevus.taxonomy import ATTRIBUTES, ISIC2018

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray


# The findings of the linter.

Consequence = Literal["refused", "loses points", "tidy"]
"""The effect of a finding: nothing is scored; something silently scores less than it would; no
effect on the score, but against the challenge's rules or unclear to a reader."""


@dataclass(frozen=True)
class Finding:
    """A problem in a submission."""

    kind: str
    consequence: Consequence
    subject: str
    """The file, column or image with the problem."""
    detail: str
    remedy: str


# Problems in Task 3's CSV.

_SUM_TOLERANCE = 0.01


def lint_classification(
    path: Path,
    expected_ids: Sequence[str] | None = None,
    codes: Sequence[str] = ISIC2018.codes,
) -> list[Finding]:
    """Find problems in a Task 3 submission.

    Args:
        path: The CSV.
        expected_ids: The images of the challenge, if known; otherwise missing and extra rows are
            not found.
        codes: The classes that need a column.

    Returns:
        Findings, refusals first; empty if there are none.

    Raises:
        SubmissionError: The file is missing.
    """
    if not path.is_file():
        raise SubmissionError(f"{path}: no such file", "name the CSV to upload")
    try:
        table = read_table(path)
    except SubmissionError as error:
        return [Finding("not a CSV", "refused", path.name, error.message, error.remedy)]
    found = [
        Finding(refusal.kind, "refused", path.name, refusal.message, refusal.remedy)
        for refusal in refusals(table, codes, expected_ids)
    ]
    return [*found, *_silent(table, codes), *_ragged(path)]


def _silent(table: pd.DataFrame, codes: Sequence[str]) -> Iterator[Finding]:
    """Yield values that are scored, but not as intended."""
    present = [code for code in codes if code in table.columns]
    if "image" not in table.columns or len(present) != len(codes) or table.empty:
        return
    numbers = table[present].select_dtypes("number")
    if len(numbers.columns) != len(present):
        return
    ids, values = image_ids(table["image"]), numbers.to_numpy(dtype=np.float64)
    known = np.isfinite(values).all(axis=1)
    largest = values == values.max(axis=1, keepdims=True)
    for row in np.flatnonzero(known & (largest.sum(axis=1) > 1)).tolist():
        names = " and ".join(code for code, top in zip(present, largest[row], strict=True) if top)
        yield Finding(
            "tie",
            "loses points",
            ids.iloc[row],
            f"{names} share the largest value {values[row].max():g}; a tie counts as wrong",
            "write more decimals, or lower all but one of them a little",
        )
    sums = values.sum(axis=1)
    for row in np.flatnonzero(known & (np.abs(sums - 1) > _SUM_TOLERANCE)).tolist():
        yield Finding(
            "sum",
            "tidy",
            ids.iloc[row],
            f"the values sum to {sums[row]:.4g} instead of 1; they are scored unchanged",
            "divide each row by its sum",
        )


def _ragged(path: Path) -> Iterator[Finding]:
    """Yield lines with more cells than the header; the extra cells are dropped silently."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.reader(stream)
            width = len(next(rows, []))
            longer = [rows.line_num for row in rows if len(row) > width]
    except (OSError, UnicodeDecodeError, csv.Error):
        return
    if longer:
        yield Finding(
            "extra cells",
            "loses points",
            path.name,
            f"{len(longer)} lines have more cells than the header, line {longer[0]} first; "
            "the extra cells are dropped",
            "give each line as many cells as the header, without a comma at the end",
        )


_JPEG = frozenset({".jpg", ".jpeg"})
_REGULAR = "{id}_segmentation.png"
_OF_ATTRIBUTE = "{id}_attribute_{attribute}.png"
_WRITE_GREY = "write an 8-bit greyscale PNG of 0 and 255"


def lint_segmentation(folder: Path, images: Path | None = None) -> list[Finding]:
    """Find problems in a Task 1 submission.

    Args:
        folder: The submitted masks.
        images: The challenge's images (or ground-truth masks); without them, missing masks and
            masks of another size are not found.

    Returns:
        Findings, by file name; empty if there are none.

    Raises:
        SubmissionError: A folder is missing, or ``images`` has no image with an ISIC id.
    """
    files = files_in(folder)
    sizes = None if images is None else _sizes(images)
    numbers = sorted({number for path in files if (number := number_of(path.stem))})
    if sizes is None and not numbers:
        detail = "no file name contains the seven digits of an image"
        remedy = f"name masks {_REGULAR.format(id='ISIC_0000000')}"
        return [Finding("no masks", "refused", folder.name, detail, remedy)]
    return [
        *(finding for number in sizes or numbers for finding in _named(number, files)),
        *(finding for path in files for finding in _lint_file(path, sizes)),
    ]


def lint_attributes(folder: Path, images: Path | None = None) -> list[Finding]:
    """Find problems in a Task 2 submission.

    Args:
        folder: The submitted masks, one for each attribute of each image.
        images: The challenge's images (or ground-truth masks); without them, images without any
            mask and masks of another size are not found.

    Returns:
        Findings, by file name; empty if there are none.

    Raises:
        SubmissionError: A folder is missing, or ``images`` has no image with an ISIC id.
    """
    files = files_in(folder)
    sizes = None if images is None else _sizes(images)
    masks = [path for path in files if attribute_in(path.stem) is not None]
    numbers = sorted({number for path in masks if (number := number_of(path.stem))})
    return [
        *(
            finding
            for number in sizes or numbers
            for attribute in ATTRIBUTES
            for finding in _named_attribute(number, attribute, files)
        ),
        *(finding for path in files for finding in _lint_attribute(path, sizes)),
    ]


def _named_attribute(number: str, attribute: str, files: list[Path]) -> Iterator[Finding]:
    """Yield findings if there is not exactly one file for an attribute of an image."""
    regular = _OF_ATTRIBUTE.format(id=f"ISIC_{number}", attribute=attribute)
    found = matching_attribute(number, attribute, files)
    if not found:
        what = "no file has this number and attribute in its name"
        remedy = f"write {regular}; an empty mask where the attribute is absent"
        yield Finding("missing mask", "refused", f"ISIC_{number} {attribute}", what, remedy)
    elif len(found) > 1:
        names = ", ".join(path.name for path in found)
        what = f"several files have this number and attribute in their name: {names}"
        yield Finding(
            "several files", "refused", f"ISIC_{number} {attribute}", what, f"keep {regular} alone"
        )


def _lint_attribute(path: Path, sizes: dict[str, tuple[int, int]] | None) -> Iterator[Finding]:
    attribute = attribute_in(path.stem)
    if attribute is None:
        what = f"is not a mask of {', '.join(ATTRIBUTES)}"
        remedy = "remove it from the folder, or name it ISIC_0000000_attribute_<attribute>.png"
        yield Finding("stray file", "tidy", path.name, what, remedy)
        return
    regular = _OF_ATTRIBUTE.replace("{attribute}", attribute)
    yield from _lint_file(path, sizes, regular, lesion=False)


def _sizes(images: Path) -> dict[str, tuple[int, int]]:
    """Return height and width of the images in a folder, by number."""
    sizes = {}
    for path in files_in(images):
        number = number_of(path.stem)
        if number is None or path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        try:
            header = probe(path)
        except ImageError as error:
            raise SubmissionError(error.message, error.remedy) from error
        sizes[number] = (header.height, header.width)
    if not sizes:
        raise SubmissionError(
            f"{images}: no images named like ISIC_0000000.jpg",
            "name the challenge's input folder",
        )
    return sizes


def _named(number: str, files: list[Path]) -> Iterator[Finding]:
    """Yield findings if there is not exactly one file for an image."""
    subject = f"ISIC_{number}"
    found = matching(number, files)
    if not found:
        yield Finding(
            "missing mask",
            "refused",
            subject,
            "no file has this number in its name",
            f"write a mask {_REGULAR.format(id=subject)}",
        )
    elif len(found) > 1:
        yield Finding(
            "several files",
            "refused",
            subject,
            f"several files have this number in their name: {', '.join(p.name for p in found)}",
            f"keep {_REGULAR.format(id=subject)} alone",
        )


def _lint_file(
    path: Path,
    sizes: dict[str, tuple[int, int]] | None,
    regular: str = _REGULAR,
    *,
    lesion: bool = True,
) -> Iterator[Finding]:
    number = number_of(path.stem)
    if number is None:
        yield Finding(
            "stray file",
            "tidy",
            path.name,
            "is not a mask of an image",
            "remove it from the folder",
        )
        return
    if sizes is not None and number not in sizes:
        yield Finding(
            "extra mask",
            "tidy",
            path.name,
            "there is no such image; the mask is not checked",
            "remove it from the folder",
        )
        return
    yield from _lint_name(path, regular.format(id=f"ISIC_{number}"))
    try:
        values = grey_values(path)
    except SubmissionError as error:
        detail = error.message.removeprefix(f"{path}: ")
        yield Finding("unreadable", "refused", path.name, detail, error.remedy)
        return
    if sizes is not None and values.shape != sizes[number]:
        yield Finding(
            "other size",
            "refused",
            path.name,
            f"has {size_text(values.shape)} pixels, its image {size_text(sizes[number])}",
            "resize each mask to the size of its image",
        )
    if one_bit(path):
        yield Finding(
            "1-bit",
            "tidy",
            path.name,
            "is a 1-bit file; this scorer accepts it, others may not",
            _WRITE_GREY,
        )
    yield from _lint_values(path, values, lesion=lesion)
    if lesion:
        yield from _lint_shape(path, values > FOREGROUND_ABOVE)


def _lint_name(path: Path, regular: str) -> Iterator[Finding]:
    if path.suffix.lower() in _JPEG:
        yield Finding(
            "JPEG mask",
            "loses points",
            path.name,
            "JPEG blurs the contour: values next to it are neither 0 nor 255",
            "write masks as PNG",
        )
    elif path.name != regular:
        yield Finding(
            "irregular name",
            "tidy",
            path.name,
            "is matched by its number only",
            f"name it {regular}",
        )


def _lint_values(path: Path, values: NDArray[np.uint8], *, lesion: bool) -> Iterator[Finding]:
    odd = np.setdiff1d(values, [0, 255])
    top = int(values.max(initial=0))
    what = "lesion" if lesion else "attribute"
    if top == 0 and not lesion:  # most images lack most attributes
        return
    if top == 0:
        yield Finding(
            "empty mask",
            "loses points",
            path.name,
            "is empty; every image of the challenge shows a lesion, so it scores 0",
            "mark the most probable region",
        )
    elif top <= FOREGROUND_ABOVE:
        yield Finding(
            "dark foreground",
            "loses points",
            path.name,
            f"its largest value is {top}; only values above {FOREGROUND_ABOVE} are {what}, "
            "so the whole mask is scored as empty",
            f"write {what} as 255",
        )
    elif odd.size and path.suffix.lower() not in _JPEG:
        yield Finding(
            "grey values",
            "loses points",
            path.name,
            f"has values other than 0 and 255 (such as {odd[odd.size // 2]}); "
            f"values above {FOREGROUND_ABOVE} count as {what}",
            "threshold the probabilities and write 0 and 255",
        )


def _lint_shape(path: Path, mask: NDArray[np.bool_]) -> Iterator[Finding]:
    regions, holes = count_regions_and_holes(mask)
    if regions > 1:
        yield Finding(
            "several regions",
            "tidy",
            path.name,
            f"has {regions} regions; the challenge asks for one",
            "keep the largest region",
        )
    if holes:
        yield Finding(
            "holes",
            "tidy",
            path.name,
            f"has {counted(holes, 'hole')}; the challenge asks for none",
            "fill the holes",
        )


def count_regions_and_holes(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Count 8-connected regions, and 4-connected holes that do not touch the border."""
    padded = np.pad(mask.astype(np.uint8), 1)
    regions, _ = cv2.connectedComponents(padded, connectivity=8)
    outside_and_holes, _ = cv2.connectedComponents(1 - padded, connectivity=4)
    return regions - 1, outside_and_holes - 2
