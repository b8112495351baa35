"""Several networks that answer as one: opened, checked to fit, averaged; which of them failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import numpy as np

from naevus.bundles.bundle import Bundle
from naevus.errors import BundleError, ConfigError
from naevus.evaluation.priors import balanced_log_probabilities, natural_log_probabilities
from naevus.inference.engines import open_engine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from naevus.bundles.spec import ClassifierMember, Member
    from naevus.images.preprocess import InputSpec
    from naevus.inference.engines import Engine, EngineName
    from naevus.types import Precision, Task

    Batches = NDArray[np.uint8] | Sequence[NDArray[np.uint8]]

    Scalar = TypeVar("Scalar", bound=np.floating[Any])


# The networks of bundles, loaded, each with the form of image that it sees.


class Loaded(NamedTuple):
    """A member ready to run: its bundle, name, what form of image it sees, engine, and graph."""

    bundle: Bundle
    name: str
    input_spec: InputSpec
    engine: Engine
    path: Path


def as_sequence(bundles: Bundle | Sequence[Bundle]) -> tuple[Bundle, ...]:
    """Return bundles as a tuple, one alone too."""
    return (bundles,) if isinstance(bundles, Bundle) else tuple(bundles)


def open_members(
    wanted: Iterable[tuple[Bundle, Member, InputSpec]],
    output: str,
    *,
    engine: EngineName,
    threads: int | None,
    precision: Precision,
    streams: int,
) -> tuple[Loaded, ...]:
    """Load members.

    Args:
        wanted: Each member's bundle, what that says of it, and what it sees.
        output: What their graphs must give.
        engine: What runs them.
        threads: Threads of the engine; None: as many as this process has processors.
        precision: What it computes in.
        streams: Pieces of a batch that OpenVINO computes at a time.

    Raises:
        BundleError: A graph gives no such output, or cannot be used.
        ConfigError: The engine is not installed, or has no such precision here.
    """
    loaded = []
    for bundle, member, input_spec in wanted:
        path = bundle.member_path(member)
        graph = open_engine(
            path, engine=engine, threads=threads, precision=precision, streams=streams
        )
        if output not in graph.outputs:
            raise BundleError(f"{path}: gives no {output}", "export the bundle again from its run")
        name = f"{bundle.sha256[:8]}/{member.file.removesuffix('.onnx')} {member.architecture}"
        loaded.append(Loaded(bundle, name, input_spec, graph, path))
    return tuple(loaded)


def different_input_specs(members: Sequence[Loaded]) -> tuple[InputSpec, ...]:
    """Return the forms that members see, each once."""
    return tuple(dict.fromkeys(member.input_spec for member in members))


def by_input_spec(
    batches: Batches, input_specs: Sequence[InputSpec]
) -> dict[InputSpec, NDArray[np.uint8]]:
    """Return which batch is for which form.

    Args:
        batches: N x S x S x 3; one batch for each form where there are several.
        input_specs: The forms, in order.

    Raises:
        ConfigError: There is another number of batches, or one is of another shape.
    """
    given = [batches] if isinstance(batches, np.ndarray) else list(batches)
    if len(given) != len(input_specs):
        raise ConfigError(
            f"{len(given)} batches for {len(input_specs)} forms of image",
            "give one batch for each form that the members see",
        )
    for batch, input_spec in zip(given, input_specs, strict=True):
        if batch.shape[1:] != input_spec.shape:
            raise ConfigError(
                f"images of shape {batch.shape[1:]}", f"give them as {input_spec.shape}"
            )
    return dict(zip(input_specs, given, strict=True))


def check_shape(member: Loaded, values: NDArray[np.float32], wanted: tuple[int, ...]) -> None:
    """Refuse a network's answer of another shape than is wanted.

    Raises:
        BundleError: It is.
    """
    if values.shape != wanted:
        raise BundleError(
            f"{member.bundle.folder}: member {member.name} gives {values.shape} in place of "
            f"{wanted}",
            "export the bundle again from its run",
        )


_ALIKE: Final[dict[Task, tuple[str, ...]]] = {
    "segmentation": ("postprocessing",),
    "classification": ("classes", "taxonomy"),
    "attributes": ("names",),
}
_PARTS: Final[dict[Task, str]] = {
    "segmentation": "segmenter",
    "classification": "classifier",
    "attributes": "attributes",
}


# Networks that give no usable number: which network, for which image of a batch.

_LARGEST: Final = 1e30  # sums over views and networks stay finite below it
_HALF: Final = float(np.finfo(np.float16).max)  # embeddings are kept in half precision
REMEDY: Final = "export the bundle again, or try --precision fp32 or another engine"


def faults_of(name: str, outputs: Mapping[str, NDArray[Any]]) -> dict[int, str]:
    """Return the images for which a network gave NaN, infinity, or what overflows later.

    Args:
        name: What the network is called.
        outputs: Its outputs, N x ... each.

    Returns:
        What is wrong, in words, by the image's number in the batch.
    """
    found: dict[int, str] = {}
    for output, values in outputs.items():
        if not values.size:
            continue
        limit = _HALF if output == "embedding" else _LARGEST
        rows = values.reshape(len(values), -1)
        # NaN goes through minimum and maximum, and no copy of the values is made.
        least, most = rows.min(axis=1), rows.max(axis=1)
        for number in np.flatnonzero(~((least >= -limit) & (most <= limit))).tolist():
            worst = float(least[number] if abs(least[number]) > limit else most[number])
            found.setdefault(
                number, f"network {name} gives {worst:g} in its output {output!r}: no usable number"
            )
    return found


def silenced(
    outputs: dict[str, NDArray[np.float32]], numbers: Sequence[int]
) -> dict[str, NDArray[np.float32]]:
    """Return outputs in which some images' values are 0, so that others can be reckoned with."""
    if not numbers:
        return outputs
    quiet = {name: values.copy() for name, values in outputs.items()}
    for values in quiet.values():
        values[list(numbers)] = 0
    return quiet


def refuse_faults(faults: Mapping[int, str], ids: Sequence[str] | None = None) -> None:
    """Raise the first of the faults of a batch.

    Args:
        faults: From `faults_of`.
        ids: What the batch's images are called; None: by their number.

    Raises:
        BundleError: There is one.
    """
    if not faults:
        return
    number = min(faults)
    image = ids[number] if ids is not None else f"image {number} of the batch"
    more = f" ({len(faults) - 1} more of this batch)" if len(faults) > 1 else ""
    raise BundleError(f"{image}: {faults[number]}{more}", REMEDY)


class Posterior(NamedTuple):
    """What an ensemble says of N images and C classes.

    Attributes:
        logits: N x C, the plain mean of the members' logits.
        natural: N x C probabilities of an image drawn as the training images were.
        balanced: N x C probabilities as if every class were equally common.
        members: N x M x C, each member's own natural probabilities.
    """

    logits: NDArray[np.float32]
    natural: NDArray[np.float64]
    balanced: NDArray[np.float64]
    members: NDArray[np.float64]


def mean(arrays: Sequence[NDArray[Scalar]]) -> NDArray[Scalar]:
    """Return the mean of equally shaped arrays, holding one sum and no stack."""
    total = arrays[0].copy()
    for array in arrays[1:]:
        total += array
    total /= len(arrays)
    return total


class Trained(NamedTuple):
    """A member, its weights corrected by its bundle's offsets, and the bundle's temperature."""

    member: ClassifierMember
    temperature: float


def posterior(logits: Sequence[NDArray[np.float32]], trained: Sequence[Trained]) -> Posterior:
    """Average members that may have been trained with other weights on other shares.

    Each member's logits are first freed of its own weights (and, for the balanced probabilities,
    of its shares); the mean is taken of those, in logarithms. With one set of weights this is the
    mean logit.

    Args:
        logits: One N x C array a member.
        trained: How each member was trained, in the same order.
    """
    natural = [
        natural_log_probabilities(z, member.class_weights, temperature)
        for z, (member, temperature) in zip(logits, trained, strict=True)
    ]
    balanced = [
        balanced_log_probabilities(z, member.class_weights, member.class_priors, temperature)
        for z, (member, temperature) in zip(logits, trained, strict=True)
    ]
    return Posterior(
        logits=mean(logits),
        natural=_normalised(mean(natural)),
        balanced=_normalised(mean(balanced)),
        members=np.exp(np.stack(natural, axis=1)),
    )


def class_priors_of(trained: Sequence[Trained]) -> NDArray[np.float64]:
    """Return the class priors that go with the natural probabilities of `posterior`.

    Members' logarithms are averaged there, and their shares with them: the geometric mean,
    normalised. A class that one member never saw has share 0.
    """
    rows = np.array([member.class_priors for member, _ in trained], np.float64)
    logarithms = np.log(rows, where=rows > 0, out=np.full_like(rows, -np.inf))
    class_priors = np.exp(logarithms.mean(axis=0))
    return np.asarray(class_priors / max(class_priors.sum(), np.finfo(np.float64).tiny))


def check_together(bundles: Sequence[Bundle], task: Task) -> None:
    """Refuse bundles that cannot answer as one.

    Raises:
        BundleError: One does not do the task.
        ConfigError: There is none, or one has other classes or makes masks in another way.
    """
    if not bundles:
        raise ConfigError(f"no {task} bundle is given", "name one or more bundles")
    first = bundles[0]
    for bundle in bundles:
        for name in _ALIKE[task]:
            one, other = (getattr(getattr(each, _PARTS[task]), name) for each in (first, bundle))
            if one != other:
                raise ConfigError(
                    f"{first.folder} and {bundle.folder} differ in {name}",
                    "only bundles alike in it can be averaged",
                )


def _normalised(logarithms: NDArray[np.float64]) -> NDArray[np.float64]:
    scaled = np.exp(logarithms - logarithms.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float64] = scaled / scaled.sum(axis=-1, keepdims=True)
    return probabilities
