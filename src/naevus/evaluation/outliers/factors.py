"""A Gaussian of few directions and even noise: what an embedding of a dermoscopic picture is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from naevus.errors import ConfigError, DataError
from naevus.evaluation.outliers.scores import checked_features

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_GRID: Final = 2.0**16
"""Differences from the mean are told in steps of its inverse, some 1e-7 of a distance.

Directions in half precision are multiples of 2^-24, so that every product is one of 2^-40, and sums
up to 2^13 of them are exact in 53 bits: no order of adding, which hangs on the number of threads,
changes a bit.
"""


@dataclass(frozen=True)
class FactorModel:
    """Probabilistic principal components (Tipping & Bishop, J. R. Statist. Soc. B 1999).

    The covariance is that of the K directions in which embeddings vary most, and the same small
    variance in all others: a strongly shrunk covariance that takes K x F numbers in place of
    F x F. The class does not matter: with one mean the distance tells as much as with one a class.

    Attributes:
        mean: F.
        basis: F x K orthonormal directions, in half precision, as they are stored.
        variances: K variances along them, falling.
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
            raise DataError("mean, directions and variances do not belong together")
        if not all(np.isfinite(part).all() for part in (self.mean, self.basis, self.variances)):
            raise DataError("a mean, direction or variance is not a finite number")
        if not (self.noise > 0 and np.isfinite(self.noise) and (self.variances > 0).all()):
            raise DataError("a variance is not above 0")

    @classmethod
    def fit(cls, rows: ArrayLike, factors: int) -> Self:
        """Find the directions by the eigenvectors of the covariance.

        Args:
            rows: N x F.
            factors: K, below F and below N - 1.

        Raises:
            ConfigError: There are not more features and pictures than directions.
            DataError: The rows are not N x F finite numbers, or do not vary.
        """
        values = checked_features(rows)
        pictures, features = values.shape
        if not 0 < factors < min(features, pictures - 1):
            raise ConfigError(
                f"{factors} directions from {pictures} pictures of {features} features",
                "ask for fewer directions or give more pictures",
            )
        mean = values.mean(axis=0)
        rest = values - mean
        spectrum, vectors = np.linalg.eigh(rest.T @ rest / pictures)
        spectrum, vectors = spectrum[::-1], vectors[:, ::-1]
        noise = float(spectrum[factors:].mean())
        # Rounding leaves eigenvalues about 0 where the rows do not vary at all.
        if not noise > 1e-12 * max(float(spectrum[0]), 1e-300):
            raise DataError(
                f"the features vary in no more than {factors} directions", "give more pictures"
            )
        return cls(
            mean.astype(np.float32),
            vectors[:, :factors].astype(np.float16),
            spectrum[:factors].astype(np.float32),
            noise,
        )

    def distances(self, rows: ArrayLike) -> NDArray[np.float64]:
        """Return the Mahalanobis distances of N x F rows to the mean.

        They are the same bits however many threads the linear algebra has: see `_GRID`.

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
        """F x K, made once: every batch of pictures is measured along them."""
        return self.basis.astype(np.float64)
