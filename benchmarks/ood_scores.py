"""Out-of-distribution scores other than the one that naevus uses.

They are computed from embeddings or logits, and increase with the distance from the training
images. Yang, Zhou, Li & Liu, Generalized out-of-distribution detection: a survey (IJCV 2024),
compares them; ``not_dermoscopy.py`` measures them here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from naevus.errors import ConfigError, DataError
from naevus.evaluation.ood import checked_features

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_ROWS = 256  # number of images whose distances to a bank are computed at once


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
    """Return N x F embeddings scaled to length 1; zeros stay.

    Images far from all classes often have embeddings of another length, and differences in length
    obscure those in direction (Müller & Hein, Mahalanobis++, ICML 2025).

    Raises:
        DataError: They are not N x F finite numbers.
    """
    rows = checked_features(embeddings)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def class_means(embeddings: ArrayLike, classes: ArrayLike) -> NDArray[np.float64]:
    """Return the mean embedding of each class that is present, K x F.

    Raises:
        DataError: There is not one class per image.
    """
    rows, labels = checked_features(embeddings), np.asarray(classes)
    if labels.shape != rows.shape[:1]:
        raise DataError(f"classes {labels.shape} for {len(rows)} embeddings")
    return np.stack([rows[labels == label].mean(axis=0) for label in np.unique(labels)])


def shrunk_precision(
    embeddings: ArrayLike, classes: ArrayLike, shrinkage: float
) -> NDArray[np.float64]:
    """Return the inverse of the covariance that all classes share, F x F.

    The covariance of embeddings about their class means is shrunk towards a multiple of the
    identity with the same trace (Ledoit & Wolf, J. Multivariate Analysis 2004), since with
    hundreds of features its smallest eigenvalues are unreliable.

    Args:
        embeddings: N x F.
        classes: N labels.
        shrinkage: Weight of the identity, above 0 and at most 1.

    Raises:
        ConfigError: The shrinkage is out of range.
        DataError: There is not one class per image, or all embeddings of a class are equal.
    """
    if not 0 < shrinkage <= 1:
        raise ConfigError(f"the shrinkage {shrinkage} is no fraction", "use one above 0, up to 1")
    rows, labels = checked_features(embeddings), np.asarray(classes)
    means = class_means(rows, labels)
    rest = rows - means[np.unique(labels, return_inverse=True)[1]]
    covariance = rest.T @ rest / len(rest)
    scale = np.trace(covariance) / len(covariance)
    if not scale > 0:
        raise DataError("embeddings that do not vary have no covariance", "give more images")
    shrunk = (1 - shrinkage) * covariance + shrinkage * scale * np.eye(len(covariance))
    precision: NDArray[np.float64] = np.linalg.inv(shrunk)
    return precision


def mahalanobis(
    embeddings: ArrayLike, means: ArrayLike, precision: ArrayLike
) -> NDArray[np.float64]:
    """Return the distance to the nearest class mean in units of the shared covariance.

    Lee, Lee, Lee & Shin, A simple unified framework for detecting out-of-distribution samples
    and adversarial attacks (NeurIPS 2018), for the last features only.

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
    inputs = [((white - centre) ** 2).sum(axis=1) for centre in centres @ root]
    return np.asarray(np.sqrt(np.min(inputs, axis=0)))


def neighbour_distance(
    embeddings: ArrayLike, bank: ArrayLike, neighbours: int
) -> NDArray[np.float64]:
    """Return the distance to the k-th nearest training image, between normalised embeddings.

    Sun, Ming, Zhu & Li, Out-of-distribution detection with deep nearest neighbors (ICML 2022).

    Args:
        embeddings: N x F.
        bank: M x F embeddings of training images.
        neighbours: k, from 1 to M.

    Returns:
        N distances between 0 and 2.

    Raises:
        ConfigError: There are not enough neighbours.
        DataError: The embeddings are not N x F finite numbers.
    """
    known = directions(bank)
    if not 1 <= neighbours <= len(known):
        raise ConfigError(f"no {neighbours} neighbours among {len(known)} images")
    rows = directions(checked_features(embeddings, known.shape[1]))
    found = np.empty(len(rows))
    lengths = (known**2).sum(axis=1)
    for start in range(0, len(rows), _ROWS):
        piece = rows[start : start + _ROWS]
        inputs = (piece**2).sum(axis=1)[:, None] + lengths - 2 * piece @ known.T
        nearest = np.partition(inputs, neighbours - 1, axis=1)[:, neighbours - 1]
        found[start : start + _ROWS] = np.sqrt(np.maximum(nearest, 0))
    return found
