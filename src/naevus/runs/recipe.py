"""A recipe: every setting of a training job, typed and checked, written in TOML."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from naevus.errors import ConfigError, WeightsError, reason
from naevus.io.files import sha256, sha256_of
from naevus.io.settings import read_toml, toml_value, values_of
from naevus.runs.recipe_tables import (
    HASHED,
    PRETRAINED_SUFFIX,
    AugmentSettings,
    DataSettings,
    LossSettings,
    NetworkSettings,
    OptimiserSettings,
    Own,
    Section,
    is_own,
)
from naevus.taxonomy import ATTRIBUTES
from naevus.types import Task

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


LESION: Final = "lesion"
"""The output of a network that segments lesions; the other outputs have their attributes' names."""

MONITORED: Final[dict[str, tuple[str, ...]]] = {
    "segmentation": ("jaccard", "thresholded_jaccard", "sensitivity", "precision", "loss"),
    "attributes": ("jaccard", *(f"jaccard_{name}" for name in (*ATTRIBUTES, LESION)), "loss"),
    "classification": ("balanced_accuracy", "accuracy", "loss"),
}
"""The metrics of the validation split that each task logs; the first is its score."""

_NEWER: Final = (
    ("data", "limit"),
    ("augment", "own"),
    ("metrics",),
    ("monitor",),
    ("monitor_lowest",),
    ("network", "sync_batch_norm"),
)
_REMEDY = "run naevus train TASK --show-recipe for all settings"


class Recipe(Section):
    """One training job."""

    task: Task = Field(description="What the network learns.")
    seed: int = Field(default=2018, ge=0, description="Seed of sampling, augmentation and dropout.")
    epochs: int = Field(default=9, ge=1, description="Passes over the training images.")
    batch_size: int = Field(default=32, ge=1, description="Images per step.")
    sizes: tuple[tuple[int, int], ...] = Field(
        default=((0, 160),),
        description="Pairs of first epoch and side of the images, pixels, from epoch 0 on; the "
        "network predicts at the last side.",
    )
    sampling: Literal["natural", "balanced", "balanced-sqrt"] = Field(
        default="natural",
        description="How often a class is drawn: by its fraction, equally often, or by the root "
        "of its fraction.",
    )
    select: Literal["last", "best"] = Field(
        default="last",
        description="Epoch whose weights are exported: the last, or the best by monitor; "
        "with early_stopping the best by default.",
    )
    monitor: str = Field(
        default="",
        description="Metric of the validation split that select, early_stopping and the plateau "
        "schedule follow: one that history.csv has as val_NAME, own metrics included; by default "
        "the task's score.",
    )
    monitor_lowest: bool = Field(
        default=False,
        description="Whether the lowest value of monitor is the best; by default for loss alone.",
    )
    early_stopping: int = Field(
        default=0, ge=0, description="Epochs without improvement before training stops; 0 is off."
    )
    precision: Literal["auto", "32", "bf16"] = Field(
        default="auto",
        description="Number format of the computation; auto: bf16 if this machine computes in it.",
    )
    metrics: tuple[Own, ...] = Field(
        default=(),
        description="Own metrics of the validation split, as MODULE:NAME, logged every epoch.",
    )
    workers: int = Field(
        default=-1,
        ge=-1,
        description="Threads that prepare batches in the background; -1: two with a GPU, otherwise "
        "none, so that the network keeps all cores.",
    )
    checkpoint_seconds: float = Field(
        default=120.0, ge=0, description="Seconds between two checkpoints within an epoch."
    )
    data: DataSettings = DataSettings()
    network: NetworkSettings = NetworkSettings()
    loss: LossSettings = LossSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    augment: AugmentSettings = AugmentSettings()

    @model_validator(mode="before")
    @classmethod
    def _early_stopping_selects_the_best(cls, settings: Any) -> Any:
        """Set the default weights: after an early stop, the last epochs are the ones too many."""
        if isinstance(settings, dict) and settings.get("early_stopping"):
            return {"select": "best", **settings}
        return settings

    @model_validator(mode="before")
    @classmethod
    def _the_lowest_loss_is_the_best(cls, settings: Any) -> Any:
        if isinstance(settings, dict) and settings.get("monitor") == "loss":
            return {"monitor_lowest": True, **settings}
        return settings

    @field_validator("precision", mode="before")
    @classmethod
    def _numbers_name_a_precision(cls, value: Any) -> Any:
        """Take the number 32, which ``--set precision=32`` gives."""
        return str(value) if isinstance(value, int) else value

    @model_validator(mode="before")
    @classmethod
    def _segmenters_learn_stretched_images(cls, settings: Any) -> Any:
        """Set the default stretch: cameras take 4:3 and 3:2, and segmenters get square inputs."""
        if isinstance(settings, dict) and settings.get("task") in {"segmentation", "attributes"}:
            augment = settings.get("augment", {})
            if isinstance(augment, dict):
                return {**settings, "augment": {"stretch": 1.5, **augment}}
        return settings

    @field_validator("sizes")
    @classmethod
    def _sizes_rise_from_epoch_0(
        cls, sizes: tuple[tuple[int, int], ...]
    ) -> tuple[tuple[int, int], ...]:
        starts = [epoch for epoch, _ in sizes]
        if not starts or starts[0] != 0 or starts != sorted(set(starts)):
            raise ValueError("sizes are [first epoch, pixels] pairs, rising, from epoch 0")
        return sizes

    @model_validator(mode="after")
    def _all_sizes_are_reached(self) -> Self:
        last, pixels = self.sizes[-1]
        if last >= self.epochs:
            raise ValueError(
                f"sizes reach {pixels} px in epoch {last}, but the last of {self.epochs} epochs is "
                f"{self.epochs - 1}: the network would be used at a size it never trained at"
            )
        return self

    @model_validator(mode="after")
    def _what_is_chosen_is_monitored(self) -> Self:
        """Refuse settings that need a validation score if there is no validation split."""
        if self.data.validation_fraction == 0 and self.monitors:
            raise ValueError(
                f"data.validation_fraction is 0, so there is no score for {self.monitors}: "
                "set a validation fraction, or remove that setting"
            )
        return self

    @model_validator(mode="after")
    def _the_monitored_metric_is_logged(self) -> Self:
        own = [name.partition(":")[2] for name in self.metrics]
        known = (*MONITORED[self.task], *own)
        if self.monitor and self.monitor not in known:
            raise ValueError(
                f"monitor is {self.monitor!r}, which {self.task} does not log; it logs "
                f"{', '.join(known)}, and own metrics named in metrics"
            )
        if self.monitor == "loss" and not self.monitor_lowest:
            raise ValueError("monitor_lowest is false, but the lowest loss is the best")
        return self

    @model_validator(mode="after")
    def _averaging_restarts_in_an_epoch(self) -> Self:
        if self.optimiser.ema_restart >= self.epochs:
            raise ValueError(
                f"optimiser.ema_restart is {self.optimiser.ema_restart}, but the last of "
                f"{self.epochs} epochs is {self.epochs - 1}"
            )
        return self

    @property
    def monitors(self) -> str:
        """The settings that need a validation score, joined by commas; empty if none does."""
        needs = {
            'select = "best"': self.select == "best",
            "early_stopping": self.early_stopping > 0,
            'optimiser.schedule = "plateau"': self.optimiser.schedule == "plateau",
        }
        return ", ".join(name for name, needed in needs.items() if needed)

    @property
    def monitored(self) -> str:
        """The name of the metric that decides which epoch is the best."""
        return self.monitor or MONITORED[self.task][0]

    @property
    def own_network(self) -> str | None:
        """The name of the network's code outside naevus; None if it is built in."""
        named = (
            self.network.backbone if self.task == "classification" else self.network.architecture
        )
        return named if is_own(named) else None

    @property
    def own_parts(self) -> tuple[str, ...]:
        """The names of all code outside naevus that training imports."""
        losses = (self.loss.kind,) if self.task == "classification" else self.loss.terms
        named = (self.own_network or "", *losses, *self.augment.own, *self.metrics)
        return tuple(dict.fromkeys(name for name in named if is_own(name)))

    @property
    def pretrained_file(self) -> Path | None:
        """The file of pretrained weights; None if the recipe names none."""
        name = self.network.pretrained
        return Path(name).expanduser() if name.endswith(PRETRAINED_SUFFIX) else None

    def with_pretrained_hash(self) -> Self:
        """Return the recipe with the SHA-256 of its pretrained file in place of the path.

        Raises:
            WeightsError: The file cannot be read.
        """
        path = self.pretrained_file
        if path is None:
            return self
        try:
            kept = f"{HASHED}{sha256(path)}"
        except OSError as error:
            raise WeightsError(
                f"{path}: cannot be read", "name an existing file with --pretrained"
            ) from error
        network = self.network.model_copy(update={"pretrained": kept})
        return self.model_copy(update={"network": network})

    @property
    def input_size(self) -> int:
        """Input side of the trained network, pixels."""
        return self.sizes[-1][1]

    @property
    def architecture(self) -> str:
        """Name of the network, such as ``unet:tu-tf_efficientnet_lite0``."""
        if self.task == "classification":
            return self.network.backbone
        if self.own_network:
            return self.own_network
        return f"{self.network.architecture}:{self.network.encoder}"

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the mask channels of a segmentation or attribute network, in order."""
        if self.task == "segmentation":
            return (LESION,)
        return (LESION, *ATTRIBUTES) if self.data.lesion else tuple(ATTRIBUTES)

    def size_at(self, epoch: int) -> int:
        """Side of the training images in an epoch, pixels."""
        return [size for start, size in self.sizes if start <= epoch][-1]

    def __str__(self) -> str:
        """Return the recipe as TOML."""
        return to_toml(self).rstrip()

    def to_dict(self) -> dict[str, Any]:
        """Return every setting as a dictionary that JSON can hold."""
        return self.model_dump(mode="json")

    def settings(self) -> dict[str, Any]:
        """Return every setting that changes the trained weights."""
        return self.model_dump(mode="json", exclude={"workers", "checkpoint_seconds"})

    def fingerprint(self) -> str:
        """Return a hash of every setting that changes the trained weights.

        Newer settings are left out at their defaults, so that the hashes of older recipes stay.
        """
        settings = self.settings()
        for *sections, name in _NEWER:
            table = settings[sections[0]] if sections else settings
            if not table[name]:
                del table[name]
        return sha256_of(json.dumps(settings, sort_keys=True))


def load_recipe(
    path: str | Path | None = None,
    task: Task | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Recipe:
    """Read a recipe and replace single settings.

    Args:
        path: A TOML file, or None for the defaults.
        task: The task, which must agree with the recipe's; None: the recipe's task.
        overrides: Dotted names and their values, such as ``{"optimiser.clip": 0}``.

    Raises:
        ConfigError: The file is not TOML, or a setting is unknown or out of its range.
    """
    settings: dict[str, Any] = {}
    if path is not None:
        try:
            settings = read_toml(Path(path))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read", "name an existing recipe") from error
        except ValueError as error:
            raise ConfigError(f"{path}: is not TOML ({error})", "correct the file") from error
    if task is not None and settings.setdefault("task", task) != task:
        raise ConfigError(f"{path}: is a recipe for {settings['task']}", f"use one for {task}")
    for name, value in (overrides or {}).items():
        _set(settings, name, value)
    try:
        return Recipe.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        where = ": ".join(str(part) for part in (path or "settings", name) if part)
        raise ConfigError(f"{where}: {reason(first, _full_names())}", _REMEDY) from error


def _full_names() -> dict[str, str]:
    """Return the full name of each table and setting, such as ``optimiser.clip`` for ``clip``."""
    names = {name: name for name in Recipe.model_fields}
    for table, field in Recipe.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            names = {name: f"{table}.{name}" for name in kind.model_fields} | names
    return names


def to_toml(recipe: Recipe, *, comments: bool = False) -> str:
    """Return a recipe as TOML that `load_recipe` reads; each list is on one line.

    Args:
        recipe: The recipe.
        comments: Whether each setting has a comment with its meaning and the values it takes.
    """
    settings = recipe.model_dump(mode="json")
    top = {name: value for name, value in settings.items() if not isinstance(value, dict)}
    lines = list(_lines(Recipe, top, comments))
    for section, values in settings.items():
        if isinstance(values, dict):
            lines += ["", f"[{section}]", *_lines(type(getattr(recipe, section)), values, comments)]
    return "\n".join(lines) + "\n"


def _lines(model: type[BaseModel], values: Mapping[str, Any], comments: bool) -> Iterator[str]:
    for name, value in values.items():
        if comments:
            field = model.model_fields[name]
            text = f"{field.description} [{values_of(field).replace('`', '')}]"
            yield from textwrap.wrap(text, 98, initial_indent="# ", subsequent_indent="# ")
        yield f"{name} = {toml_value(value)}"


def _set(settings: dict[str, Any], name: str, value: Any) -> None:
    *sections, key = name.split(".")
    for section in sections:
        settings = settings.setdefault(section, {})
        if not isinstance(settings, dict):
            raise ConfigError(f"{name}: {section} is a setting, not a table", _REMEDY)
    settings[key] = value
