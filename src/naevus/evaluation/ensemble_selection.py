"""Ensembles of recipes: equal weights, greedy selection, and the value of one more member."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from naevus.errors import DataError, NaevusError
from naevus.evaluation.bootstrap import repeatable
from naevus.evaluation.intervals import Interval, balanced_accuracy_interval
from naevus.evaluation.out_of_fold import probabilities, taxonomy_of
from naevus.evaluation.paired_tests import Difference, paired_difference
from naevus.evaluation.scaling import BOUNDS, each_part, parts_of
from naevus.evaluation.tables import AGREED, check_finite, in_common, numbers_of
from naevus.io.extras import how_to_install
from naevus.io.files import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from naevus.types import Unit


ROUNDS: Final = 25
"""The number of members that greedy selection draws, with replacement."""


@dataclass(frozen=True)
class EnsembleScores:
    """Balanced accuracy of single recipes and of their ensembles, by the balanced decision."""

    images: int
    groups: int
    left_out: int
    """The number of images that are missing in some table."""
    single: dict[str, Interval]
    """Each recipe alone."""
    mean: Interval
    """All recipes with equal weights."""
    greedy: Interval
    """Greedy ensembles, each evaluated on a part that was not used for its selection."""
    gain: Difference
    """Greedy minus mean."""
    weights: dict[str, float]
    """The weights that greedy selection gives on all images; not evaluated."""
    unit: Unit = "lesion"
    """What the groups are."""

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as a dictionary for JSON."""
        values = {
            "images": self.images,
            "groups": self.groups,
            "unit": self.unit,
            "left_out": self.left_out,
            "single": {name: interval._asdict() for name, interval in self.single.items()},
            "mean": self.mean._asdict(),
            "greedy": self.greedy._asdict(),
            "gain": self.gain.to_dict(),
            "weights": self.weights,
        }
        return {name: plain(value) for name, value in values.items()}


@repeatable
def ensemble_scores(
    tables: dict[str, pd.DataFrame], *, allow_missing: bool = False, unit: Unit = "lesion"
) -> EnsembleScores:
    """Evaluate ensembles of recipes by their out-of-fold predictions.

    As in prediction, log-probabilities are averaged after each has been corrected for its own
    class weights and priors. Only images in all tables count. For each part (`parts_of`), greedy
    selection uses the other parts only.

    Args:
        tables: By name, tables for `naevus.evaluation.out_of_fold.probabilities` with ``image_id,
            group_id, truth``; at least two, with equal groups and diagnoses.
        allow_missing: Whether to leave out images that are missing in some table.
        unit: What the groups are.

    Raises:
        DataError: There is only one table, or the tables do not match.
    """
    names = list(tables)
    if len(names) < 2:
        raise DataError("an ensemble needs at least two runs", "name another run")
    for name, table in tables.items():
        check_finite(table, numbers_of(table, ("logit", "class_prior", "class_weight")), name)
    rows = in_common(list(tables.values()), names, AGREED, allow_missing=allow_missing)
    first, logs = rows[0], _logs(rows)
    taxonomy = taxonomy_of(first)
    truth = np.array([taxonomy.index(code) for code in first["diagnosis"]], np.intp)
    diagnoses, groups = first["diagnosis"].tolist(), first["group_id"].tolist()
    codes = np.array(taxonomy.codes, object)

    def interval(predicted: NDArray[np.intp]) -> Interval:
        return balanced_accuracy_interval(diagnoses, codes[predicted].tolist(), groups)

    even = np.full(len(names), 1 / len(names))
    by_mean = blended(logs, even).argmax(axis=1)
    by_greedy = np.empty_like(by_mean)
    for inside in each_part(parts_of(first), len(first)):
        weights = greedy_weights(logs[:, ~inside], truth[~inside])
        by_greedy[inside] = blended(logs[:, inside], weights).argmax(axis=1)
    member = truth[:, None] == np.unique(truth)[None, :]
    even_right, greedy_right = (
        member & (predicted == truth)[:, None] for predicted in (by_mean, by_greedy)
    )
    chosen = greedy_weights(logs, truth)
    return EnsembleScores(
        images=len(first),
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
        ),
        weights=dict(zip(names, chosen.tolist(), strict=True)),
        unit=unit,
    )


# Whether a new member improves the ensemble, by a rule fixed before its results are known.

LEAST_GAIN: Final = 0.010
"""The required decrease of the ensemble's class-balanced log loss over all folds."""
MOST_LOST: Final = 0.005
"""The largest accepted decrease of its balanced accuracy."""
LEAST_OF_ONE: Final = 0.005
"""The required decrease of its loss on a first fold, below which the others need not be trained."""


class FoldOfMember(NamedTuple):
    """One fold held out by all networks: temperatures and losses without and with the member."""

    fold: int
    images: int
    temperatures: tuple[float, float]
    losses: tuple[float, float]
    balanced_accuracies: tuple[float, float]
    alone: tuple[float, float]
    """Loss and balanced accuracy of the new member alone."""


@dataclass(frozen=True)
class MemberVerdict:
    """The effect of adding a network to an ensemble, or of replacing a member."""

    folds: tuple[FoldOfMember, ...]
    loss: Difference
    """Class-balanced log loss over all folds, without and with the member."""
    balanced_accuracy: Difference
    alone: tuple[float, float]
    """Loss and balanced accuracy of the new member alone, over all folds."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """The criteria that are not met; empty if the member is adopted.

        One fold can only reject a member.
        """
        gain = self.loss.a - self.loss.b
        least = LEAST_GAIN if len(self.folds) > 1 else LEAST_OF_ONE
        found = []
        if gain < least:
            change = f"falls by {gain:.4f}" if gain >= 0 else f"rises by {-gain:.4f}"
            found.append(f"the loss {change}; it must fall by {least:.3f}")
        if len(self.folds) == 1:
            return tuple(found) or ("another fold is needed",)
        found += [
            f"the loss does not fall on fold {each.fold}"
            for each in self.folds
            if each.losses[1] >= each.losses[0]
        ]
        lost = self.balanced_accuracy.a - self.balanced_accuracy.b
        if lost > MOST_LOST:
            found.append(f"balanced accuracy falls by {lost:.4f}")
        return tuple(found)

    @property
    def is_adopted(self) -> bool:
        """Whether all criteria are met."""
        return not self.reasons


@repeatable
def evaluate_member(
    before: dict[str, pd.DataFrame],
    after: dict[str, pd.DataFrame],
    new: str,
    folds: Sequence[int] = (0, 1),
) -> MemberVerdict:
    """Evaluate an ensemble with a new member against the ensemble without it.

    The members' balanced log-probabilities are averaged. The temperature of each fold is fitted on
    the other folds, so it is independent of the evaluated images; with only one fold, it is the
    best one of that fold.

    Args:
        before: Out-of-fold tables of the present members by name, with ``fold``.
        after: Tables of the ensemble with the new member.
        new: The name of the new member in ``after``.
        folds: The folds; all members must have held out the same images in each.

    Raises:
        DataError: No fold is named, or one twice, or the tables do not match.
        NaevusError: SciPy is not installed.
    """
    if not folds or len(set(folds)) < len(folds):
        raise DataError("no fold is named, or one twice", "name each fold once")
    tables = {**before, **after}
    for name, table in tables.items():
        check_finite(table, numbers_of(table, ("logit", "class_prior", "class_weight")), name)
        if "fold" not in table.columns:
            raise DataError(f"{name}: has no folds", "use the oof.parquet of a run")
    names = list(tables)
    kept = [table[table["fold"].isin(list(folds))] for table in tables.values()]
    rows = in_common(kept, names, {**AGREED, "fold": "fold"})
    first, logs = rows[0], dict(zip(names, _logs(rows), strict=True))
    taxonomy = taxonomy_of(first)
    truth = np.array([taxonomy.index(code) for code in first["diagnosis"]], np.intp)
    parts = first["fold"].to_numpy()
    if absent := set(folds).difference(parts.tolist()):
        raise DataError(f"no image of fold {min(absent)} is in all tables", "name other folds")
    ensembles = [_mean_of(logs, each) for each in (before, after, (new,))]
    evaluated = [_at_other_folds(each, truth, parts) for each in ensembles]
    member = truth[:, None] == np.unique(truth)[None, :]
    losses = [member * each[:, None] for each, _ in evaluated]
    right = [member & (each.argmax(axis=1) == truth)[:, None] for each in ensembles]

    def means(columns: Sequence[NDArray[Any]], inside: NDArray[np.bool_]) -> list[float]:
        counts = member[inside].sum(axis=0)
        return [float((each[inside].sum(axis=0) / counts)[counts > 0].mean()) for each in columns]

    found = []
    for fold in folds:
        inside = parts == fold
        loss, accuracy = means(losses, inside), means(right, inside)
        found.append(
            FoldOfMember(
                fold,
                int(inside.sum()),
                (evaluated[0][1][fold], evaluated[1][1][fold]),
                (loss[0], loss[1]),
                (accuracy[0], accuracy[1]),
                (loss[2], accuracy[2]),
            )
        )
    groups = first["group_id"].tolist()
    everything = np.ones(len(first), bool)
    return MemberVerdict(
        tuple(found),
        paired_difference("class-balanced log loss", losses[0], losses[1], member, groups),
        paired_difference("balanced accuracy", right[0], right[1], member, groups),
        (means(losses, everything)[2], means(right, everything)[2]),
    )


def _mean_of(logs: dict[str, NDArray[np.float64]], names: Iterable[str]) -> NDArray[np.float64]:
    return _normalised(np.mean([logs[name] for name in names], axis=0))


def _at_other_folds(
    logs: NDArray[np.float64], truth: NDArray[np.intp], parts: NDArray[Any]
) -> tuple[NDArray[np.float64], dict[int, float]]:
    """Return the negative log-likelihood of each image at its temperature, and temperatures."""
    losses, temperatures = np.empty(len(truth)), {}
    folds = np.unique(parts).tolist()
    for fold in folds:
        inside = parts == fold
        fitted_on = ~inside if len(folds) > 1 else inside
        temperature = best_temperature(logs[fitted_on], truth[fitted_on])
        scaled = _normalised(logs[inside] / temperature)
        losses[inside] = -scaled[np.arange(len(scaled)), truth[inside]]
        temperatures[fold] = temperature
    return losses, temperatures


def best_temperature(logs: NDArray[np.float64], truth: NDArray[np.intp]) -> float:
    """Return the temperature of N x C log-probabilities that minimises class-balanced log loss.

    Raises:
        NaevusError: SciPy is not installed.
    """
    try:
        from scipy.optimize import minimize_scalar  # noqa: PLC0415 (an extra)
    except ImportError:
        raise NaevusError("fitting a temperature needs SciPy", how_to_install("evaluate")) from None
    counts = np.bincount(truth, minlength=logs.shape[1])
    proportions = 1 / (counts[truth] * np.count_nonzero(counts))
    limits = tuple(1 / bound for bound in reversed(BOUNDS))  # convex in 1 / T
    found = minimize_scalar(
        lambda sharpness: _loss(sharpness * logs, truth, proportions),
        bounds=limits,
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(1 / found.x)


def greedy_weights(
    logs: NDArray[np.float64], truth: NDArray[np.intp], rounds: int = ROUNDS
) -> NDArray[np.float64]:
    """Return the weight of each member by greedy selection: the fraction of rounds it was drawn.

    Each round adds, with replacement, the member that lowers the loss of the mean most (Caruana
    et al., Ensemble Selection from Libraries of Models, ICML 2004). The loss is the negative
    log-likelihood with equal weight for every class; it is smoother than balanced accuracy, on
    which greedy selection overfits. Ties go to the first member.

    Args:
        logs: M x N x C balanced log-probabilities.
        truth: N positions of the true classes.
        rounds: The number of members to draw.
    """
    counts = np.bincount(truth, minlength=logs.shape[2])
    proportions = 1 / (counts[truth] * np.count_nonzero(counts))
    total, drawn = np.zeros(logs.shape[1:]), np.zeros(len(logs))
    for size in range(1, rounds + 1):
        losses = [_loss((total + one) / size, truth, proportions) for one in logs]
        best = int(np.argmin(losses))
        total += logs[best]
        drawn[best] += 1
    result: NDArray[np.float64] = drawn / rounds
    return result


def blended(logs: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weighted mean of M x N x C log-probabilities, normalised: N x C."""
    return _normalised(np.tensordot(weights, logs, axes=1))


def _loss(
    logs: NDArray[np.float64], truth: NDArray[np.intp], proportions: NDArray[np.float64]
) -> float:
    chosen = _normalised(logs)[np.arange(len(truth)), truth]
    return -float((proportions * chosen).sum())


def _normalised(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    largest = logs.max(axis=-1, keepdims=True)
    total = np.log(np.exp(logs - largest).sum(axis=-1, keepdims=True))
    normalised: NDArray[np.float64] = logs - largest - total
    return normalised


def _logs(rows: Sequence[pd.DataFrame]) -> NDArray[np.float64]:
    """Return M x N x C balanced log-probabilities of tables over the same images."""
    taxonomy = taxonomy_of(rows[0])
    tiny = np.finfo(np.float64).tiny  # a probability that underflowed is not 0
    balanced = [probabilities(own, taxonomy)[1] for own in rows]
    return np.log(np.maximum(np.stack(balanced), tiny))
