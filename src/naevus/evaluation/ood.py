"""Out-of-distribution scores: a factor model of the networks' features."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from naevus.errors import ConfigError, DataError
from naevus.evaluation.bootstrap import Groups, repeatable

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import ArrayLike, NDArray


def checked_features(values: ArrayLike, width: int | None = None) -> NDArray[np.float64]:
    """Return N x F values as float64.

    Args:
        values: One row per image.
        width: F, if known.

    Raises:
        DataError: The shape differs, or a value is not finite.
    """
    rows = np.asarray(values, np.float64)
    if rows.ndim != 2 or not rows.shape[1] or (width is not None and rows.shape[1] != width):
        wanted = "N x F" if width is None else f"N x {width}"
        raise DataError(f"features of shape {rows.shape} are not {wanted}")
    if not np.isfinite(rows).all():
        raise DataError("a feature is not a finite number", "export the bundle again")
    return rows


# A Gaussian with few principal directions and isotropic noise, as model of the embeddings.

_GRID: Final = 2.0**16
"""Differences from the mean are rounded to steps of its inverse, about 1e-7 of a distance.

Half-precision directions are multiples of 2^-24, so every product is a multiple of 2^-40, and sums
up to 2^13 are exact in 53 bits. The result is therefore independent of the order of summation,
which depends on the number of threads.
"""


@dataclass(frozen=True)
class FactorModel:
    """Probabilistic principal components (Tipping & Bishop, J. R. Statist. Soc. B 1999).

    The covariance has K directions of largest variance, and equal small variance in all others.
    This strongly shrunk covariance needs K x F numbers instead of F x F. One mean for all classes
    detects as well as one mean per class.

    Attributes:
        mean: F.
        basis: F x K orthonormal directions, in half precision, as stored.
        variances: K variances along them, descending.
        noise: The variance in every other direction.
    """

    mean: NDArray[np.float32]
    basis: NDArray[np.float16]
    variances: NDArray[np.float32]
    noise: float

    def __post_init__(self) -> None:
        features, factors = self.basis.shape if self.basis.ndim == 2 else (0, 0)
        if (
            not 0 < factors < features
            or self.mean.shape != (features,)
            or self.variances.shape != (factors,)
        ):
            raise DataError("mean, directions and variances do not match")
        if not all(np.isfinite(part).all() for part in (self.mean, self.basis, self.variances)):
            raise DataError("a mean, direction or variance is not a finite number")
        if not (self.noise > 0 and np.isfinite(self.noise) and (self.variances > 0).all()):
            raise DataError("a variance is not above 0")

    @classmethod
    def fit(cls, rows: ArrayLike, factors: int) -> Self:
        """Fit the directions as eigenvectors of the covariance.

        Args:
            rows: N x F.
            factors: K, below F and below N - 1.

        Raises:
            ConfigError: There are too few features or images for K directions.
            DataError: The rows are not N x F finite numbers, or do not vary.
        """
        values = checked_features(rows)
        images, features = values.shape
        if not 0 < factors < min(features, images - 1):
            raise ConfigError(
                f"{factors} directions from {images} images of {features} features",
                "ask for fewer directions or give more images",
            )
        mean = values.mean(axis=0)
        rest = values - mean
        spectrum, vectors = np.linalg.eigh(rest.T @ rest / images)
        spectrum, vectors = spectrum[::-1], vectors[:, ::-1]
        noise = float(spectrum[factors:].mean())
        # Rounding leaves eigenvalues near 0 where the rows do not vary at all.
        if not noise > 1e-12 * max(float(spectrum[0]), 1e-300):
            raise DataError(
                f"the features vary in no more than {factors} directions", "give more images"
            )
        return cls(
            mean.astype(np.float32),
            vectors[:, :factors].astype(np.float16),
            spectrum[:factors].astype(np.float32),
            noise,
        )

    def distances(self, rows: ArrayLike) -> NDArray[np.float64]:
        """Return the Mahalanobis distances of N x F rows to the mean.

        They are bitwise independent of the number of threads: see `_GRID`.

        Raises:
            DataError: The rows are not N x F finite numbers.
        """
        rest = np.round((checked_features(rows, len(self.mean)) - self.mean) * _GRID) / _GRID
        along = rest @ self._directions
        inside = (along**2 / self.variances).sum(axis=1)
        outside = np.maximum((rest**2).sum(axis=1) - (along**2).sum(axis=1), 0) / self.noise
        return np.asarray(np.sqrt(inside + outside))

    @cached_property
    def _directions(self) -> NDArray[np.float64]:
        """F x K in float64, converted once for all batches."""
        return self.basis.astype(np.float64)


FACTORS = 128
"""K of the factor model. Chosen, like the constants below, by ``benchmarks/not_dermoscopy.py``."""
FLAGGED = 0.02
"""The default fraction of dermoscopic images to flag."""
LIMIT = 1.0
"""Images with a larger `ood_score` are flagged."""


@dataclass(frozen=True)
class OODStatistics:
    """Statistics that turn one network's features into an OOD score.

    The features (`inference.reference`) are divided by their standard deviations over the training
    images; a `FactorModel` gives their distance. The score is the distance minus its median over
    held-out dermoscopic images, divided by the difference between threshold and median.

    Attributes:
        deviations: F standard deviations; 1 for a constant feature.
        model: The model of the divided features.
        centre: The median of the distances.
        spread: The threshold minus the median.
    """

    deviations: NDArray[np.float32]
    model: FactorModel
    centre: float
    spread: float

    def __post_init__(self) -> None:
        if self.deviations.shape != self.model.mean.shape:
            raise DataError("the deviations and the model differ in width")
        if not (np.isfinite(self.deviations).all() and (self.deviations > 0).all()):
            raise DataError("a deviation is not above 0")
        if not np.isfinite([self.centre, self.spread]).all() or self.spread <= 0:
            raise DataError("the centre is not a finite number, or the spread is not above 0")

    @classmethod
    @repeatable
    def fit(
        cls,
        learnt: ArrayLike,
        oof: ArrayLike,
        groups: Sequence[Hashable],
        *,
        factors: int = FACTORS,
        flagged: float = FLAGGED,
    ) -> Self:
        """Fit the model to training images and the threshold to held-out images.

        Args:
            learnt: N x F features of training images.
            oof: M x F features of dermoscopic images that the network was not trained on; training
                images are closer to each other than new images are to them.
            groups: M group ids of the held-out images.
            factors: The number of directions; at most half the number of features and a quarter of
                the number of training images.
            flagged: The fraction of held-out images that may be flagged. It holds for images, and
                for groups, where the images of a group share its weight.

        Raises:
            ConfigError: There are too few images, or the fraction is not between 0 and 1.
            DataError: The arrays do not match, or do not vary.
        """
        if not 0 < flagged < 1:
            raise ConfigError(f"the fraction {flagged} is not between 0 and 1", "choose 0.02, say")
        known = checked_features(learnt)
        new = checked_features(oof, known.shape[1])
        if len(groups) != len(new):
            raise DataError(f"{len(groups)} groups for {len(new)} held-out images")
        if not len(new):
            raise DataError("there are no held-out images", "hold some out")
        deviations = known.std(axis=0).astype(np.float32)
        deviations[deviations == 0] = 1
        count = min(factors, known.shape[1] // 2, len(known) // 4)
        model = FactorModel.fit(known / deviations, count)
        found = model.distances(new / deviations)
        centre = float(np.median(found))
        spread = max(_upper(found, weight, flagged) for weight in _weights(groups)) - centre
        if not spread > 0:
            raise DataError("all held-out images have equal features: there is no threshold")
        return cls(deviations, model, centre, spread)

    def ood_score(self, features: ArrayLike) -> NDArray[np.float64]:
        """Return the OOD scores of N x F features.

        Returns:
            N numbers: about 0 for a typical dermoscopic image, and above `LIMIT` for images with a
            larger distance than all but the flagged fraction.

        Raises:
            DataError: The features are not N x F finite numbers.
        """
        rows = checked_features(features, len(self.deviations))
        return (self.model.distances(rows / self.deviations) - self.centre) / self.spread


def _weights(groups: Sequence[Hashable]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the weight of each image: 1 / images, and its part of its group's 1 / groups."""
    numbered = Groups.of(groups)
    return np.ones(len(groups)), 1 / numbered.sizes[numbered.codes]


def _upper(values: NDArray[np.float64], weights: NDArray[np.float64], fraction: float) -> float:
    """Return the smallest value above which at most a fraction of the weight lies."""
    order = np.argsort(values)[::-1]
    above = np.cumsum(weights[order]) - weights[order]
    fits = above <= fraction * weights.sum() + 1e-9
    # Of equal values, take the first: only greater ones precede it.
    return float(values[order][fits].min())
