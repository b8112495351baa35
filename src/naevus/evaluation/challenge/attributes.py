"""Task 2 of the challenge: score a folder of masks, five for each image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from naevus.errors import SubmissionError
from naevus.evaluation.challenge.segmentation import (
    files_in,
    number_of,
    read_pair,
)
from naevus.taxonomy import ATTRIBUTES

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def attribute_in(name: str) -> str | None:
    """Return the attribute in a file's name, or None."""
    return next((attribute for attribute in ATTRIBUTES if f"_attribute_{attribute}" in name), None)


def holds_attributes(folder: Path) -> bool:
    """Return whether a folder contains attribute masks, judging by their names.

    Raises:
        SubmissionError: The folder is missing or cannot be read.
    """
    return any(attribute_in(path.stem) is not None for path in files_in(folder))


def true_attributes(folder: Path) -> list[tuple[str, str, Path]]:
    """Return number, attribute and path of every ground-truth mask.

    Raises:
        SubmissionError: The folder is missing or empty, or contains a file of another kind.
    """
    found = []
    for path in files_in(folder):
        number, attribute = number_of(path.stem), attribute_in(path.stem)
        if number is None or attribute is None:
            raise SubmissionError(
                f"{path}: unknown ground truth file",
                "keep only files named like ISIC_0000000_attribute_globules.png there",
            )
        found.append((number, attribute, path))
    if not found:
        raise SubmissionError(f"{folder}: no ground truth masks", "give the challenge's masks")
    return found


def matching_attribute(number: str, attribute: str, candidates: list[Path]) -> list[Path]:
    """Return the files matched to an attribute of an image by the official tool's rule."""
    return [path for path in candidates if number in path.stem and attribute in path.stem]


def score_attributes(truth_dir: Path, prediction_dir: Path) -> dict[str, Any]:
    """Score a Task 2 submission as in the challenge.

    The confusion matrix of each mask is divided by its number of pixels. The matrices are summed
    over images for each attribute, and over all masks for the micro average. Masks are matched by
    the image's number and the attribute anywhere in the file name.

    Args:
        truth_dir: The ground-truth masks.
        prediction_dir: The submitted masks, of the same sizes; masks of other images are not
            checked.

    Returns:
        ``jaccard`` and ``dice`` of each attribute and of ``micro_average``; ``overall``, the
        Jaccard index of the micro average.

    Raises:
        SubmissionError: The official tool refuses the submission, or the ground truth is invalid.
    """
    candidates = files_in(prediction_dir)
    sums = {attribute: np.zeros(3) for attribute in ATTRIBUTES}
    for number, attribute, truth_path in true_attributes(truth_dir):
        files = matching_attribute(number, attribute, candidates)
        name = f"ISIC_{number}_attribute_{attribute}.png"
        sums[attribute] += _fractions(*read_pair(files, truth_path, name))
    scores = {attribute: _overlap(*parts) for attribute, parts in sums.items()}
    scores["micro_average"] = _overlap(*np.sum(list(sums.values()), axis=0))
    return {**scores, "overall": scores["micro_average"]["jaccard"]}


def _fractions(truth: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the fractions of pixels in both, only in the prediction, and only in the truth."""
    pairs = (truth & prediction, ~truth & prediction, truth & ~prediction)
    return np.array([np.count_nonzero(each) for each in pairs]) / truth.size


def _overlap(both: float, predicted: float, true: float) -> dict[str, float]:
    """Return Jaccard and Dice index; 1 if both masks are empty."""
    union = both + predicted + true
    if not union:
        return {"jaccard": 1.0, "dice": 1.0}
    return {"jaccard": float(both / union), "dice": float(2 * both / (union + both))}
