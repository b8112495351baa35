"""The tables of a recipe: data, network, loss, optimiser and augmentations."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from naevus.types import CropMode

PRETRAINED_SUFFIX: Final = ".safetensors"
HASHED: Final = "sha256:"
"""Prefix of the hash that replaces the path of a pretrained file in a run's recipe."""
TERMS: Final = ("bce", "dice", "jaccard", "lovasz")
"""The terms of a segmenter's loss."""
KINDS: Final = ("cross_entropy", "focal")
"""The losses of a classifier."""
_OWN = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_own(name: str) -> bool:
    """Return whether a setting names code outside naevus, as ``package.module:attribute``."""
    return _OWN.fullmatch(name) is not None


def _known_or_own(*known: str) -> AfterValidator:
    def check(name: str) -> str:
        if name not in known and not is_own(name):
            choices = f"{', '.join(known)} or MODULE:NAME" if known else "MODULE:NAME"
            raise ValueError(f"must be {choices}, not {name!r}")
        return name

    return AfterValidator(check)


Own = Annotated[str, _known_or_own()]
"""The name of code outside naevus."""


class Section(BaseModel):
    """A table of the TOML file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataSettings(Section):
    """Which images are used, and how they are prepared."""

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
    limit: int = Field(
        default=0,
        ge=0,
        description="Largest number of images, in whole lesions and of all diagnoses, to try "
        "something out; 0 for all.",
    )
    lesion: bool = Field(
        default=True, description="Whether an attribute network also learns lesion masks."
    )
    crop_mode: CropMode = Field(
        default="full",
        description="Input of a classifier: the centre square, a crop around the lesion, or a "
        "crop with the skin blanked out.",
    )
    crop_margin: float = Field(
        default=0.15,
        ge=0,
        le=1,
        description="Margin around the lesion's box, as a fraction of its longer side.",
    )
    context: float = Field(
        default=1.0,
        ge=1,
        le=2,
        description="Side of the image before augmentation, as a multiple of the input side. "
        "Above 1, rotated and shifted images show real skin at the edges, not mirrored pixels.",
    )
    colour_constancy: bool = Field(
        default=False, description="Whether shades of grey is applied to the images."
    )
    validation_fraction: float = Field(
        default=0.1,
        ge=0,
        le=0.5,
        description="Fraction of the training groups used as validation split.",
    )


class NetworkSettings(Section):
    """The network and its initial weights."""

    pretrained: str = Field(
        default="imagenet",
        description="Initial weights of the encoder or backbone: imagenet, none (random), or a "
        ".safetensors file with timm's names; a run records its SHA-256, not its path.",
    )
    architecture: str = Field(
        default="unet",
        description="Segmenter: a class of segmentation-models-pytorch, plain-unet, or "
        "MODULE:NAME.",
    )
    encoder: str = Field(
        default="tu-tf_efficientnet_lite0",
        description="Segmenter: a network of timm, with the prefix tu-.",
    )
    decoder: dict[str, Any] = Field(
        default_factory=dict, description="Segmenter: further options of the architecture."
    )
    backbone: str = Field(
        default="tf_efficientnet_lite0",
        description="Classifier: a network of timm, or MODULE:NAME.",
    )
    pooling: Literal["avg", "max"] = Field(
        default="avg", description="Classifier: pooling of the feature maps."
    )
    hidden: int = Field(
        default=0,
        ge=0,
        description="Classifier: width of a dense layer before the last one; 0 for none.",
    )
    dropout: float = Field(
        default=0.2, ge=0, lt=1, description="Classifier: dropout rate before each dense layer."
    )
    drop_path: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Stochastic depth rate of the last residual block; it rises linearly with "
        "depth.",
    )
    sync_batch_norm: bool = Field(
        default=False,
        description="Whether batch norm takes the whole batch when several GPUs share it, instead "
        "of each GPU's part.",
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
    """The loss; ``terms`` and ``soft_masks`` are the segmenter's, the rest the classifier's."""

    terms: tuple[Annotated[str, _known_or_own(*TERMS)], ...] = Field(
        default=("bce", "jaccard"),
        description="Segmenter: the terms whose sum is minimised.",
        json_schema_extra={"choices": [*TERMS, "MODULE:NAME"]},
    )
    soft_masks: bool = Field(
        default=True,
        description="Segmenter: whether masks keep the values between 0 and 1 that resizing gives.",
    )
    kind: Annotated[str, _known_or_own(*KINDS)] = Field(
        default="cross_entropy",
        description="Classifier: the loss.",
        json_schema_extra={"choices": [*KINDS, "MODULE:NAME"]},
    )
    gamma: float = Field(default=2.0, ge=0, description="Classifier: exponent of the focal loss.")
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Classifier: fraction of the target spread over all classes.",
    )
    class_weights: Literal["ones", "balanced", "balanced-sqrt"] = Field(
        default="balanced-sqrt",
        description="Classifier: weight of each class in the loss, by its fraction.",
    )
    logit_adjustment: float = Field(
        default=0.0, ge=0, description="tau of Menon et al. 2021; 0 is off."
    )


class OptimiserSettings(Section):
    """Optimiser, learning rate schedule and averaging of weights."""

    name: Literal["adamw", "adam", "sgd"] = Field(default="adamw", description="The optimiser.")
    learning_rate: float = Field(default=1e-3, gt=0, description="Largest learning rate.")
    weight_decay: float = Field(
        default=1e-2,
        ge=0,
        description="Weight decay of matrices; biases and normalisation layers have none.",
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Momentum of sgd.")
    schedule: Literal["cosine", "plateau", "constant"] = Field(
        default="cosine", description="Learning rate after the warm-up."
    )
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
    """Strength of each augmentation; 0 turns it off."""

    d4: bool = Field(
        default=True, description="Whether images are flipped and rotated by right angles."
    )
    rotation: float = Field(default=180.0, ge=0, le=180, description="Degrees, either way.")
    scale: float = Field(
        default=0.2, ge=0, lt=1, description="Zoom between 1 - scale and 1 + scale."
    )
    shift: float = Field(default=0.05, ge=0, lt=1, description="Fraction of the side, either way.")
    stretch: float = Field(default=1.0, ge=1, le=3, description="Largest change of aspect ratio.")
    brightness: float = Field(default=0.15, ge=0, lt=1, description="Largest change, relative.")
    contrast: float = Field(default=0.15, ge=0, lt=1, description="Largest change, relative.")
    saturation: float = Field(default=0.15, ge=0, lt=1, description="Largest change, relative.")
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

    own: tuple[Own, ...] = Field(
        default=(),
        description="Own augmentations, as MODULE:NAME, applied after the others in this order.",
    )
