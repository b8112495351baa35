"""Statistics of training pictures, by which unlike pictures are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from naevus.errors import ConfigError, DataError
from naevus.evaluation.outliers.factors import FactorModel
from naevus.evaluation.outliers.scores import checked_features
from naevus.evaluation.repeatable import repeatable
from naevus.evaluation.resampling import Groups

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import ArrayLike, NDArray

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
