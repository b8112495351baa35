"""The model card of a bundle."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from naevus.io.words import counted, plural
from naevus.taxonomy import ATTRIBUTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from naevus.bundles.figures import (
        ClassFigures,
        Figure,
        ScoreSpec,
        StorageCost,
        StorageRefusal,
        SubgroupFigures,
    )
    from naevus.bundles.spec import (
        AttributesSpec,
        BundleSpec,
        ClassifierSpec,
        ConformalSpec,
        Member,
        PatientSpec,
        TrainingData,
    )
    from naevus.types import CropMode, Unit


# The tables of a model card, in Markdown.


def members_table(members: Iterable[Member]) -> list[str]:
    """List the networks."""
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
    return _table(("file", "architecture", "held-out folds", "input, pixels", "storage"), rows)


def scores_table(scores: Sequence[ScoreSpec]) -> list[str]:
    """List the scores and, in numbered notes below the table, what each was measured on."""
    places = {
        on: number for number, on in enumerate(dict.fromkeys(s.measured_on for s in scores), 1)
    }
    rows = [(score.name, *_parts(score), f"({places[score.measured_on]})") for score in scores]
    notes = [f"{number}. {on}" for on, number in places.items()]
    return [*_table(("metric", "value", "95 % interval", "measured on"), rows), "", *notes]


def diagnoses_table(
    classes: Iterable[ClassFigures], names: Mapping[str, str], unit: Unit = "lesion"
) -> list[str]:
    """List the metrics of each diagnosis."""
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
    header = ("diagnosis", plural(unit), "images", "recall", "precision", "AUC", "coverage")
    return _table(header, rows)


def subgroups_table(subgroups: Iterable[SubgroupFigures], unit: Unit = "lesion") -> list[str]:
    """List the metrics of each subgroup and mark subgroups with few groups."""
    rows = [
        (
            f"{one.attribute}: {one.value}",
            f"{one.groups:,}{' (few)' if one.small else ''}",
            _whole(one.balanced_accuracy),
            " ".join(one.over),
            "" if one.gap is None else f"{one.gap:+z.3f}",
            _number(one.p_holm),
        )
        for one in subgroups
    ]
    header = ("subgroup", plural(unit), "balanced accuracy", "classes", "gap", "p")
    return _table(header, rows)


def class_priors_table(classifier: ClassifierSpec) -> list[str]:
    """List the prior, training weight and calibration offset of each class."""
    rows = []
    for place, code in enumerate(classifier.classes):
        class_priors = [member.class_priors[place] for member in classifier.members]
        weights = [member.class_weights[place] for member in classifier.members]
        offset = f"{classifier.offsets[place]:+z.2f}" if classifier.offsets else "0"
        rows.append((code, _ends(class_priors), _ends(weights), offset))
    return _table(("class", "class prior", "class weight", "offset"), rows)


def sets_table(sets: ConformalSpec, unit: Unit = "lesion") -> list[str]:
    """List the thresholds of the prediction sets."""
    found = zip(sets.classes, sets.thresholds, sets.groups, strict=True)
    rows = [(code, f"{threshold:.4f}", f"{count:,}") for code, threshold, count in found]
    return _table(("class", "threshold", plural(unit)), rows)


def patient_table(patient: PatientSpec) -> list[str]:
    """List the factor by which each value multiplies the odds of each class."""
    values = [(f"age {age:g}", terms) for age, terms in zip(patient.ages, patient.age, strict=True)]
    values += [*patient.sex.items(), *patient.site.items()]
    rows = [(name, *(f"{math.exp(term):.2f}" for term in terms)) for name, terms in values]
    return _table(("value", *patient.classes), rows)


def costs_table(costs: Iterable[StorageCost], refusals: Iterable[StorageRefusal] = ()) -> list[str]:
    """List what each precision changes, and the precisions that did not run."""
    rows: list[tuple[str, ...]] = [
        (
            cost.task,
            f"{cost.storage}, {cost.precision}",
            cost.score,
            _number(cost.reference),
            f"{100 * cost.difference.value:+z.2f}",
            _interval(cost.difference, scale=100, input_spec="+z.2f"),
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
            f"did not run on the machine used for measuring: {refused.problem}",
            *[""] * 6,
        )
        for refused in refusals
    ]
    header = ("task", "storage, precision", "metric", "value in fp32", "change, points")
    return _table((*header, "95 % interval", "predictions changed", "images", "networks"), rows)


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    return [
        f"| {' | '.join(header)} |",
        f"|{'---|' * len(header)}",
        *(f"| {' | '.join(cell or '–' for cell in row)} |" for row in rows),
    ]


def _parts(figure: Figure) -> tuple[str, str]:
    return _number(figure.value), _interval(figure)


def _interval(figure: Figure, *, scale: int = 1, input_spec: str = "z.3f") -> str:
    if figure.low is None or figure.high is None:
        return ""
    return f"{scale * figure.low:{input_spec}} to {scale * figure.high:{input_spec}}"


def _whole(figure: Figure | None) -> str:
    if figure is None:
        return ""
    value, interval = _parts(figure)
    return f"{value} ({interval})" if interval else value


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:z.3f}"


def _ends(values: Sequence[float]) -> str:
    low, high = (f"{end:.4f}" for end in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


CARD = "MODEL_CARD.md"
"""The card's file name."""

_TASKS = {
    "segmentation": "segments the lesion in a dermoscopic image",
    "classification": "predicts the probability of each diagnosis from a dermoscopic image",
    "attributes": (
        "segments globules, milia-like cysts, negative network, pigment network and streaks"
    ),
}
_INTENDED = (
    "Research on dermoscopic images: comparing methods, preparing data, teaching.",
    "Readers who see the image, the contour and the probabilities together, and decide themselves.",
)
_OUT_OF_SCOPE = (
    "Diagnosis, triage or treatment of patients: there has been no clinical study.",
    "Images taken without a dermatoscope: phone photographs, whole-body images, histology.",
    "Other diagnoses: the classifier predicts one of its classes whatever the image shows.",
)
_LIMITS = (
    "Accuracy is unknown for clinics, devices and skin tones that the training data lack.",
    "Natural probabilities are valid only for the case mix of the training data.",
)
_CROSS_FITTED = (
    " *Cross-fitted* means that each part was evaluated with the calibration fitted on the others."
)
_BY_CLASS = (
    "Each diagnosis against all others. Recall and precision are those of the balanced decision; "
    "the AUC ranks images by the natural probability. Coverage is the fraction of {units} whose "
    "prediction set contains the diagnosis, with one image per {unit}. Intervals are 95 % Wilson "
    "intervals; the effective sample size accounts for several images of one {unit}."
)
_SUBGROUPS = (
    "Balanced accuracy is the mean recall of the diagnoses with at least ten {units} in the "
    "subgroup. Compare two rows only if they list the same classes. The gap is the balanced "
    "accuracy of the subgroup minus that of all other images, over the diagnoses that both have. "
    "The p value is the probability of a gap at least as wide by chance, with Holm's correction "
    "for all rows."
)
_KINDS = (
    "The classifier outputs two kinds of probability. *Natural* probabilities apply to images "
    "with the class priors of the training data: the effect of the class weights is removed from "
    "the logits, which are then divided by the temperature and shifted by the offsets. *Balanced* "
    "probabilities apply where every class is equally common: they are the natural probabilities "
    "divided by the class priors and normalised. The *confidence* is the largest natural "
    "probability."
)
_INPUTS: Final[dict[CropMode, str]] = {
    "full": "the centre square",
    "crop": "a square around the lesion",
    "blank": "a square around the lesion, black outside the mask",
}
_FRACTIONS = (
    "The class prior is the class's fraction of the training images. The class weight is its "
    "relative weight in the training loss. The offset is added to the logit: a positive one means "
    "that the class was more common among the held-out images than predicted. A range is given "
    "where the members differ."
)
_SETS = (
    "A *prediction set* contains the most probable diagnosis and every diagnosis whose natural "
    "probability reaches its threshold. For at least {percent:g} % of new {units} of each "
    "diagnosis, the set contains that diagnosis, provided that they resemble the calibration data "
    "(class-conditional split conformal prediction, one image per {unit}). A threshold of 0 means "
    "that there were too few {units} to fit one; the diagnosis is then in every set. A threshold "
    "of 1 means that the diagnosis is in a set only as the most probable one, which suffices for "
    "its coverage."
)
_PATIENT = (
    "If the patient's age, sex or the lesion's site are given (`naevus predict --metadata`), each "
    "value multiplies the odds of each diagnosis by the factor in the table, for natural and "
    "balanced probabilities alike; factors of a row matter only relative to one another. Ages in "
    "between are interpolated, ages outside count as the nearest one, and a missing value changes "
    "nothing. Prediction sets then have thresholds of their own. All this holds only for patients "
    "like those of the training data. A diagnosis is missed more often where the data make it "
    "rarer, such as melanoma in the young."
)
_COSTS = (
    "Changes are relative to storage and computation in fp32, on the same held-out images. They "
    "are in percentage points, with paired 95 % intervals by {unit}."
)


_MASKS = (
    "A pixel belongs to an attribute if its probability exceeds the threshold. The thresholds "
    "maximise the Jaccard index pooled over all images and attributes. The probability that an "
    "attribute is present in an image is a logistic function of the peak: slope × logit(peak) + "
    "intercept. The peak is the mean probability of the highest one per cent of pixels."
)


def card_of(spec: BundleSpec) -> str:
    """Write a model card in Markdown.

    Its sections follow Mitchell et al., Model cards for model reporting (FAT* 2019), as far as
    they are known.

    Args:
        spec: The bundle's specification.
    """
    parts = [
        f"# Model card: naevus bundle for {_listed(spec.tasks)}",
        f"This bundle {_listed([_TASKS[task] for task in spec.tasks])}.",
        "**For research use only. It is not a medical device and never makes a diagnosis.**",
        _section("Intended use", _points(_INTENDED)),
        _section("Out of scope", _points(_OUT_OF_SCOPE)),
        _section("Members", members_table(spec.members)),
    ]
    if spec.training_data:
        parts.append(_section("Training data", _points(map(_data, spec.training_data))))
    parts.append(_section("Scores", _scores(spec)))
    names = spec.classifier.names if spec.classifier else {}
    words = {"unit": spec.unit, "units": plural(spec.unit)}
    if spec.by_class:
        table = diagnoses_table(spec.by_class, names, spec.unit)
        parts.append(_section("By diagnosis", [_BY_CLASS.format(**words), "", *table]))
    if spec.subgroups:
        table = subgroups_table(spec.subgroups, spec.unit)
        parts.append(_section("Subgroups", [_SUBGROUPS.format(**words), "", *table]))
    if spec.classifier is not None:
        parts.append(_section("Probabilities", _probabilities(spec.classifier, spec.unit)))
        if spec.classifier.patient is not None:
            parts.append(
                _section("The patient's data", _patient(spec.classifier.patient, spec.unit))
            )
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


def _listed(words: Sequence[str]) -> str:
    return " and ".join((", ".join(words[:-1]), words[-1])) if len(words) > 1 else words[0]


def _section(title: str, lines: Iterable[str]) -> str:
    return "\n".join([f"## {title}", "", *lines])


def _points(lines: Iterable[str]) -> list[str]:
    return [f"- {line}" for line in lines]


def _data(data: TrainingData) -> str:
    return (
        f"{data.task}: {data.name}, {counted(data.images, 'image')}; "
        f"licence: {data.licence or 'unknown, see the source'}"
    )


def _scores(spec: BundleSpec) -> list[str]:
    if not spec.scores:
        return ["This bundle contains no scores."]
    units = plural(spec.unit)
    lines = f"Intervals are 95 % intervals over {units}; the trained networks are taken as fixed."
    if any("cross-fitted" in score.measured_on for score in spec.scores):
        lines += _CROSS_FITTED
    return [lines, "", *scores_table(spec.scores)]


def _input(classifier: ClassifierSpec) -> str:
    """Return a sentence about the classifier's input, by network if they differ."""
    modes, parts = classifier.crop_modes, []
    for mode in modes:
        alike = [each for each in classifier.members if classifier.mode_of(each) == mode]
        files = ", ".join(f"`{each.file}`" for each in alike)
        parts.append(f"{_INPUTS[mode]} (`{mode}`)" + f" for {files}" * (len(modes) > 1))
    return f"Input of the classifier: {'; '.join(parts)}."


def _probabilities(classifier: ClassifierSpec, unit: Unit) -> list[str]:
    lines = [
        _input(classifier),
        "",
        _KINDS,
        "",
        f"Temperature: {classifier.temperature:.3f} ({_source(classifier)}).",
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
        _SETS.format(percent=100 * sets.coverage, unit=unit, units=plural(unit)),
        "",
        *sets_table(sets, unit),
    ]


def _patient(patient: PatientSpec, unit: Unit) -> list[str]:
    lines = [_PATIENT, "", f"Fitted on {patient.fitted_on or 'unknown data'}.", ""]
    lines += patient_table(patient)
    return (
        lines if patient.conformal is None else [*lines, "", *sets_table(patient.conformal, unit)]
    )


def _attributes(attributes: AttributesSpec) -> list[str]:
    """List each attribute's pixel threshold and the coefficients of its presence."""
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
    chosen = (
        "The values are defaults; none was fitted." if source is None else f"Fitted on {source}."
    )
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
    return "not fitted"


def _precision(spec: BundleSpec) -> list[str]:
    stored = ", ".join(dict.fromkeys(member.storage for member in spec.members))
    lines = [f"The weights are stored in {stored}."]
    if not spec.storage_costs and not spec.storage_refusals:
        return [*lines, "The effect of other precisions has not been measured for this bundle."]
    lines += [
        "",
        _COSTS.format(unit=spec.unit),
        "",
        *costs_table(spec.storage_costs, spec.storage_refusals),
    ]
    if spec.recommended:
        lines += ["", "Recommended:", ""]
    lines += [
        f"- {choice.task}: stored in {choice.storage}, computed in {choice.precision}: "
        f"{choice.reason}"
        for choice in spec.recommended
    ]
    return lines
