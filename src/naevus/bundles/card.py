"""The model card every bundle carries."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from naevus.bundles.spec import BundleSpec, ClassifierSpec, Member, ScoreSpec

CARD = "MODEL_CARD.md"
"""The card's file name."""

_TASKS = {
    "segmentation": "outlines the lesion in a dermoscopic picture",
    "classification": "gives probabilities of diagnoses for a dermoscopic picture",
}


_INTENDED = (
    "Research on dermoscopic pictures: comparing methods, preparing data, teaching.",
    "A reader who sees picture, outline and probabilities together, and decides alone.",
)
_OUT_OF_SCOPE = (
    "Diagnosis, triage or treatment of anyone; there was no clinical study.",
    "Pictures without a dermatoscope: photographs by phone, histology, whole-body views.",
    "Diagnoses outside its classes: it answers with one of them whatever the picture shows.",
)
_LIMITS = (
    "Other clinics, devices and skin tones than in the training data: accuracy is unknown there.",
    "Natural probabilities hold for the case mix of the training data alone.",
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
        _section("Members", _members(spec.members)),
    ]
    if spec.classifier is not None:
        parts.append(_section("Classes", _classes(spec.classifier)))
    if spec.training_data:
        rows = [
            f"{data.task}: {data.name}, {data.pictures} pictures; "
            f"licence: {data.licence or 'not known here, see the source'}"
            for data in spec.training_data
        ]
        parts.append(_section("Training data", _points(rows)))
    parts.append(_section("Scores", _scores(spec.scores)))
    parts.append(_section("Limits", _points([*_LIMITS, *spec.limits])))
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


def _members(members: Iterable[Member]) -> list[str]:
    return [
        "| file | architecture | never saw folds | input, pixels | precision |",
        "|---|---|---|---|---|",
        *(
            f"| {member.file} | {member.architecture} | "
            f"{', '.join(map(str, member.folds)) or '–'} | "
            f"{member.input_size} × {member.input_size} | {member.precision} |"
            for member in members
        ),
    ]


def _scores(scores: Sequence[ScoreSpec]) -> list[str]:
    if not scores:
        return ["None were handed over with this bundle."]
    rows = ["| measure | value | 95 % interval | on |", "|---|---|---|---|"]
    for score in scores:
        known = score.low is not None and score.high is not None
        interval = f"{score.low:.3f} to {score.high:.3f}" if known else "–"
        rows.append(f"| {score.name} | {score.value:.3f} | {interval} | {score.on} |")
    return rows


def _classes(classifier: ClassifierSpec) -> list[str]:
    lines = [
        f"Sees the picture as `{classifier.crop_mode}`. Shares are those of the training pictures;",
        "a weight is how much more than its share the class counted.",
    ]
    for member in classifier.members:
        lines += ["", f"{member.file}:", "", "| class | share | weight |", "|---|---|---|"]
        rows = zip(classifier.classes, member.shares, member.weights, strict=True)
        lines += [f"| {code} | {share:.4f} | {weight:.4f} |" for code, share, weight in rows]
    if classifier.conformal is not None:
        sets = classifier.conformal
        lines += ["", f"Prediction sets that hold the truth with probability {sets.level:g}:", ""]
        lines += ["| class | least probability | groups |", "|---|---|---|"]
        found = zip(sets.codes, sets.thresholds, sets.groups, strict=True)
        lines += [f"| {code} | {least:.4f} | {count} |" for code, least, count in found]
    return lines
