"""Ensembles: open members, check that they fit together, average them, and find invalid outputs."""

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


# Loading members.


class Loaded(NamedTuple):
    """A loaded member: its bundle, name, input spec, engine and graph file."""

    bundle: Bundle
    name: str
    input_spec: InputSpec
    engine: Engine
    path: Path


def as_sequence(bundles: Bundle | Sequence[Bundle]) -> tuple[Bundle, ...]:
    """Return one or more bundles as a tuple."""
    return (bundles,) if isinstance(bundles, Bundle) else tuple(bundles)


def open_members(
    wanted: Iterable[tuple[Bundle, Member, InputSpec]],
    output: str,
    *,
    engine: EngineName,
    threads: int | None,
    precision: Precision,
    streams: int,
    device: str,
) -> tuple[Loaded, ...]:
    """Load members.

    Args:
        wanted: Each member's bundle, entry in that bundle, and input spec.
        output: The output that every graph must have.
        engine: The inference engine.
        threads: Threads of the engine; None: one per processor of this process.
        precision: Precision of the computation.
        streams: Number of chunks of a batch that OpenVINO computes in parallel.
        device: Where the networks run.

    Raises:
        BundleError: A graph does not have the output, or is unusable.
        ConfigError: The engine is not installed, or does not support the precision here.
    """
    loaded = []
    for bundle, member, input_spec in wanted:
        path = bundle.member_path(member)
        graph = open_engine(
            path,
            engine=engine,
            threads=threads,
            precision=precision,
            streams=streams,
            device=device,
        )
        if output not in graph.outputs:
            raise BundleError(
                f"{path}: has no output {output}", "export the bundle again from its run"
            )
        loaded.append(Loaded(bundle, name_of(bundle, member), input_spec, graph, path))
    return tuple(loaded)


def device_of(members: Iterable[Loaded]) -> str:
    """Return where members run; several devices are joined with ``+``."""
    return "+".join(sorted({member.engine.device for member in members}))


def name_of(bundle: Bundle, member: Member) -> str:
    """Return the name of a network: its bundle, file and architecture."""
    return f"{bundle.sha256[:8]}/{member.file.removesuffix('.onnx')} {member.architecture}"


def lacks_output(folder: Path, name: str, output: str, what: str) -> ConfigError:
    """Return the error for a network without an output that a feature needs."""
    return ConfigError(
        f"{folder}: {what} need networks with the output {output!r}, which {name} does not have",
        "leave them out, or use another bundle",
    )


def lacks_patient(folder: Path) -> ConfigError:
    """Return the error for a bundle without a model of the patient's data."""
    return ConfigError(
        f"{folder}: the bundle has no model of the patient's data",
        "leave out the metadata, or use a bundle that `naevus export` made from data with age, "
        "sex or site",
    )


def different_input_specs(members: Sequence[Loaded]) -> tuple[InputSpec, ...]:
    """Return the distinct input specs of members, in order."""
    return tuple(dict.fromkeys(member.input_spec for member in members))


def by_input_spec(
    batches: Batches, input_specs: Sequence[InputSpec]
) -> dict[InputSpec, NDArray[np.uint8]]:
    """Assign batches to input specs.

    Args:
        batches: N x S x S x 3; one batch per input spec if there are several.
        input_specs: The input specs, in order.

    Raises:
        ConfigError: The number of batches or the shape of one is wrong.
    """
    given = [batches] if isinstance(batches, np.ndarray) else list(batches)
    if len(given) != len(input_specs):
        raise ConfigError(
            f"{len(given)} batches for {len(input_specs)} input specs",
            "give one batch per input spec of the members",
        )
    for batch, input_spec in zip(given, input_specs, strict=True):
        if batch.shape[1:] != input_spec.shape:
            raise ConfigError(
                f"images of shape {batch.shape[1:]}", f"give them as {input_spec.shape}"
            )
    return dict(zip(input_specs, given, strict=True))


def check_shape(member: Loaded, values: NDArray[np.float32], wanted: tuple[int, ...]) -> None:
    """Check the shape of a network's output.

    Raises:
        BundleError: The shape is wrong.
    """
    if values.shape != wanted:
        raise BundleError(
            f"{member.bundle.folder}: member {member.name} outputs {values.shape} instead of "
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


# Invalid outputs: NaN, infinity and overflow.

_LARGEST: Final = 1e30  # below it, sums over TTA and networks stay finite
_HALF: Final = float(np.finfo(np.float16).max)  # embeddings are stored in half precision
REMEDY: Final = "export the bundle again, or try --precision fp32 or another engine"


def faults_of(name: str, outputs: Mapping[str, NDArray[Any]]) -> dict[int, str]:
    """Return the images for which a network output NaN, infinity, or values that overflow later.

    Args:
        name: The network's name.
        outputs: The network's outputs, N x ... each.

    Returns:
        A description of the fault, by the image's index in the batch.
    """
    found: dict[int, str] = {}
    for output, values in outputs.items():
        if not values.size:
            continue
        limit = _HALF if output == "embedding" else _LARGEST
        rows = values.reshape(len(values), -1)
        # NaN propagates through minimum and maximum, without a copy of the values.
        least, most = rows.min(axis=1), rows.max(axis=1)
        for number in np.flatnonzero(~((least >= -limit) & (most <= limit))).tolist():
            worst = float(least[number] if abs(least[number]) > limit else most[number])
            found.setdefault(
                number, f"network {name} outputs {worst:g} in {output!r}, which is not valid"
            )
    return found


def silenced(
    outputs: dict[str, NDArray[np.float32]], numbers: Sequence[int]
) -> dict[str, NDArray[np.float32]]:
    """Set the outputs of some images to 0, so that the other images can be computed."""
    if not numbers:
        return outputs
    quiet = {name: values.copy() for name, values in outputs.items()}
    for values in quiet.values():
        values[list(numbers)] = 0
    return quiet


def refuse_faults(faults: Mapping[int, str], ids: Sequence[str] | None = None) -> None:
    """Raise an error for the first fault of a batch, if there is one.

    Args:
        faults: The result of `faults_of`.
        ids: Ids of the batch's images; None: name them by index.

    Raises:
        BundleError: There is a fault.
    """
    if not faults:
        return
    number = min(faults)
    image = ids[number] if ids is not None else f"image {number} of the batch"
    more = f" ({len(faults) - 1} more of this batch)" if len(faults) > 1 else ""
    raise BundleError(f"{image}: {faults[number]}{more}", REMEDY)


class Posterior(NamedTuple):
    """Predictions of an ensemble for N images and C classes.

    Attributes:
        logits: N x C, the plain mean of the members' logits.
        natural: N x C probabilities under the training data's class priors.
        balanced: N x C probabilities under equal class priors.
        members: N x M x C, each member's own natural probabilities.
    """

    logits: NDArray[np.float32]
    natural: NDArray[np.float64]
    balanced: NDArray[np.float64]
    members: NDArray[np.float64]


def mean(arrays: Sequence[NDArray[Scalar]]) -> NDArray[Scalar]:
    """Return the mean of equally shaped arrays without stacking them."""
    total = arrays[0].copy()
    for array in arrays[1:]:
        total += array
    total /= len(arrays)
    return total


class Trained(NamedTuple):
    """A member, with class weights corrected by its bundle's offsets, and the temperature."""

    member: ClassifierMember
    temperature: float


def posterior(logits: Sequence[NDArray[np.float32]], trained: Sequence[Trained]) -> Posterior:
    """Average members that may have been trained with different class weights and priors.

    Each member's own class weights (and, for balanced probabilities, its class priors) are first
    removed from its logits. The mean of the resulting log probabilities is normalised. If all
    members have the same class weights, this equals the mean logit.

    Args:
        logits: One N x C array per member.
        trained: Class weights, priors and temperature of each member, in the same order.
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
    """Return the class priors that belong to the natural probabilities of `posterior`.

    They are the normalised geometric mean of the members' priors, because `posterior` averages
    logarithms. A class that is missing from one member's training data has the prior 0.
    """
    rows = np.array([member.class_priors for member, _ in trained], np.float64)
    logarithms = np.log(rows, where=rows > 0, out=np.full_like(rows, -np.inf))
    class_priors = np.exp(logarithms.mean(axis=0))
    return np.asarray(class_priors / max(class_priors.sum(), np.finfo(np.float64).tiny))


def check_together(bundles: Sequence[Bundle], task: Task) -> None:
    """Check that bundles can form an ensemble.

    Raises:
        BundleError: A bundle does not support the task.
        ConfigError: There is no bundle, or the bundles differ in classes or postprocessing.
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
                    "average only bundles with the same one",
                )


def _normalised(logarithms: NDArray[np.float64]) -> NDArray[np.float64]:
    scaled = np.exp(logarithms - logarithms.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float64] = scaled / scaled.sum(axis=-1, keepdims=True)
    return probabilities
