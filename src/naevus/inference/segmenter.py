"""The segmenter: an ensemble of networks for lesion masks and attribute masks.

Logits are averaged, first over TTA and then over members, and only the mean is turned into
probabilities. This is the geometric mean of the odds: a confident member counts more than in a mean
of probabilities. The `Classifier` follows the same rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from naevus.errors import BundleError, ConfigError
from naevus.evaluation.attributes import peak, presence_of
from naevus.images.geometry import resize
from naevus.images.masks import Postprocessing, at_size
from naevus.images.preprocess import InputSpec, preprocess
from naevus.inference.engines import instructions
from naevus.inference.ensemble import (
    Loaded,
    as_sequence,
    by_input_spec,
    check_shape,
    check_together,
    device_of,
    different_input_specs,
    faults_of,
    mean,
    open_members,
    refuse_faults,
)
from naevus.inference.tta import mean_outputs, transforms_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from naevus.bundles.bundle import Bundle
    from naevus.bundles.spec import AttributesSpec, Member, SegmenterSpec
    from naevus.inference.engines import EngineName
    from naevus.inference.ensemble import Batches
    from naevus.types import TTA, Precision


class LogitMaps(NamedTuple):
    """A segmenter's outputs for N images.

    Attributes:
        logits: N x S x S, the mean lesion logit over members and TTA; None if no network segments
            lesions.
        faults: Faults of invalid outputs by image index; the logits of these images are
            meaningless.
        attributes: N x A x S x S, the same for each attribute; None if no network segments
            attributes.
    """

    logits: NDArray[np.float32] | None
    faults: dict[int, str]
    attributes: NDArray[np.float32] | None = None


class AttributeMask(NamedTuple):
    """An attribute's prediction for one image.

    Attributes:
        mask: The attribute's mask, height x width.
        presence: The probability that the attribute is present.
    """

    mask: NDArray[np.bool_]
    presence: float


class Segmenter:
    """Segments lesions, attributes, or both with one or more bundles.

    A network with both outputs runs once. If attribute bundles have different thresholds, as those
    of folds do, the thresholds are averaged.

    Args:
        bundles: One bundle for lesions, or an ensemble; empty if only attributes are segmented.
        attributes: An ensemble of bundles for attributes; they may be the same bundles.
        tta: The TTA mode.
        engine: The inference engine.
        threads: Threads of the engine; None: one per processor of this process.
        precision: Precision of the computation.
        streams: Number of chunks of a batch that OpenVINO computes in parallel
            (`naevus.inference.engines.streams_for`); it does not change the predictions.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        BundleError: A graph is unusable.
        ConfigError: The bundles do not fit together.

    Attributes:
        bundles: The bundles for lesions, then the other bundles for attributes.
        attributes: The attributes, in the order of the maps.
        members: The loaded members, in order.
        input_specs: Distinct input specs of the members; each needs its own batch.
        size: Side for which images are decoded, in pixels: of the largest input in the bundles.
            Maps of lesions and of attributes have the side of the largest member that outputs them.
    """

    def __init__(
        self,
        bundles: Bundle | Sequence[Bundle],
        *,
        attributes: Sequence[Bundle] = (),
        tta: TTA = "none",
        engine: EngineName = "openvino",
        threads: int | None = None,
        precision: Precision = "fp32",
        streams: int = 1,
        device: str = "auto",
    ) -> None:
        segmenting = as_sequence(bundles)
        if segmenting or not attributes:
            check_together(segmenting, "segmentation")
        if attributes:
            check_together(attributes, "attributes")
        self.bundles = (*segmenting, *(each for each in attributes if each not in segmenting))
        without = not attributes and any(each.spec.attributes for each in segmenting)
        self._transforms = transforms_of(tta)
        self._choices: dict[str, Any] = {
            "tta": tta,
            "engine": engine,
            "precision": precision,
            "instructions": instructions.limit(),
            **({"attributes": False} if without else {}),
        }
        lesions = {
            (bundle.sha256, member.file): (bundle, member, _squashed(bundle.segmenter, member))
            for bundle in segmenting
            for member in bundle.segmenter.members
        }
        maps = {
            (bundle.sha256, member.file): (bundle, member, _squashed(bundle.attributes, member))
            for bundle in attributes
            for member in bundle.attributes.members
        }
        how: Any = {
            "engine": engine, "threads": threads, "precision": precision, "streams": streams,
            "device": device,
        }  # fmt: skip
        more = [wanted for key, wanted in maps.items() if key not in lesions]
        self.members = (
            *open_members(lesions.values(), "logit", **how),
            *open_members(more, "attributes", **how),
        )
        self._give = [
            [name for name, keys in (("logit", lesions), ("attributes", maps)) if key in keys]
            for key in dict.fromkeys((*lesions, *maps))
        ]
        self._choices["device"] = device_of(self.members)
        self.input_specs = different_input_specs(self.members)
        # Whether attributes are requested changes neither the decoded image nor a lesion mask.
        left_out = [member for each in segmenting for member in each.spec.members_of("attributes")]
        sides = [input_spec.size for input_spec in self.input_specs]
        self.size = max(sides + [member.input_size for member in left_out])
        self._sizes = {name: self._largest(name) for name in ("logit", "attributes")}
        self.postprocessing = (
            Postprocessing(**segmenting[0].segmenter.postprocessing.model_dump())
            if segmenting
            else Postprocessing()
        )
        self.attributes = attributes[0].attributes.names if attributes else ()
        self._thresholds = _mean([each.attributes.thresholds for each in attributes])
        self._presence = _mean(
            [
                [(one.slope, one.intercept) for one in each.attributes.presence]
                or [(1.0, 0.0)] * len(self.attributes)
                for each in attributes
            ]
        )

    def _largest(self, output: str) -> int:
        """Return the largest input side of the members with an output; 0 if there is none."""
        giving = zip(self.members, self._give, strict=True)
        return max(
            (member.input_spec.size for member, names in giving if output in names), default=0
        )

    @property
    def segments_lesions(self) -> bool:
        """Whether lesions are segmented, rather than only attributes."""
        return "logit" in self._give[0]

    def info(self) -> dict[str, Any]:
        """Return networks, settings and attributes, in JSON's types."""
        networks = [member.name for member in self.members]
        return {"networks": networks, **self.settings(), "attributes": list(self.attributes)}

    def settings(self) -> dict[str, Any]:
        """Return the settings that affect predictions, in JSON's types."""
        return {**self._choices, "bundles": [bundle.sha256 for bundle in self.bundles]}

    def preprocess(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], ...]:
        """Return an image (H x W x 3) in each of `input_specs`, squashed to the members' sizes."""
        return tuple(preprocess(pixels, None, input_spec).pixels for input_spec in self.input_specs)

    def logits(self, batches: Batches, ids: Sequence[str] | None = None) -> NDArray[np.float32]:
        """Return the mean lesion logit over members and TTA.

        Args:
            batches: N x S x S x 3 squashed images; one batch for each of `input_specs` if there are
                several.
            ids: Image ids for errors.

        Returns:
            N x S x S, where S is the side of the largest member that segments lesions.

        Raises:
            BundleError: A network's output for an image is invalid.
        """
        logit_maps = self.logit_maps(batches)
        refuse_faults(logit_maps.faults, ids)
        if logit_maps.logits is None:
            raise ConfigError("no bundle here segments lesions", "name a segmentation bundle too")
        return logit_maps.logits

    def logit_maps(self, batches: Batches) -> LogitMaps:
        """Return the logit maps of a batch, and the faults by image index."""
        batch_of = by_input_spec(batches, self.input_specs)
        faults: dict[int, str] = {}
        found: dict[str, list[NDArray[np.float32]]] = {"logit": [], "attributes": []}
        for member, names in zip(self.members, self._give, strict=True):
            outputs = self._outputs(member, batch_of[member.input_spec], names)
            faults = {**faults_of(member.name, outputs), **faults}
            for name, values in outputs.items():
                found[name].append(values)
        logits, maps = (mean(each) if each else None for each in found.values())
        return LogitMaps(logits, faults, maps)

    def mask(self, pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Return the lesion mask of one image (H x W x 3), at the image's size."""
        batches = [array[None] for array in self.preprocess(pixels)]
        return self.mask_of(self.logits(batches)[0], *pixels.shape[:2])

    def mask_of(self, logit: NDArray[np.float32], height: int, width: int) -> NDArray[np.bool_]:
        """Return the mask of one logit map, height x width.

        The probabilities are resized first and then postprocessed.
        """
        return at_size(_logistic(logit), height, width, self.postprocessing)

    def attributes_of(
        self, maps: NDArray[np.float32], height: int, width: int
    ) -> Iterator[tuple[str, AttributeMask]]:
        """Yield the attributes of one image, one by one since masks may be large.

        Args:
            maps: A x S x S, one image of `LogitMaps.attributes`.
            height: Rows of the masks.
            width: Columns of the masks.
        """
        for k, name in enumerate(self.attributes):
            probability = _logistic(maps[k])
            mask = resize(probability, height, width) > self._thresholds[k]
            slope, intercept = self._presence[k]
            yield name, AttributeMask(mask, presence_of(peak(probability), slope, intercept))

    def peaks_of(self, maps: NDArray[np.float32]) -> list[float]:
        """Return the peak probability of each attribute of one image, which sets its presence."""
        return [peak(_logistic(surface)) for surface in maps]

    def probabilities_of(
        self, maps: NDArray[np.float32], height: int, width: int
    ) -> list[NDArray[np.float32]]:
        """Return the probability of each attribute of one image, height x width."""
        return [resize(_logistic(surface), height, width) for surface in maps]

    def _outputs(
        self, member: Loaded, batch: NDArray[np.uint8], names: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]:
        outputs = mean_outputs(member.engine.run, batch, self._transforms)
        found = {}
        for name in names:
            if name not in outputs:
                raise BundleError(
                    f"{member.bundle.folder}: member {member.name} has no output {name}",
                    "export the bundle again from its run",
                )
            values, count, *square = outputs[name], *batch.shape[:3]
            kinds = (len(self.attributes),) if name == "attributes" else ()
            check_shape(member, values, (count, *kinds, *square))
            size = self._sizes[name]
            if member.input_spec.size != size:
                flat = values.reshape(-1, *square)
                larger = np.stack([resize(surface, size, size) for surface in flat])
                values = larger.reshape(count, *kinds, size, size)
            found[name] = values
        return found


def _squashed(part: SegmenterSpec | AttributesSpec, member: Member) -> InputSpec:
    return InputSpec("squash", member.input_size, colour_constancy=part.colour_constancy)


def _mean(values: Sequence[Any]) -> NDArray[np.float64]:
    return np.mean(values, axis=0) if len(values) else np.empty(0)


def _logistic(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    # Computed by tanh, since exp(-z) would overflow for large logits.
    half = np.float32(0.5)
    probabilities: NDArray[np.float32] = half * (np.float32(1) + np.tanh(half * logits))
    return probabilities
