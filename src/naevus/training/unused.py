"""Settings and options of a training that would do nothing: they are refused, not passed over."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from naevus.errors import ConfigError
from naevus.runs.recipe import TrainConfig

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


def unused_settings(config: TrainConfig) -> Iterator[tuple[str, str]]:
    """Yield each setting that counts for nothing beside the others, and why."""
    segments = config.task != "classification"
    for name in _CLASSIFIERS if segments else _SEGMENTERS:
        yield name, f"{config.task} does not use it"
    if config.task != "attributes":
        for name in _COPIES:
            yield name, f"{config.task} does not use it"
    if not segments and config.data.crop_mode == "full":
        yield "data.crop_margin", 'data.crop_mode = "full" cuts no crops'
    if not segments and config.loss.kind != "focal":
        yield "loss.gamma", f'loss.kind = "{config.loss.kind}" has none'
    yield from _unused_by_optimiser(config)
    if config.early_stopping >= config.epochs:
        yield "early_stopping", f"{config.epochs} epochs end before it can stop them"


def _unused_by_optimiser(config: TrainConfig) -> Iterator[tuple[str, str]]:
    optimiser = config.optimiser
    if optimiser.name != "sgd":
        yield "optimiser.momentum", f'optimiser.name = "{optimiser.name}" has its own'
    if not optimiser.sam:
        yield "optimiser.sam_batch", "optimiser.sam = 0 takes no such steps"
    if not optimiser.ema:
        yield "optimiser.ema_restart", "optimiser.ema = 0 averages nothing"
    if optimiser.schedule != "plateau":
        yield "optimiser.patience", f'optimiser.schedule = "{optimiser.schedule}" waits for nothing'
    elif optimiser.patience >= config.epochs:
        yield (
            "optimiser.schedule",
            (f"optimiser.patience = {optimiser.patience} is never over in {config.epochs} epochs"),
        )


def refuse_unused(
    config: TrainConfig,
    settings: Iterable[str] = (),
    *,
    masks: Path | None = None,
    copies: Sequence[Path] = (),
) -> None:
    """Refuse what a job is told and will not heed.

    Args:
        config: The recipe with everything set.
        settings: Names of the settings that were given one by one.
        masks: Predicted masks to cut crops by.
        copies: Folders of other copies.

    Raises:
        ConfigError: A setting differs from its default, or was given, and counts for nothing; or
            masks or copies would not be looked at.
    """
    given = set(settings)
    for name, why in unused_settings(config):
        if name in given or _value(config, name) != _value(_defaults(config), name):
            raise ConfigError(f"{name} does nothing here: {why}", _LEAVE_OUT)
    if config.task != "classification" and masks is not None:
        raise ConfigError(
            f"--masks does nothing here: {config.task} learns the data set's own masks", _LEAVE_OUT
        )
    if config.task == "segmentation" and copies:
        raise ConfigError("--copies does nothing here: segmentation uses none", _LEAVE_OUT)
    if masks is not None and config.data.crop_mode == "full":
        raise ConfigError(
            'the masks of --masks do nothing here: data.crop_mode = "full" shows centre squares',
            "leave --masks out, or --set data.crop_mode=crop",
        )
    for name in ("data.copies_size", "data.copies_fraction"):
        if name in given and not copies:
            raise ConfigError(f"{name} does nothing here: there are no --copies", _LEAVE_OUT)


def once(settings: Sequence[tuple[str, Any]], options: Mapping[str, str | None]) -> dict[str, Any]:
    """Return settings by name, with those that options give.

    Args:
        settings: Names and values of ``--set``.
        options: Values of options that stand for settings, None where not given, by
            ``OPTION SETTING``.

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
            raise ConfigError(f"{option} and --set {name} say the same", "give one of them")
        found[name] = value
    return found


def refuse_unused_by_all(
    configs: Collection[TrainConfig],
    settings: Iterable[str],
    *,
    masks: Path | None,
    copies: Sequence[Path],
) -> None:
    """Refuse what none of several jobs will heed.

    Raises:
        ConfigError: As `refuse_unused`, for a setting that was given, for masks and for copies.
    """
    unused = [dict(unused_settings(config)) for config in configs]
    for name in settings:
        if all(name in each for each in unused):
            raise ConfigError(f"{name} does nothing here: {unused[0][name]}", _LEAVE_OUT)
    if copies and all(config.task == "segmentation" for config in configs):
        raise ConfigError("--copies does nothing here: segmentation uses none", _LEAVE_OUT)
    if masks is not None and all(config.data.crop_mode == "full" for config in configs):
        raise ConfigError(
            "the masks of --masks do nothing here: no arm that is trained cuts crops", _LEAVE_OUT
        )


def _value(config: TrainConfig, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _defaults(config: TrainConfig) -> TrainConfig:
    return TrainConfig(task=config.task)
