"""The short model card every bundle carries."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from naevus.bundles.spec import BundleSpec, ClassifierSpec

CARD = "MODEL_CARD.md"
"""The card's file name."""

_TASKS = {
    "segmentation": "outlines the lesion in a dermoscopic picture",
    "classification": "gives probabilities of diagnoses for a dermoscopic picture",
}


def card_of(spec: BundleSpec) -> str:
    """Return a model card in Markdown.

    Args:
        spec: What the bundle is.
    """
    can = " and ".join(_TASKS[task] for task in spec.tasks)
    lines = [
        f"# A naevus bundle: {' and '.join(spec.tasks)}",
        "",
        f"It {can}. For research only: no medical device, never a diagnosis.",
        "",
        "## Members",
        "",
        "| file | architecture | never saw folds | input, pixels | precision |",
        "|---|---|---|---|---|",
        *(
            f"| {member.file} | {member.architecture} | "
            f"{', '.join(map(str, member.folds)) or '–'} | "
            f"{member.input_size} × {member.input_size} | {member.precision} |"
            for member in spec.members
        ),
    ]
    if spec.classifier is not None:
        lines += _classes(spec.classifier)
    if spec.provenance:
        lines += ["", "## Provenance", ""]
        lines += [f"- {name}: {value}" for name, value in sorted(spec.provenance.items())]
    if spec.licence is not None:
        lines += ["", "## Licence", "", spec.licence]
    return "\n".join(lines) + "\n"


def _classes(classifier: ClassifierSpec) -> list[str]:
    lines = [
        "",
        "## Classes",
        "",
        f"Sees the picture as `{classifier.crop_mode}`. Shares are those of the training pictures;",
        "a weight is how much more than its share the class counted.",
    ]
    for member in classifier.members:
        lines += ["", f"{member.file}:", "", "| class | share | weight |", "|---|---|---|"]
        rows = zip(classifier.classes, member.shares, member.weights, strict=True)
        lines += [f"| {code} | {share:.4f} | {weight:.4f} |" for code, share, weight in rows]
    return lines
