"""Bundles that answer: lesion masks by a `Segmenter`, diagnoses by a `Classifier`.

Everything is averaged as logits, over a member's views first and over members then, and only the
mean is turned into probabilities: the geometric mean of the odds. A member that is sure counts
for more than it would in a mean of probabilities, and both tasks follow one rule.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from naevus.bundles.bundle import Bundle
from naevus.datasets.forms import Form, arrange
from naevus.errors import BundleError, ConfigError
from naevus.images.geometry import resize
from naevus.images.masks import Cleaning, at_size
from naevus.inference.engines import Engine, EngineName, Precision, open_engine
from naevus.inference.ensemble import Posterior, Trained, check_together, mean, posterior
from naevus.inference.views import mean_outputs, views_named

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from naevus.bundles.spec import Member
    from naevus.images.geometry import ViewSet

    Batches = NDArray[np.uint8] | Sequence[NDArray[np.uint8]]


class Loaded(NamedTuple):
    """A member ready to run: its bundle, its name, the form of picture it sees, its engine."""

    bundle: Bundle
    name: str
    form: Form
    engine: Engine


class Segmenter:
    """Outlines lesions with one or more segmentation bundles.

    Args:
        bundles: One bundle, or several that answer as one.
        views: The views every picture is seen in.
        engine: What runs the graphs.
        threads: Threads of the engine; None: as many as this process has processors.
        precision: What the engine computes in.
        streams: Pieces of a batch that OpenVINO computes at a time (`engines.streams_for`); the
            answers are the same.

    Raises:
        BundleError: A graph cannot be used.
        ConfigError: The bundles do not go together.

    Attributes:
        bundles: The bundles.
        members: The loaded members, in order.
        forms: The different forms of picture the members see; a batch is wanted in each.
        size: Side of the surfaces returned, in pixels: the largest member's.
    """

    def __init__(
        self,
        bundles: Bundle | Sequence[Bundle],
        *,
        views: ViewSet = "none",
        engine: EngineName = "openvino",
        threads: int | None = None,
        precision: Precision = "f32",
        streams: int = 1,
    ) -> None:
        self.bundles = _as_sequence(bundles)
        check_together(self.bundles, "segmentation")
        self._views = views_named(views)
        self._choices = {"views": views, "engine": engine, "precision": precision}
        load = partial(
            open_engine, engine=engine, threads=threads, precision=precision, streams=streams
        )
        self.members = tuple(
            _open(bundle, member, _squashed(bundle, member), "logit", load)
            for bundle in self.bundles
            for member in bundle.segmenter.members
        )
        self.forms = _different_forms(self.members)
        self.size = max(form.size for form in self.forms)
        self.cleaning = Cleaning(**self.bundles[0].segmenter.cleaning.model_dump())

    def settings(self) -> dict[str, Any]:
        """Return what its answers depend on, in JSON's types."""
        return {**self._choices, "bundles": [bundle.sha256 for bundle in self.bundles]}

    def arrange(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], ...]:
        """Return a picture (H x W x 3) in each of `forms`, squashed to the members' sizes."""
        return tuple(arrange(pixels, None, form).pixels for form in self.forms)

    def logits(self, batches: Batches) -> NDArray[np.float32]:
        """Return the mean logit of lesion over members and views.

        Args:
            batches: N x S x S x 3 squashed pictures; one batch for each of `forms` where the
                members see different ones.

        Returns:
            N x `size` x `size`.
        """
        by_form = _by_form(batches, self.forms)
        return mean([self._surfaces(member, by_form[member.form]) for member in self.members])

    def probabilities(self, batches: Batches) -> NDArray[np.float32]:
        """Return the probability of lesion: the logistic function of `logits`."""
        return _logistic(self.logits(batches))

    def mask(self, pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Return the lesion's mask of one picture (H x W x 3), at the picture's size."""
        batches = [array[None] for array in self.arrange(pixels)]
        return self.mask_of(self.probabilities(batches)[0], *pixels.shape[:2])

    def mask_of(
        self, probability: NDArray[np.float32], height: int, width: int
    ) -> NDArray[np.bool_]:
        """Return a mask of height x width: probabilities are resized first, then cleaned."""
        return at_size(probability, height, width, self.cleaning)

    def _surfaces(self, member: Loaded, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        logits = mean_outputs(member.engine.run, batch, self._views)["logit"]
        if logits.shape != batch.shape[:3]:
            raise _wrong_output(member, logits, f"{batch.shape[:3]}")
        if member.form.size == self.size:
            return logits
        return np.stack([resize(surface, self.size, self.size) for surface in logits])


class Classifier:
    """Gives diagnoses with one or more classification bundles.

    Args:
        bundles: One bundle, or several of the same classes that answer as one.
        views: The views every picture is seen in.
        engine: What runs the graphs.
        threads: Threads of the engine; None: as many as this process has processors.
        precision: What the engine computes in.
        streams: Pieces of a batch that OpenVINO computes at a time (`engines.streams_for`); the
            answers are the same.

    Raises:
        BundleError: A graph cannot be used.
        ConfigError: The bundles do not go together.

    Attributes:
        bundles: The bundles.
        members: The loaded members, in order.
        forms: The different forms of picture the members see; a batch is wanted in each.
        classes: The codes, in the order of the logits.
        taxonomy: Name of the set of diagnoses, where it is a known one.
    """

    def __init__(
        self,
        bundles: Bundle | Sequence[Bundle],
        *,
        views: ViewSet = "none",
        engine: EngineName = "openvino",
        threads: int | None = None,
        precision: Precision = "f32",
        streams: int = 1,
    ) -> None:
        self.bundles = _as_sequence(bundles)
        check_together(self.bundles, "classification")
        self._views = views_named(views)
        self._choices = {"views": views, "engine": engine, "precision": precision}
        load = partial(
            open_engine, engine=engine, threads=threads, precision=precision, streams=streams
        )
        pairs = [(bundle, each) for bundle in self.bundles for each in bundle.classifier.members]
        self.members = tuple(
            _open(bundle, member, _cropped(bundle, member), "logits", load)
            for bundle, member in pairs
        )
        self._trained = [Trained(member, bundle.classifier.temperature) for bundle, member in pairs]
        self.forms = _different_forms(self.members)
        self.classes = self.bundles[0].classifier.classes
        self.taxonomy = self.bundles[0].classifier.taxonomy

    @property
    def needs_mask(self) -> bool:
        """Whether a member sees crops that a lesion's mask decides on."""
        return any(form.mode != "full" for form in self.forms)

    def settings(self) -> dict[str, Any]:
        """Return what its answers depend on, in JSON's types."""
        return {**self._choices, "bundles": [bundle.sha256 for bundle in self.bundles]}

    def member_logits(self, batches: Batches) -> list[NDArray[np.float32]]:
        """Return each member's logits, N x C, averaged over the views.

        Args:
            batches: N x S x S x 3 crops; one batch for each of `forms` where the members see
                different ones.
        """
        by_form = _by_form(batches, self.forms)
        return [self._logits(member, by_form[member.form]) for member in self.members]

    def logits(self, batches: Batches) -> NDArray[np.float32]:
        """Return the mean logit over members and views, N x C."""
        return mean(self.member_logits(batches))

    def posterior(self, batches: Batches) -> Posterior:
        """Return natural and balanced probabilities, freed of each member's own weights."""
        return posterior(self.member_logits(batches), self._trained)

    def _logits(self, member: Loaded, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        logits = mean_outputs(member.engine.run, batch, self._views)["logits"]
        if logits.shape != (len(batch), len(self.classes)):
            raise _wrong_output(member, logits, f"({len(batch)}, {len(self.classes)})")
        return logits


def _as_sequence(bundles: Bundle | Sequence[Bundle]) -> tuple[Bundle, ...]:
    return (bundles,) if isinstance(bundles, Bundle) else tuple(bundles)


def _open(
    bundle: Bundle,
    member: Member,
    form: Form,
    output: str,
    load: Callable[[Path], Engine],
) -> Loaded:
    path = bundle.member_path(member)
    graph = load(path)
    if output not in graph.outputs:
        raise BundleError(f"{path}: gives no {output}", "export the bundle again from its run")
    name = f"{bundle.sha256[:8]}/{member.file.removesuffix('.onnx')} {member.architecture}"
    return Loaded(bundle, name, form, graph)


def _squashed(bundle: Bundle, member: Member) -> Form:
    constancy = bundle.segmenter.colour_constancy
    return Form("squash", member.input_size, colour_constancy=constancy)


def _cropped(bundle: Bundle, member: Member) -> Form:
    spec = bundle.classifier
    return Form(
        spec.crop_mode,
        member.input_size,
        margin=spec.crop_margin,
        colour_constancy=spec.colour_constancy,
    )


def _different_forms(members: Sequence[Loaded]) -> tuple[Form, ...]:
    return tuple(dict.fromkeys(member.form for member in members))


def _by_form(batches: Batches, forms: Sequence[Form]) -> dict[Form, NDArray[np.uint8]]:
    given = [batches] if isinstance(batches, np.ndarray) else list(batches)
    if len(given) != len(forms):
        raise ConfigError(
            f"{len(given)} batches for {len(forms)} forms of picture",
            "give one batch for each form that the members see",
        )
    for batch, form in zip(given, forms, strict=True):
        if batch.shape[1:] != form.shape:
            raise ConfigError(f"pictures of shape {batch.shape[1:]}", f"give them as {form.shape}")
    return dict(zip(forms, given, strict=True))


def _wrong_output(member: Loaded, logits: NDArray[np.float32], wanted: str) -> BundleError:
    return BundleError(
        f"{member.bundle.folder}: member {member.name} gives {logits.shape} in place of {wanted}",
        "export the bundle again from its run",
    )


def _logistic(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    # By way of tanh: exp(-z) would overflow where a network is very sure.
    half = np.float32(0.5)
    probabilities: NDArray[np.float32] = half * (np.float32(1) + np.tanh(half * logits))
    return probabilities
