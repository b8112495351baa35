"""One picture's way through segmenter and classifier, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from naevus.datasets.forms import Form, arrange, decoding_side
from naevus.errors import ConfigError
from naevus.images.decoders import SPARE
from naevus.images.geometry import Box, box_of
from naevus.images.masks import area_share, plausible
from naevus.images.read import Limits, probe, read

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from naevus.inference.predictor import Classifier, Segmenter


KEPT: Final = 4_000_000
"""Most bytes of a decoded picture that are kept for its crop: a few batches of them wait at once.
A JPEG comes scaled and stays below; a larger picture of another format is decoded again."""


class Look(NamedTuple):
    """A picture as the segmenter wants it: its own size, and one square for each form.

    ``pixels`` is the decoded picture, for its crop, where it was to be kept.
    """

    height: int
    width: int
    squares: tuple[NDArray[np.uint8], ...]
    pixels: NDArray[np.uint8] | None = None

    def fine_for(self, side: int) -> NDArray[np.uint8] | None:
        """Return the pixels if they are as fine as ``read(shortest=side)`` would give them."""
        if self.pixels is None:
            return None
        rows, columns = self.pixels.shape[:2]
        whole = (rows, columns) == (self.height, self.width)
        return self.pixels if whole or min(rows, columns) >= SPARE * side else None


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
        seen = mask = None
        if self._segmenter is not None:
            seen = look(path, self._segmenter, keep=self._classifier is not None)
            surface = self._segmenter.probabilities([square[None] for square in seen.squares])[0]
            mask = self._segmenter.mask_of(surface, seen.height, seen.width)
        image_id = path.stem if image_id is None else image_id
        box = None if mask is None else box_of(mask)
        if self._classifier is None:
            return Prediction(image_id, mask, box, flags=flags_of(mask))
        crop = cut_for(path, mask, self._classifier.forms, seen=seen)
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


def look(
    path: Path,
    segmenter: Segmenter,
    limits: Limits = Limits(),  # noqa: B008
    *,
    keep: bool = False,
) -> Look:
    """Read a picture for the segmenter, decoded no larger than it needs.

    Args:
        path: The picture.
        segmenter: Which forms and sizes are wanted.
        limits: What is refused before decoding.
        keep: Whether its pixels are kept (up to `KEPT` bytes), to cut a crop from.

    Raises:
        PictureError: It cannot be read.
    """
    header = probe(path, limits)
    pixels = read(path, shortest=segmenter.size, limits=limits)
    kept = pixels if keep and pixels.nbytes <= KEPT else None
    return Look(header.height, header.width, segmenter.arrange(pixels), kept)


def cut_for(
    path: Path,
    mask: NDArray[np.bool_] | None,
    forms: tuple[Form, ...],
    limits: Limits = Limits(),  # noqa: B008
    *,
    seen: Look | None = None,
) -> Cut:
    """Cut a picture as the classifier sees it, as fine as the crop needs.

    The road of the training caches: the decoding scale follows from the mask and the form. What
    the segmenter's look decoded is used where it is as fine as that; the picture is read again
    where the lesion is small in it. A larger first look was no quicker on camera originals: at
    448 px in place of 256 px it takes a third longer, and 30 % of Task 1's crops still need a
    second reading (58 % with 256 px). Masks would then hang on who asks for crops, too.

    Args:
        path: The picture.
        mask: The lesion, of any size; None where there is no segmenter.
        forms: What the classifier's members see.
        limits: What is refused before decoding.
        seen: What was decoded for the segmenter, if anything was.

    Raises:
        PictureError: It cannot be read.
    """
    rendered = []
    decoded: dict[int, NDArray[np.uint8]] = {}
    for form in forms:
        side = decoding_side(None if form.mode == "full" else mask, form)
        if side not in decoded:
            pixels = None if seen is None else seen.fine_for(side)
            decoded[side] = read(path, shortest=side, limits=limits) if pixels is None else pixels
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
