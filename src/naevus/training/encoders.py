"""Encoders and backbones by name, and the normalisation each expects."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, NamedTuple

import timm

from naevus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

PLAIN_UNET = "plain-unet"
"""Name of the network that is its own encoder (``plain_unet.PlainUnet``)."""

ALIASES = {"nasnet": "nasnetalarge"}
"""Names of the 2019 Keras project that timm knows under another one; its vgg16, vgg19, resnet50,
inception_v3, densenet121, densenet169 and densenet201 are timm's names too."""


class Normalisation(NamedTuple):
    """Mean and standard deviation of each channel (RGB, values in 0..1)."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def timm_name(name: str) -> str:
    """Return timm's name of an encoder or backbone: aliases resolved, a ``tu-`` prefix dropped.

    Raises:
        ConfigError: timm has no such network.
    """
    resolved = name.removeprefix("tu-")
    resolved = ALIASES.get(resolved, resolved)
    if not timm.is_model(resolved):
        near = difflib.get_close_matches(resolved, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "see timm.list_models()"
        raise ConfigError(f"timm has no network called {name!r}", hint)
    return resolved


def normalisation_of(name: str) -> Normalisation:
    """Return the normalisation that the encoder or backbone ``name`` expects.

    Raises:
        ConfigError: timm has no such network.
    """
    if name == PLAIN_UNET:
        return Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    settings = timm.get_pretrained_cfg(timm_name(name))
    if settings is None:
        return Normalisation(timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD)
    return Normalisation(_three(settings.mean), _three(settings.std))


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue
