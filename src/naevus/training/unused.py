"""Reject settings and options of a training job that would have no effect."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from naevus.errors import ConfigError
from naevus.io.words import counted
from naevus.runs.recipe import Recipe
from naevus.runs.recipe_tables import KINDS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

_SEGMENTERS = ("network.architecture", "network.encoder", "network.decoder", "loss.terms",
               "loss.soft_masks")  # fmt: skip
_COPIES = ("data.copies_fraction", "data.lesion")
_CLASSIFIERS = (
    "sampling",
    "data.crop_mode",
    "data.crop_margin",
    "data.copies_size",
    "data.context",
    "network.backbone",
    "network.pooling",
    "network.hidden",
    "network.dropout",
    "network.drop_path",
    "loss.kind",
    "loss.gamma",
    "loss.label_smoothing",
    "loss.class_weights",
    "loss.logit_adjustment",
)
_LEAVE_OUT = "leave it out"


def unused_settings(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield each setting that has no effect with the others, and the reason."""
    segments = recipe.task != "classification"
    for name in _CLASSIFIERS if segments else _SEGMENTERS:
        yield name, f"{recipe.task} does not use it"
    yield from _unused_by_own_parts(recipe)
    if recipe.task != "attributes":
        for name in _COPIES:
            yield name, f"{recipe.task} does not use it"
    if not segments and recipe.data.crop_mode == "full":
        yield "data.crop_margin", 'data.crop_mode = "full" makes no crops'
    if not segments and recipe.loss.kind != "focal":
        yield "loss.gamma", f'loss.kind = "{recipe.loss.kind}" has no gamma'
    yield from _unused_by_optimiser(recipe)
    if not recipe.monitors:
        nothing = "nothing follows it without select, early_stopping or the plateau schedule"
        yield "monitor", nothing
        yield "monitor_lowest", nothing
    elif not recipe.monitor:
        yield "monitor_lowest", "the highest score is the best; set monitor"
    if recipe.early_stopping >= recipe.epochs:
        yield "early_stopping", f"training ends earlier, after {counted(recipe.epochs, 'epoch')}"


def _unused_by_own_parts(recipe: Recipe) -> Iterator[tuple[str, str]]:
    segments = recipe.task != "classification"
    if recipe.task == "attributes":
        yield "metrics", "attributes does not use it"
    if recipe.own_network:
        for name in ("network.encoder",) if segments else ("network.pooling", "network.drop_path"):
            yield name, f"{recipe.own_network} is code outside naevus"
    if not segments and recipe.loss.kind not in KINDS:
        for name in ("loss.label_smoothing", "loss.logit_adjustment"):
            yield name, f"{recipe.loss.kind} is made with class_weights alone"


def _unused_by_optimiser(recipe: Recipe) -> Iterator[tuple[str, str]]:
    optimiser = recipe.optimiser
    if optimiser.name != "sgd":
        yield "optimiser.momentum", f'optimiser.name = "{optimiser.name}" does not use it'
    if not optimiser.sam:
        yield "optimiser.sam_batch", "optimiser.sam = 0 turns SAM off"
    if not optimiser.ema:
        yield "optimiser.ema_restart", "optimiser.ema = 0 turns averaging off"
    if optimiser.schedule != "plateau":
        yield "optimiser.patience", f'optimiser.schedule = "{optimiser.schedule}" has no patience'
    elif optimiser.patience >= recipe.epochs:
        yield (
            "optimiser.schedule",
            (f"optimiser.patience = {optimiser.patience} is too long for {recipe.epochs} epochs"),
        )


def _refuse_enlarged(recipe: Recipe, *, copies: bool) -> None:
    """Reject inputs larger than the cached images: prediction would see what training never did.

    Arms of an ablation that are given less detail on purpose do not come here.

    Raises:
        ConfigError: An image would be enlarged.
    """
    side = max(side for _, side in recipe.sizes)
    sides = {"data.cache_size": recipe.data.cache_size}
    if copies and recipe.task == "classification":
        sides["data.copies_size"] = recipe.data.copies_size
    for name, cached in sides.items():
        if cached < side:
            raise ConfigError(
                f"sizes reach {side} px, but {name} is {cached}: the images would only be enlarged",
                f"--set {name}={side}, or lower sizes",
            )


def refuse_unused(
    recipe: Recipe,
    settings: Iterable[str] = (),
    *,
    masks: Path | None = None,
    copies: Sequence[Path] = (),
) -> None:
    """Reject settings and options that have no effect on a job.

    Args:
        recipe: The complete recipe.
        settings: Names of the settings that were given explicitly.
        masks: Predicted masks to crop by.
        copies: Folders of other copies.

    Raises:
        ConfigError: A setting has no effect although it was given or differs from its default, or
            masks or copies would not be used, or images would be enlarged.
    """
    given = set(settings)
    for name, why in unused_settings(recipe):
        if name in given or _value(recipe, name) != _value(_defaults(recipe), name):
            raise ConfigError(f"{name} has no effect: {why}", _LEAVE_OUT)
    if recipe.task != "classification" and masks is not None:
        raise ConfigError(
            f"--masks has no effect: {recipe.task} learns the data set's own masks", _LEAVE_OUT
        )
    if recipe.task == "segmentation" and copies:
        raise ConfigError("--copies has no effect: segmentation does not use it", _LEAVE_OUT)
    if masks is not None and recipe.data.crop_mode == "full":
        raise ConfigError(
            '--masks has no effect: data.crop_mode = "full" uses centre squares',
            "leave --masks out, or --set data.crop_mode=crop",
        )
    for name in ("data.copies_size", "data.copies_fraction"):
        if name in given and not copies:
            raise ConfigError(f"{name} has no effect without --copies", _LEAVE_OUT)
    _refuse_enlarged(recipe, copies=bool(copies))


def once(
    settings: Sequence[tuple[str, Any]], options: Mapping[str, str | int | None]
) -> dict[str, Any]:
    """Return settings by name, including those given by other options.

    Args:
        settings: Names and values of ``--set``.
        options: Values of options that set a setting (None if not given) by ``OPTION SETTING``.

    Raises:
        ConfigError: A setting is given twice.
    """
    found = dict(settings)
    counted = Counter(name for name, _ in settings)
    twice = [name for name, count in counted.items() if count > 1]
    for name in twice:
        raise ConfigError(f"--set gives {name} twice", "give it once")
    for names, value in options.items():
        option, name = names.split()
        if value is None:
            continue
        if name in found:
            raise ConfigError(f"{option} and --set {name} set the same value", "give one of them")
        found[name] = value
    return found


def refuse_unused_by_all(
    configs: Collection[Recipe],
    settings: Iterable[str],
    *,
    masks: Path | None,
    copies: Sequence[Path],
) -> None:
    """Reject settings and options that have no effect on any of several jobs.

    Raises:
        ConfigError: See `refuse_unused`.
    """
    unused = [dict(unused_settings(recipe)) for recipe in configs]
    for name in settings:
        if all(name in each for each in unused):
            raise ConfigError(f"{name} has no effect: {unused[0][name]}", _LEAVE_OUT)
    if copies and all(recipe.task == "segmentation" for recipe in configs):
        raise ConfigError("--copies has no effect: segmentation does not use it", _LEAVE_OUT)
    if masks is not None and all(recipe.data.crop_mode == "full" for recipe in configs):
        raise ConfigError("--masks has no effect: no trained arm uses crops", _LEAVE_OUT)
    for recipe in configs:
        _refuse_enlarged(recipe, copies=bool(copies))


def _value(recipe: Recipe, name: str) -> Any:
    value: Any = recipe
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _defaults(recipe: Recipe) -> Recipe:
    return Recipe(task=recipe.task)
