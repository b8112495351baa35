"""Masks of lesion attributes: pixel counts at every threshold, pooled Jaccard indices, presence.

Scores are pooled as in Task 2 of ISIC 2018: an image's pixels count as fractions of its size, the
fractions are summed over images, and one Jaccard index is computed from the sums. A mean over
images would be of little use, because most images show no pixel of a given attribute. The best
threshold for a pooled index differs from 0.5 and is chosen here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from naevus.errors import DataError
from naevus.evaluation.bootstrap import Ranking, repeatable
from naevus.evaluation.intervals import weighted_intervals
from naevus.evaluation.scaling import parts_of
from naevus.images.maskfile import read_mask
from naevus.io.files import stored
from naevus.taxonomy import ATTRIBUTES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from naevus.evaluation.intervals import Interval
    from naevus.types import Unit

STEPS: Final = 20
THRESHOLDS: Final[tuple[float, ...]] = tuple(step / STEPS for step in range(1, STEPS))
"""Candidate thresholds; a pixel with a probability above the threshold shows the attribute."""

TRUE_MASKS: Final[dict[str, str]] = {name: f"attribute_{name}" for name in ATTRIBUTES}
"""Dataset columns with the ground-truth mask file of each attribute."""

PEAK_FRACTION: Final = 0.01
"""Fraction of an image's pixels, the most probable ones, that `peak` averages."""
_LEAST: Final = 1e-6
_STEP: Final = 1e-9  # steps of the fit of presence that are too small to go on


class ThresholdCounts(NamedTuple):
    """Pixel counts of one mask in one image, at each threshold.

    Attributes:
        hit: Pixels in both the mask and the ground truth, shape T.
        predicted: Pixels of the mask, shape T.
        true: Pixels of the ground truth.
    """

    hit: NDArray[np.int64]
    predicted: NDArray[np.int64]
    true: int


def threshold_counts(probability: NDArray[np.float32], truth: NDArray[np.bool_]) -> ThresholdCounts:
    """Count the pixels of one attribute of one image at each of `THRESHOLDS`.

    Args:
        probability: H x W, 0..1.
        truth: H x W.
    """
    # For each pixel, the number of thresholds below its probability: one pass for all thresholds.
    above = np.searchsorted(np.asarray(THRESHOLDS, np.float32), probability.ravel(), side="left")
    hit, predicted = (
        np.bincount(values, minlength=len(THRESHOLDS) + 1)[1:][::-1].cumsum()[::-1]
        for values in (above[truth.ravel()], above)
    )
    return ThresholdCounts(hit, predicted, int(np.count_nonzero(truth)))


def peak(probability: NDArray[np.float32]) -> float:
    """Return the mean probability of the most probable pixels, a fraction `PEAK_FRACTION`."""
    flat = probability.ravel()
    count = max(1, round(PEAK_FRACTION * flat.size))
    return float(np.partition(flat, flat.size - count)[flat.size - count :].mean())


def presence_of(peak: float, slope: float = 1.0, intercept: float = 0.0) -> float:
    """Return the probability that an attribute is present, a logistic function of its peak."""
    inside = min(max(peak, _LEAST), 1 - _LEAST)
    return 1 / (1 + math.exp(-(slope * math.log(inside / (1 - inside)) + intercept)))


def jaccard(hit: Any, predicted: Any, true: Any) -> Any:
    """Return the Jaccard index of pooled pixels; 1 where mask and ground truth are both empty."""
    union = np.asarray(predicted + true - hit, np.float64)
    return np.where(union > 0, np.divide(hit, union, where=union > 0, out=np.ones_like(union)), 1.0)


class PooledCounts(NamedTuple):
    """Pixel counts of N images, A attributes and T thresholds, as fractions of each image.

    Attributes:
        hit: N x A x T.
        predicted: N x A x T.
        true: N x A.
    """

    hit: NDArray[np.float64]
    predicted: NDArray[np.float64]
    true: NDArray[np.float64]

    @classmethod
    def of(cls, table: pd.DataFrame) -> PooledCounts:
        """Return the counts of an out-of-fold table (`attribute_row`)."""
        pixels = table["pixels"].to_numpy(np.float64)[:, None]

        def stack_inputs(kind: str) -> NDArray[np.float64]:
            columns = [np.stack(table[f"{kind}_{name}"].to_list()) for name in ATTRIBUTES]
            fractions: NDArray[np.float64] = np.stack(columns, axis=1) / pixels[:, :, None]
            return fractions

        true = np.stack([table[f"true_{name}"] for name in ATTRIBUTES], axis=1) / pixels
        return cls(stack_inputs("hit"), stack_inputs("predicted"), true)

    @classmethod
    def pooled(cls, rows: Sequence[Sequence[ThresholdCounts]], pixels: int) -> PooledCounts:
        """Join the counts of images with equal numbers of pixels, attribute by attribute."""
        return cls(
            *(
                np.array([[getattr(one, name) for one in row] for row in rows]) / pixels
                for name in cls._fields
            )
        )

    def at(self, thresholds: Sequence[float]) -> NDArray[np.float64]:
        """Return each attribute's counts at its own threshold.

        Args:
            thresholds: A values, each one of `THRESHOLDS`.

        Returns:
            N x A x 3: fractions of pixels in both, in the mask, and in the ground truth.
        """
        return self.at_places([THRESHOLDS.index(threshold) for threshold in thresholds])

    def at_places(self, places: Sequence[int]) -> NDArray[np.float64]:
        """Return the same as `at`, for positions in `THRESHOLDS`."""
        each = np.arange(len(places))
        cut = (self.hit[:, each, places], self.predicted[:, each, places], self.true)
        return np.stack(cut, axis=-1)

    def best_places(
        self, rows: NDArray[np.bool_] | None = None, *, alone: bool = False
    ) -> list[int]:
        """Return the position of the best threshold of each attribute.

        Together they maximise the Jaccard index pooled over all attributes, by Dinkelbach's method
        (1967) for ratios of sums: each step maximises hits minus index times union per attribute,
        with the index of the previous step, until the index stops growing.

        Args:
            rows: The images to use; None: all.
            alone: Whether to maximise each attribute's own index instead.
        """
        chosen = slice(None) if rows is None else rows
        hit, predicted, true = (values[chosen].sum(axis=0) for values in self)
        union = predicted + true[:, None] - hit
        best: NDArray[np.intp] = jaccard(hit, predicted, true[:, None]).argmax(axis=1)
        each, index = np.arange(len(best)), -1.0
        while not alone and (found := _ratio(hit[each, best], union[each, best])) > index:
            index = found
            best = (hit - index * union).argmax(axis=1)
        places: list[int] = best.tolist()
        return places

    def best_thresholds(self) -> tuple[float, ...]:
        """Return the thresholds at `best_places`."""
        return tuple(THRESHOLDS[place] for place in self.best_places())


def _ratio(hit: NDArray[np.float64], union: NDArray[np.float64]) -> float:
    return float(hit.sum() / union.sum()) if union.sum() else 1.0


def attribute_row(
    probabilities: Sequence[NDArray[np.float32]],
    truths: Mapping[str, NDArray[np.bool_]],
    peaks: Sequence[float],
) -> dict[str, Any]:
    """Return the columns of an out-of-fold table for one image.

    Args:
        probabilities: One H x W array for each of `ATTRIBUTES`, in order.
        truths: H x W by attribute.
        peaks: The `peak` of each attribute's map at the network's output size.

    Returns:
        ``pixels``; for each attribute ``hit_`` and ``predicted_`` (lists with one value for each
        of `THRESHOLDS`), ``true_`` (pixels) and ``peak_`` (see `peak`).
    """
    row: dict[str, Any] = {"pixels": probabilities[0].size}
    for name, probability, top in zip(ATTRIBUTES, probabilities, peaks, strict=True):
        counts = threshold_counts(probability, truths[name])
        row[f"hit_{name}"] = counts.hit.tolist()
        row[f"predicted_{name}"] = counts.predicted.tolist()
        row[f"true_{name}"] = counts.true
        row[f"peak_{name}"] = top
    return row


def compare_attributes(table: pd.DataFrame, folder: Path) -> pd.DataFrame | None:
    """Compare the attribute masks of a folder with the ground truth.

    Args:
        table: ``image_id, group_id`` and ``attribute_<attribute>``, ground-truth mask files; and
            ``presence_<attribute>`` where it was predicted.
        folder: The folder with ``<id>_attribute_<attribute>.png``; it may be missing.

    Returns:
        A table for `AttributesEvaluation.of` with the images whose attributes are all annotated;
        None if there are no such images or no folder.

    Raises:
        DataError: A predicted mask is missing or has another size.
        ImageError: A mask cannot be read.
    """
    columns = [column for column in TRUE_MASKS.values() if column in table.columns]
    known = table[table[columns].notna().all(axis="columns")]
    if len(columns) < len(ATTRIBUTES) or known.empty or not folder.is_dir():
        return None
    rows = []
    for record in known.to_dict("records"):
        image_id = record["image_id"]
        row: dict[str, Any] = {"image_id": image_id, "group_id": record["group_id"]}
        for name, column in TRUE_MASKS.items():
            path = stored(folder / f"{image_id}_attribute_{name}.png", image_id)
            if not path.exists():
                raise DataError(f"{path}: the mask is missing", "predict this image again")
            truth, mask = read_mask(Path(record[column])), read_mask(path)
            if truth.shape != mask.shape:
                raise DataError(
                    f"{path}: differs in size from {record[column]}", "predict this image again"
                )
            row["pixels"] = truth.size  # the same for all attributes of an image
            row[f"hit_{name}"] = [int(np.count_nonzero(truth & mask))]
            row[f"predicted_{name}"] = [int(np.count_nonzero(mask))]
            row[f"true_{name}"] = int(np.count_nonzero(truth))
            row[f"presence_{name}"] = record.get(f"presence_{name}", float("nan"))
        rows.append(row)
    import pandas as pd  # noqa: PLC0415 (slow to import)

    return pd.DataFrame(rows)


# Scores of attribute masks and presence probabilities.


class AttributeScores(NamedTuple):
    """Scores of one attribute; intervals are 95 %, by group.

    Attributes:
        shown: The number of images that show it.
        groups: The number of groups of these images.
        jaccard: The pooled Jaccard index.
        alone: The same at thresholds chosen for this attribute alone; None for given masks.
        auc: The AUC of its presence; None if all images or no images show it.
        thresholds: The threshold of each part, chosen on the other parts; empty for given masks.
    """

    shown: int
    groups: int
    jaccard: Interval
    alone: Interval | None
    auc: Interval | None
    thresholds: tuple[float, ...]


class FoldJaccard(NamedTuple):
    """The pooled Jaccard index over all attributes for the images of one fold."""

    fold: int
    images: int
    groups: int
    jaccard: float


class WorstImage(NamedTuple):
    """An image with many wrong pixels, as fractions of its size, summed over attributes.

    ``missed`` pixels are in the ground truth only, ``invented`` ones in the mask only.
    """

    image_id: str
    attribute: str
    missed: float
    invented: float


_WORST: Final = 40


@dataclass(frozen=True)
class AttributesEvaluation:
    """Scores of attribute masks and presence probabilities, pooled as in the challenge.

    Counts at several thresholds are cross-fitted: the thresholds of each part of the images
    (`parts_of`) maximise the index pooled over all attributes on the other parts.
    """

    images: int
    groups: int
    jaccard: Interval
    """Pooled over all attributes: the score of the challenge."""
    by_attribute: dict[str, AttributeScores]
    by_fold: tuple[FoldJaccard, ...]
    """Empty unless there are several folds."""
    thresholds: tuple[float, ...]
    """The best thresholds over all images, for use on other images. Empty for given masks."""
    presence: tuple[tuple[float, float], ...]
    """Slope and intercept of each attribute (`presence_of`), fitted on all images."""
    worst: tuple[WorstImage, ...]
    """Images with the most wrong pixels, each with the attribute that contributes most."""
    unit: Unit = "lesion"
    """What the groups are."""

    @classmethod
    @repeatable
    def of(cls, table: pd.DataFrame, unit: Unit = "lesion") -> AttributesEvaluation:
        """Evaluate masks of attributes.

        Args:
            table: Rows of `attribute_row` with ``image_id, group_id``, and ``fold`` where known; or
                of given masks, with a single count and ``presence_<attribute>`` instead of a peak.
            unit: What the groups are.

        Raises:
            DataError: There are no images, or an image has no group.
        """
        counts, groups = PooledCounts.of(table), table["group_id"].tolist()
        several = counts.hit.shape[2] > 1
        parts = parts_of(table.assign(diagnosis="")) if several else np.zeros(len(table), np.intp)
        cut, used = _cross_fitted(counts, parts)
        shown = counts.true > 0
        jaccards = _jaccards(cut, shown, groups)
        apart = None
        if several:
            single, _ = _cross_fitted(counts, parts, alone=True)
            apart = _jaccards(single, shown, groups)
        scores = _ranked(table)
        by_attribute = {
            name: AttributeScores(
                int(shown[:, k].sum()),
                _groups_of(shown[:, k], groups),
                jaccards[1 + k],
                None if apart is None else apart[1 + k],
                _auc(shown[:, k], scores[name], groups),
                tuple(used[:, k].tolist()) if several else (),
            )
            for k, name in enumerate(ATTRIBUTES)
        }
        return cls(
            images=len(table),
            groups=len(set(groups)),
            jaccard=jaccards[0],
            by_attribute=by_attribute,
            by_fold=_by_fold(table, cut),
            thresholds=counts.best_thresholds() if several else (),
            presence=tuple(
                fit_presence(scores[name], shown[:, k]) for k, name in enumerate(ATTRIBUTES)
            )
            if several
            else (),
            worst=_worst(table, cut),
            unit=unit,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation as a dictionary for JSON."""
        return {
            "images": self.images,
            "groups": self.groups,
            "jaccard": self.jaccard._asdict(),
            "by_attribute": {
                name: {
                    **one._asdict(),
                    "jaccard": one.jaccard._asdict(),
                    "alone": None if one.alone is None else one.alone._asdict(),
                    "auc": None if one.auc is None else one.auc._asdict(),
                }
                for name, one in self.by_attribute.items()
            },
            "by_fold": [one._asdict() for one in self.by_fold],
            "thresholds": dict(zip(ATTRIBUTES, self.thresholds, strict=False)),
            "presence": dict(zip(ATTRIBUTES, map(list, self.presence), strict=False)),
            "worst": [one._asdict() for one in self.worst],
        }


def is_attributes_table(table: pd.DataFrame) -> bool:
    """Return whether an out-of-fold table contains attributes."""
    return all(f"hit_{name}" in table.columns for name in ATTRIBUTES)


def fit_presence(peaks: NDArray[np.float64], shown: NDArray[np.bool_]) -> tuple[float, float]:
    """Fit slope and intercept of `presence_of` by maximum likelihood, with Platt's targets.

    Args:
        peaks: N peaks.
        shown: N, whether the attribute is present.

    Returns:
        Slope and intercept; (1, 0), which leaves the peak unchanged, if all images or no images
        show the attribute, or if the fitted slope is not positive.
    """
    positive, total = int(shown.sum()), len(shown)
    if not 0 < positive < total:
        return 1.0, 0.0
    inside = np.clip(peaks, _LEAST, 1 - _LEAST)
    design = np.column_stack([np.log(inside / (1 - inside)), np.ones(total)])
    target = np.where(shown, (positive + 1) / (positive + 2), 1 / (total - positive + 2))

    def loss(beta: NDArray[np.float64]) -> float:
        logits = design @ beta
        return float((np.logaddexp(0.0, logits) - target * logits).sum())

    # Newton's method. A whole step may overshoot where peaks are near 0 or 1, so steps that do not
    # improve the likelihood are halved.
    rate = float(target.mean())
    beta = np.array([0.0, math.log(rate / (1 - rate))])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(design @ beta, -30, 30)))
        hessian = (design * (p * (1 - p))[:, None]).T @ design + 1e-6 * np.eye(2)
        step = np.linalg.solve(hessian, design.T @ (target - p))
        while loss(beta + step) > loss(beta) and np.abs(step).max() > _STEP:
            step /= 2
        beta += step
        if np.abs(step).max() <= _STEP:
            break
    slope, intercept = beta.tolist()
    return (slope, intercept) if slope > 0 and np.isfinite(beta).all() else (1.0, 0.0)


def _cross_fitted(
    counts: PooledCounts, parts: NDArray[np.intp], *, alone: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return N x A x 3 fractions at thresholds chosen on other parts, and the thresholds, P x A."""
    cut = np.empty((*counts.true.shape, 3))
    numbers = np.unique(parts)
    used = np.zeros((len(numbers), counts.true.shape[1]))
    for row, part in enumerate(numbers):
        inside = parts == part
        others = ~inside if len(numbers) > 1 else inside
        places = counts.best_places(others, alone=alone)
        cut[inside] = counts.at_places(places)[inside]
        if counts.hit.shape[2] > 1:
            used[row] = [THRESHOLDS[place] for place in places]
    return cut, used


def cross_fitted_counts(table: pd.DataFrame, *, alone: bool = False) -> NDArray[np.float64]:
    """Return N x A x 3 fractions of pixels: in both, in the mask, and in the ground truth.

    Args:
        table: A table for `AttributesEvaluation.of`. Counts at several thresholds are cut at those
            chosen on the other parts of the images.
        alone: Whether to choose them for each attribute's own index.
    """
    counts = PooledCounts.of(table)
    several = counts.hit.shape[2] > 1
    parts = parts_of(table.assign(diagnosis="")) if several else np.zeros(len(table), np.intp)
    return _cross_fitted(counts, parts, alone=alone)[0]


def _jaccards(
    cut: NDArray[np.float64], shown: NDArray[np.bool_], groups: Sequence[str]
) -> list[Interval]:
    """Return Jaccard indices with intervals by group: over all attributes, then each."""
    some = np.column_stack([cut.any(axis=(1, 2)), shown])
    count = [_groups_of(rows, groups) for rows in some.T]
    return weighted_intervals(partial(_pooled, cut), groups, count=count)


def _groups_of(rows: NDArray[np.bool_], groups: Sequence[str]) -> int:
    return len(set(np.asarray(groups, object)[rows].tolist()))


def _pooled(cut: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return D x (1 + A) Jaccard indices of weighted images: over all attributes, then each.

    A weighting without a pixel of an attribute that other images have leaves its index undefined.
    """
    sums = (weights @ cut.reshape(len(cut), -1)).reshape(len(weights), *cut.shape[1:])
    sums = np.concatenate([sums.sum(axis=1, keepdims=True), sums], axis=1)
    found: NDArray[np.float64] = jaccard(sums[..., 0], sums[..., 1], sums[..., 2])
    some = np.append(cut.any(), cut.any(axis=(0, 2)))
    found[some & ~sums.any(axis=2)] = np.nan
    return found


def _ranked(table: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """Return the scores that rank the presence of each attribute."""
    kind = "presence" if f"presence_{next(iter(ATTRIBUTES))}" in table.columns else "peak"
    return {name: table[f"{kind}_{name}"].to_numpy(np.float64) for name in ATTRIBUTES}


def _auc(
    shown: NDArray[np.bool_], scores: NDArray[np.float64], groups: Sequence[str]
) -> Interval | None:
    if shown.all() or not shown.any() or np.isnan(scores).any():
        return None
    count = min(_groups_of(side, groups) for side in (shown, ~shown))
    return weighted_intervals(Ranking.of(shown, scores).auc, groups, count=count)[0]


def _by_fold(table: pd.DataFrame, cut: NDArray[np.float64]) -> tuple[FoldJaccard, ...]:
    if "fold" not in table or table["fold"].nunique() < 2:
        return ()
    folds = table["fold"].to_numpy()
    return tuple(
        FoldJaccard(
            int(fold),
            int((folds == fold).sum()),
            int(table.loc[folds == fold, "group_id"].nunique()),
            float(jaccard(*cut[folds == fold].sum(axis=(0, 1)))),
        )
        for fold in sorted(set(folds.tolist()))
    )


def _worst(table: pd.DataFrame, cut: NDArray[np.float64]) -> tuple[WorstImage, ...]:
    invented, missed = cut[:, :, 1] - cut[:, :, 0], cut[:, :, 2] - cut[:, :, 0]
    wrong = invented + missed
    names = tuple(ATTRIBUTES)
    order = np.argsort(-wrong.sum(axis=1), kind="stable")[:_WORST]
    return tuple(
        WorstImage(
            str(table["image_id"].iloc[row]),
            names[int(wrong[row].argmax())],
            float(missed[row].sum()),
            float(invented[row].sum()),
        )
        for row in order.tolist()
    )
