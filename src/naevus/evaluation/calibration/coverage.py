"""Whether prediction sets hold the truth as often as they promise, and how large they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from naevus.errors import DataError
from naevus.evaluation.calibration.conformal import LEVEL, Conformal, one_a_group
from naevus.evaluation.calibration.metrics import checked_rows
from naevus.evaluation.calibration.scaling import each_part, fit_scaling, scaled
from naevus.evaluation.intervals import mean_interval, wilson_interval
from naevus.evaluation.resampling import SEED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from naevus.evaluation.intervals import Interval, Proportion


def cross_fitted_sets(
    natural: ArrayLike,
    truth: ArrayLike,
    groups: Sequence[str],
    codes: Sequence[str],
    parts: NDArray[np.intp],
    *,
    level: float = LEVEL,
    seed: int = SEED,
) -> NDArray[np.bool_]:
    """Return the sets of each part's pictures, by scaling and thresholds of the other parts.

    Args:
        natural: N x C out-of-fold natural probabilities, as the network means them.
        truth: N positions of the true classes.
        groups: N group ids.
        codes: The C classes.
        parts: N numbers from 0 (`parts_of`).
        level: The promised coverage.
        seed: Of the draw of one picture a group.

    Returns:
        N x C.

    Raises:
        ConfigError: The level is not between 0 and 1.
        DataError: The arrays do not belong together, or there is one part only.
        NaevusError: SciPy is not installed.
    """
    rows, classes = checked_rows(natural, truth, len(groups))
    names = np.asarray(groups, object)
    sets = np.zeros(rows.shape, bool)
    for inside in each_part(parts, len(rows)):
        rest = ~inside
        calibrated = scaled(rows, fit_scaling(rows[rest], classes[rest]))
        conformal = Conformal.fit(
            calibrated[rest], classes[rest], names[rest].tolist(), codes, level=level, seed=seed
        )
        sets[inside] = conformal.sets(calibrated[inside])
    return sets


class Coverage(NamedTuple):
    """Some prediction sets: how many hold the truth, and how much they leave open."""

    lesions: Proportion
    """The share that hold the truth, of one picture drawn of each group: what was promised."""
    pictures: Proportion
    """The same of all pictures, with its interval by group.

    It may well be lower: lesions that are photographed again and again are the difficult ones.
    """
    mean_size: Interval
    """The mean number of classes in a set, over pictures, with its interval by group."""

    @property
    def size(self) -> float:
        """The mean number of classes in a set, over pictures."""
        return self.mean_size.value

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as a dictionary that JSON can hold."""
        return {
            "lesions": self.lesions._asdict(),
            "pictures": self.pictures._asdict(),
            "size": self.mean_size._asdict(),
        }

    def __str__(self) -> str:
        return f"{self.lesions}; of pictures {self.pictures}; {self.size:.2f} classes a set"


@dataclass(frozen=True)
class SetScores:
    """How often prediction sets hold the truth, over all pictures and in each class."""

    level: float
    """What was promised, in each class."""
    overall: Coverage
    classes: dict[str, Coverage]
    """By code; of the classes that are present."""
    empty: float
    """The share of sets without a class, over pictures."""
    single: float
    """The share of sets with one class."""

    @classmethod
    def from_sets(
        cls,
        sets: NDArray[np.bool_],
        truth: ArrayLike,
        groups: Sequence[str],
        codes: Sequence[str],
        *,
        level: float = LEVEL,
        seed: int = SEED,
    ) -> SetScores:
        """Score N x C sets of pictures that had no part in making them.

        Args:
            sets: N x C.
            truth: N positions of the true classes.
            groups: N group ids.
            codes: The C classes.
            level: What was promised.
            seed: Of the draw of one picture a group.

        Raises:
            DataError: There is no picture, one has no group, or the arrays do not belong together.
        """
        classes = np.asarray(truth)
        if sets.shape != (len(groups), len(codes)) or classes.shape != (len(groups),):
            raise DataError(
                f"sets {sets.shape} and diagnoses {classes.shape} of {len(groups)} pictures "
                f"in {len(codes)} classes do not belong together"
            )
        names = np.asarray(groups, object)
        held, sizes = sets[np.arange(len(sets)), classes], sets.sum(axis=1)

        def covered(own: NDArray[np.bool_]) -> Coverage:
            ids = names[own].tolist()
            drawn = one_a_group(ids, seed)
            return Coverage(
                wilson_interval(held[own][drawn], [ids[n] for n in drawn]),
                wilson_interval(held[own], ids),
                mean_interval(sizes[own], ids),
            )

        present = np.unique(classes).tolist()
        return cls(
            level=level,
            overall=covered(np.ones(len(sets), bool)),
            classes={codes[c]: covered(classes == c) for c in present},
            empty=float((sizes == 0).mean()),
            single=float((sizes == 1).mean()),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as a dictionary that JSON can hold."""
        return {
            "level": self.level,
            "overall": self.overall.to_dict(),
            "classes": {code: scores.to_dict() for code, scores in self.classes.items()},
            "empty": self.empty,
            "single": self.single,
        }

    def __str__(self) -> str:
        lines = [
            f"sets at {self.level:.0%}: one class in {self.single:.1%}, none in {self.empty:.1%}"
        ]
        lines += [f"all: {self.overall}"]
        lines += [f"{code}: {scores}" for code, scores in self.classes.items()]
        return "\n".join(lines)
