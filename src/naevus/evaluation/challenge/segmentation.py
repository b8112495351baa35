"""Task 1 of the challenge: score a folder of masks."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from naevus.errors import SubmissionError
from naevus.evaluation.mask_metrics import MaskScore, compare_masks

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


# Finding and reading the mask files of Task 1.

FOREGROUND_ABOVE = 128
"""Pixels with larger values are lesion."""

_ID = re.compile(r"ISIC_([0-9]{7})")
_NOT_MASKS = frozenset({"ATTRIBUTION.txt", "LICENSE.txt"})


def number_of(name: str) -> str | None:
    """Return the seven digits of the first ISIC id in a file's name, or None."""
    match = _ID.search(name)
    return match.group(1) if match else None


def files_in(folder: Path) -> list[Path]:
    """Return the files in a folder by name, without those that archives add.

    Raises:
        SubmissionError: The folder is missing or cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if path.name not in _NOT_MASKS)
    except FileNotFoundError as error:
        raise SubmissionError(f"{folder} does not exist", "name an unpacked folder") from error
    except OSError as error:
        raise SubmissionError(
            f"{folder}: not a folder that can be read ({error.strerror})",
            "give the unpacked folder of the masks",
        ) from error


def truth_files(folder: Path) -> list[tuple[str, Path]]:
    """Return number and path of every ground-truth mask.

    Raises:
        SubmissionError: The folder is missing or empty, or a file has no ISIC id in its name.
    """
    numbered = []
    for path in files_in(folder):
        number = number_of(path.stem)
        if number is None:
            raise SubmissionError(
                f"{path}: unknown ground truth file",
                "keep only files named like ISIC_0000000_segmentation.png there",
            )
        numbered.append((number, path))
    if not numbered:
        raise SubmissionError(f"{folder}: no ground truth masks", "give the challenge's masks")
    return numbered


def matching(number: str, candidates: list[Path]) -> list[Path]:
    """Return the files whose stem contains an image's number, as in the official tool."""
    return [path for path in candidates if number in path.stem]


def grey_values(path: Path) -> NDArray[np.uint8]:
    """Read a mask by the rules of the official tool, which differ from those of `naevus.images`.

    Only 8-bit grey and 1-bit files are accepted, and no orientation is applied.

    Returns:
        H x W; 1-bit images have the values 0 and 255.

    Raises:
        SubmissionError: The file cannot be decoded, is truncated, or is not single-channel.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                mode = image.mode
                values = np.array(image.convert("L")) if mode in {"1", "L"} else None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SubmissionError(
            f"{path}: could not be decoded ({error})", "write the mask again"
        ) from error
    if values is None:
        raise SubmissionError(
            f"{path}: is not single-channel (greyscale) but of mode {mode}",
            "write 8-bit greyscale PNGs of 0 and 255, without colour, palette or transparency",
        )
    return values


def one_bit(path: Path) -> bool:
    """Return whether a readable image has 1 bit per pixel."""
    with Image.open(path) as image:
        return image.mode == "1"


def size_text(shape: tuple[int, ...]) -> str:
    """Return a shape H x W as text, width first."""
    return f"{shape[1]} x {shape[0]}"


_OFFICIAL_NAMES = {
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "jaccard": "jaccard",
    "threshold_jaccard": "thresholded_jaccard",
    "dice": "dice",
}


def score_segmentation(truth_dir: Path, prediction_dir: Path) -> dict[str, Any]:
    """Score a Task 1 submission as in the challenge.

    Masks are matched by the image's number anywhere in the file name; masks of other images
    are ignored.

    Args:
        truth_dir: The ground-truth masks.
        prediction_dir: The submitted masks, of the same sizes.

    Returns:
        ``overall`` and ``validation`` (both the mean thresholded Jaccard index) and
        ``macro_average`` (means over images).

    Raises:
        SubmissionError: The official tool refuses the submission, or the ground truth is invalid.
    """
    candidates = files_in(prediction_dir)
    scores = []
    for number, truth_path in truth_files(truth_dir):
        files = matching(number, candidates)
        pair = read_pair(files, truth_path, f"ISIC_{number}_segmentation.png")
        scores.append(compare_masks(*pair))
    means = dict(zip(MaskScore._fields, np.mean(scores, axis=0).tolist(), strict=True))
    return {
        "overall": means["thresholded_jaccard"],
        "validation": means["thresholded_jaccard"],
        "macro_average": {name: means[field] for name, field in _OFFICIAL_NAMES.items()},
    }


def read_pair(
    found: list[Path], truth_path: Path, name: str
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Read a ground-truth mask and the only submitted mask that matches it.

    Args:
        found: The matching files.
        truth_path: The ground-truth mask.
        name: The name that the submitted mask should have.

    Raises:
        SubmissionError: There is no match or several, a mask cannot be read, or the sizes differ.
    """
    path = _the_one(found, truth_path, name)
    truth, prediction = true_mask(truth_path), grey_values(path)
    if truth.shape != prediction.shape:
        raise SubmissionError(
            f"{path}: has {size_text(prediction.shape)} pixels; expected {size_text(truth.shape)}",
            "resize each mask to the size of its image",
        )
    return truth, prediction > FOREGROUND_ABOVE


def _the_one(found: list[Path], truth_path: Path, name: str) -> Path:
    """Return the only file that matches a ground-truth mask."""
    if not found:
        raise SubmissionError(
            f"no matching submission for {truth_path.name}", f"write a mask {name}"
        )
    if len(found) > 1:
        raise SubmissionError(
            f"multiple matching submissions for {truth_path.name}: "
            f"{', '.join(path.name for path in found)}",
            "keep one file with this number in its name",
        )
    return found[0]


def true_mask(path: Path) -> NDArray[np.bool_]:
    """Read a ground-truth mask; if there is only one value besides 0, it is the lesion.

    Raises:
        SubmissionError: The mask cannot be read, or has several values besides 0.
    """
    values = grey_values(path)
    if len(np.setdiff1d(values, [0])) > 1:
        raise SubmissionError(
            f"{path}: a true mask with values other than 0 and 255", "give the challenge's masks"
        )
    return values > 0
