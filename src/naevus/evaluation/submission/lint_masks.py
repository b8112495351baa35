"""What is wrong with Task 1's folder of masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from naevus.errors import PictureError, SubmissionError
from naevus.evaluation.challenge.maskfiles import (
    FOREGROUND_ABOVE,
    files_in,
    grey_values,
    matching,
    number_of,
    one_bit,
    size_text,
)
from naevus.evaluation.submission.finding import Finding
from naevus.images.read import PICTURE_SUFFIXES, probe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_JPEG = frozenset({".jpg", ".jpeg"})
_REGULAR = "{id}_segmentation.png"
_WRITE_GREY = "write an 8-bit greyscale PNG of 0 and 255"


def lint_segmentation(folder: Path, pictures: Path | None = None) -> list[Finding]:
    """Find what the official tool refuses in a Task 1 submission, or scores as nothing.

    Args:
        folder: The submitted masks.
        pictures: The challenge's pictures (or true masks); without them neither a missing mask
            nor one of another size can be found.

    Returns:
        Findings, by file name; none where the submission is sound.

    Raises:
        SubmissionError: A folder is absent, or no picture with an ISIC id is in ``pictures``.
    """
    files = files_in(folder)
    sizes = None if pictures is None else _sizes(pictures)
    numbers = sorted({number for path in files if (number := number_of(path.stem))})
    if sizes is None and not numbers:
        said = "no file is named by the seven digits of a picture"
        remedy = f"name masks {_REGULAR.format(id='ISIC_0000000')}"
        return [Finding("no masks", "refused", folder.name, said, remedy)]
    return [
        *(finding for number in sizes or numbers for finding in _named(number, files)),
        *(finding for path in files for finding in _lint_file(path, sizes)),
    ]


def _sizes(pictures: Path) -> dict[str, tuple[int, int]]:
    """Return height and width by number, of the pictures in a folder."""
    sizes = {}
    for path in files_in(pictures):
        number = number_of(path.stem)
        if number is None or path.suffix.lower() not in PICTURE_SUFFIXES:
            continue
        try:
            header = probe(path)
        except PictureError as error:
            raise SubmissionError(error.message, error.remedy) from error
        sizes[number] = (header.height, header.width)
    if not sizes:
        raise SubmissionError(
            f"{pictures}: no pictures named like ISIC_0000000.jpg",
            "name the challenge's input folder",
        )
    return sizes


def _named(number: str, files: list[Path]) -> Iterator[Finding]:
    """Yield what is wrong with the number of files that answer to one picture."""
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


def _lint_file(path: Path, sizes: dict[str, tuple[int, int]] | None) -> Iterator[Finding]:
    number = number_of(path.stem)
    if number is None:
        yield Finding(
            "stray file",
            "tidy",
            path.name,
            "is not a mask of a picture",
            "take it out of the folder",
        )
        return
    if sizes is not None and number not in sizes:
        yield Finding(
            "extra mask",
            "tidy",
            path.name,
            "there is no such picture; the mask is not looked at",
            "take it out of the folder",
        )
        return
    yield from _lint_name(path, number)
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
            f"has {size_text(values.shape)} pixels, its picture {size_text(sizes[number])}",
            "bring each mask to the size of its picture",
        )
    if one_bit(path):
        yield Finding(
            "1-bit",
            "tidy",
            path.name,
            "is a 1-bit file; this scorer takes it, others do not",
            _WRITE_GREY,
        )
    yield from _lint_values(path, values)
    yield from _lint_shape(path, values > FOREGROUND_ABOVE)


def _lint_name(path: Path, number: str) -> Iterator[Finding]:
    regular = _REGULAR.format(id=f"ISIC_{number}")
    if path.suffix.lower() in _JPEG:
        yield Finding(
            "JPEG mask",
            "loses points",
            path.name,
            "JPEG blurs the outline: values beside it are neither 0 nor 255",
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


def _lint_values(path: Path, values: NDArray[np.uint8]) -> Iterator[Finding]:
    odd = np.setdiff1d(values, [0, 255])
    top = int(values.max(initial=0))
    if top == 0:
        yield Finding(
            "empty mask",
            "loses points",
            path.name,
            "has no lesion; every picture of the challenge shows one, so that it scores 0",
            "give the most probable region",
        )
    elif top <= FOREGROUND_ABOVE:
        yield Finding(
            "dark foreground",
            "loses points",
            path.name,
            f"its largest value is {top}; only values above {FOREGROUND_ABOVE} are lesion, "
            "so that the whole mask is scored as empty",
            "write lesion as 255",
        )
    elif odd.size and path.suffix.lower() not in _JPEG:
        yield Finding(
            "grey values",
            "loses points",
            path.name,
            f"holds values other than 0 and 255 (such as {odd[odd.size // 2]}); "
            f"what is above {FOREGROUND_ABOVE} counts as lesion",
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
