"""Shared types: tasks, decisions, crop modes, engines, flags and failed images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


Task = Literal["segmentation", "classification", "attributes"]
Storage = Literal["fp32", "fp16", "int8"]
"""Data type of the stored weights; int8 graphs also compute in 8 bits."""
Precision = Literal["fp32", "bf16"]
"""Data type that an engine computes in, except for the 8-bit operations of int8 graphs."""

Decision = Literal["balanced", "natural"]
"""Which class is predicted: that of the largest balanced or natural probability."""

Unit = Literal["lesion", "patient", "group"]
"""What the groups of images are: lesions, patients, or a mixture of both (`unit_of`)."""

CropMode = Literal["full", "crop", "blank"]

TTA = Literal["none", "half-turn", "flips", "d4"]

EngineName = Literal["openvino", "onnxruntime"]


class EngineChoice(NamedTuple):
    """How networks are run.

    Attributes:
        engine: The inference engine.
        segmentation: Precision of networks that segment lesions or attributes.
        classification: Precision of classifiers.
        limit: The instruction set that the process is limited to; None: no limit.
        why: The reason for this choice, in a few words.
        tried: Whether it was tested on this machine.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    """

    engine: EngineName = "openvino"
    segmentation: Precision = "fp32"
    classification: Precision = "fp32"
    limit: str | None = None
    why: str = "safe on every machine"
    tried: bool = False
    device: str = "auto"

    def __str__(self) -> str:
        """Return a short description."""
        pair = (self.segmentation, self.classification)
        same = pair[0] == pair[1]
        computes = pair[0] if same else f"{pair[0]} (segmentation) and {pair[1]} (classification)"
        held = f" up to {self.limit}" if self.limit else ""
        where = f" on {self.device}" if self.device.startswith("cuda") else ""
        return f"{self.engine} in {computes}{held}{where}"


Only = Literal["masks", "crops"]


class FailedImage(NamedTuple):
    """An image that could not be predicted, with the problem and its remedy in one line."""

    image_id: str
    path: str
    problem: str


class Patient(NamedTuple):
    """What is known of the patient and the place of the lesion; None: not known.

    Attributes:
        age: In years.
        sex: Usually ``female`` or ``male``.
        site: As a data set names it (`naevus.evaluation.patient.SITES`).
    """

    age: float | None = None
    sex: str | None = None
    site: str | None = None


METADATA: Final = (
    *Patient._fields,
    "lesion_id",
    "patient_id",
    "fitzpatrick_skin_type",
    "image_type",
    "dermoscopic_type",
    "anatom_site",
)
"""The columns of metadata that are kept with predictions; the first three change the odds."""

FLAGS: Final[dict[str, str]] = {
    "damaged": ("The file is damaged: parts of the image may be missing or wrong."),
    "broken_profile": "The file's colour profile could not be used: colours may be off.",
    "first_frame": "The file has several pages or frames: only the first was read.",
    "not_dermoscopy": (
        "The image differs from the dermoscopic images that the networks were trained on: do not "
        "rely on the prediction."
    ),
    "empty_mask": "No lesion was found in the image.",
    "implausible_mask": (
        "The mask covers almost none or almost all of the image: it is unlikely to be a lesion."
    ),
    "small": "The image is too small: it has too few pixels to show the lesion's structures.",
    "grey": "The image has no colour, which the networks rely on.",
    "blurred": "The image is out of focus or blurred by movement: fine structures are lost.",
    "dark": "The image is too dark: colours and structures cannot be distinguished.",
    "bright": "Parts of the image are overexposed or show reflections: they have no detail.",
    "cut_by_border": (
        "The lesion is cut off by the edge of the image: only part of it was classified."
    ),
    "hair": "Hair or ink covers much of the skin and may hide parts of the lesion.",
    "ruler": "A ruler or a printed scale is in the image.",
}
"""All flags, in the order in which they are listed."""


def explained(codes: Iterable[str]) -> dict[str, str]:
    """Return the explanation of each flag, in the order of `FLAGS`.

    Examples:
        >>> explained(["hair", "empty_mask"])["empty_mask"]
        'No lesion was found in the image.'
        >>> list(explained(["hair", "empty_mask"]))
        ['empty_mask', 'hair']
    """
    wanted = set(codes)
    return {code: sentence for code, sentence in FLAGS.items() if code in wanted}
