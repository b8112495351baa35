"""A recipe: every setting of a training job, typed and checked, written in TOML."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from naevus.errors import ConfigError, WeightsError, reason
from naevus.io.files import sha256, sha256_of
from naevus.taxonomy import ATTRIBUTES
from naevus.types import CropMode, Task

if TYPE_CHECKING:
    from collections.abc import Mapping


def parse_setting(text: str) -> tuple[str, Any]:
    """Return the name and value of a setting; values are TOML, bare words are strings."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text}: has no value", "write NAME=VALUE")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value.strip()


PRETRAINED_SUFFIX: Final = ".safetensors"
HASHED: Final = "sha256:"
"""Prefix of the hash that replaces the path of a pretrained file in a run's recipe."""
LESION: Final = "lesion"
"""The output of a network that segments lesions; the other outputs have their attributes' names."""

_REMEDY = "run naevus train TASK --show-recipe for all settings"


class Section(BaseModel):
    """A table of the TOML file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataSettings(Section):
    """Which images are used, and how they are prepared.

    Attributes:
        crop_mode: What a classifier sees: the centre square, a square around the lesion, or that
            square with black skin.
        crop_margin: Margin on each side of a crop, as a fraction of the lesion's longer side.
        colour_constancy: Whether shades of grey corrects the colours of each image.
    """

    parts: tuple[str, ...] = Field(
        default=(), description="Parts of the data set; by default those of the task."
    )
    image_type: Literal["auto", "dermoscopic", "clinical", "tile", "all"] = Field(
        default="auto",
        description="Type of images to use; auto: dermoscopic if there are any, otherwise all.",
    )
    taxonomy: Literal["auto", "isic2018", "isic2019", "milk10k", "binary", "own"] = Field(
        default="auto",
        description="Set of diagnoses; auto: the best match; own: the labels of the data set.",
    )
    cache_size: int = Field(default=256, ge=16, description="Side of cached images, pixels.")
    copies_size: int = Field(
        default=256, ge=16, description="Side of cached alternative copies, pixels."
    )
    copies_fraction: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Probability of drawing one of an image's alternative copies, if it has any.",
    )
    lesion: bool = Field(
        default=True, description="Whether an attribute network also learns lesion masks."
    )
    crop_mode: CropMode = "full"
    crop_margin: float = Field(default=0.15, ge=0, le=1)
    context: float = Field(
        default=1.0,
        ge=1,
        le=2,
        description="Side of the image before augmentation, as a multiple of the input side. "
        "Above 1, rotated and shifted images show real skin at the edges, not mirrored pixels.",
    )
    colour_constancy: bool = False
    validation_fraction: float = Field(
        default=0.1,
        ge=0,
        le=0.5,
        description="Fraction of the training groups used as validation split.",
    )


class NetworkSettings(Section):
    """The network and its initial weights.

    Attributes:
        architecture: Segmenter: an architecture of segmentation-models-pytorch.
        encoder: Segmenter: an encoder; ``tu-`` before any name of timm.
        decoder: Segmenter: options of the architecture, such as ``decoder_channels``.
        backbone: Classifier: any network of timm.
        pooling: Classifier: how features are pooled over the image.
        hidden: Classifier: width of a dense layer before the last one; 0 for none.
        dropout: Classifier: dropout before each dense layer.
    """

    pretrained: str = Field(
        default="imagenet",
        description="Initial weights of the encoder or backbone: imagenet, none (random), or a "
        ".safetensors file with timm's names; a run records its SHA-256, not its path.",
    )
    architecture: str = "unet"
    encoder: str = "tu-tf_efficientnet_lite0"
    decoder: dict[str, Any] = Field(default_factory=dict)
    backbone: str = "tf_efficientnet_lite0"
    pooling: Literal["avg", "max"] = "avg"
    hidden: int = Field(default=0, ge=0)
    dropout: float = Field(default=0.2, ge=0, lt=1)
    drop_path: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Stochastic depth rate of the last residual block; it rises linearly with "
        "depth.",
    )
    init_seed: int = Field(
        default=2018,
        ge=0,
        description="Seed of randomly initialised layers; networks with the same one can be "
        "averaged.",
    )

    @field_validator("pretrained")
    @classmethod
    def _weights_have_a_known_origin(cls, value: str) -> str:
        known = value in ("imagenet", "none") or value.endswith(PRETRAINED_SUFFIX)
        if not known and not re.fullmatch(f"{HASHED}[0-9a-f]{{64}}", value):
            raise ValueError(
                f"{value!r} is neither imagenet nor none nor a {PRETRAINED_SUFFIX} file"
            )
        return value


class LossSettings(Section):
    """The loss; ``terms`` and ``soft_masks`` are the segmenter's, the rest the classifier's.

    Attributes:
        terms: Losses to add up, each once.
        soft_masks: Whether the pixels of resized masks are fractions; otherwise thresholded.
        kind: The classifier's loss.
        gamma: Exponent of the focal loss (Lin et al. 2017).
        label_smoothing: Fraction of each target that is distributed over all classes.
        class_weights: Weights of the classes; see above.
    """

    terms: tuple[Literal["bce", "dice", "jaccard", "lovasz"], ...] = ("bce", "jaccard")
    soft_masks: bool = True
    kind: Literal["cross_entropy", "focal"] = "cross_entropy"
    gamma: float = Field(default=2.0, ge=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    class_weights: Literal["ones", "balanced", "balanced-sqrt"] = "balanced-sqrt"
    logit_adjustment: float = Field(
        default=0.0, ge=0, description="tau of Menon et al. 2021; 0 is off."
    )


class OptimiserSettings(Section):
    """Optimiser, learning rate schedule and averaging of weights.

    Attributes:
        name: The optimiser.
        learning_rate: The highest one, at the end of the warm-up.
        weight_decay: Decay of weights; biases and normalisation layers have none.
        momentum: Momentum of ``sgd``.
        schedule: Course of the learning rate after the warm-up.
    """

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    warm_up: float = Field(default=0.1, ge=0, lt=1, description="Fraction of all steps.")
    patience: int = Field(default=2, ge=0, description="Epochs the plateau schedule waits.")
    clip: float = Field(default=1.0, ge=0, description="Largest gradient norm; 0 is off.")
    sam: float = Field(
        default=0.0,
        ge=0,
        description="Radius of sharpness-aware minimisation, which costs half as much again; "
        "0 is off.",
    )
    sam_batch: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Fraction of each batch for the first gradient of sharpness-aware "
        "minimisation; 1 doubles the cost of a step.",
    )
    ema: float = Field(
        default=0.998, ge=0, lt=1, description="Decay of the averaged weights; 0 is off."
    )
    ema_restart: int = Field(
        default=0,
        ge=0,
        description="Epoch in which averaging restarts, such as the first at the last size; "
        "0 is never.",
    )
    bn_images: int = Field(
        default=0,
        ge=0,
        description="Number of training images, sampled and augmented as in the last epoch, for "
        "re-estimating the batch norm statistics after training; 0 keeps the averaged statistics.",
    )


class AugmentSettings(Section):
    """Strength of each augmentation; 0 turns it off.

    Attributes:
        d4: Whether images are flipped and turned by quarters.
        brightness: Largest relative change, either way.
        contrast: Largest relative change, either way.
        saturation: Largest relative change, either way.
    """

    d4: bool = True
    rotation: float = Field(default=180.0, ge=0, le=180, description="Degrees, either way.")
    scale: float = Field(
        default=0.2, ge=0, lt=1, description="Zoom between 1 - scale and 1 + scale."
    )
    shift: float = Field(default=0.05, ge=0, lt=1, description="Fraction of the side, either way.")
    stretch: float = Field(default=1.0, ge=1, le=3, description="Largest change of aspect ratio.")
    brightness: float = Field(default=0.15, ge=0, lt=1)
    contrast: float = Field(default=0.15, ge=0, lt=1)
    saturation: float = Field(default=0.15, ge=0, lt=1)
    hue: float = Field(default=10.0, ge=0, le=180, description="Degrees, either way.")
    blur: float = Field(
        default=1.0, ge=0, description="Largest Gaussian sigma, pixels at network size."
    )
    sharpen: float = Field(default=1.0, ge=0, description="Largest amount of unsharp masking.")
    jpeg: float = Field(default=0.3, ge=0, le=1, description="Fraction of images recompressed.")
    hair: float = Field(default=0.1, ge=0, le=1, description="Fraction of images with drawn hairs.")
    area_average: bool = Field(
        default=False,
        description="Whether shrunk images are averaged over areas, as in prediction, instead of "
        "sampled.",
    )


class Recipe(Section):
    """One training job.

    Attributes:
        task: What the network predicts.
        seed: Seed of the order of the images and of augmentation.
        epochs: Passes over the training images.
        batch_size: Number of images per step.
        sizes: Pairs of first epoch and image side, pixels; the network predicts at the last one.
        sampling: How often images of each class are drawn; see above.
        select: Weights to export: of the last epoch, or the best on the validation split.
        precision: Precision of the computation; auto: bf16 where the hardware computes in it.
        checkpoint_seconds: Seconds between checkpoints within an epoch.
    """

    task: Task
    seed: int = Field(default=2018, ge=0)
    epochs: int = Field(default=9, ge=1)
    batch_size: int = Field(default=32, ge=1)
    sizes: tuple[tuple[int, int], ...] = ((0, 160),)
    sampling: Literal["natural", "balanced", "balanced-sqrt"] = "natural"
    select: Literal["last", "best"] = "last"
    early_stopping: int = Field(
        default=0, ge=0, description="Epochs without improvement before training stops; 0 is off."
    )
    precision: Literal["auto", "32", "bf16"] = "auto"
    workers: int = Field(
        default=-1,
        ge=-1,
        description="Threads that prepare batches in the background; -1: two with a GPU, otherwise "
        "none, so that the network keeps all cores.",
    )
    checkpoint_seconds: float = Field(default=120.0, ge=0)
    data: DataSettings = DataSettings()
    network: NetworkSettings = NetworkSettings()
    loss: LossSettings = LossSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    augment: AugmentSettings = AugmentSettings()

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

    def fingerprint(self) -> str:
        """Return a hash of every setting that changes the trained weights."""
        settings = self.model_dump(mode="json", exclude={"workers", "checkpoint_seconds"})
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
            settings = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read", "name an existing recipe") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
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
    names: dict[str, str] = {}
    for table, field in Recipe.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            names |= {name: f"{table}.{name}" for name in kind.model_fields}
    return names | {name: name for name in Recipe.model_fields}


def to_toml(recipe: Recipe) -> str:
    """Return a recipe as TOML that `load_recipe` reads; each list is on one line."""
    settings = recipe.model_dump(mode="json")
    top = {name: value for name, value in settings.items() if not isinstance(value, dict)}
    lines = [f"{name} = {_value(value)}" for name, value in top.items()]
    for section, values in settings.items():
        if isinstance(values, dict):
            lines += ["", f"[{section}]"]
            lines += [f"{name} = {_value(value)}" for name, value in values.items()]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        items = (f"{_key(name)} = {_value(item)}" for name, item in value.items())
        return "{" + ", ".join(items) + "}"
    # JSON's strings and lists are valid TOML, except for surrogate pairs and U+007F.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _set(settings: dict[str, Any], name: str, value: Any) -> None:
    *sections, key = name.split(".")
    for section in sections:
        settings = settings.setdefault(section, {})
        if not isinstance(settings, dict):
            raise ConfigError(f"{name}: {section} is a setting, not a table", _REMEDY)
    settings[key] = value
