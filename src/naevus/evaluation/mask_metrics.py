"""One mask against the true one: overlap and distance of outlines; and over many."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import pandas as pd

from naevus.errors import DataError
from naevus.images.geometry import box_of
from naevus.images.maskfile import read_mask, read_mask_of
from naevus.images.masks import area_share
from naevus.images.quality import SIDE, lesion_contrast, quality_of
from naevus.images.read import read

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray


# How far a mask's outline is from the lesion's, whatever the lesion's size.

_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


class BoundaryDistance(NamedTuple):
    """How far two outlines are apart, in shares of the picture's diagonal: 0 is best, 1 worst."""

    surface_distance: float
    """Mean distance from the pixels of either outline to the other one (ASSD)."""
    hausdorff_95: float
    """95 % of each outline's pixels are at most so far from the other one."""


def boundary_distance(truth: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> BoundaryDistance:
    """Measure the distance between two masks' outlines.

    An outline is the foreground that has background, or the picture's border, beside it. The mean
    is over the pixels of both outlines (Heimann et al., IEEE Trans. Medical Imaging 2009); the
    percentile is the larger of the two directed ones (Maier-Hein et al., Metrics Reloaded, Nature
    Methods 2024). Shares of the diagonal, as the pixels' sizes on the skin are not known.

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
    one, other = (_outline(mask[inside]) for mask in (truth, prediction))
    there, back = _from_to(one, other), _from_to(other, one)
    diagonal = float(np.hypot(*truth.shape))
    mean = (float(there.sum()) + float(back.sum())) / (len(there) + len(back))
    farthest = max(float(np.percentile(each, 95)) for each in (there, back))
    return BoundaryDistance(mean / diagonal, farthest / diagonal)


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    # Cropped to both masks' box, the border is background or the picture's own border.
    inner = cv2.erode(
        np.ascontiguousarray(mask).view(np.uint8),
        _CROSS,
        borderType=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    return np.asarray(mask & (inner == 0))


def _from_to(pixels: NDArray[np.bool_], outline: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the distance of some pixels to the nearest pixel of an outline."""
    elsewhere = (~outline).view(np.uint8)
    distances = cv2.distanceTransform(elsewhere, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[pixels]
    # Their squares are whole numbers: OpenCV's last bits differ from call to call.
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
    thresholded: float
    """The Jaccard index, or 0 where it is below 0.65."""


def compare_masks(truth: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> MaskScore:
    """Compare two masks pixel by pixel, as ISIC 2018 Task 1 does.

    Args:
        truth: H x W, true on the lesion.
        prediction: H x W, of the same size.

    Returns:
        The scores of this one picture.

    Raises:
        DataError: The masks differ in size.

    Examples:
        >>> truth = np.array([[1, 1, 1, 1], [0, 0, 0, 0]], bool)
        >>> prediction = np.array([[1, 1, 0, 0], [0, 0, 0, 0]], bool)
        >>> score = compare_masks(truth, prediction)
        >>> score.jaccard, score.sensitivity, score.thresholded
        (0.5, 0.5, 0.0)
    """
    if truth.shape != prediction.shape:
        raise DataError(
            f"a mask of {_size(prediction)} pixels against a truth of {_size(truth)}",
            "bring masks to the picture's size before comparing",
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
        thresholded=jaccard if jaccard >= JACCARD_THRESHOLD else 0.0,
    )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def _size(mask: NDArray[np.bool_]) -> str:
    return " x ".join(str(length) for length in mask.shape)


# All that is told of one picture's mask: how well it fits, and what may have made it difficult.


class Conditions(NamedTuple):
    """What may make a lesion hard to outline, measured by its true mask; NaN: not known."""

    area: float
    """The lesion's share of the picture."""
    contrast: float
    """How far its colour is from the skin's (`lesion_contrast`)."""
    hair: float
    """The share of the skin under dark hair (`Quality.hair`)."""
    border: float
    """The share of its outline that lies on the picture's border (`Quality.cut`)."""

    @classmethod
    def of(cls, pixels: NDArray[np.uint8] | None, truth: NDArray[np.bool_]) -> Conditions:
        """Measure a picture.

        Args:
            pixels: h x w x 3 RGB, of any size; None: not at hand, and only the area is known.
            truth: H x W, the lesion in the same frame.
        """
        area = area_share(truth)
        if pixels is None:
            return cls(area, np.nan, np.nan, np.nan)
        quality, contrast = quality_of(pixels, truth), lesion_contrast(pixels, truth)
        assert quality.cut is not None
        return cls(area, np.nan if contrast is None else contrast, quality.hair, quality.cut)


class Outline(NamedTuple):
    """One picture's mask against the truth."""

    score: MaskScore
    boundary: BoundaryDistance
    conditions: Conditions

    @classmethod
    def of(
        cls,
        truth: NDArray[np.bool_],
        prediction: NDArray[np.bool_],
        pixels: NDArray[np.uint8] | None = None,
    ) -> Outline:
        """Judge a mask.

        Args:
            truth: H x W, true on the lesion.
            prediction: H x W, of the same size.
            pixels: h x w x 3, the picture in any size, where it is at hand.

        Raises:
            DataError: The masks differ in size.
        """
        return cls(
            compare_masks(truth, prediction),
            boundary_distance(truth, prediction),
            Conditions.of(pixels, truth),
        )


COLUMNS = (*MaskScore._fields, *BoundaryDistance._fields, *Conditions._fields)
"""What an out-of-fold table of masks says of each picture, beside its id and group."""


def outline_table(outlines: Mapping[str, Outline]) -> pd.DataFrame:
    """Return ``image_id`` and `COLUMNS`, a row a picture, sorted by id."""
    rows = [
        (image_id, *one.score, *one.boundary, *one.conditions)
        for image_id, one in sorted(outlines.items())
    ]
    table = pd.DataFrame(rows, columns=["image_id", *COLUMNS])
    return table.astype({"image_id": "string", **dict.fromkeys(COLUMNS, np.float64)})


# Masks in files against masks in files.


def compare_folder(
    truths: Mapping[str, Path], predicted: Path, pictures: Mapping[str, Path] | None = None
) -> pd.DataFrame:
    """Compare the masks of a folder with the true ones.

    Args:
        truths: File of the true mask of each id.
        predicted: Folder with ``<id>_segmentation.png``.
        pictures: File of the picture of each id; where it is absent, contrast, hair and contact
            with the border are not known.

    Returns:
        What `outline_table` gives.

    Raises:
        DataError: A predicted mask is absent or of another size.
        PictureError: A mask or a picture cannot be read.
    """
    outlines = {}
    for image_id, truth in sorted(truths.items()):
        path = predicted / f"{image_id}_segmentation.png"
        if not path.exists():
            raise DataError(f"{path}: there is no such mask", "predict this picture again")
        try:
            picture = None if pictures is None else pictures.get(image_id)
            pixels = None if picture is None else read(picture, shortest=SIDE)
            true = read_mask(truth) if picture is None else read_mask_of(truth, picture)
            outlines[image_id] = Outline.of(true, read_mask(path), pixels)
        except DataError as error:
            raise DataError(f"{path}: {error.message}", error.remedy) from error
    return outline_table(outlines)
