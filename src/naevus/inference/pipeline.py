"""The stages of a batch: look, segment, finish, diagnose; and what a job is to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from naevus.errors import ConfigError, PictureError
from naevus.evaluation.ood import LIMIT
from naevus.images import quality
from naevus.images.geometry import box_of, reduced, resize
from naevus.images.masks import area_share, draw_attributes, draw_outline, plausible
from naevus.images.preprocess import Cut, Form, Look, cut_for, look, stacked
from naevus.images.read import DECODING, write_png
from naevus.inference.cam import activation_maps, glowing
from naevus.inference.ensemble import REMEDY
from naevus.inference.prediction import Prediction
from naevus.io.parallel import BATCH
from naevus.types import Refused, explained

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from naevus.images.geometry import Box
    from naevus.images.read import Limits
    from naevus.inference.classifier import Answers, Classifier
    from naevus.inference.given import Given
    from naevus.inference.segmenter import Segmenter
    from naevus.io.parallel import Workers
    from naevus.runs.predictions import OutFolder, Schema
    from naevus.types import Only


def check_pair(segmenter: Segmenter | None, classifier: Classifier | None) -> None:
    """Refuse a pair that cannot predict.

    Raises:
        ConfigError: Both are absent, or the classifier sees crops and there is no segmenter.
    """
    if segmenter is None and classifier is None:
        raise ConfigError("there is no bundle to predict with", "name one")
    segments = segmenter is not None and segmenter.segments_lesions
    if classifier is not None and classifier.needs_mask and not segments:
        raise ConfigError(
            f"{classifier.bundles[0].folder}: this classifier sees crops round the lesion",
            "name a segmentation bundle too",
        )


# What is done with every picture: which networks answer, and what is written.

CROPS: Final = Form("crop", 256)
"""The crops written where no classifier says how it wants them."""


@dataclass(frozen=True)
class Plan:
    """What is done with every picture.

    Args:
        segmenter: Makes the masks, if anything does.
        classifier: Gives the diagnoses; None where nothing is diagnosed.
        forms: In which forms pictures are cut.
        masks: Whether masks are written.
        heatmaps: Whether heat maps are written.
        embeddings: Whether embeddings are written.
    """

    segmenter: Segmenter | None
    classifier: Classifier | None
    forms: tuple[Form, ...]
    masks: bool = False
    heatmaps: bool = False
    embeddings: bool = False

    def settings(self) -> dict[str, Any]:
        """Return all that decides on what is written, but for the submission's decision."""
        return {
            "segmenter": self.segmenter and self.segmenter.settings(),
            "classifier": self.classifier and self.classifier.settings(),
            "crops": [asdict(form) for form in self.forms],
            "masks": self.masks,
            "heatmaps": self.heatmaps,
            "embeddings": self.embeddings,
            "batch": BATCH,
            "decoding": DECODING,
        }

    def members(self) -> tuple[str, ...]:
        """Return the networks that answer."""
        loaded = [each for each in (self.segmenter, self.classifier) if each is not None]
        return tuple(member.name for each in loaded for member in each.members)

    def schema(self) -> Schema:
        """Return the table's schema."""
        from naevus.runs.predictions import Schema  # noqa: PLC0415 (slow to import)

        loaded = [each for each in (self.segmenter, self.classifier) if each is not None]
        conformal = None if self.classifier is None else self.classifier.conformal
        diagnosing = () if self.classifier is None else self.classifier.members
        return Schema(
            () if self.classifier is None else self.classifier.classes,
            tuple(dict.fromkeys(bundle.sha256 for each in loaded for bundle in each.bundles)),
            attributes=() if self.segmenter is None else self.segmenter.attributes,
            about={
                **self.settings(),
                "members": [member.name for member in diagnosing],
                "classes": [] if self.classifier is None else list(self.classifier.classes),
                "taxonomy": self.classifier and self.classifier.taxonomy,
                "level": conformal and conformal.level,
            },
        )


def plan_of(
    segmenter: Segmenter | None,
    classifier: Classifier | None,
    only: Only | None = None,
    *,
    heatmaps: bool = False,
    embeddings: bool = False,
) -> Plan:
    """Decide what is done with every picture.

    Raises:
        ConfigError: Bundles are missing for what is asked, or give no heat maps or embeddings.
    """
    wanted = {"heat maps": ("cam", heatmaps), "embeddings": ("embedding", embeddings)}
    for what, (output, asked) in wanted.items():
        if asked and (classifier is None or only is not None):
            raise ConfigError(f"{what} are of diagnoses, and none are made here", "leave them out")
        if asked and classifier is not None:
            classifier.require(output, what)
    if only is None:
        check_pair(segmenter, classifier)
        forms = (CROPS,) if classifier is None else classifier.forms
        return Plan(segmenter, classifier, forms, segmenter is not None, heatmaps, embeddings)
    forms = (CROPS,) if classifier is None else classifier.forms[:1]
    if segmenter is None and (only == "masks" or forms[0].mode != "full"):
        raise ConfigError(f"{only} are made by a segmentation bundle", "name one with --bundle")
    return Plan(segmenter, None, () if only == "masks" else forms, only == "masks")


HEATED: Final = 384
"""The shorter side, in pixels, of a picture written with its heat; a smaller one as it is."""

OUTLINE: Final = (0, 255, 255)
"""The colour of the lesion's outline on a heat map: cyan, which no heat has."""


class _Seen(NamedTuple):
    """A picture on its way: what was seen of it, and the logits of its masks where known."""

    given: Given
    look: Look
    logit: NDArray[np.float32] | None
    attributes: NDArray[np.float32] | None = None


class _Shown(NamedTuple):
    """A picture of modest size with its masks, to draw heat on."""

    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None
    attributes: Mapping[str, NDArray[np.bool_]]


class _Attributes(NamedTuple):
    """Attributes of an image: probabilities, packed masks, and masks to draw, by attribute."""

    presence: dict[str, float]
    packed: dict[str, NDArray[np.uint8]]
    small: dict[str, NDArray[np.bool_]]


class _Diagnosed(NamedTuple):
    """What comes of a picture, and what its heat is drawn on where that is wanted."""

    said: Prediction | Refused
    shown: _Shown | None


class _Finished(NamedTuple):
    """A picture whose mask and crop are written; only what is still needed is kept."""

    given: Given
    height: int
    width: int
    box: Box | None
    mask_share: float | None
    packed_mask: NDArray[np.uint8] | None
    flags: tuple[str, ...]
    cut: Cut | None
    shown: _Shown | None
    attributes: dict[str, float]
    packed_attributes: dict[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class Job:
    """Batches on their way through the networks.

    Args:
        plan: What is done with every picture.
        limits: Which pictures are refused before decoding.
        folder: Where masks, crops and heat maps go; None: nothing is written, and predictions have
            their masks.
    """

    plan: Plan
    limits: Limits
    folder: OutFolder | None = None

    def predict(
        self, pieces: Iterable[Sequence[Given]], workers: Workers
    ) -> Iterator[list[Prediction | Refused]]:
        """Take batches all the way; each picture gives a prediction or a refusal, in order.

        The networks see one batch after the other in this thread; meanwhile the workers decode
        the next one, and clean, cut and write the one before.
        """
        looked = workers.ahead(self._look, pieces)
        segmented = (self._segment(piece, seen) for piece, seen in looked)
        finished = workers.ahead(self._finish, segmented)
        diagnosed = (self._diagnose(piece, outcomes) for piece, outcomes in finished)
        if self.folder is None or not self.plan.heatmaps:
            return ([each.said for each in piece] for piece in diagnosed)
        heated = workers.ahead(self._write_heat, diagnosed)
        return ([each.said for each in piece] for piece, _ in heated)

    def _look(self, given: Given) -> Look:
        """Decode a picture for the segmenter."""
        if given.problem is not None:
            raise given.problem
        seen = look(given.picture, self.plan.segmenter, self.plan.forms, self.limits, keep=True)
        return seen._replace(flags=(*given.flags, *seen.flags))

    def _segment(
        self, piece: Sequence[Given], seen: Sequence[Look | PictureError]
    ) -> list[_Seen | Refused]:
        looks = [each for each in seen if isinstance(each, Look)]
        found: Iterator[NDArray[np.float32] | None] = repeat(None)
        maps: Iterator[NDArray[np.float32] | None] = repeat(None)
        faults: dict[int, str] = {}
        if self.plan.segmenter is not None and looks:
            surfaces = self.plan.segmenter.surfaces(stacked([each.squares for each in looks]))
            faults = surfaces.faults
            if surfaces.logits is not None:
                found = iter(surfaces.logits)
            if surfaces.attributes is not None:
                maps = iter(surfaces.attributes)
        outcomes: list[_Seen | Refused] = []
        number = 0
        for given, each in zip(piece, seen, strict=True):
            if isinstance(each, PictureError):
                outcomes.append(_refusal(given, each))
                continue
            logit, attributes = next(found), next(maps)
            outcomes.append(
                _failed(given, faults[number])
                if number in faults
                else _Seen(given, each._replace(squares=()), logit, attributes)
            )
            number += 1
        return outcomes

    def _finish(self, seen: _Seen | Refused) -> _Finished | Refused:
        """Clean the mask, judge the picture, cut the crop; write what is to be written."""
        if isinstance(seen, Refused):
            return seen
        given, at_sight, logit, maps = seen
        height, width, _, pixels, of_file = at_sight
        assert pixels is not None
        mask = None
        if self.plan.segmenter is not None and logit is not None:
            mask = self.plan.segmenter.mask_of(logit, height, width)
        cut = None
        if self.plan.forms:
            cut = cut_for(given.picture, mask, self.plan.forms, self.limits, seen=at_sight)
        self._write(given.image_id, mask, cut)
        shown = self.plan.heatmaps and self.folder is not None
        attributes = self._attributes(given.image_id, maps, (height, width), pixels, shown=shown)
        return _Finished(
            given,
            height,
            width,
            None if mask is None else box_of(mask),
            None if mask is None else area_share(mask),
            None if mask is None or self.folder is not None else np.packbits(mask),
            (
                *of_file,
                *quality.size_flags(height, width),
                *flags_of(mask),
                *quality.flags_of(pixels, mask),
            ),
            cut,
            _shown(pixels, mask, attributes.small) if shown else None,
            attributes.presence,
            attributes.packed,
        )

    def _attributes(
        self,
        image_id: str,
        maps: NDArray[np.float32] | None,
        size: tuple[int, int],
        pixels: NDArray[np.uint8],
        *,
        shown: bool,
    ) -> _Attributes:
        """Find the attributes of an image; write their masks, or keep them for its prediction."""
        found = _Attributes({}, {}, {})
        if maps is None or self.plan.segmenter is None:
            return found
        for name, each in self.plan.segmenter.attributes_of(maps, *size):
            found.presence[name] = each.presence
            if self.folder is None:
                found.packed[name] = np.packbits(each.mask)
            elif self.plan.masks:
                write_png(self.folder.attribute(image_id, name), each.mask)
            if shown:
                found.small[name] = _small(each.mask, reduced(pixels, HEATED).shape[:2])
        return found

    def _write(self, image_id: str, mask: NDArray[np.bool_] | None, cut: Cut | None) -> None:
        if self.folder is None:
            return
        if cut is not None:
            write_png(self.folder.crop(image_id), cut.squares[0])
        if mask is not None and self.plan.masks:
            write_png(self.folder.mask(image_id), mask)

    def _diagnose(
        self,
        piece: Sequence[_Seen | Refused],
        outcomes: Sequence[_Finished | Refused | PictureError],
    ) -> list[_Diagnosed]:
        cuts = [each.cut.squares for each in outcomes if isinstance(each, _Finished) and each.cut]
        answers = None
        if self.plan.classifier is not None and cuts:
            answers = self.plan.classifier.answers(stacked(cuts))
        found = []
        number = 0
        for seen, outcome in zip(piece, outcomes, strict=True):
            if isinstance(outcome, _Finished):
                said: Prediction | Refused
                if answers is not None and number in answers.faults:
                    said = _failed(outcome.given, answers.faults[number])
                else:
                    said = self._prediction(outcome, answers, number)
                found.append(_Diagnosed(said, outcome.shown))
                number += 1
            elif isinstance(outcome, Refused):
                found.append(_Diagnosed(outcome, None))
            else:
                assert isinstance(seen, _Seen)
                found.append(_Diagnosed(_refusal(seen.given, outcome), None))
        return found

    def _prediction(self, finished: _Finished, answers: Answers | None, number: int) -> Prediction:
        """Join what was found of a picture with what is said of the batch's n-th picture."""
        found = Prediction(
            finished.given.image_id,
            finished.given.picture,
            finished.height,
            finished.width,
            finished.box,
            finished.mask_share,
            None if finished.cut is None else finished.cut.mode,
            flags=explained(finished.flags),
            packed_mask=finished.packed_mask,
            attributes=finished.attributes,
            packed_attributes=finished.packed_attributes,
        )
        classifier = self.plan.classifier
        if answers is None or classifier is None or finished.cut is None:
            return found
        sets, conformal = answers.sets, classifier.conformal
        embeddings, spread = answers.embeddings, answers.spread
        unlike = None if answers.unlikeness is None else float(answers.unlikeness[number])
        return replace(
            found,
            probabilities=_by_code(classifier.classes, answers.natural[number]),
            balanced_probabilities=_by_code(classifier.classes, answers.balanced[number]),
            members=answers.members[number],
            spread=None if spread is None else float(spread[number]),
            prediction_set=None if sets is None else _within(classifier.classes, sets[number]),
            level=None if conformal is None else conformal.level,
            unlikeness=unlike,
            flags=explained((*finished.flags, *outlier_flags(unlike))),
            embedding=None if embeddings is None else embeddings[number],
            taxonomy=classifier.taxonomy,
            activations=activation_maps(classifier, answers, number, finished.cut.boxes),
        )

    def _write_heat(self, diagnosed: _Diagnosed) -> None:
        said, shown = diagnosed
        if isinstance(said, Refused) or shown is None or said.diagnosis is None:
            return
        heat = said.heat_of(said.diagnosis, *shown.pixels.shape[:2])
        assert heat is not None
        assert self.folder is not None
        drawn = glowing(shown.pixels, heat)
        if shown.mask is not None:
            drawn = draw_outline(drawn, shown.mask, OUTLINE, 1)
        drawn = draw_attributes(drawn, shown.attributes)
        write_png(self.folder.heatmap(said.image_id), drawn)


def flags_of(mask: NDArray[np.bool_] | None) -> tuple[str, ...]:
    """Return what is odd about a mask: ``empty_mask``, or ``implausible_mask``.

    A classifier that sees crops is then given the centre square, and the crop mode says so.
    """
    if mask is None or plausible(mask):
        return ()
    return ("implausible_mask",) if area_share(mask) else ("empty_mask",)


def outlier_flags(unlikeness: float | None) -> tuple[str, ...]:
    """Return ``not_dermoscopy`` where a picture is farther from dermoscopy than the limit."""
    return ("not_dermoscopy",) if unlikeness is not None and unlikeness > LIMIT else ()


def _refusal(given: Given, error: PictureError) -> Refused:
    path = str(given.picture) if isinstance(given.picture, Path) else given.image_id
    line = " ".join(str(error).removeprefix(f"{path}: ").split())
    return Refused(given.image_id, path, line)


def _failed(given: Given, fault: str) -> Refused:
    """Refuse a picture that a network gave no usable number for."""
    path = str(given.picture) if isinstance(given.picture, Path) else given.image_id
    return Refused(given.image_id, path, f"{fault}; {REMEDY}")


def _shown(
    pixels: NDArray[np.uint8],
    mask: NDArray[np.bool_] | None,
    attributes: Mapping[str, NDArray[np.bool_]],
) -> _Shown:
    small = reduced(pixels, HEATED)
    lesion = None if mask is None else _small(mask, small.shape[:2])
    return _Shown(small, lesion, attributes)


def _small(mask: NDArray[np.bool_], size: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return a mask at the size of an image that it is drawn on."""
    height, width = size
    return np.asarray(resize(mask.view(np.uint8) * np.uint8(255), height, width) > 127)


def _by_code(classes: Sequence[str], values: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(classes, values.tolist(), strict=True))


def _within(classes: Sequence[str], inside: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(code for code, is_in in zip(classes, inside, strict=True) if is_in)
