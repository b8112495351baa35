"""Temperature scaling with class offsets, cross-fitted over parts of whole groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from naevus.errors import ConfigError, DataError, NaevusError
from naevus.evaluation.bootstrap import SEED, Groups
from naevus.evaluation.calibration import checked_rows
from naevus.evaluation.priors import natural_log_probabilities
from naevus.io.extras import how_to_install

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray


# Parts of a table for cross-fitting: folds, or halves of the groups.


def parts_of(table: pd.DataFrame, *, seed: int = SEED) -> NDArray[np.intp]:
    """Return the part of each image for cross-fitting: a part is scored with fits on the others.

    The parts are the folds of the table. If there is only one fold, they are two random halves of
    its groups, stratified by diagnosis.

    Args:
        table: ``group_id`` and ``diagnosis``, and ``fold`` if there are several.
        seed: The random seed.

    Returns:
        N part numbers from 0.

    Raises:
        DataError: There are no images, one has no group or no fold, or a group is in two folds.
    """
    groups = Groups.of(table["group_id"].tolist(), table["diagnosis"].tolist())
    if "fold" in table.columns and len(table["fold"].unique()) > 1:
        return _folds(table["fold"], groups)
    return assign_parts(groups, 2, seed)


def assign_parts(groups: Groups, parts: int, seed: int = SEED) -> NDArray[np.intp]:
    """Assign whole groups to parts of nearly equal size, within each stratum and overall.

    Args:
        groups: The groups of N images, with their diagnoses as strata.
        parts: The number of parts.
        seed: The random seed.

    Returns:
        N part numbers from 0.
    """
    rng = np.random.default_rng(seed)
    part = np.empty(len(groups), np.intp)
    done = 0  # remainders of the strata are assigned to the parts in turn
    for members in groups.strata:
        part[rng.permutation(members)] = (done + np.arange(len(members))) % parts
        done += len(members)
    return part[groups.codes]


def _folds(folds: pd.Series[int], groups: Groups) -> NDArray[np.intp]:
    import pandas as pd  # noqa: PLC0415 (slow to import)

    if folds.isna().any():
        raise DataError(f"{int(folds.isna().sum())} images have no fold", "give one per image")
    parts: NDArray[np.intp] = pd.factorize(folds, sort=True)[0]
    pairs = np.unique(np.stack([groups.codes, parts]), axis=1)
    if pairs.shape[1] > len(groups):
        raise DataError("a group is in two folds", "use a table made over folds of whole groups")
    return parts


BOUNDS = (0.2, 5.0)
"""Limits of the temperature: with few images, all classified correctly, the optimum would be 0."""
SPREAD = 0.5
"""Standard deviation of a normal prior on the offsets, with mean 0: it shrinks the offset of
classes with few images."""


class Scaling(NamedTuple):
    """Calibration of natural log-probabilities: ``log_softmax(log p / T + b)``."""

    temperature: float
    """T; above 1 reduces confidence."""
    offsets: tuple[float, ...]
    """b_c; positive if the class is more common than predicted."""


class CrossFitted(NamedTuple):
    """Natural probabilities, each calibrated with a scaling fitted on other parts."""

    natural: NDArray[np.float64]
    """N x C."""
    scalings: tuple[Scaling, ...]
    """The scaling of each part, fitted on the others."""


def fit_scaling(natural: ArrayLike, truth: ArrayLike) -> Scaling:
    """Return the temperature and offsets that minimise the mean negative log-likelihood.

    Bias-corrected temperature scaling (Alexandari et al., Maximum likelihood with bias-corrected
    calibration is hard-to-beat at label shift adaptation, ICML 2020). Networks overfit the training
    images of rare classes, and underestimate these classes on new images. A temperature cannot
    correct this, and the division by class priors for balanced probabilities amplifies it. The
    loss is convex in 1 / T and b.

    Every image has equal weight, because natural probabilities refer to the distribution of the
    training images. Equal weight per group would fit the case mix of lesions, which contains
    fewer melanomas because these are photographed more often.

    Args:
        natural: N x C out-of-fold natural probabilities, before calibration.
        truth: N positions of the true classes.

    Raises:
        DataError: There are no images, or the arrays do not match.
        NaevusError: SciPy is not installed.
    """
    try:
        from scipy.optimize import minimize  # noqa: PLC0415 (an extra)
    except ImportError:
        raise NaevusError("fitting a calibration needs SciPy", how_to_install("evaluate")) from None
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
        natural: Uncalibrated probabilities, N x C (or C).
        scaling: The fitted calibration.

    Raises:
        ConfigError: The temperature is not positive, or there are not C offsets.
    """
    rows = np.asarray(natural, np.float64)
    weights = corrected_weights(np.ones(rows.shape[-1]), scaling)
    return np.exp(natural_log_probabilities(_logarithms(rows), weights, scaling.temperature))


def corrected_weights(weights: ArrayLike, scaling: Scaling) -> NDArray[np.float64]:
    """Return class weights that include the offsets.

    Class weights and offsets have equivalent effects on the predictions:
    ``(z - log w) / T + b = (z - log(w exp(-T b))) / T``.

    Args:
        weights: The C weights ``w_c`` of `naevus.evaluation.priors`.
        scaling: The calibration fitted to predictions corrected for these weights.

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
    """Calibrate each part of the images with the scaling fitted on the other parts.

    Args:
        natural: N x C out-of-fold natural probabilities, before calibration.
        truth: N positions of the true classes.
        parts: N part numbers from 0 (`parts_of`).

    Raises:
        DataError: The arrays do not match, or there is only one part.
        NaevusError: SciPy is not installed.
    """
    rows, classes = _checked(natural, truth)
    fitted, scalings = np.empty_like(rows), []
    for inside in each_part(parts, len(rows)):
        scalings.append(fit_scaling(rows[~inside], classes[~inside]))
        fitted[inside] = scaled(rows[inside], scalings[-1])
    return CrossFitted(fitted, tuple(scalings))


def each_part(parts: NDArray[np.intp], images: int) -> list[NDArray[np.bool_]]:
    """Return a mask of N images for each part.

    Raises:
        DataError: ``parts`` does not have N values, or there are fewer than two parts.
    """
    numbers = np.unique(parts)
    if parts.shape != (images,) or len(numbers) < 2:
        raise DataError(
            f"{len(parts)} part numbers, {len(numbers)} of them different, for {images} images",
            "cross-fitting needs a part for every image, and two parts or more",
        )
    return [np.asarray(parts == number) for number in numbers]


def _checked(natural: ArrayLike, truth: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    rows = np.asarray(natural, np.float64)
    if not rows.size:
        raise DataError("there are no images to fit a calibration on", "give at least one")
    return checked_rows(rows, truth, len(rows))


def _logarithms(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    # A probability that underflowed is very small, not 0.
    return np.log(np.maximum(rows, np.finfo(np.float64).tiny))
