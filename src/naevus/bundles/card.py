"""The model card every bundle carries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.taxonomy import ATTRIBUTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from naevus.bundles.spec import (
        AttributesSpec,
        BundleSpec,
        ClassFigures,
        ClassifierSpec,
        ConformalSpec,
        Figure,
        Member,
        ScoreSpec,
        StorageCost,
        StorageRefusal,
        SubgroupFigures,
        TrainingData,
    )


# The tables of a model card, in Markdown.


def members_table(members: Iterable[Member]) -> list[str]:
    """Return the networks."""
    rows = [
        (
            member.file,
            member.architecture,
            ", ".join(map(str, member.folds)),
            f"{member.input_size} × {member.input_size}",
            member.storage,
        )
        for member in members
    ]
    return _table(("file", "architecture", "never saw folds", "input, pixels", "storage"), rows)


def scores_table(scores: Sequence[ScoreSpec]) -> list[str]:
    """Return scores, and below them what each was measured on, which many have in common."""
    places = {
        on: number for number, on in enumerate(dict.fromkeys(s.measured_on for s in scores), 1)
    }
    rows = [(score.name, *_parts(score), f"({places[score.measured_on]})") for score in scores]
    notes = [f"{number}. {on}" for on, number in places.items()]
    return [*_table(("measure", "value", "95 % interval", "on"), rows), "", *notes]


def diagnoses_table(classes: Iterable[ClassFigures], names: Mapping[str, str]) -> list[str]:
    """Return the figures of each diagnosis."""
    rows = [
        (
            f"{one.code}, {names[one.code]}" if one.code in names else one.code,
            f"{one.groups:,}",
            f"{one.images:,}",
            _whole(one.recall),
            _number(one.precision),
            _number(one.auc),
            _whole(one.covered),
        )
        for one in classes
    ]
    header = ("diagnosis", "lesions", "images", "recall", "precision", "AUC", "set holds it")
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


def class_priors_table(classifier: ClassifierSpec) -> list[str]:
    """Return the classes with what training made of them, over all members."""
    rows = []
    for place, code in enumerate(classifier.classes):
        class_priors = [member.class_priors[place] for member in classifier.members]
        weights = [member.class_weights[place] for member in classifier.members]
        offset = f"{classifier.offsets[place]:+.2f}" if classifier.offsets else "0"
        rows.append((code, _ends(class_priors), _ends(weights), offset))
    return _table(("class", "class prior", "class weight", "offset"), rows)


def sets_table(sets: ConformalSpec) -> list[str]:
    """Return the thresholds of prediction sets."""
    found = zip(sets.classes, sets.thresholds, sets.groups, strict=True)
    rows = [(code, f"{least:.4f}", f"{count:,}") for code, least, count in found]
    return _table(("class", "least probability", "lesions"), rows)


def costs_table(costs: Iterable[StorageCost], refusals: Iterable[StorageRefusal] = ()) -> list[str]:
    """Return what each precision changes, and which did not run."""
    rows: list[tuple[str, ...]] = [
        (
            cost.task,
            f"{cost.storage}, {cost.precision}",
            cost.score,
            _number(cost.reference),
            f"{100 * cost.difference.value:+.2f}",
            _interval(cost.difference, scale=100, input_spec="+.2f"),
            f"{cost.changed:.1%}",
            f"{cost.images:,}",
            cost.networks,
        )
        for cost in costs
    ]
    rows += [
        (
            refused.task,
            f"{refused.storage}, {refused.precision}",
            f"did not run on the machine that measured: {refused.problem}",
            *[""] * 6,
        )
        for refused in refusals
    ]
    header = ("task", "storage, precision", "score", "fp32, fp32", "points", "95 % interval")
    return _table((*header, "answers changed", "images", "by"), rows)


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    return [
        f"| {' | '.join(header)} |",
        f"|{'---|' * len(header)}",
        *(f"| {' | '.join(cell or '–' for cell in row)} |" for row in rows),
    ]


def _parts(figure: Figure) -> tuple[str, str]:
    return _number(figure.value), _interval(figure)


def _interval(figure: Figure, *, scale: int = 1, input_spec: str = ".3f") -> str:
    if figure.low is None or figure.high is None:
        return ""
    return f"{scale * figure.low:{input_spec}} to {scale * figure.high:{input_spec}}"


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


CARD = "MODEL_CARD.md"
"""The card's file name."""

_TASKS = {
    "segmentation": "segments the lesion in a dermoscopic image",
    "classification": "gives probabilities of diagnoses for a dermoscopic image",
    "attributes": "finds globules, milia-like cysts, negative and pigment network, and streaks",
}
_INTENDED = (
    "Research on dermoscopic images: comparing methods, preparing data, teaching.",
    "A reader who sees image, contour and probabilities together, and decides alone.",
)
_OUT_OF_SCOPE = (
    "Diagnosis, triage or treatment of anyone; there was no clinical study.",
    "Images without a dermatoscope: photographs by phone, histology, whole-body views.",
    "Diagnoses outside its classes: it answers with one of them whatever the image shows.",
)
_LIMITS = (
    "Other clinics, devices and skin tones than in the training data: accuracy is unknown there.",
    "Natural probabilities hold for the case mix of the training data alone.",
)
_BY_CLASS = (
    "By the balanced decision, each diagnosis against all others; AUC is that of its natural "
    "probability. Intervals are 95 %, by lesion (Wilson, for as many images as the lesions are "
    "worth); the last column counts one image a lesion."
)
_SUBGROUPS = (
    "Balanced accuracy is over the diagnoses with at least ten lesions in the subgroup: compare "
    "rows only where these are the same. The gap is the subgroup's minus that of all others, over "
    "diagnoses that both have, each counting the same; p is of a gap as wide by chance, corrected "
    "for all rows after Holm."
)
_KINDS = (
    "Two kinds are given. *Natural* ones are those of an image drawn as the training images "
    "were: the logits, freed of the weights below, divided by the temperature, with the offsets "
    "below added. *Balanced* ones "
    "are as if every class were equally common: the natural ones divided by the shares below. "
    "*Confidence* is the largest natural probability."
)
_FRACTIONS = (
    "Shares are those of the training images; a weight is how much more than its share the "
    "class counted; an offset, how much more common it was among held-out images than the "
    "networks said, as a logarithm. Where the members differ, both ends are given."
)
_SETS = (
    "A *prediction set* holds every diagnosis whose natural probability reaches the threshold "
    "below: of each diagnosis, {coverage:.0%} of new lesions or more have a set that holds "
    "it (class-conditional split conformal prediction, one image a lesion), as long as they "
    "are like the ones the thresholds were set on. A threshold of 0 is for want of lesions."
)
_COSTS = (
    "Differences are to numbers in fp32 computed in fp32, on the same images, which the "
    "networks never saw; in points (hundredths), with their paired 95 % interval by lesion."
)


_MASKS = (
    "A pixel shows an attribute where its probability is above the threshold: the thresholds are "
    "those with the largest Jaccard index pooled over all images and attributes. The probability "
    "that an attribute is there at all is the logistic function of slope times the logit of the "
    "peak, plus intercept; the peak is the mean probability of the likeliest hundredth of the "
    "pixels."
)


def card_of(spec: BundleSpec) -> str:
    """Return a model card in Markdown.

    Its parts are those of Mitchell et al., Model cards for model reporting (FAT* 2019), as far as
    they are known.

    Args:
        spec: What the bundle is.
    """
    can = " and ".join(_TASKS[task] for task in spec.tasks)
    parts = [
        f"# A naevus bundle: {' and '.join(spec.tasks)}",
        f"It {can}. For research only: no medical device, never a diagnosis.",
        _section("Intended use", _points(_INTENDED)),
        _section("Out of scope", _points(_OUT_OF_SCOPE)),
        _section("Members", members_table(spec.members)),
    ]
    if spec.training_data:
        parts.append(_section("Training data", _points(map(_data, spec.training_data))))
    parts.append(_section("Scores", _scores(spec)))
    names = spec.classifier.names if spec.classifier else {}
    if spec.by_class:
        parts.append(
            _section("By diagnosis", [_BY_CLASS, "", *diagnoses_table(spec.by_class, names)])
        )
    if spec.subgroups:
        parts.append(_section("Subgroups", [_SUBGROUPS, "", *subgroups_table(spec.subgroups)]))
    if spec.classifier is not None:
        parts.append(_section("Probabilities", _probabilities(spec.classifier)))
    if spec.attributes is not None:
        parts.append(_section("Attributes", _attributes(spec.attributes)))
    parts += [
        _section("Precision", _precision(spec)),
        _section("Limits", _points([*_LIMITS, *spec.limits])),
    ]
    if spec.provenance:
        rows = [f"{name}: {value}" for name, value in sorted(spec.provenance.items())]
        parts.append(_section("Provenance", _points(rows)))
    if spec.licence is not None:
        parts.append(_section("Licence", [spec.licence]))
    return "\n\n".join(parts) + "\n"


def _section(title: str, lines: Iterable[str]) -> str:
    return "\n".join([f"## {title}", "", *lines])


def _points(lines: Iterable[str]) -> list[str]:
    return [f"- {line}" for line in lines]


def _data(data: TrainingData) -> str:
    return (
        f"{data.task}: {data.name}, {data.images} images; "
        f"licence: {data.licence or 'not known here, see the source'}"
    )


def _scores(spec: BundleSpec) -> list[str]:
    if not spec.scores:
        return ["None were handed over with this bundle."]
    lines = "Intervals are 95 %, by lesion, given the trained networks."
    return [lines, "", *scores_table(spec.scores)]


def _probabilities(classifier: ClassifierSpec) -> list[str]:
    lines = [
        f"Sees the image as `{classifier.crop_mode}`.",
        "",
        _KINDS,
        "",
        f"Temperature: {classifier.temperature:.3f}, {_source(classifier)}.",
        "",
        _FRACTIONS,
        "",
        *class_priors_table(classifier),
    ]
    sets = classifier.conformal
    if sets is None:
        return lines
    return [
        *lines,
        "",
        _SETS.format(coverage=sets.coverage),
        "",
        *sets_table(sets),
    ]


def _attributes(attributes: AttributesSpec) -> list[str]:
    """Return above which probability a pixel shows an attribute, and how presence follows."""
    presence = [(f"{one.slope:.2f}", f"{one.intercept:.2f}") for one in attributes.presence]
    rows = [
        (ATTRIBUTES[name], f"{threshold:.2f}", *fitted)
        for name, threshold, fitted in zip(
            attributes.names,
            attributes.thresholds,
            presence or [("1.00", "0.00")] * len(ATTRIBUTES),
            strict=True,
        )
    ]
    source = attributes.chosen_on
    chosen = "They were not chosen." if source is None else f"Chosen on {source}."
    return [
        _MASKS,
        "",
        chosen,
        "",
        *_table(("attribute", "threshold", "slope", "intercept"), rows),
    ]


def _source(classifier: ClassifierSpec) -> str:
    if classifier.calibrated_on is not None:
        return f"fitted on {classifier.calibrated_on}"
    return "as trained: it was not fitted"


def _precision(spec: BundleSpec) -> list[str]:
    stored = ", ".join(dict.fromkeys(member.storage for member in spec.members))
    lines = [f"Numbers are stored in {stored}."]
    if not spec.storage_costs and not spec.storage_refusals:
        return [*lines, "What other precisions change was not measured for this bundle."]
    lines += [
        _COSTS,
        "",
        *costs_table(spec.storage_costs, spec.storage_refusals),
    ]
    if spec.recommended:
        lines.append("")
    lines += [
        f"- {choice.task}: {choice.storage}, computed in {choice.precision}: {choice.reason}"
        for choice in spec.recommended
    ]
    return lines
