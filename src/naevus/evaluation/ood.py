"""How unlike its training pictures a picture is: a factor model of features, other scores."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from naevus.errors import ConfigError, DataError
from naevus.evaluation.bootstrap import Groups
from naevus.evaluation.repeatable import repeatable

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import ArrayLike, NDArray


# Scores from embeddings or logits that are greater the less a picture is like those learnt from.
#
# Yang, Zhou, Li & Liu, Generalized out-of-distribution detection: a survey (IJCV 2024), sets them
# side by side. ``benchmarks/not_dermoscopy.py`` measures them here.

_ROWS = 256  # pictures whose distances to a bank are held at once


def energy(logits: ArrayLike) -> NDArray[np.float64]:
    """Return the free energy of N x C logits, the negative log of their summed exponentials.

    Liu, Wang, Owens & Li, Energy-based out-of-distribution detection (NeurIPS 2020).

    Raises:
        DataError: They are not N x C finite numbers.
    """
    rows = checked_features(logits)
    top = rows.max(axis=1)
    return np.asarray(-(top + np.log(np.exp(rows - top[:, None]).sum(axis=1))))


def directions(embeddings: ArrayLike) -> NDArray[np.float64]:
    """Return N x F embeddings at length 1; one of zeros stays.

    A picture that is far from all classes often has an embedding of another length, and
    differences of length hide those of direction (Müller & Hein, Mahalanobis++, ICML 2025).

    Raises:
        DataError: They are not N x F finite numbers.
    """
    rows = checked_features(embeddings)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def class_means(embeddings: ArrayLike, classes: ArrayLike) -> NDArray[np.float64]:
    """Return the mean embedding of each class that is present, K x F.

    Raises:
        DataError: There is not one class a picture.
    """
    rows, labels = checked_features(embeddings), np.asarray(classes)
    if labels.shape != rows.shape[:1]:
        raise DataError(f"classes {labels.shape} for {len(rows)} embeddings")
    return np.stack([rows[labels == label].mean(axis=0) for label in np.unique(labels)])


def shrunk_precision(
    embeddings: ArrayLike, classes: ArrayLike, shrinkage: float
) -> NDArray[np.float64]:
    """Return the inverse of the covariance that all classes share, F x F.

    The covariance of embeddings about their class means is drawn towards a multiple of the
    identity with the same trace (Ledoit & Wolf, J. Multivariate Analysis 2004), since with
    hundreds of features its smallest eigenvalues say little.

    Args:
        embeddings: N x F.
        classes: N labels.
        shrinkage: Above 0 and at most 1: the identity's share.

    Raises:
        ConfigError: The shrinkage is not such a share.
        DataError: There is not one class a picture, or all embeddings of a class are equal.
    """
    if not 0 < shrinkage <= 1:
        raise ConfigError(f"the shrinkage {shrinkage} is no share", "use one above 0, up to 1")
    rows, labels = checked_features(embeddings), np.asarray(classes)
    means = class_means(rows, labels)
    rest = rows - means[np.unique(labels, return_inverse=True)[1]]
    covariance = rest.T @ rest / len(rest)
    scale = np.trace(covariance) / len(covariance)
    if not scale > 0:
        raise DataError("embeddings that do not vary have no covariance", "give more pictures")
    shrunk = (1 - shrinkage) * covariance + shrinkage * scale * np.eye(len(covariance))
    precision: NDArray[np.float64] = np.linalg.inv(shrunk)
    return precision


def mahalanobis(
    embeddings: ArrayLike, means: ArrayLike, precision: ArrayLike
) -> NDArray[np.float64]:
    """Return the distance to the nearest class mean in units of the shared covariance.

    Lee, Lee, Lee & Shin, A simple unified framework for detecting out-of-distribution samples
    and adversarial attacks (NeurIPS 2018), of the last features alone.

    Args:
        embeddings: N x F.
        means: K x F class means.
        precision: F x F, the inverse of the shared covariance.

    Returns:
        N distances.

    Raises:
        DataError: The embeddings are not N x F finite numbers.
    """
    centres = np.asarray(means, np.float64)
    rows = checked_features(embeddings, centres.shape[1])
    root = np.linalg.cholesky(np.asarray(precision, np.float64))
    white = rows @ root
    squares = [((white - centre) ** 2).sum(axis=1) for centre in centres @ root]
    return np.asarray(np.sqrt(np.min(squares, axis=0)))


def neighbour_distance(
    embeddings: ArrayLike, bank: ArrayLike, neighbours: int
) -> NDArray[np.float64]:
    """Return the distance to the k-th nearest of some training pictures, of directions.

    Sun, Ming, Zhu & Li, Out-of-distribution detection with deep nearest neighbors (ICML 2022).

    Args:
        embeddings: N x F.
        bank: M x F embeddings of training pictures.
        neighbours: k, from 1 to M.

    Returns:
        N distances between 0 and 2.

    Raises:
        ConfigError: There are not so many neighbours.
        DataError: The embeddings are not N x F finite numbers.
    """
    known = directions(bank)
    if not 1 <= neighbours <= len(known):
        raise ConfigError(f"no {neighbours} neighbours among {len(known)} pictures")
    rows = directions(checked_features(embeddings, known.shape[1]))
    found = np.empty(len(rows))
    lengths = (known**2).sum(axis=1)
    for start in range(0, len(rows), _ROWS):
        piece = rows[start : start + _ROWS]
        squares = (piece**2).sum(axis=1)[:, None] + lengths - 2 * piece @ known.T
        nearest = np.partition(squares, neighbours - 1, axis=1)[:, neighbours - 1]
        found[start : start + _ROWS] = np.sqrt(np.maximum(nearest, 0))
    return found


def checked_features(values: ArrayLike, width: int | None = None) -> NDArray[np.float64]:
    """Return N x F values as float64.

    Args:
        values: One row a picture.
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


# A Gaussian of few directions and even noise: what an embedding of a dermoscopic picture is.

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


FACTORS = 128
"""K of the factor model. Chosen, like all here, by ``benchmarks/not_dermoscopy.py``."""
FLAGGED = 0.02
"""The share of dermoscopic pictures that may be flagged."""
LIMIT = 1.0
"""Above it, an `unlikeness` is that of a picture that is flagged."""


@dataclass(frozen=True)
class Reference:
    """How far one network's features of dermoscopy are from their mean.

    The features are what the network's graph tells best (`inference.reference`), each in steps of
    its standard deviation over the pictures learnt from; the distance is that of a `FactorModel`.
    It is measured from its median over dermoscopic pictures that the network never saw, in steps to
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
        heldout: ArrayLike,
        groups: Sequence[Hashable],
        *,
        factors: int = FACTORS,
        flagged: float = FLAGGED,
    ) -> Self:
        """Describe pictures that a network learnt from; set the threshold on others.

        Args:
            learnt: N x F features of training pictures.
            heldout: M x F features of dermoscopic pictures that the network never saw: those it
                learnt from are nearer to one another than a new picture is to them.
            groups: M group ids of the latter.
            factors: Directions of the model; at most half as many as features and a quarter as
                many as training pictures.
            flagged: The share of the latter that may be flagged: of the pictures, and of the
                groups with each picture counting for its part of the group.

        Raises:
            ConfigError: There are too few pictures, or the share is not between 0 and 1.
            DataError: The arrays do not belong together, or do not vary.
        """
        if not 0 < flagged < 1:
            raise ConfigError(f"the share {flagged} is not between 0 and 1", "ask for 0.02, say")
        known = checked_features(learnt)
        new = checked_features(heldout, known.shape[1])
        if len(groups) != len(new):
            raise DataError(f"{len(groups)} groups for {len(new)} held-out pictures")
        if not len(new):
            raise DataError("there is no picture that was held out", "hold some out")
        deviations = known.std(axis=0).astype(np.float32)
        deviations[deviations == 0] = 1
        count = min(factors, known.shape[1] // 2, len(known) // 4)
        model = FactorModel.fit(known / deviations, count)
        found = model.distances(new / deviations)
        centre = float(np.median(found))
        spread = max(_upper(found, weight, flagged) for weight in _weights(groups)) - centre
        if not spread > 0:
            raise DataError("held-out pictures that are all alike set no threshold")
        return cls(deviations, model, centre, spread)

    def unlikeness(self, features: ArrayLike) -> NDArray[np.float64]:
        """Return how unlike dermoscopy N x F features are.

        Returns:
            N numbers: about 0 for an ordinary dermoscopic picture, above `LIMIT` for one that is
            farther away than all but the flagged share of them.

        Raises:
            DataError: The features are not N x F finite numbers.
        """
        rows = checked_features(features, len(self.deviations))
        return (self.model.distances(rows / self.deviations) - self.centre) / self.spread


def _weights(groups: Sequence[Hashable]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what each picture counts for: as one of all, and as a part of its group."""
    numbered = Groups.of(groups)
    return np.ones(len(groups)), 1 / numbered.sizes[numbered.codes]


def _upper(values: NDArray[np.float64], weights: NDArray[np.float64], share: float) -> float:
    """Return the least of the values above which no more than a share of the weight is."""
    order = np.argsort(values)[::-1]
    above = np.cumsum(weights[order]) - weights[order]
    fits = above <= share * weights.sum() + 1e-9
    # Of equal values the first counts, that has only greater ones before it.
    return float(values[order][fits].min())
