"""Task 1 of the challenge: folders of masks, and its scores."""

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


# The mask files of Task 1: finding the one that belongs to an image, and reading it.

FOREGROUND_ABOVE = 128
"""Values above it are lesion; 128 itself is not."""

_ID = re.compile(r"ISIC_([0-9]{7})")
_NOT_MASKS = frozenset({"ATTRIBUTION.txt", "LICENSE.txt"})


def number_of(name: str) -> str | None:
    """Return the seven digits of the first ISIC id in a file's name, if there is one."""
    match = _ID.search(name)
    return match.group(1) if match else None


def files_in(folder: Path) -> list[Path]:
    """Return what is in a folder, by name, without the archive's own notes.

    Raises:
        SubmissionError: The folder is not there or cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if path.name not in _NOT_MASKS)
    except OSError as error:
        raise SubmissionError(
            f"{folder}: not a folder that can be read ({error.strerror})",
            "give the folder that holds the masks, unpacked",
        ) from error


def truth_files(folder: Path) -> list[tuple[str, Path]]:
    """Return number and path of every true mask.

    Raises:
        SubmissionError: The folder is absent or empty, or a file in it bears no ISIC id.
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
    """Return the files whose stem holds an image's number, as the official tool looks for it."""
    return [path for path in candidates if number in path.stem]


def grey_values(path: Path) -> NDArray[np.uint8]:
    """Read a mask as the official tool sees it, which is not as `naevus.images` would.

    Only 8-bit grey and 1-bit files pass, and no orientation is applied.

    Returns:
        H x W; 1-bit images have 0 and 255.

    Raises:
        SubmissionError: The file cannot be decoded, is cut off, or is not single-channel.
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
    """Tell whether a readable image is a black-and-white one of 1 bit a pixel."""
    with Image.open(path) as image:
        return image.mode == "1"


def size_text(shape: tuple[int, ...]) -> str:
    """Return a shape H x W as the width and height people say."""
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
    """Score a Task 1 submission as the challenge does.

    Masks are matched by the image's number anywhere in the file name; masks of other images
    are ignored.

    Args:
        truth_dir: The true masks.
        prediction_dir: The submitted masks, of the same sizes.

    Returns:
        ``overall`` and ``validation`` (both the mean thresholded Jaccard index) and
        ``macro_average`` (means over images).

    Raises:
        SubmissionError: The official tool refuses the submission, or the truth is unusable.
    """
    candidates = files_in(prediction_dir)
    scores = []
    for number, truth_path in truth_files(truth_dir):
        files = matching(number, candidates)
        path = the_one(files, truth_path, f"ISIC_{number}_segmentation.png")
        truth, prediction = true_mask(truth_path), grey_values(path)
        if truth.shape != prediction.shape:
            raise SubmissionError(
                f"{path}: has {size_text(prediction.shape)} pixels; "
                f"expected {size_text(truth.shape)}",
                "bring each mask to the size of its image",
            )
        scores.append(compare_masks(truth, prediction > FOREGROUND_ABOVE))
    means = dict(zip(MaskScore._fields, np.mean(scores, axis=0).tolist(), strict=True))
    return {
        "overall": means["thresholded_jaccard"],
        "validation": means["thresholded_jaccard"],
        "macro_average": {name: means[field] for name, field in _OFFICIAL_NAMES.items()},
    }


def the_one(found: list[Path], truth_path: Path, name: str) -> Path:
    """Return the only one of the files that answer to a true mask.

    Args:
        found: The files.
        truth_path: The true mask.
        name: What the file should be called.

    Raises:
        SubmissionError: There is none, or there are several.
    """
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
    """Read a true mask; a single value other than 255 is taken for the lesion.

    Raises:
        SubmissionError: It cannot be read, or has several values but 0.
    """
    values = grey_values(path)
    if len(np.setdiff1d(values, [0])) > 1:
        raise SubmissionError(
            f"{path}: a true mask with values other than 0 and 255", "give the challenge's masks"
        )
    return values > 0
