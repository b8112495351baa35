"""Statistics of training pictures, by which unlike pictures are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from naevus.errors import ConfigError, DataError
from naevus.evaluation.outliers.factors import FactorModel
from naevus.evaluation.outliers.scores import checked_features, directions
from naevus.evaluation.resampling import Groups

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import ArrayLike, NDArray

FACTORS = 128
"""K of the factor models. Chosen, like all here, by ``benchmarks/not_dermoscopy.py``."""
FLAGGED = 0.02
"""The share of dermoscopic pictures that may be flagged."""
LIMIT = 1.0
"""Above it, an `unlikeness` is that of a picture that is flagged."""


@dataclass(frozen=True)
class Reference:
    """How far one network's embeddings of dermoscopy are from their mean.

    Two distances are taken, each of a `FactorModel`: of the embedding, and of its direction. The
    first tells pictures in which the network sees much more or less than usual (text, noise,
    histology), the second those in which it sees other things (faces, photographs). Each is
    measured from its median over dermoscopic pictures that the network never saw, in steps to
    their 98th percentile, and their mean is divided by the threshold.

    Attributes:
        lengths: The model of embeddings.
        directions: The model of embeddings of length 1.
        centres: The median of each distance.
        spreads: Its 98th percentile, less the median.
        threshold: What the mean of both is divided by.
    """

    lengths: FactorModel
    directions: FactorModel
    centres: tuple[float, float]
    spreads: tuple[float, float]
    threshold: float

    def __post_init__(self) -> None:
        if len(self.lengths.mean) != len(self.directions.mean):
            raise DataError("the models are of embeddings of different widths")
        if not np.isfinite([*self.centres, *self.spreads, self.threshold]).all():
            raise DataError("a centre, spread or threshold is not a finite number")
        if min(*self.spreads, self.threshold) <= 0:
            raise DataError("a spread or the threshold is not above 0")

    @classmethod
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
            learnt: N x F embeddings of training pictures.
            heldout: M x F embeddings of dermoscopic pictures that the network never saw: those it
                learnt from are nearer to one another than a new picture is to them.
            groups: M group ids of the latter.
            factors: Directions of each model; at most half as many as features and a quarter as
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
            raise DataError(f"{len(groups)} groups for {len(new)} held-out embeddings")
        weights = _weights(groups)
        count = min(factors, known.shape[1] // 2, len(known) // 4)
        models = FactorModel.fit(known, count), FactorModel.fit(directions(known), count)
        found = _distances(models, new)
        centres = np.median(found, axis=1)
        spreads = np.quantile(found, 0.98, axis=1) - centres
        if not (spreads > 0).all():
            raise DataError("held-out pictures that are all alike set no threshold")
        together = _together(found, centres, spreads)
        threshold = max(_upper(together, weight, flagged) for weight in weights)
        return cls(
            *models,
            (float(centres[0]), float(centres[1])),
            (float(spreads[0]), float(spreads[1])),
            threshold,
        )

    def unlikeness(self, embeddings: ArrayLike) -> NDArray[np.float64]:
        """Return how unlike dermoscopy N x F embeddings are.

        Returns:
            N numbers: about 0 for an ordinary dermoscopic picture, above `LIMIT` for one that is
            farther away than all but the flagged share of them.

        Raises:
            DataError: The embeddings are not N x F finite numbers.
        """
        found = _distances((self.lengths, self.directions), embeddings)
        return _together(found, np.array(self.centres), np.array(self.spreads)) / self.threshold


def _distances(
    models: tuple[FactorModel, FactorModel], embeddings: ArrayLike
) -> NDArray[np.float64]:
    lengths, ways = models
    return np.stack([lengths.distances(embeddings), ways.distances(directions(embeddings))])


def _together(
    distances: NDArray[np.float64], centres: NDArray[np.float64], spreads: NDArray[np.float64]
) -> NDArray[np.float64]:
    scaled: NDArray[np.float64] = (distances - centres[:, None]) / spreads[:, None]
    return np.asarray(scaled.mean(axis=0))


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
