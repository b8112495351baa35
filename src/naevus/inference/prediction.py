"""One picture's way through segmenter and classifier, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from naevus.datasets.forms import Form, arrange, decoding_side
from naevus.errors import ConfigError
from naevus.images.geometry import Box, box_of
from naevus.images.masks import area_share, plausible
from naevus.images.read import Limits, probe, read

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from naevus.inference.predictor import Classifier, Segmenter


class Look(NamedTuple):
    """A picture as the segmenter wants it: its own size, and one square for each form."""

    height: int
    width: int
    squares: tuple[NDArray[np.uint8], ...]


class Cut(NamedTuple):
    """A picture as the classifier wants it: one square for each form, and the mode used."""

    squares: tuple[NDArray[np.uint8], ...]
    mode: str


@dataclass(frozen=True)
class Prediction:
    """What is said of one picture; research use only, never a diagnosis.

    Attributes:
        image_id: The picture.
        mask: The lesion, H x W at the picture's size; None without a segmenter.
        box: The smallest box round the mask; None where there is no lesion.
        crop_mode: What the classifier really saw; None without a classifier.
        classes: The codes, in the order of all that follows.
        logits: The members' mean logits, C.
        natural: Probabilities of a picture drawn as the training pictures were, C.
        balanced: Probabilities as if every class were equally common, C.
        members: Each member's natural probabilities, M x C.
        flags: What to know before relying on it (see `flags_of`).
    """

    image_id: str
    mask: NDArray[np.bool_] | None = None
    box: Box | None = None
    crop_mode: str | None = None
    classes: tuple[str, ...] = ()
    logits: NDArray[np.float32] | None = None
    natural: NDArray[np.float64] | None = None
    balanced: NDArray[np.float64] | None = None
    members: NDArray[np.float64] | None = None
    flags: tuple[str, ...] = ()

    @property
    def probable(self) -> str | None:
        """The code of the greatest natural probability."""
        return None if self.natural is None else self.classes[int(self.natural.argmax())]

    @property
    def decision(self) -> str | None:
        """The code of the greatest balanced probability, as the challenge scores it."""
        return None if self.balanced is None else self.classes[int(self.balanced.argmax())]

    @property
    def doubt(self) -> float | None:
        """One minus the greatest natural probability."""
        return None if self.natural is None else 1 - float(self.natural.max())


class Predictor:
    """A segmenter and a classifier one after the other, for one picture at a time.

    Args:
        segmenter: Makes the masks; None where the classifier sees whole pictures.
        classifier: Gives the diagnoses; None for masks alone.

    Raises:
        ConfigError: Both are absent, or the classifier sees crops and there is no segmenter.
    """

    def __init__(self, segmenter: Segmenter | None, classifier: Classifier | None) -> None:
        check_pair(segmenter, classifier)
        self._segmenter = segmenter
        self._classifier = classifier

    def predict(self, path: Path, image_id: str | None = None) -> Prediction:
        """Predict one picture file.

        Args:
            path: The picture.
            image_id: Its id; the file's name without suffix by default.

        Raises:
            PictureError: It cannot be read.
        """
        mask = None
        if self._segmenter is not None:
            seen = look(path, self._segmenter)
            surface = self._segmenter.probabilities([square[None] for square in seen.squares])[0]
            mask = self._segmenter.mask_of(surface, seen.height, seen.width)
        image_id = path.stem if image_id is None else image_id
        box = None if mask is None else box_of(mask)
        if self._classifier is None:
            return Prediction(image_id, mask, box, flags=flags_of(mask))
        crop = cut_for(path, mask, self._classifier.forms)
        said = self._classifier.posterior([square[None] for square in crop.squares])
        return Prediction(
            image_id,
            mask,
            box,
            crop.mode,
            self._classifier.classes,
            said.logits[0],
            said.natural[0],
            said.balanced[0],
            said.members[0],
            flags_of(mask),
        )


def check_pair(segmenter: Segmenter | None, classifier: Classifier | None) -> None:
    """Refuse a pair that cannot predict.

    Raises:
        ConfigError: Both are absent, or the classifier sees crops and there is no segmenter.
    """
    if segmenter is None and classifier is None:
        raise ConfigError("there is no bundle to predict with", "name one with --bundle")
    if classifier is not None and classifier.needs_mask and segmenter is None:
        raise ConfigError(
            f"{classifier.bundles[0].folder}: this classifier sees crops round the lesion",
            "name a segmentation bundle too, with another --bundle",
        )


def look(path: Path, segmenter: Segmenter, limits: Limits = Limits()) -> Look:  # noqa: B008
    """Read a picture for the segmenter, decoded no larger than it needs.

    Raises:
        PictureError: It cannot be read.
    """
    header = probe(path, limits)
    pixels = read(path, shortest=segmenter.size, limits=limits)
    return Look(header.height, header.width, segmenter.arrange(pixels))


def cut_for(
    path: Path,
    mask: NDArray[np.bool_] | None,
    forms: tuple[Form, ...],
    limits: Limits = Limits(),  # noqa: B008
) -> Cut:
    """Read a picture again and cut it as the classifier sees it, as fine as the crop needs.

    The road of the training caches: the decoding scale follows from the mask and the form.

    Args:
        path: The picture.
        mask: The lesion, of any size; None where there is no segmenter.
        forms: What the classifier's members see.
        limits: What is refused before decoding.

    Raises:
        PictureError: It cannot be read.
    """
    rendered = []
    decoded: dict[int, NDArray[np.uint8]] = {}
    for form in forms:
        side = decoding_side(None if form.mode == "full" else mask, form)
        if side not in decoded:
            decoded[side] = read(path, shortest=side, limits=limits)
        rendered.append(arrange(decoded[side], mask, form))
    # Where members see different forms, the mode told is that of the one that uses the mask.
    modes = [crop.mode for crop in rendered]
    return Cut(
        tuple(crop.pixels for crop in rendered),
        next((mode for mode in modes if mode != "full"), "full"),
    )


def stacked(
    squares: Sequence[tuple[NDArray[np.uint8], ...]],
) -> list[NDArray[np.uint8]]:
    """Turn the squares of N pictures, one a form, into one batch a form."""
    return [np.stack(of_form) for of_form in zip(*squares, strict=True)]


def mask_file(folder: Path, image_id: str) -> Path:
    """Return the challenge's name for a picture's mask."""
    return folder / f"{image_id}_segmentation.png"


def flags_of(mask: NDArray[np.bool_] | None) -> tuple[str, ...]:
    """Return what is odd about a mask: ``empty_mask``, or ``implausible_mask``.

    A classifier that sees crops is then given the centre square, and the crop mode says so.
    """
    if mask is None or plausible(mask):
        return ()
    return ("implausible_mask",) if area_share(mask) else ("empty_mask",)
