"""One temperature for all classes: how sure a network may be of what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from naevus.errors import DataError, NaevusError
from naevus.evaluation.calibration.metrics import checked_rows
from naevus.evaluation.decisions import natural_log_probabilities

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

BOUNDS = (0.2, 5.0)
"""No temperature outside is believed: so few pictures that all are right would give 0."""


class CrossFitted(NamedTuple):
    """Natural probabilities of pictures that had no part in the temperature they were given."""

    natural: NDArray[np.float64]
    """N x C."""
    temperatures: tuple[float, ...]
    """That of each part, fitted on the others."""


def fit_temperature(natural: ArrayLike, truth: ArrayLike) -> float:
    """Return the temperature that makes the mean negative log-likelihood least.

    Guo et al., On calibration of modern neural networks, ICML 2017. The natural logits are divided
    by it, and natural log-probabilities differ from these by a constant a picture only. The loss
    is convex in 1 / T, so that the one minimum within `BOUNDS` is found.

    Every picture counts once. A natural probability is that of a picture drawn as the training
    pictures were; counting each group once would fit it to the case mix of lesions, of which a
    smaller share are melanomas because these are photographed more often.

    Args:
        natural: N x C out-of-fold natural probabilities, at temperature 1.
        truth: N positions of the true classes.

    Raises:
        DataError: There is no picture, or the arrays do not belong together.
        NaevusError: SciPy is not installed.
    """
    try:
        from scipy.optimize import minimize_scalar  # noqa: PLC0415 (an extra)
    except ImportError:
        raise NaevusError(
            "fitting a temperature needs SciPy", "pip install 'naevus[evaluate]'"
        ) from None
    rows, classes = _checked(natural, truth)
    logarithms, even = _logarithms(rows), np.ones(rows.shape[1])
    chosen = np.arange(len(rows)), classes

    def loss(log_temperature: float) -> float:
        temperature = float(np.exp(log_temperature))
        return -float(natural_log_probabilities(logarithms, even, temperature)[chosen].mean())

    found = minimize_scalar(loss, bounds=np.log(BOUNDS), method="bounded")
    return float(np.exp(found.x))


def tempered(natural: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Return natural probabilities at another temperature: ``p^(1/T)``, normalised.

    Args:
        natural: Probabilities at temperature 1, N x C (or C).
        temperature: T; above 1 makes them less sure.

    Raises:
        ConfigError: The temperature is not above 0.
    """
    rows = np.asarray(natural, np.float64)
    return np.exp(
        natural_log_probabilities(_logarithms(rows), np.ones(rows.shape[-1]), temperature)
    )


def cross_fitted(natural: ArrayLike, truth: ArrayLike, parts: NDArray[np.intp]) -> CrossFitted:
    """Give each part of the pictures the temperature that fits the other parts.

    Args:
        natural: N x C out-of-fold natural probabilities, at temperature 1.
        truth: N positions of the true classes.
        parts: N numbers from 0 (`parts_of`).

    Raises:
        DataError: The arrays do not belong together, or there is one part only.
        NaevusError: SciPy is not installed.
    """
    rows, classes = _checked(natural, truth)
    fitted, temperatures = np.empty_like(rows), []
    for inside in each_part(parts, len(rows)):
        temperatures.append(fit_temperature(rows[~inside], classes[~inside]))
        fitted[inside] = tempered(rows[inside], temperatures[-1])
    return CrossFitted(fitted, tuple(temperatures))


def each_part(parts: NDArray[np.intp], pictures: int) -> list[NDArray[np.bool_]]:
    """Return which of N pictures are in each part.

    Raises:
        DataError: There are not N of them, or fewer than two parts.
    """
    numbers = np.unique(parts)
    if parts.shape != (pictures,) or len(numbers) < 2:
        raise DataError(
            f"{pictures} pictures are in {len(numbers)} parts of {len(parts)}",
            "what is fitted on some pictures is judged on others: give two parts or more",
        )
    return [np.asarray(parts == number) for number in numbers]


def _checked(natural: ArrayLike, truth: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    rows = np.asarray(natural, np.float64)
    if not rows.size:
        raise DataError("there is no picture to fit a temperature on", "give at least one")
    return checked_rows(rows, truth, len(rows))


def _logarithms(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    # A probability that left float64's range is not impossible, only very small.
    return np.log(np.maximum(rows, np.finfo(np.float64).tiny))
