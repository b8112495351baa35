"""Task 1's scores: the thresholded Jaccard index and the means beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from naevus.errors import SubmissionError
from naevus.evaluation.challenge.maskfiles import (
    FOREGROUND_ABOVE,
    files_in,
    grey_values,
    matching,
    size_text,
    truth_files,
)
from naevus.evaluation.scoring.segmentation import MaskScore, compare_masks

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_OFFICIAL_NAMES = {
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "jaccard": "jaccard",
    "threshold_jaccard": "thresholded",
    "dice": "dice",
}


def score_segmentation(truth_dir: Path, prediction_dir: Path) -> dict[str, Any]:
    """Score a Task 1 submission as the challenge does.

    Masks are matched by the picture's number anywhere in the file name; masks of other pictures
    are not looked at.

    Args:
        truth_dir: The true masks.
        prediction_dir: The submitted masks, of the same sizes.

    Returns:
        ``overall`` and ``validation`` (both the mean thresholded Jaccard index) and
        ``macro_average`` (means over pictures).

    Raises:
        SubmissionError: The official tool refuses the submission, or the truth is unusable.
    """
    candidates = files_in(prediction_dir)
    scores = []
    for number, truth_path in truth_files(truth_dir):
        path = _the_one(number, truth_path, candidates)
        truth, prediction = _truth_mask(truth_path), grey_values(path)
        if truth.shape != prediction.shape:
            raise SubmissionError(
                f"{path}: has {size_text(prediction.shape)} pixels; "
                f"expected {size_text(truth.shape)}",
                "bring each mask to the size of its picture",
            )
        scores.append(compare_masks(truth, prediction > FOREGROUND_ABOVE))
    means = dict(zip(MaskScore._fields, np.mean(scores, axis=0).tolist(), strict=True))
    return {
        "overall": means["thresholded"],
        "validation": means["thresholded"],
        "macro_average": {name: means[field] for name, field in _OFFICIAL_NAMES.items()},
    }


def _the_one(number: str, truth_path: Path, candidates: list[Path]) -> Path:
    found = matching(number, candidates)
    if not found:
        raise SubmissionError(
            f"no matching submission for {truth_path.name}",
            f"write a mask ISIC_{number}_segmentation.png",
        )
    if len(found) > 1:
        raise SubmissionError(
            f"multiple matching submissions for {truth_path.name}: "
            f"{', '.join(path.name for path in found)}",
            "keep one file with this number in its name",
        )
    return found[0]


def _truth_mask(path: Path) -> NDArray[np.bool_]:
    """Read a true mask; a single value other than 255 is taken for the lesion."""
    values = grey_values(path)
    if len(np.setdiff1d(values, [0])) > 1:
        raise SubmissionError(
            f"{path}: a true mask with values other than 0 and 255", "give the challenge's masks"
        )
    return values > 0
