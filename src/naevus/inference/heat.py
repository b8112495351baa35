"""Where in a picture a classifier sees a diagnosis."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from naevus.images.heat import Activation, heat_over
from naevus.images.preprocess import arrange, decoding_side
from naevus.inference.finite import refuse_faults

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from naevus.images.geometry import Box
    from naevus.inference.classifier import Answers, Classifier


class ActivationMaps(NamedTuple):
    """A network's class activation maps (C x h x w), and where they lie (`Activation`)."""

    maps: NDArray[np.float32]
    box: Box
    frame: tuple[int, int]
    offset: tuple[float, float]

    def of(self, number: int) -> Activation:
        """Return the map of one class."""
        return Activation(self.maps[number], self.box, self.frame, self.offset)


def activation_maps(
    classifier: Classifier,
    answers: Answers,
    number: int,
    places: Sequence[tuple[Box, tuple[int, int]]],
) -> tuple[ActivationMaps, ...] | None:
    """Return each network's maps of one picture; None where a network has none.

    Args:
        classifier: Whose maps they are.
        answers: What it says of a batch.
        number: Which picture of the batch.
        places: For each of its forms where the square lies, in a frame of so many rows and columns.
    """
    if answers.activations is None:
        return None
    place_of = dict(zip(classifier.forms, places, strict=True))
    return tuple(
        ActivationMaps(maps[number], *place_of[member.form], offset)
        for maps, member, offset in zip(
            answers.activations, classifier.members, classifier.offsets, strict=True
        )
    )


def side_for(classifier: Classifier, mask: NDArray[np.bool_] | None) -> int:
    """Return the shorter side at which a picture is to be read, for `heat_map` of it."""
    return max(
        decoding_side(None if form.mode == "full" else mask, form) for form in classifier.forms
    )


def heat_map(
    classifier: Classifier, pixels: NDArray[np.uint8], mask: NDArray[np.bool_] | None, code: str
) -> NDArray[np.float32] | None:
    """Return where a classifier sees a diagnosis in a picture whose mask is given.

    Args:
        classifier: Whose activation maps are laid over the picture (`images.heat`).
        pixels: H x W x 3, as fine as `side_for` asks.
        mask: The lesion; None where the classifier was given none.
        code: Of the diagnosis.

    Returns:
        H x W, 0..1; None where a network has no map that adds up to its answer.

    Raises:
        BundleError: A network gives no usable number.
    """
    height, width = pixels.shape[:2]
    seen = [arrange(pixels, mask, form) for form in classifier.forms]
    answers = classifier.answers([each.pixels[None] for each in seen])
    refuse_faults(answers.faults)
    found = activation_maps(classifier, answers, 0, [(each.box, (height, width)) for each in seen])
    if found is None:
        return None
    number = classifier.classes.index(code)
    return heat_over([maps.of(number) for maps in found], height, width)
