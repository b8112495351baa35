"""Temperature and offsets by class, cross-fitted over parts of whole groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from naevus.errors import ConfigError, DataError, NaevusError
from naevus.evaluation.bootstrap import SEED, Groups
from naevus.evaluation.calibration import checked_rows
from naevus.evaluation.priors import natural_log_probabilities

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray


# Parts of a table that are fitted without one another: folds, or halves of the groups.


def parts_of(table: pd.DataFrame, *, seed: int = SEED) -> NDArray[np.intp]:
    """Return each image's part; what judges a part is fitted on the others alone.

    The parts are the folds of the table. Where there is but one, they are two halves of its groups,
    drawn within each diagnosis.

    Args:
        table: ``group_id`` and ``diagnosis``, and ``fold`` where there is more than one.
        seed: Of the draw.

    Returns:
        N numbers from 0.

    Raises:
        DataError: There is no image, one has no group or no fold, or a group is in two folds.
    """
    groups = Groups.of(table["group_id"].tolist(), table["diagnosis"].tolist())
    if "fold" in table.columns and len(table["fold"].unique()) > 1:
        return _folds(table["fold"], groups)
    return assign_parts(groups, 2, seed)


def assign_parts(groups: Groups, parts: int, seed: int = SEED) -> NDArray[np.intp]:
    """Deal whole groups out to parts as even as can be, within each stratum and over all.

    Args:
        groups: The groups of N images, with their diagnoses as strata.
        parts: How many parts.
        seed: Of the deal.

    Returns:
        N numbers from 0.
    """
    rng = np.random.default_rng(seed)
    part = np.empty(len(groups), np.intp)
    done = 0  # the rest of a stratum goes to the parts in turn, over all strata
    for members in groups.strata:
        part[rng.permutation(members)] = (done + np.arange(len(members))) % parts
        done += len(members)
    return part[groups.codes]


def _folds(folds: pd.Series[int], groups: Groups) -> NDArray[np.intp]:
    import pandas as pd  # noqa: PLC0415 (slow to import)

    if folds.isna().any():
        raise DataError(f"{int(folds.isna().sum())} images have no fold", "give each one")
    parts: NDArray[np.intp] = pd.factorize(folds, sort=True)[0]
    pairs = np.unique(np.stack([groups.codes, parts]), axis=1)
    if pairs.shape[1] > len(groups):
        raise DataError("a group is in two folds", "use a table made over folds of whole groups")
    return parts


BOUNDS = (0.2, 5.0)
"""No temperature outside is believed: so few images that all are right would give 0."""
SPREAD = 0.5
"""Offsets are drawn to 0 as by a normal prior of this deviation: few images of a class tell
little of its offset, and none tell nothing."""


class Scaling(NamedTuple):
    """How natural log-probabilities are calibrated: ``log_softmax(log p / T + b)``."""

    temperature: float
    """T; above 1 makes them less sure."""
    offsets: tuple[float, ...]
    """b_c; above 0 where images of a class are more common than the network says."""


class CrossFitted(NamedTuple):
    """Natural probabilities of images that had no part in the scaling they were given."""

    natural: NDArray[np.float64]
    """N x C."""
    scalings: tuple[Scaling, ...]
    """That of each part, fitted on the others."""


def fit_scaling(natural: ArrayLike, truth: ArrayLike) -> Scaling:
    """Return the temperature and offsets that make the mean negative log-likelihood least.

    Bias-corrected temperature scaling (Alexandari et al., Maximum likelihood with bias-corrected
    calibration is hard-to-beat at label shift adaptation, ICML 2020). A network knows its training
    images of rare classes by heart, and gives too little to those classes on new images. One
    temperature cannot mend that, and dividing by the shares, for the balanced probabilities, makes
    most of it. The loss is convex in 1 / T and b.

    Every image counts once. A natural probability is that of an image drawn as the training
    images were; counting each group once would fit it to the case mix of lesions, of which a
    smaller fraction are melanomas because these are photographed more often.

    Args:
        natural: N x C out-of-fold natural probabilities, as the network means them.
        truth: N positions of the true classes.

    Raises:
        DataError: There is no image, or the arrays do not belong together.
        NaevusError: SciPy is not installed.
    """
    try:
        from scipy.optimize import minimize  # noqa: PLC0415 (an extra)
    except ImportError:
        raise NaevusError(
            "fitting a calibration needs SciPy", "pip install 'naevus[evaluate]'"
        ) from None
    rows, classes = _checked(natural, truth)
    logarithms = _logarithms(rows)
    one_hot = np.eye(rows.shape[1])[classes]
    strength = 1 / (SPREAD**2 * len(rows))

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        sharpness, offsets = parameters[0], parameters[1:]
        scaling = Scaling(1 / float(sharpness), tuple(offsets))
        weights = corrected_weights(np.ones(len(offsets)), scaling)
        found = natural_log_probabilities(logarithms, weights, scaling.temperature)
        off = np.exp(found) - one_hot
        value = -(found * one_hot).sum() / len(rows) + strength * (offsets**2).sum() / 2
        slopes = [(off * logarithms).sum() / len(rows), *(off.mean(axis=0) + strength * offsets)]
        return float(value), np.array(slopes)

    found = minimize(
        loss,
        np.array([1.0, *np.zeros(rows.shape[1])]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(1 / BOUNDS[1], 1 / BOUNDS[0]), *[(None, None)] * rows.shape[1]],
        options={"ftol": 1e-12, "gtol": 1e-8},
    )
    return Scaling(float(1 / found.x[0]), tuple(found.x[1:].tolist()))


def scaled(natural: ArrayLike, scaling: Scaling) -> NDArray[np.float64]:
    """Return calibrated natural probabilities: ``p^(1/T) exp(b)``, normalised.

    Args:
        natural: Probabilities as the network means them, N x C (or C).
        scaling: What was fitted.

    Raises:
        ConfigError: The temperature is not above 0, or there are not C offsets.
    """
    rows = np.asarray(natural, np.float64)
    weights = corrected_weights(np.ones(rows.shape[-1]), scaling)
    return np.exp(natural_log_probabilities(_logarithms(rows), weights, scaling.temperature))


def corrected_weights(weights: ArrayLike, scaling: Scaling) -> NDArray[np.float64]:
    """Return class weights that hold the offsets too.

    A class that counted more in training and one that the network gives too much to are the same to
    the answers: ``(z - log w) / T + b = (z - log(w exp(-T b))) / T``.

    Args:
        weights: The C weights ``w_c`` of `naevus.evaluation.priors`.
        scaling: What was fitted to answers freed of them.

    Raises:
        ConfigError: There are not C offsets.
    """
    before, offsets = np.asarray(weights, np.float64), np.asarray(scaling.offsets, np.float64)
    if offsets.shape != before.shape:
        raise ConfigError(
            f"{len(offsets)} offsets for {len(before)} classes", "give one for each class"
        )
    return before * np.exp(-scaling.temperature * offsets)


def cross_fitted(natural: ArrayLike, truth: ArrayLike, parts: NDArray[np.intp]) -> CrossFitted:
    """Give each part of the images the scaling that fits the other parts.

    Args:
        natural: N x C out-of-fold natural probabilities, as the network means them.
        truth: N positions of the true classes.
        parts: N numbers from 0 (`parts_of`).

    Raises:
        DataError: The arrays do not belong together, or there is one part only.
        NaevusError: SciPy is not installed.
    """
    rows, classes = _checked(natural, truth)
    fitted, scalings = np.empty_like(rows), []
    for inside in each_part(parts, len(rows)):
        scalings.append(fit_scaling(rows[~inside], classes[~inside]))
        fitted[inside] = scaled(rows[inside], scalings[-1])
    return CrossFitted(fitted, tuple(scalings))


def each_part(parts: NDArray[np.intp], images: int) -> list[NDArray[np.bool_]]:
    """Return which of N images are in each part.

    Raises:
        DataError: There are not N of them, or fewer than two parts.
    """
    numbers = np.unique(parts)
    if parts.shape != (images,) or len(numbers) < 2:
        raise DataError(
            f"{images} images are in {len(numbers)} parts of {len(parts)}",
            "what is fitted on some images is judged on others: give two parts or more",
        )
    return [np.asarray(parts == number) for number in numbers]


def _checked(natural: ArrayLike, truth: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    rows = np.asarray(natural, np.float64)
    if not rows.size:
        raise DataError("there is no image to fit a calibration on", "give at least one")
    return checked_rows(rows, truth, len(rows))


def _logarithms(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    # A probability that left float64's range is not impossible, only very small.
    return np.log(np.maximum(rows, np.finfo(np.float64).tiny))
