"""Where in a picture a classifier sees a diagnosis, for pictures whose mask is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.datasets.forms import arrange, decoding_side
from naevus.images.heat import Activation, heat_over

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from naevus.inference.classifier import Classifier


def side_for(classifier: Classifier, mask: NDArray[np.bool_] | None) -> int:
    """Return the shorter side at which a picture is to be read, for `heat_map` of it."""
    return max(
        decoding_side(None if form.mode == "full" else mask, form) for form in classifier.forms
    )


def heat_map(
    classifier: Classifier, pixels: NDArray[np.uint8], mask: NDArray[np.bool_] | None, code: str
) -> NDArray[np.float32] | None:
    """Return where the classifier sees a diagnosis (`images.heat`).

    Args:
        classifier: Whose activation maps are laid over the picture.
        pixels: H x W x 3, as fine as `side_for` asks.
        mask: The lesion; None where the classifier was given none.
        code: Of the diagnosis.

    Returns:
        H x W, 0..1; None where a network has no map that adds up to its answer.
    """
    height, width = pixels.shape[:2]
    seen = {form: arrange(pixels, mask, form) for form in classifier.forms}
    squares = [rendered.pixels[None] for rendered in seen.values()]
    maps = classifier.answers(squares).activations
    if maps is None:
        return None
    place = classifier.classes.index(code)
    activations = [
        Activation(of_member[0, place], seen[member.form].box, (height, width))
        for of_member, member in zip(maps, classifier.members, strict=True)
    ]
    return heat_over(activations, height, width)
