"""Compare masks with the ground truth: overlap and contour distance of one mask or of many."""

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


# Distance between contours, relative to the image's size.

_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


class BoundaryDistance(NamedTuple):
    """The distance between two contours, relative to the image's diagonal: 0 is best, 1 worst."""

    surface_distance: float
    """The mean distance from the pixels of each contour to the other contour (ASSD)."""
    hausdorff_95: float
    """The larger 95th percentile of the distances from one contour to the other."""


def boundary_distance(truth: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> BoundaryDistance:
    """Measure the distance between the contours of two masks.

    A contour consists of the foreground pixels next to the background or to the image's border.
    The mean is over the pixels of both contours (Heimann et al., IEEE Trans. Medical Imaging
    2009). The percentile is the larger of the two directed ones (Maier-Hein et al., Metrics
    Reloaded, Nature Methods 2024). Distances are fractions of the diagonal, because the pixel size
    on the skin is unknown.

    Args:
        truth: H x W, true on the lesion.
        prediction: H x W, of the same size.

    Returns:
        0 if both masks are empty; 1, the whole diagonal, if only one is.

    Raises:
        DataError: The masks differ in size.

    Examples:
        >>> truth = np.zeros((30, 40), bool)
        >>> truth[10:20, 10:20] = True
        >>> boundary_distance(truth, np.roll(truth, 5, axis=1)).hausdorff_95
        0.1
    """
    if truth.shape != prediction.shape:
        raise DataError(f"a mask {prediction.shape} for a ground truth {truth.shape}")
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
    # The border of the crop to both masks' box is background or the image's own border.
    inner = cv2.erode(
        np.ascontiguousarray(mask).view(np.uint8),
        _CROSS,
        borderType=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    return np.asarray(mask & (inner == 0))


def _from_to(pixels: NDArray[np.bool_], boundary: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the distance of each pixel to the nearest pixel of a contour."""
    elsewhere = (~boundary).view(np.uint8)
    distances = cv2.distanceTransform(elsewhere, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[pixels]
    # Rounded: squared distances are integers, and OpenCV's last bits vary between calls.
    return np.sqrt(np.rint(distances.astype(np.float64) ** 2))


JACCARD_THRESHOLD = 0.65
"""The challenge counts masks below it as failed: the agreement of human readers (Codella 2019)."""


class MaskScore(NamedTuple):
    """Scores of one mask against the ground truth, each in [0, 1].

    A ratio with a denominator of 0 counts as 1: an empty mask matches an empty ground truth.
    """

    jaccard: float
    dice: float
    sensitivity: float
    specificity: float
    accuracy: float
    thresholded_jaccard: float
    """The Jaccard index, or 0 where it is below 0.65."""


def compare_masks(truth: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> MaskScore:
    """Compare two masks pixel by pixel, as in ISIC 2018 Task 1.

    Args:
        truth: H x W, true on the lesion.
        prediction: H x W, of the same size.

    Returns:
        The scores of this image.

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
            f"a mask of {_size(prediction)} pixels for a ground truth of {_size(truth)}",
            "resize masks to the image's size before comparing",
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


# Metrics of one image's mask, and conditions that may explain failures.


class Conditions(NamedTuple):
    """Conditions that may make a lesion difficult to segment, by its true mask; NaN: unknown."""

    lesion_area: float
    """The fraction of the image that the lesion covers."""
    contrast: float
    """The colour difference between lesion and skin (`lesion_contrast`)."""
    hair: float
    """The fraction of the central circle under dark hair (`Quality.hair`)."""
    border: float
    """The fraction of the contour on the image's border (`Quality.cut`)."""

    @classmethod
    def of(cls, pixels: NDArray[np.uint8] | None, truth: NDArray[np.bool_]) -> Conditions:
        """Measure the conditions of an image.

        Args:
            pixels: h x w x 3 RGB, of any size; None: not available, so that only the area is known.
            truth: H x W, the lesion, of the same field of view.
        """
        area = area_fraction(truth)
        if pixels is None:
            return cls(area, np.nan, np.nan, np.nan)
        quality, contrast = quality_of(pixels, truth), lesion_contrast(pixels, truth)
        assert quality.cut is not None
        return cls(area, np.nan if contrast is None else contrast, quality.hair, quality.cut)


class MaskComparison(NamedTuple):
    """One mask compared with its ground truth, with the image's conditions."""

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
        """Evaluate a mask.

        Args:
            truth: H x W, true on the lesion.
            prediction: H x W, of the same size.
            pixels: h x w x 3, the image in any size, if available.

        Raises:
            DataError: The masks differ in size.
        """
        return cls(
            compare_masks(truth, prediction),
            boundary_distance(truth, prediction),
            Conditions.of(pixels, truth),
        )


COLUMNS = (*MaskScore._fields, *BoundaryDistance._fields, *Conditions._fields)
"""The columns of an out-of-fold table of masks, except id and group."""


def mask_table(comparisons: Mapping[str, MaskComparison]) -> pd.DataFrame:
    """Return ``image_id`` and `COLUMNS`, one row per image, sorted by id."""
    rows = [
        (image_id, *one.score, *one.boundary, *one.conditions)
        for image_id, one in sorted(comparisons.items())
    ]
    table = pd.DataFrame(rows, columns=["image_id", *COLUMNS])
    return table.astype({"image_id": "string", **dict.fromkeys(COLUMNS, np.float64)})


# Mask files compared with ground-truth files.


def compare_folder(
    truths: Mapping[str, Path], predicted: Path, images: Mapping[str, Path] | None = None
) -> pd.DataFrame:
    """Compare the masks of a folder with the ground truth.

    Args:
        truths: The ground-truth mask file of each id.
        predicted: The folder with ``<id>_segmentation.png``.
        images: The image file of each id; without it, contrast, hair and border contact are
            unknown.

    Returns:
        The result of `mask_table`.

    Raises:
        DataError: A predicted mask is missing or has another size.
        ImageError: A mask or an image cannot be read.
    """
    comparisons = {}
    for image_id, truth in sorted(truths.items()):
        path = stored(predicted / f"{image_id}_segmentation.png", image_id)
        if not path.exists():
            raise DataError(f"{path}: the mask is missing", "predict this image again")
        try:
            image = None if images is None else images.get(image_id)
            pixels = None if image is None else read(image, shortest=SIDE)
            true = read_mask(truth) if image is None else read_mask_of(truth, image)
            comparisons[image_id] = MaskComparison.of(true, read_mask(path), pixels)
        except DataError as error:
            raise DataError(f"{path}: {error.message}", error.remedy) from error
    return mask_table(comparisons)
