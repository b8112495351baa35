"""The short model card every bundle carries."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from naevus.bundles.bundle import BundleSpec

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
    lines = [
        f"# A naevus bundle: {spec.task}",
        "",
        f"It {_TASKS[spec.task]}. For research only: no medical device, never a diagnosis.",
        "",
        "## Members",
        "",
        "| file | architecture | fold | input, pixels |",
        "|---|---|---|---|",
        *(
            f"| {member.file} | {member.architecture} | "
            f"{'–' if member.fold is None else member.fold} | "
            f"{member.input_size} × {member.input_size} |"
            for member in spec.members
        ),
    ]
    if spec.classes:
        lines += [
            "",
            "## Classes",
            "",
            f"Sees the picture as `{spec.crop_mode}`. Shares are those of the training pictures;",
            "a weight is how much more than its share the class counted.",
            "",
            "| class | share | weight |",
            "|---|---|---|",
            *(
                f"| {code} | {share:.4f} | {weight:.4f} |"
                for code, share, weight in zip(spec.classes, spec.shares, spec.weights, strict=True)
            ),
        ]
    if spec.provenance:
        lines += ["", "## Provenance", ""]
        lines += [f"- {name}: {value}" for name, value in sorted(spec.provenance.items())]
    return "\n".join(lines) + "\n"
