"""What a bundle says of where it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from naevus import __version__
from naevus.bundles.spec import TrainingData
from naevus.training.selection import USUAL_PART

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from naevus.training.run import Run

SQUARE = (
    "The {task} pictures looked at were all square; no truth of other formats was there to learn "
    "from or to be measured by."
)
"""A limit of bundles whose training pictures were centre squares."""


class _Source(NamedTuple):
    name: str
    licence: str


_HAM = _Source("HAM10000 (Tschandl et al., Scientific Data 2018)", "CC BY-NC 4.0")
_TASK1 = _Source(
    "ISIC 2018 Task 1 (Codella et al. 2019)", "terms of the ISIC Archive, non-commercial"
)
_SOURCES = {
    ("isic2018", "task1"): _TASK1,
    ("isic2018", "task3"): _HAM,
    ("ham10000", "segmentation"): _HAM,
    ("ham10000", "classification"): _HAM,
}


def training_data(runs: Iterable[Run]) -> list[TrainingData]:
    """Return what runs learnt from, each data set once."""
    found: dict[str, TrainingData] = {}
    for run in runs:
        config, layout = run.config, run.inputs["layout"]
        parts = config.data.parts or (USUAL_PART[config.task],)
        key = (layout, parts[0] if layout == "isic2018" and len(parts) == 1 else config.task)
        source = _SOURCES.get(key)
        found[run.inputs["fingerprint"]] = TrainingData(
            task=config.task,
            name=source.name if source else f"pictures in the layout {layout}",
            pictures=run.inputs["pictures"],
            licence=source.licence if source else None,
        )
    return list(found.values())


def licence(data: Sequence[TrainingData]) -> str | None:
    """Return under which terms networks may be used that learnt from this data, if known."""
    named = [f"{each.name}: {each.licence}" for each in data if each.licence]
    if not named:
        return None
    return f"For non-commercial research, as its training data: {'; '.join(dict.fromkeys(named))}."


def provenance(runs: Iterable[Run]) -> dict[str, str | int | float]:
    """Return the version, and hashes of recipes, data and folds; no path and no time."""
    said: dict[str, set[str]] = {}
    for run in runs:
        for what, value in (
            ("recipe", run.config.fingerprint()),
            ("data", run.inputs["fingerprint"]),
            ("folds", run.folds.sha256),
        ):
            said.setdefault(f"{run.config.task} {what}", set()).add(value)
    return {"naevus": __version__, **{name: ", ".join(sorted(each)) for name, each in said.items()}}
