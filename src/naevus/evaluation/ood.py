"""How unlike its training images an image is: a factor model of the networks' features."""

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
        values: One row an image.
        width: F, where it is known.

    Raises:
        DataError: They are of another shape, or one is not finite.
    """
    rows = np.asarray(values, np.float64)
    if rows.ndim != 2 or not rows.shape[1] or (width is not None and rows.shape[1] != width):
        wanted = "N x F" if width is None else f"N x {width}"
        raise DataError(f"features of shape {rows.shape} are not {wanted}")
    if not np.isfinite(rows).all():
        raise DataError("a feature is not a finite number", "export the bundle again")
    return rows


# A Gaussian of few directions and even noise: what an embedding of a dermoscopic image is.

_GRID: Final = 2.0**16
"""Differences from the mean are resolved in steps of its inverse, some 1e-7 of a distance.

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
            ConfigError: There are not more features and images than directions.
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
        # Rounding leaves eigenvalues about 0 where the rows do not vary at all.
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
        """F x K, made once: every batch of images is measured along them."""
        return self.basis.astype(np.float64)


FACTORS = 128
"""K of the factor model. Chosen, like all here, by ``benchmarks/not_dermoscopy.py``."""
FLAGGED = 0.02
"""The fraction of dermoscopic images that may be flagged."""
LIMIT = 1.0
"""Above it, an `ood_score` is that of an image that is flagged."""


@dataclass(frozen=True)
class OODStatistics:
    """How far one network's features of dermoscopy are from their mean.

    The features are what the network's graph tells best (`inference.reference`), each in steps of
    its standard deviation over the images learnt from; the distance is that of a `FactorModel`.
    It is measured from its median over dermoscopic images that the network never saw, in steps to
    the threshold that is set on them.

    Attributes:
        deviations: F standard deviations; 1 where a feature does not vary.
        model: The model of the features so divided.
        centre: The median of the distances.
        spread: The threshold, less the median.
    """

    deviations: NDArray[np.float32]
    model: FactorModel
    centre: float
    spread: float

    def __post_init__(self) -> None:
        if self.deviations.shape != self.model.mean.shape:
            raise DataError("the deviations and the model are of different widths")
        if not (np.isfinite(self.deviations).all() and (self.deviations > 0).all()):
            raise DataError("a deviation is not above 0")
        if not np.isfinite([self.centre, self.spread]).all() or self.spread <= 0:
            raise DataError("the centre is no finite number, or the spread is not above 0")

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
        """Describe images that a network learnt from; set the threshold on others.

        Args:
            learnt: N x F features of training images.
            oof: M x F features of dermoscopic images that the network never saw: those it
                learnt from are nearer to one another than a new image is to them.
            groups: M group ids of the latter.
            factors: Directions of the model; at most half as many as features and a quarter as
                many as training images.
            flagged: The fraction of the latter that may be flagged: of the images, and of the
                groups with each image counting for its part of the group.

        Raises:
            ConfigError: There are too few images, or the fraction is not between 0 and 1.
            DataError: The arrays do not belong together, or do not vary.
        """
        if not 0 < flagged < 1:
            raise ConfigError(f"the fraction {flagged} is not between 0 and 1", "ask for 0.02, say")
        known = checked_features(learnt)
        new = checked_features(oof, known.shape[1])
        if len(groups) != len(new):
            raise DataError(f"{len(groups)} groups for {len(new)} held-out images")
        if not len(new):
            raise DataError("there is no image that was held out", "hold some out")
        deviations = known.std(axis=0).astype(np.float32)
        deviations[deviations == 0] = 1
        count = min(factors, known.shape[1] // 2, len(known) // 4)
        model = FactorModel.fit(known / deviations, count)
        found = model.distances(new / deviations)
        centre = float(np.median(found))
        spread = max(_upper(found, weight, flagged) for weight in _weights(groups)) - centre
        if not spread > 0:
            raise DataError("held-out images that are all alike set no threshold")
        return cls(deviations, model, centre, spread)

    def ood_score(self, features: ArrayLike) -> NDArray[np.float64]:
        """Return how unlike dermoscopy N x F features are.

        Returns:
            N numbers: about 0 for an ordinary dermoscopic image, above `LIMIT` for one that is
            farther away than all but the flagged fraction of them.

        Raises:
            DataError: The features are not N x F finite numbers.
        """
        rows = checked_features(features, len(self.deviations))
        return (self.model.distances(rows / self.deviations) - self.centre) / self.spread


def _weights(groups: Sequence[Hashable]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what each image counts for: as one of all, and as a part of its group."""
    numbered = Groups.of(groups)
    return np.ones(len(groups)), 1 / numbered.sizes[numbered.codes]


def _upper(values: NDArray[np.float64], weights: NDArray[np.float64], fraction: float) -> float:
    """Return the least of the values above which no more than a fraction of the weight is."""
    order = np.argsort(values)[::-1]
    above = np.cumsum(weights[order]) - weights[order]
    fits = above <= fraction * weights.sum() + 1e-9
    # Of equal values the first counts, that has only greater ones before it.
    return float(values[order][fits].min())
