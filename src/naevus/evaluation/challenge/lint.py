"""What the challenge would refuse, or score as wrong, in a submission."""

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
from naevus.taxonomy import ATTRIBUTES, ISIC2018

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray


# What a linter says of a submission.

Consequence = Literal["refused", "loses points", "tidy"]
"""What follows if it is left: nothing is scored; something scores less than it would, silently;
the scorer does not mind, but the challenge's rules or a reader do."""


@dataclass(frozen=True)
class Finding:
    """One thing to mend in a submission."""

    kind: str
    consequence: Consequence
    subject: str
    """The file, column or image it is about."""
    detail: str
    remedy: str


# What is wrong with Task 3's CSV.

_SUM_TOLERANCE = 0.01


def lint_classification(
    path: Path,
    expected_ids: Sequence[str] | None = None,
    codes: Sequence[str] = ISIC2018.codes,
) -> list[Finding]:
    """Find what the official tool refuses in a Task 3 submission, or counts as wrong.

    Args:
        path: The CSV.
        expected_ids: The images of the challenge, if they are known; without them neither a
            missing row nor an extra one can be found.
        codes: The classes that must each have a column.

    Returns:
        Findings, refusals first; none where the submission is sound.

    Raises:
        SubmissionError: The file is not there.
    """
    if not path.is_file():
        raise SubmissionError(f"{path}: no such file", "name the CSV that is to be uploaded")
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
    """Yield what is scored, but not as its author means."""
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
            f"the values sum to {sums[row]:.4g}, not to 1; they are scored as they stand",
            "divide each row by its sum",
        )


def _ragged(path: Path) -> Iterator[Finding]:
    """Yield lines with more cells than the header; what is beyond it is dropped in silence."""
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
            "what is beyond it is dropped",
            "write as many cells in each line as the header has, without a comma at the end",
        )


_JPEG = frozenset({".jpg", ".jpeg"})
_REGULAR = "{id}_segmentation.png"
_OF_ATTRIBUTE = "{id}_attribute_{attribute}.png"
_WRITE_GREY = "write an 8-bit greyscale PNG of 0 and 255"


def lint_segmentation(folder: Path, images: Path | None = None) -> list[Finding]:
    """Find what the official tool refuses in a Task 1 submission, or scores as nothing.

    Args:
        folder: The submitted masks.
        images: The challenge's images (or true masks); without them neither a missing mask
            nor one of another size can be found.

    Returns:
        Findings, by file name; none where the submission is sound.

    Raises:
        SubmissionError: A folder is absent, or no image with an ISIC id is in ``images``.
    """
    files = files_in(folder)
    sizes = None if images is None else _sizes(images)
    numbers = sorted({number for path in files if (number := number_of(path.stem))})
    if sizes is None and not numbers:
        detail = "no file is named by the seven digits of an image"
        remedy = f"name masks {_REGULAR.format(id='ISIC_0000000')}"
        return [Finding("no masks", "refused", folder.name, detail, remedy)]
    return [
        *(finding for number in sizes or numbers for finding in _named(number, files)),
        *(finding for path in files for finding in _lint_file(path, sizes)),
    ]


def lint_attributes(folder: Path, images: Path | None = None) -> list[Finding]:
    """Find what the official tool refuses in a Task 2 submission, or scores as nothing.

    Args:
        folder: The submitted masks, one for each attribute of each image.
        images: The challenge's images (or true masks); without them neither an image without any
            mask nor a mask of another size can be found.

    Returns:
        Findings, by file name; none where the submission is sound.

    Raises:
        SubmissionError: A folder is absent, or no image with an ISIC id is in ``images``.
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
    """Yield what is wrong with the number of files that answer for an attribute of an image."""
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
        remedy = "take it out of the folder, or name it ISIC_0000000_attribute_<attribute>.png"
        yield Finding("stray file", "tidy", path.name, what, remedy)
        return
    regular = _OF_ATTRIBUTE.replace("{attribute}", attribute)
    yield from _lint_file(path, sizes, regular, lesion=False)


def _sizes(images: Path) -> dict[str, tuple[int, int]]:
    """Return height and width by number, of the images in a folder."""
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
    """Yield what is wrong with the number of files that answer to one image."""
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
            "take it out of the folder",
        )
        return
    if sizes is not None and number not in sizes:
        yield Finding(
            "extra mask",
            "tidy",
            path.name,
            "there is no such image; the mask is not checked",
            "take it out of the folder",
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
            "bring each mask to the size of its image",
        )
    if one_bit(path):
        yield Finding(
            "1-bit",
            "tidy",
            path.name,
            "is a 1-bit file; this scorer takes it, others do not",
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
            "JPEG blurs the contour: values beside it are neither 0 nor 255",
            "write masks as PNG",
        )
    elif path.name != regular:
        yield Finding(
            "irregular name",
            "tidy",
            path.name,
            "is matched by its number alone",
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
            "has no lesion; every image of the challenge shows one, so that it scores 0",
            "give the most probable region",
        )
    elif top <= FOREGROUND_ABOVE:
        yield Finding(
            "dark foreground",
            "loses points",
            path.name,
            f"its largest value is {top}; only values above {FOREGROUND_ABOVE} are {what}, "
            "so that the whole mask is scored as empty",
            f"write {what} as 255",
        )
    elif odd.size and path.suffix.lower() not in _JPEG:
        yield Finding(
            "grey values",
            "loses points",
            path.name,
            f"holds values other than 0 and 255 (such as {odd[odd.size // 2]}); "
            f"what is above {FOREGROUND_ABOVE} counts as {what}",
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
            f"has {holes} hole{'s' if holes > 1 else ''}; the challenge asks for none",
            "fill the holes",
        )


def count_regions_and_holes(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Count 8-connected regions, and 4-connected holes that do not reach the border."""
    padded = np.pad(mask.astype(np.uint8), 1)
    regions, _ = cv2.connectedComponents(padded, connectivity=8)
    outside_and_holes, _ = cv2.connectedComponents(1 - padded, connectivity=4)
    return regions - 1, outside_and_holes - 2
