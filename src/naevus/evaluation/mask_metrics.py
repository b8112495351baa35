"""One mask against the true one: overlap and distance of contours; and over many."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import pandas as pd

from naevus.errors import DataError
from naevus.images.geometry import box_of
from naevus.images.maskfile import read_mask, read_mask_of
from naevus.images.masks import area_fraction
from naevus.images.quality import SIDE, lesion_contrast, quality_of
from naevus.images.read import read
from naevus.io.files import stored

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray


# How far a mask's contour is from the lesion's, whatever the lesion's size.

_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


class BoundaryDistance(NamedTuple):
    """How far two contours are apart, in fractions of the image's diagonal: 0 is best, 1 worst."""

    surface_distance: float
    """Mean distance from the pixels of either contour to the other one (ASSD)."""
    hausdorff_95: float
    """95 % of each contour's pixels are at most so far from the other one."""


def boundary_distance(truth: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> BoundaryDistance:
    """Measure the distance between two masks' contours.

    A contour is the foreground that has background, or the image's border, beside it. The mean
    is over the pixels of both contours (Heimann et al., IEEE Trans. Medical Imaging 2009); the
    percentile is the larger of the two directed ones (Maier-Hein et al., Metrics Reloaded, Nature
    Methods 2024). Fractions of the diagonal, as the pixels' sizes on the skin are not known.

    Args:
        truth: H x W, true on the lesion.
        prediction: H x W, of the same size.

    Returns:
        0 where both are empty; 1, the whole diagonal, where one is.

    Raises:
        DataError: The masks differ in size.

    Examples:
        >>> truth = np.zeros((30, 40), bool)
        >>> truth[10:20, 10:20] = True
        >>> boundary_distance(truth, np.roll(truth, 5, axis=1)).hausdorff_95
        0.1
    """
    if truth.shape != prediction.shape:
        raise DataError(f"a mask {prediction.shape} against a truth {truth.shape}")
    box = box_of(truth | prediction)
    if box is None:
        return BoundaryDistance(0.0, 0.0)
    if not truth.any() or not prediction.any():
        return BoundaryDistance(1.0, 1.0)
    inside = slice(box.top, box.bottom), slice(box.left, box.right)
    one, other = (_boundary(mask[inside]) for mask in (truth, prediction))
    there, back = _from_to(one, other), _from_to(other, one)
    diagonal = float(np.hypot(*truth.shape))
    mean = (float(there.sum()) + float(back.sum())) / (len(there) + len(back))
    farthest = max(float(np.percentile(each, 95)) for each in (there, back))
    return BoundaryDistance(mean / diagonal, farthest / diagonal)


def _boundary(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    # Cropped to both masks' box, the border is background or the image's own border.
    inner = cv2.erode(
        np.ascontiguousarray(mask).view(np.uint8),
        _CROSS,
        borderType=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    return np.asarray(mask & (inner == 0))


def _from_to(pixels: NDArray[np.bool_], boundary: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the distance of some pixels to the nearest pixel of a contour."""
    elsewhere = (~boundary).view(np.uint8)
    distances = cv2.distanceTransform(elsewhere, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[pixels]
    # Squared distances are whole numbers: OpenCV's last bits differ from call to call.
    return np.sqrt(np.rint(distances.astype(np.float64) ** 2))


JACCARD_THRESHOLD = 0.65
"""Below it the challenge counts a mask as failed: the readers' own agreement (Codella 2019)."""


class MaskScore(NamedTuple):
    """How one mask compares with the truth; every value is in [0, 1].

    A ratio without a denominator counts as 1: empty against empty is a perfect answer.
    """

    jaccard: float
    dice: float
    sensitivity: float
    specificity: float
    accuracy: float
    thresholded_jaccard: float
    """The Jaccard index, or 0 where it is below 0.65."""


def compare_masks(truth: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> MaskScore:
    """Compare two masks pixel by pixel, as ISIC 2018 Task 1 does.

    Args:
        truth: H x W, true on the lesion.
        prediction: H x W, of the same size.

    Returns:
        The scores of this one image.

    Raises:
        DataError: The masks differ in size.

    Examples:
        >>> truth = np.array([[1, 1, 1, 1], [0, 0, 0, 0]], bool)
        >>> prediction = np.array([[1, 1, 0, 0], [0, 0, 0, 0]], bool)
        >>> score = compare_masks(truth, prediction)
        >>> score.jaccard, score.sensitivity, score.thresholded_jaccard
        (0.5, 0.5, 0.0)
    """
    if truth.shape != prediction.shape:
        raise DataError(
            f"a mask of {_size(prediction)} pixels against a truth of {_size(truth)}",
            "bring masks to the image's size before comparing",
        )
    both = int(np.count_nonzero(truth & prediction))
    missed = int(np.count_nonzero(truth)) - both
    extra = int(np.count_nonzero(prediction)) - both
    neither = truth.size - both - missed - extra
    jaccard = _ratio(both, both + missed + extra)
    return MaskScore(
        jaccard=jaccard,
        dice=_ratio(2 * both, 2 * both + missed + extra),
        sensitivity=_ratio(both, both + missed),
        specificity=_ratio(neither, neither + extra),
        accuracy=_ratio(both + neither, truth.size),
        thresholded_jaccard=jaccard if jaccard >= JACCARD_THRESHOLD else 0.0,
    )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def _size(mask: NDArray[np.bool_]) -> str:
    return " x ".join(str(length) for length in mask.shape)


# One image's mask: its metrics, and conditions that may explain failures.


class Conditions(NamedTuple):
    """What may make a lesion hard to contour, measured by its true mask; NaN: not known."""

    lesion_area: float
    """The lesion's fraction of the image."""
    contrast: float
    """How far its colour is from the skin's (`lesion_contrast`)."""
    hair: float
    """The fraction of the skin under dark hair (`Quality.hair`)."""
    border: float
    """The fraction of its contour that lies on the image's border (`Quality.cut`)."""

    @classmethod
    def of(cls, pixels: NDArray[np.uint8] | None, truth: NDArray[np.bool_]) -> Conditions:
        """Measure an image.

        Args:
            pixels: h x w x 3 RGB, of any size; None: not at hand, and only the area is known.
            truth: H x W, the lesion in the same frame.
        """
        area = area_fraction(truth)
        if pixels is None:
            return cls(area, np.nan, np.nan, np.nan)
        quality, contrast = quality_of(pixels, truth), lesion_contrast(pixels, truth)
        assert quality.cut is not None
        return cls(area, np.nan if contrast is None else contrast, quality.hair, quality.cut)


class MaskComparison(NamedTuple):
    """One image's mask against the truth."""

    score: MaskScore
    boundary: BoundaryDistance
    conditions: Conditions

    @classmethod
    def of(
        cls,
        truth: NDArray[np.bool_],
        prediction: NDArray[np.bool_],
        pixels: NDArray[np.uint8] | None = None,
    ) -> MaskComparison:
        """Judge a mask.

        Args:
            truth: H x W, true on the lesion.
            prediction: H x W, of the same size.
            pixels: h x w x 3, the image in any size, where it is at hand.

        Raises:
            DataError: The masks differ in size.
        """
        return cls(
            compare_masks(truth, prediction),
            boundary_distance(truth, prediction),
            Conditions.of(pixels, truth),
        )


COLUMNS = (*MaskScore._fields, *BoundaryDistance._fields, *Conditions._fields)
"""What an out-of-fold table of masks says of each image, beside its id and group."""


def mask_table(comparisons: Mapping[str, MaskComparison]) -> pd.DataFrame:
    """Return ``image_id`` and `COLUMNS`, a row an image, sorted by id."""
    rows = [
        (image_id, *one.score, *one.boundary, *one.conditions)
        for image_id, one in sorted(comparisons.items())
    ]
    table = pd.DataFrame(rows, columns=["image_id", *COLUMNS])
    return table.astype({"image_id": "string", **dict.fromkeys(COLUMNS, np.float64)})


# Masks in files against masks in files.


def compare_folder(
    truths: Mapping[str, Path], predicted: Path, images: Mapping[str, Path] | None = None
) -> pd.DataFrame:
    """Compare the masks of a folder with the true ones.

    Args:
        truths: File of the true mask of each id.
        predicted: Folder with ``<id>_segmentation.png``.
        images: File of the image of each id; where it is absent, contrast, hair and contact
            with the border are not known.

    Returns:
        What `mask_table` gives.

    Raises:
        DataError: A predicted mask is absent or of another size.
        ImageError: A mask or an image cannot be read.
    """
    comparisons = {}
    for image_id, truth in sorted(truths.items()):
        path = stored(predicted / f"{image_id}_segmentation.png", image_id)
        if not path.exists():
            raise DataError(f"{path}: there is no such mask", "predict this image again")
        try:
            image = None if images is None else images.get(image_id)
            pixels = None if image is None else read(image, shortest=SIDE)
            true = read_mask(truth) if image is None else read_mask_of(truth, image)
            comparisons[image_id] = MaskComparison.of(true, read_mask(path), pixels)
        except DataError as error:
            raise DataError(f"{path}: {error.message}", error.remedy) from error
    return mask_table(comparisons)
