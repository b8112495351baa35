"""Several recipes answering as one: all of them alike, or those that a greedy search keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from naevus.errors import DataError
from naevus.evaluation.comparison import Difference, paired_difference
from naevus.evaluation.intervals import Interval, balanced_accuracy_interval
from naevus.evaluation.repeatable import repeatable
from naevus.evaluation.scaling import each_part, parts_of
from naevus.evaluation.tables import (
    AGREED,
    check_finite,
    in_common,
    numbers_of,
    probabilities,
    taxonomy_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray


ROUNDS: Final = 25
"""How many members a greedy selection draws, with replacement."""


@dataclass(frozen=True)
class EnsembleScores:
    """Balanced accuracy of recipes alone and together, by the balanced decision."""

    pictures: int
    groups: int
    left_out: int
    """Pictures that are not in all tables."""
    single: dict[str, Interval]
    """Each recipe by itself."""
    mean: Interval
    """All recipes, each counting the same."""
    greedy: Interval
    """Those that were selected on the other parts, for each part anew: selection is judged, too."""
    gain: Difference
    """Greedy minus mean."""
    weights: dict[str, float]
    """What the greedy selection takes from all pictures: its shares, not judged by anything."""

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as a dictionary that JSON can hold."""
        return {
            "pictures": self.pictures,
            "groups": self.groups,
            "left_out": self.left_out,
            "single": {name: interval._asdict() for name, interval in self.single.items()},
            "mean": self.mean._asdict(),
            "greedy": self.greedy._asdict(),
            "gain": self.gain.to_dict(),
            "weights": self.weights,
        }


@repeatable
def ensemble_scores(
    tables: dict[str, pd.DataFrame], *, allow_missing: bool = False
) -> EnsembleScores:
    """Score ensembles of some recipes' out-of-fold answers.

    As in prediction, the mean is taken of log-probabilities, each freed of its own weights and
    shares. The pictures are those that all tables have; which members are kept is decided for each
    part (`parts_of`) on the other parts alone.

    Args:
        tables: By name what `naevus.evaluation.tables.probabilities` reads, with ``image_id,
            group_id, truth``; at least two, that agree on groups and diagnoses.
        allow_missing: Whether pictures may be left out that are not in all of them.

    Raises:
        DataError: There is one table only, or they do not belong together.
    """
    names = list(tables)
    if len(names) < 2:
        raise DataError("an ensemble needs two runs or more", "name another")
    for name, table in tables.items():
        check_finite(table, numbers_of(table, ("logit", "share", "weight")), name)
    rows = in_common(list(tables.values()), names, AGREED, allow_missing=allow_missing)
    first, logs = rows[0], _logs(rows)
    taxonomy = taxonomy_of(first)
    truth = np.array([taxonomy.index(code) for code in first["truth"]], np.intp)
    diagnoses, groups = first["truth"].tolist(), first["group_id"].tolist()
    codes = np.array(taxonomy.codes, object)

    def interval(answers: NDArray[np.intp]) -> Interval:
        return balanced_accuracy_interval(diagnoses, codes[answers].tolist(), groups)

    even = np.full(len(names), 1 / len(names))
    by_mean = blended(logs, even).argmax(axis=1)
    by_greedy = np.empty_like(by_mean)
    for inside in each_part(parts_of(first), len(first)):
        weights = greedy_weights(logs[:, ~inside], truth[~inside])
        by_greedy[inside] = blended(logs[:, inside], weights).argmax(axis=1)
    member = truth[:, None] == np.unique(truth)[None, :]
    even_right, greedy_right = (
        member & (answers == truth)[:, None] for answers in (by_mean, by_greedy)
    )
    chosen = greedy_weights(logs, truth)
    return EnsembleScores(
        pictures=len(first),
        groups=first["group_id"].nunique(),
        left_out=len(set().union(*(table["image_id"] for table in tables.values()))) - len(first),
        single={name: interval(logs[n].argmax(axis=1)) for n, name in enumerate(names)},
        mean=interval(by_mean),
        greedy=interval(by_greedy),
        gain=paired_difference(
            "balanced accuracy, balanced decision",
            even_right,
            greedy_right,
            member,
            groups,
            diagnoses,
        ),
        weights=dict(zip(names, chosen.tolist(), strict=True)),
    )


def greedy_weights(
    logs: NDArray[np.float64], truth: NDArray[np.intp], rounds: int = ROUNDS
) -> NDArray[np.float64]:
    """Return how often each member is drawn by greedy selection, as shares.

    In each round the member is added, with replacement, that lowers the loss of the mean most
    (Caruana et al., Ensemble Selection from Libraries of Models, ICML 2004). The loss is the
    negative log-likelihood, every class counting the same: smoother than balanced accuracy, on
    which a greedy search overfits. Of members that are as good the first is taken.

    Args:
        logs: M x N x C balanced log-probabilities.
        truth: N positions of the true classes.
        rounds: How many members are drawn.
    """
    counts = np.bincount(truth, minlength=logs.shape[2])
    shares = 1 / (counts[truth] * np.count_nonzero(counts))
    total, drawn = np.zeros(logs.shape[1:]), np.zeros(len(logs))
    for size in range(1, rounds + 1):
        losses = [_loss((total + one) / size, truth, shares) for one in logs]
        best = int(np.argmin(losses))
        total += logs[best]
        drawn[best] += 1
    result: NDArray[np.float64] = drawn / rounds
    return result


def blended(logs: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weighted mean of M x N x C log-probabilities, normalised: N x C."""
    return _normalised(np.tensordot(weights, logs, axes=1))


def _loss(logs: NDArray[np.float64], truth: NDArray[np.intp], shares: NDArray[np.float64]) -> float:
    chosen = _normalised(logs)[np.arange(len(truth)), truth]
    return -float((shares * chosen).sum())


def _normalised(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    largest = logs.max(axis=-1, keepdims=True)
    total = np.log(np.exp(logs - largest).sum(axis=-1, keepdims=True))
    normalised: NDArray[np.float64] = logs - largest - total
    return normalised


def _logs(rows: Sequence[pd.DataFrame]) -> NDArray[np.float64]:
    """Return the M x N x C balanced log-probabilities of tables over the same pictures."""
    taxonomy = taxonomy_of(rows[0])
    tiny = np.finfo(np.float64).tiny  # what left float64's range is not impossible
    balanced = [probabilities(own, taxonomy)[1] for own in rows]
    return np.log(np.maximum(np.stack(balanced), tiny))
