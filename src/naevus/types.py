"""Words that everything shares: tasks, decisions, modes, engines, flags, images that failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


Task = Literal["segmentation", "classification", "attributes"]
Storage = Literal["fp32", "fp16", "int8"]
"""How the numbers of a graph are stored; int8 graphs also compute in it."""
Precision = Literal["fp32", "bf16"]
"""What an engine computes in, but for what a graph itself computes in 8 bits."""

Decision = Literal["balanced", "natural"]
"""Which class is predicted: that of the largest balanced or natural probability."""

CropMode = Literal["full", "crop", "blank"]

TTA = Literal["none", "half-turn", "flips", "d4"]

EngineName = Literal["openvino", "onnxruntime"]


class EngineChoice(NamedTuple):
    """How networks are run.

    Attributes:
        engine: What runs them.
        segmentation: What those that contour, or find attributes, compute in.
        classification: What those that diagnose compute in.
        limit: Which instructions the process is held to; None: all.
        why: In a few words.
        tried: Whether it has been tried here.
    """

    engine: EngineName = "openvino"
    segmentation: Precision = "fp32"
    classification: Precision = "fp32"
    limit: str | None = None
    why: str = "as is safe everywhere"
    tried: bool = False

    def __str__(self) -> str:
        """Return it in words."""
        pair = (self.segmentation, self.classification)
        same = pair[0] == pair[1]
        computes = pair[0] if same else f"{pair[0]} (contours) and {pair[1]} (diagnoses)"
        held = f" up to {self.limit}" if self.limit else ""
        return f"{self.engine} in {computes}{held}"


Only = Literal["masks", "crops"]


class FailedImage(NamedTuple):
    """An image that could not be predicted, and why, in one line."""

    image_id: str
    path: str
    problem: str


FLAGS: Final[dict[str, str]] = {
    "damaged": (
        "The file is damaged: parts of the image are missing or may not be what was taken."
    ),
    "broken_profile": ("What the file says of its colours could not be used: colours may be off."),
    "first_frame": "The file holds several pages or frames: the first was taken.",
    "not_dermoscopy": (
        "The image is unlike the dermoscopic images that the networks learnt from: what they "
        "say of it means little."
    ),
    "empty_mask": "No lesion was found in the image.",
    "implausible_mask": (
        "The contour covers nearly nothing or nearly all of the image: it can hardly be a lesion."
    ),
    "small": (
        "The image is too small to judge: what the networks look for is not in so few pixels."
    ),
    "grey": "The image has no colour, and the networks judge by colour.",
    "blurred": "The image is out of focus or blurred by movement: fine structures are lost.",
    "dark": "The image is too dark: colours and structures cannot be told apart.",
    "bright": "Parts of the image are overexposed or reflect the light: nothing is seen there.",
    "cut_by_border": (
        "The lesion is cut by the edge of the image: what lies outside could not be judged."
    ),
    "hair": "Much hair (or ink, or a ruler) covers the skin and may hide parts of the lesion.",
}
"""Every flag there is, in the order in which they are told."""


def explained(codes: Iterable[str]) -> dict[str, str]:
    """Return flags with their sentences, in the order of `FLAGS`.

    Examples:
        >>> explained(["hair", "empty_mask"])["empty_mask"]
        'No lesion was found in the image.'
        >>> list(explained(["hair", "empty_mask"]))
        ['empty_mask', 'hair']
    """
    wanted = set(codes)
    return {code: sentence for code, sentence in FLAGS.items() if code in wanted}
