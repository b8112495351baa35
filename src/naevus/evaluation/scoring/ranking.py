"""How well a probability ranks the pictures of one class above the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from naevus.errors import NaevusError

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray


def auc(
    truth: NDArray[np.bool_],
    probabilities: NDArray[np.floating[Any]],
    weights: NDArray[np.float64] | None = None,
) -> float | None:
    """Return the area under the ROC curve, or None where a side of the truth is absent.

    Args:
        truth: N, true where the picture is of the class.
        probabilities: N, the class's probability.
        weights: N weights of the pictures; all 1 if None.

    Raises:
        NaevusError: scikit-learn is not installed.
    """
    if not both_sides(truth, weights):
        return None
    return float(_metrics().roc_auc_score(truth, probabilities, sample_weight=weights))


def auc_above_sensitivity(
    truth: NDArray[np.bool_],
    probabilities: NDArray[np.floating[Any]],
    sensitivity: float,
    weights: NDArray[np.float64] | None = None,
) -> float | None:
    """Return the area under that part of the ROC curve whose sensitivity is high enough.

    The curve is cut by linear interpolation where it first reaches ``sensitivity``; the area is
    the raw one, down to the axis, so that a perfect ranking has 1 (ISIC challenges,
    "AUC, Sens > 80%").

    Args:
        truth: N, true where the picture is of the class.
        probabilities: N, the class's probability.
        sensitivity: Where the curve is cut, above 0 and at most 1.
        weights: N weights of the pictures; all 1 if None.

    Raises:
        NaevusError: scikit-learn is not installed.
    """
    if not both_sides(truth, weights):
        return None
    metrics = _metrics()
    fpr, tpr, _ = metrics.roc_curve(
        truth, probabilities, sample_weight=weights, drop_intermediate=False
    )
    first = int(np.argmax(tpr >= sensitivity))
    rise = tpr[first] - tpr[first - 1]
    along = (sensitivity - tpr[first - 1]) / rise
    cut = fpr[first - 1] + along * (fpr[first] - fpr[first - 1])
    return float(metrics.auc(np.append(cut, fpr[first:]), np.append(sensitivity, tpr[first:])))


def average_precision(
    truth: NDArray[np.bool_],
    probabilities: NDArray[np.floating[Any]],
    weights: NDArray[np.float64] | None = None,
) -> float | None:
    """Return the mean precision over the steps of recall, or None where a side is absent.

    Args:
        truth: N, true where the picture is of the class.
        probabilities: N, the class's probability.
        weights: N weights of the pictures; all 1 if None.

    Raises:
        NaevusError: scikit-learn is not installed.
    """
    if not both_sides(truth, weights):
        return None
    return float(_metrics().average_precision_score(truth, probabilities, sample_weight=weights))


def both_sides(truth: NDArray[np.bool_], weights: NDArray[np.float64] | None = None) -> bool:
    """Tell whether pictures that count are on both sides: in the class and out of it."""
    counted = truth if weights is None else truth[weights > 0]
    return bool(counted.any() and not counted.all())


def _metrics() -> ModuleType:
    try:
        import sklearn.metrics  # noqa: PLC0415
    except ImportError:
        raise NaevusError(
            "scikit-learn, which ranks probabilities, is not installed",
            "pip install naevus[evaluate]",
        ) from None
    module: ModuleType = sklearn.metrics
    return module
