"""What ``bundle.json`` says of trained networks, whoever writes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from naevus.taxonomy import known_taxonomy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from naevus.training.config import TrainConfig
    from naevus.training.export.members import TrainedMember
    from naevus.types import Precision


def member_entry(
    config: TrainConfig, file: str, folds: Sequence[int], **more: Any
) -> dict[str, Any]:
    """Return the entry of one network.

    Args:
        config: Its recipe.
        file: Its graph in the bundle.
        folds: The folds it did not train on.
        more: Precision; of a classifier its weights, its shares and the offset of its maps.
    """
    return {
        "file": file,
        "folds": tuple(folds),
        "architecture": config.architecture,
        "input_size": config.input_size,
        **more,
    }


def stored_entry(
    member: TrainedMember, file: str, precision: Precision, **measured: Any
) -> dict[str, Any]:
    """Return the entry of a trained member whose numbers are stored so.

    Args:
        member: The network.
        file: Its graph in the bundle.
        precision: How the graph's numbers are stored.
        measured: What was measured on its graph in 32 bits.
    """
    trained = {"weights": member.weights, "shares": member.shares} if member.classes else {}
    return member_entry(
        member.config, file, member.folds, precision=precision, **trained, **measured
    )


def task_entry(
    config: TrainConfig, members: Sequence[dict[str, Any]], codes: tuple[str, ...]
) -> dict[str, Any]:
    """Return the entry of a task: its name in ``bundle.json``, and its members in their form.

    Args:
        config: The recipe of one of the members; all see pictures alike.
        members: Their entries.
        codes: A classifier's classes in the order of its logits.
    """
    data = config.data
    if config.task == "segmentation":
        return {"segmenter": {"members": members, "colour_constancy": data.colour_constancy}}
    return {
        "classifier": {
            "members": members,
            "taxonomy": known_taxonomy(codes),
            "classes": codes,
            "crop_mode": data.crop_mode,
            "crop_margin": data.crop_margin,
            "colour_constancy": data.colour_constancy,
        }
    }
