"""Networks: any segmentation-models-pytorch architecture on any timm encoder, any timm classifier.

Both kinds take float images N×3×H×W with the normalisation of ``normalisation_of``;
``Preprocessed`` takes uint8 images N×H×W×3.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from naevus.errors import ConfigError, WeightsError
from naevus.runs.recipe import LESION
from naevus.runs.recipe_tables import is_own
from naevus.training.parts import make_part
from naevus.training.pretrained import (
    PLAIN_UNET,
    Normalisation,
    Weights,
    normalisation_of,
    pretrained,
    timm_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


# The plain U-Net of Ronneberger et al. 2015 (https://arxiv.org/abs/1505.04597), from scratch.
#
# Differences from the paper: batch normalisation, padded convolutions (the output is as large as
# the input) and bilinear upsampling (no checkerboard artefacts).


class PlainUnet(nn.Module):
    """A U-Net for images N×3×H×W with sides divisible by ``stride``.

    Args:
        channels: Number of channels of each level, from full size; each next level is half as
            large.
        outputs: Number of logits per pixel.

    Raises:
        ValueError: There are fewer than two levels, or a level has no channels.
    """

    def __init__(
        self, channels: Sequence[int] = (32, 64, 128, 256, 512), *, outputs: int = 1
    ) -> None:
        super().__init__()
        if len(channels) < 2 or min(channels) < 1:
            raise ValueError("`channels` needs two or more positive widths")
        pairs = list(pairwise(channels))
        self.stride: int = 2 ** len(pairs)
        self.stem = _block(3, channels[0])
        self.down = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(2), _block(above, below)) for above, below in pairs
        )
        self.up = nn.ModuleList(_block(above + below, above) for above, below in reversed(pairs))
        self.head = nn.Conv2d(channels[0], outputs, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        """Map images N×3×H×W to logits N×outputs×H×W."""
        levels = [self.stem(images)]
        for block in self.down:
            levels.append(block(levels[-1]))
        features = levels.pop()
        for block in self.up:
            skipped = levels.pop()
            features = functional.interpolate(
                features, scale_factor=2.0, mode="bilinear", align_corners=False
            )
            features = block(torch.cat([skipped, features], dim=1))
        logits: Tensor = self.head(features)
        return logits


def _block(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (inputs, outputs):
        layers += [
            nn.Conv2d(width, outputs, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


# Summary of a network: modules, output shapes, parameters.

_OPENED_ABOVE = 0.5
"""A module with a larger fraction of all parameters is listed by its children."""


def layer_summary(network: nn.Module, input_size: int) -> str:
    """Summarise a network for one square image.

    Args:
        network: A network of float images N×3×H×W; it is not changed.
        input_size: Height and width of the image, in pixels.

    Returns:
        A plain-text table with one line per module in the order of the forward pass (output shape
        without the batch, number of parameters), and a line with the totals.
    """
    total = _parameters(network)
    shapes: dict[str, str] = {}
    handles = [
        module.register_forward_hook(_note(shapes, name))
        for name, module in _parts(network, "", total)
    ]
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            weight = next(network.parameters())
            network(torch.zeros(1, 3, input_size, input_size, device=weight.device))
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    rows = [
        (name, type(module).__name__, shapes[name], f"{_parameters(module):,}")
        for name in shapes
        for module in (network.get_submodule(name),)
    ]
    trained = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    end = f"{total:,} parameters, {trained:,} of them trained, at {input_size} × {input_size} px"
    return "\n".join([*_aligned([("module", "kind", "output", "parameters"), *rows]), end])


def _parts(module: nn.Module, name: str, total: int) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules to list: large ones are replaced by their children."""
    for key, child in module.named_children():
        path = f"{name}.{key}" if name else key
        if any(True for _ in child.children()) and _parameters(child) > _OPENED_ABOVE * total:
            yield from _parts(child, path, total)
        elif _parameters(child):
            yield path, child


def _note(shapes: dict[str, str], name: str) -> Callable[[nn.Module, object, object], None]:
    def hook(_module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            shapes[name] = " × ".join(str(side) for side in output.shape[1:])
        else:
            shapes[name] = "several"

    return hook


def _parameters(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def _aligned(rows: list[tuple[str, str, str, str]]) -> Iterator[str]:
    name, kind, shape, count = (max(map(len, column)) for column in zip(*rows, strict=True))
    for row in rows:
        yield f"{row[0]:<{name}}  {row[1]:<{kind}}  {row[2]:<{shape}}  {row[3]:>{count}}"


Pooling = Literal["avg", "max"]

_SETTING_ERRORS = (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError)
_FIXED_OPTIONS = frozenset(
    {"encoder_name", "encoder_weights", "in_channels", "classes", "activation", "aux_params"}
)


class Segmenter(nn.Module):
    """A segmentation network for images of any size.

    If the encoder's stride does not divide a side, the image is padded by repeating its edge and
    the logits are cropped.

    Args:
        network: Maps N×3×H×W to N×outputs×H×W for sides divisible by ``stride``.
        stride: Total downsampling factor of ``network``.
        normalisation: Normalisation of the encoder's input.
        outputs: Names of the outputs, in order.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        stride: int,
        normalisation: Normalisation,
        outputs: Sequence[str] = (LESION,),
    ) -> None:
        super().__init__()
        self.outputs = tuple(outputs)
        self.network = network
        self.stride = stride
        self.normalisation = normalisation

    def forward(self, images: Tensor) -> Tensor:
        """Map images N×3×H×W to logits N×outputs×H×W, or N×H×W for a single output."""
        height, width = images.shape[-2:]
        bottom, right = -height % self.stride, -width % self.stride
        if bottom or right:
            images = functional.pad(images, (0, right, 0, bottom), mode="replicate")
        logits: Tensor = self.network(images)
        logits = logits[:, :, :height, :width]
        return logits[:, 0] if len(self.outputs) == 1 else logits


class Classifier(nn.Module):
    """A timm network with a new head: features → pool → head.

    With ``hidden=0`` the head is linear over the pooled features (after dropout), so that the
    contribution of each position to a logit follows from the feature maps.

    Args:
        backbone: A timm network built with ``num_classes=0`` and the desired pooling.
        width: Number of pooled features of ``backbone``.
        classes: Number of logits.
        hidden: Width of a dense layer with ReLU before the last one, or 0 for none.
        dropout: Dropout probability before each dense layer.
        normalisation: Normalisation of the backbone's input.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        width: int,
        classes: int,
        hidden: int,
        dropout: float,
        normalisation: Normalisation,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.normalisation = normalisation
        layers: list[nn.Module] = [nn.Dropout(dropout)]
        if hidden:
            layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout)]
        self.head = nn.Sequential(*layers, nn.Linear(hidden or width, classes))

    def features(self, images: Tensor) -> Tensor:
        """Map images N×3×H×W to feature maps, N×F×h×w in convolutional backbones."""
        maps: Tensor = self.backbone.forward_features(images)  # type: ignore[operator]
        return maps

    def pool(self, features: Tensor) -> Tensor:
        """Pool feature maps to one vector per image, N×F."""
        pooled: Tensor = self.backbone.forward_head(features)  # type: ignore[operator]
        return pooled

    def forward(self, images: Tensor) -> Tensor:
        """Map images N×3×H×W to logits N×classes."""
        logits: Tensor = self.head(self.pool(self.features(images)))
        return logits


class Preprocessed(nn.Module):
    """A network that includes its normalisation and takes uint8 images.

    Args:
        network: A network from ``build_segmenter`` or ``build_classifier``.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: Segmenter | Classifier) -> None:
        super().__init__()
        self.network = network
        mean, std = (torch.tensor(values) for values in network.normalisation)
        self.register_buffer("scale", (1 / (255 * std)).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", (-mean / std).reshape(1, 3, 1, 1), persistent=False)

    def prepared(self, pixels: Tensor) -> Tensor:
        """Map uint8 pixels N×H×W×3 (RGB) to normalised images N×3×H×W."""
        return pixels.permute(0, 3, 1, 2).to(self.scale.dtype) * self.scale + self.shift

    def forward(self, pixels: Tensor) -> Tensor:
        """Map uint8 pixels N×H×W×3 (RGB) to the network's logits."""
        logits: Tensor = self.network(self.prepared(pixels))
        return logits


def build_segmenter(
    architecture: str = "unet",
    encoder: str = "tu-tf_efficientnet_lite0",
    weights: Weights = "imagenet",
    decoder: Mapping[str, Any] | None = None,
    outputs: Sequence[str] = (LESION,),
) -> Segmenter:
    """Build a segmentation network.

    Args:
        architecture: A class of segmentation-models-pytorch, in any case (``unet``, ``fpn``,
            ``deeplabv3plus``...), ``plain-unet`` for one from scratch, or ``module:name`` of an own
            one, which is called with ``outputs`` and the options.
        encoder: A timm network, with or without segmentation-models-pytorch's prefix ``tu-``;
            ignored for ``plain-unet``.
        weights: Initial weights of the encoder; the decoder is always random.
        decoder: Further options of the architecture, such as ``decoder_channels`` or
            ``encoder_depth`` (with ``plain-unet``: ``channels``).
        outputs: Names of the outputs.

    Raises:
        ConfigError: The architecture or encoder is unknown, or does not accept the options.
        WeightsError: The weights are not available.
    """
    options = dict(decoder or {})
    _check_weights(weights)
    if architecture == PLAIN_UNET:
        return _plain_unet(weights, options, outputs)
    if is_own(architecture):
        own = _own_network(architecture, weights, outputs=len(outputs), **options)
        stride = int(getattr(own, "stride", 1))
        return Segmenter(own, stride=stride, normalisation=_normalisation_in(own), outputs=outputs)
    known = smp.MODEL_ARCHITECTURES_MAPPING
    if architecture.lower() not in known:
        names = ", ".join(sorted([*known, PLAIN_UNET]))
        raise ConfigError(f"no architecture is called {architecture!r}", f"choose one of {names}")
    if fixed := _FIXED_OPTIONS & options.keys():
        raise ConfigError(f"the decoder options cannot include {', '.join(sorted(fixed))}")
    name = timm_name(encoder)

    def build(hub: bool) -> nn.Module:
        made: nn.Module = known[architecture.lower()](
            encoder_name=f"tu-{name}",
            encoder_weights=True if hub else None,
            in_channels=3,
            classes=len(outputs),
            **options,
        )
        return made

    network = _build(f"{architecture} on {name}", name, weights, build, _encoder_of)
    stride = int(network.encoder.output_stride)  # type: ignore[union-attr, arg-type]
    return Segmenter(network, stride=stride, normalisation=normalisation_of(name), outputs=outputs)


def build_classifier(
    backbone: str = "tf_efficientnet_lite0",
    classes: int = 7,
    weights: Weights = "imagenet",
    *,
    pooling: Pooling = "avg",
    hidden: int = 0,
    dropout: float = 0.2,
    drop_path: float = 0.0,
) -> Classifier:
    """Build a classification network.

    Args:
        backbone: A timm network, a name in ``ALIASES``, or ``module:name`` of an own one with the
            methods of timm's.
        classes: Number of logits.
        weights: Initial weights of the backbone; the head is always random.
        pooling: Pooling of the feature maps.
        hidden: Width of a dense layer with ReLU before the last one; 0 for none.
        dropout: Dropout probability before each dense layer.
        drop_path: Probability of skipping the deepest residual block in training, lower for the
            others (Huang et al., Deep networks with stochastic depth, ECCV 2016).

    Raises:
        ConfigError: timm has no such backbone, it does not support the pooling, or a value is out
            of range.
        WeightsError: The weights are not available.
    """
    _check_weights(weights)
    if classes < 1 or hidden < 0 or not (0 <= dropout < 1 and 0 <= drop_path < 1):
        raise ConfigError(
            f"a classifier cannot have classes={classes}, hidden={hidden}, dropout={dropout}, "
            f"drop_path={drop_path}",
            "choose classes of 1 or more, hidden of 0 or more, the others of 0 to below 1",
        )

    if is_own(backbone):
        own = _own_network(backbone, weights)
        return Classifier(
            own,
            width=int(own.num_features),  # type: ignore[arg-type]
            classes=classes,
            hidden=hidden,
            dropout=dropout,
            normalisation=_normalisation_in(own),
        )
    name = timm_name(backbone)

    # Only if requested: not every backbone supports it.
    options: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}

    def build(hub: bool) -> nn.Module:
        made: nn.Module = timm.create_model(
            name, pretrained=hub, num_classes=0, global_pool=pooling, **options
        )
        return made

    network = _build(f"{name} with {pooling} pooling", name, weights, build, lambda made: made)
    return Classifier(
        network,
        width=_drop_dense_layers(network),
        classes=classes,
        hidden=hidden,
        dropout=dropout,
        normalisation=normalisation_of(name),
    )


def _encoder_of(network: nn.Module) -> Any:
    return network.encoder.model  # type: ignore[union-attr]


def _check_weights(weights: Weights) -> None:
    if isinstance(weights, str) and weights not in ("imagenet", "none"):
        raise ConfigError(f"no weights are called {weights!r}", "choose imagenet or none")


def _plain_unet(weights: Weights, options: dict[str, Any], outputs: Sequence[str]) -> Segmenter:
    if weights != "none":
        raise WeightsError(
            f"{PLAIN_UNET} has no pretrained weights",
            "use `--pretrained none`",
        )
    try:
        network = PlainUnet(**options, outputs=len(outputs))
    except _SETTING_ERRORS as error:
        raise ConfigError(f"{PLAIN_UNET} does not take these options ({error})") from error
    return Segmenter(
        network,
        stride=network.stride,
        normalisation=normalisation_of(PLAIN_UNET),
        outputs=outputs,
    )


def _own_network(name: str, weights: Weights, **arguments: Any) -> nn.Module:
    """Make a network outside naevus.

    Raises:
        ConfigError: It cannot be made, or is not a module.
        WeightsError: Pretrained weights are asked for.
    """
    if weights != "none":
        raise WeightsError(
            f"naevus has no pretrained weights for {name}",
            "use `--pretrained none`; its own code may load some",
        )
    made = make_part(name, **arguments)
    if not isinstance(made, nn.Module):
        raise ConfigError(f"{name} returned {type(made).__name__}", "return a torch.nn.Module")
    if "outputs" not in arguments:
        needed = ("forward_features", "forward_head", "num_features")
        if lacking := [each for each in needed if not hasattr(made, each)]:
            raise ConfigError(
                f"{name}: the backbone has no {', '.join(lacking)}", "add it, as timm's networks do"
            )
    return made


def _normalisation_in(network: nn.Module) -> Normalisation:
    """Return the attribute ``normalisation`` of an own network: mean and standard deviation."""
    mean, std = getattr(network, "normalisation", normalisation_of(PLAIN_UNET))
    return Normalisation(tuple(mean), tuple(std))


def _build(
    title: str,
    name: str,
    weights: Weights,
    build: Callable[[bool], nn.Module],
    encoder: Callable[[nn.Module], Any],
) -> nn.Module:
    """Build with the given weights; errors of the libraries about settings become ConfigErrors."""
    try:
        if weights == "none":
            return build(False)
        file = None if isinstance(weights, str) else weights
        return pretrained(name, build, encoder, file)
    except _SETTING_ERRORS as error:
        raise ConfigError(
            f"{title} cannot be built ({error})", "change the options, or choose another network"
        ) from error


def _drop_dense_layers(network: nn.Module) -> int:
    """Remove VGG's dense layers before the last one; return the number of pooled features.

    They contain nine tenths of its parameters, and require 7 × 7 feature maps.
    """
    if isinstance(network, timm.models.VGG):
        network.pre_logits = nn.Identity()  # type: ignore[assignment]
        return int(network.num_features)
    return int(network.head_hidden_size)  # type: ignore[arg-type]
