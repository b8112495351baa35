"""The tables of a model card, in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from naevus.bundles.figures import (
        ClassFigures,
        Figure,
        PrecisionCost,
        PrecisionRefusal,
        ScoreSpec,
        SubgroupFigures,
    )
    from naevus.bundles.spec import ClassifierSpec, ConformalSpec, Member


def members_table(members: Iterable[Member]) -> list[str]:
    """Return the networks."""
    rows = [
        (
            member.file,
            member.architecture,
            ", ".join(map(str, member.folds)),
            f"{member.input_size} × {member.input_size}",
            member.precision,
        )
        for member in members
    ]
    return _table(("file", "architecture", "never saw folds", "input, pixels", "precision"), rows)


def scores_table(scores: Sequence[ScoreSpec]) -> list[str]:
    """Return scores, and below them what each was measured on, which many have in common."""
    places = {on: number for number, on in enumerate(dict.fromkeys(s.on for s in scores), 1)}
    rows = [(score.name, *_parts(score), f"({places[score.on]})") for score in scores]
    notes = [f"{number}. {on}" for on, number in places.items()]
    return [*_table(("measure", "value", "95 % interval", "on"), rows), "", *notes]


def diagnoses_table(classes: Iterable[ClassFigures], names: Mapping[str, str]) -> list[str]:
    """Return the figures of each diagnosis."""
    rows = [
        (
            f"{one.code}, {names[one.code]}" if one.code in names else one.code,
            f"{one.groups:,}",
            f"{one.pictures:,}",
            _whole(one.recall),
            _number(one.precision),
            _number(one.auc),
            _whole(one.covered),
        )
        for one in classes
    ]
    header = ("diagnosis", "lesions", "pictures", "recall", "precision", "AUC", "set holds it")
    return _table(header, rows)


def subgroups_table(subgroups: Iterable[SubgroupFigures]) -> list[str]:
    """Return the figures of each subgroup; those of few lesions say so."""
    rows = [
        (
            f"{one.attribute}: {one.value}",
            f"{one.groups:,}{' (few)' if one.small else ''}",
            _whole(one.balanced_accuracy),
            " ".join(one.over),
            "" if one.gap is None else f"{one.gap:+.3f}",
            _number(one.p_holm),
        )
        for one in subgroups
    ]
    return _table(("subgroup", "lesions", "balanced accuracy", "over", "gap", "p"), rows)


def shares_table(classifier: ClassifierSpec) -> list[str]:
    """Return the classes with what training made of them, over all members."""
    rows = []
    for place, code in enumerate(classifier.classes):
        shares = [member.shares[place] for member in classifier.members]
        weights = [member.weights[place] for member in classifier.members]
        offset = f"{classifier.offsets[place]:+.2f}" if classifier.offsets else "0"
        rows.append((code, _ends(shares), _ends(weights), offset))
    return _table(("class", "share", "weight", "offset"), rows)


def sets_table(sets: ConformalSpec) -> list[str]:
    """Return the thresholds of prediction sets."""
    found = zip(sets.codes, sets.thresholds, sets.groups, strict=True)
    rows = [(code, f"{least:.4f}", f"{count:,}") for code, least, count in found]
    return _table(("class", "least probability", "lesions"), rows)


def costs_table(
    costs: Iterable[PrecisionCost], refusals: Iterable[PrecisionRefusal] = ()
) -> list[str]:
    """Return what each precision changes, and which did not run."""
    rows: list[tuple[str, ...]] = [
        (
            cost.task,
            f"{cost.stored}, {cost.computed}",
            cost.score,
            _number(cost.reference),
            f"{100 * cost.difference.value:+.2f}",
            _interval(cost.difference, scale=100, form="+.2f"),
            f"{cost.changed:.1%}",
            f"{cost.pictures:,}",
            cost.networks,
        )
        for cost in costs
    ]
    rows += [
        (
            refused.task,
            f"{refused.stored}, {refused.computed}",
            f"did not run on the machine that measured: {refused.problem}",
            *[""] * 6,
        )
        for refused in refusals
    ]
    header = ("task", "stored, computed", "score", "fp32, f32", "points", "95 % interval")
    return _table((*header, "answers changed", "pictures", "by"), rows)


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    return [
        f"| {' | '.join(header)} |",
        f"|{'---|' * len(header)}",
        *(f"| {' | '.join(cell or '–' for cell in row)} |" for row in rows),
    ]


def _parts(figure: Figure) -> tuple[str, str]:
    return _number(figure.value), _interval(figure)


def _interval(figure: Figure, *, scale: int = 1, form: str = ".3f") -> str:
    if figure.low is None or figure.high is None:
        return ""
    return f"{scale * figure.low:{form}} to {scale * figure.high:{form}}"


def _whole(figure: Figure | None) -> str:
    if figure is None:
        return ""
    value, interval = _parts(figure)
    return f"{value} ({interval})" if interval else value


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _ends(values: Sequence[float]) -> str:
    low, high = (f"{end:.4f}" for end in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
