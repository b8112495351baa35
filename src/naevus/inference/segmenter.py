"""Bundles that outline lesions.

Everything is averaged as logits, over a member's views first and over members then, and only the
mean is turned into probabilities: the geometric mean of the odds. A member that is sure counts
for more than it would in a mean of probabilities. The `Classifier` follows the same rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from naevus.images.geometry import resize
from naevus.images.masks import Cleaning, at_size
from naevus.images.preprocess import Form, arrange
from naevus.inference.engines import instructions
from naevus.inference.ensemble import (
    Loaded,
    as_sequence,
    by_form,
    check_shape,
    check_together,
    different_forms,
    mean,
    open_members,
)
from naevus.inference.finite import faults_of, refuse_faults
from naevus.inference.tta import mean_outputs, views_named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from naevus.bundles.bundle import Bundle
    from naevus.bundles.spec import Member
    from naevus.inference.engines import EngineName, Precision
    from naevus.inference.ensemble import Batches
    from naevus.types import ViewSet


class Surfaces(NamedTuple):
    """What a segmenter says of N pictures.

    Attributes:
        logits: N x `size` x `size`, the mean logit of lesion over members and views.
        faults: By number the pictures for which a network gave no usable number, and what it gave;
            their logits mean nothing.
    """

    logits: NDArray[np.float32]
    faults: dict[int, str]


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
        self.bundles = as_sequence(bundles)
        check_together(self.bundles, "segmentation")
        self._views = views_named(views)
        self._choices = {
            "views": views,
            "engine": engine,
            "precision": precision,
            "instructions": instructions.limit(),
        }
        self.members = open_members(
            (
                (bundle, member, _squashed(bundle, member))
                for bundle in self.bundles
                for member in bundle.segmenter.members
            ),
            "logit",
            engine=engine,
            threads=threads,
            precision=precision,
            streams=streams,
        )
        self.forms = different_forms(self.members)
        self.size = max(form.size for form in self.forms)
        self.cleaning = Cleaning(**self.bundles[0].segmenter.cleaning.model_dump())

    def settings(self) -> dict[str, Any]:
        """Return what its answers depend on, in JSON's types."""
        return {**self._choices, "bundles": [bundle.sha256 for bundle in self.bundles]}

    def arrange(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], ...]:
        """Return a picture (H x W x 3) in each of `forms`, squashed to the members' sizes."""
        return tuple(arrange(pixels, None, form).pixels for form in self.forms)

    def logits(self, batches: Batches, ids: Sequence[str] | None = None) -> NDArray[np.float32]:
        """Return the mean logit of lesion over members and views.

        Args:
            batches: N x S x S x 3 squashed pictures; one batch for each of `forms` where the
                members see different ones.
            ids: What the pictures are called in errors.

        Returns:
            N x `size` x `size`.

        Raises:
            BundleError: A network gives no usable number for a picture.
        """
        surfaces = self.surfaces(batches)
        refuse_faults(surfaces.faults, ids)
        return surfaces.logits

    def surfaces(self, batches: Batches) -> Surfaces:
        """Return what `logits` does, and for which pictures a network failed."""
        batch_of = by_form(batches, self.forms)
        faults: dict[int, str] = {}
        found = []
        for member in self.members:
            logits = self._surfaces(member, batch_of[member.form])
            faults = {**faults_of(member.name, {"logit": logits}), **faults}
            found.append(logits)
        return Surfaces(mean(found), faults)

    def mask(self, pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Return the lesion's mask of one picture (H x W x 3), at the picture's size."""
        batches = [array[None] for array in self.arrange(pixels)]
        return self.mask_of(self.logits(batches)[0], *pixels.shape[:2])

    def mask_of(self, logit: NDArray[np.float32], height: int, width: int) -> NDArray[np.bool_]:
        """Return a mask of height x width of one surface of `logits`.

        Their logistic function, the probability, is resized first and then cleaned.
        """
        return at_size(_logistic(logit), height, width, self.cleaning)

    def _surfaces(self, member: Loaded, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        logits = mean_outputs(member.engine.run, batch, self._views)["logit"]
        check_shape(member, logits, batch.shape[:3])
        if member.form.size == self.size:
            return logits
        return np.stack([resize(surface, self.size, self.size) for surface in logits])


def _squashed(bundle: Bundle, member: Member) -> Form:
    constancy = bundle.segmenter.colour_constancy
    return Form("squash", member.input_size, colour_constancy=constancy)


def _logistic(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    # By way of tanh: exp(-z) would overflow where a network is very sure.
    half = np.float32(0.5)
    probabilities: NDArray[np.float32] = half * (np.float32(1) + np.tanh(half * logits))
    return probabilities
