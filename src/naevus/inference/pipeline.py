"""The prediction pipeline: decode, segment, finish and classify batches of images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from naevus import __version__
from naevus.errors import ImageError
from naevus.evaluation.ood import LIMIT
from naevus.images import quality
from naevus.images.geometry import box_of, reduced
from naevus.images.masks import area_fraction, plausible
from naevus.images.measurements import measure, touches_border
from naevus.images.preprocess import (
    ClassifierInput,
    DecodedImage,
    classifier_input,
    decode_once,
    stack_inputs,
)
from naevus.images.read import write_png
from naevus.inference.abilities import Abilities
from naevus.inference.cam import activation_maps
from naevus.inference.ensemble import REMEDY
from naevus.inference.heatmaps import OVERLAY_SIDE, canvas_of, draw_heatmap, small_mask
from naevus.inference.inputs import counts_of
from naevus.inference.options import check_metadata
from naevus.inference.prediction import Prediction
from naevus.types import FailedImage, explained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from naevus.datasets.patient_table import PatientTable
    from naevus.images.geometry import Box
    from naevus.images.measurements import Measurements
    from naevus.images.read import Limits
    from naevus.inference.classifier import ClassifierOutput
    from naevus.inference.heatmaps import Canvas
    from naevus.inference.inputs import ImageInput
    from naevus.inference.options import PredictionOptions
    from naevus.io.parallel import Workers
    from naevus.runs.predictions import PredictionsFolder
    from naevus.types import Patient


class _Segmented(NamedTuple):
    """A decoded image with the logits of its masks."""

    given: ImageInput
    decoded: DecodedImage
    logit: NDArray[np.float32] | None
    attributes: NDArray[np.float32] | None = None


class _Attributes(NamedTuple):
    """An image's attributes: probabilities, packed masks, and reduced masks to draw."""

    presence: dict[str, float]
    packed: dict[str, NDArray[np.uint8]]
    small: dict[str, NDArray[np.bool_]]


class _Classified(NamedTuple):
    """An image's prediction, and the image to draw its heatmap on, if requested."""

    prediction: Prediction | FailedImage
    shown: Canvas | None


class _Finished(NamedTuple):
    """An image whose mask and crop are done, reduced to the data that is still needed."""

    given: ImageInput
    height: int
    width: int
    box: Box | None
    lesion_area: float | None
    touches_border: bool | None
    measurements: Measurements | None
    packed_mask: NDArray[np.uint8] | None
    flags: tuple[str, ...]
    cut: ClassifierInput | None
    shown: Canvas | None
    attributes: dict[str, float]
    packed_attributes: dict[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class Pipeline:
    """Runs batches of images through the networks.

    Args:
        prediction_options: Networks and outputs.
        limits: Limits that are checked before decoding.
        folder: Folder for masks, crops and heatmaps; None: write nothing, and return masks in the
            predictions.
    """

    prediction_options: PredictionOptions
    limits: Limits
    folder: PredictionsFolder | None = None

    def predict(
        self, pieces: Iterable[Sequence[ImageInput]], workers: Workers
    ) -> Iterator[list[Prediction | FailedImage]]:
        """Yield predictions or failures for batches of images, in order.

        The networks run on one batch after the other in this thread. Meanwhile the workers decode
        the next batch, and postprocess, crop and write the previous one.
        """
        decoded = workers.ahead(self._decode, pieces)
        segmented = (self._segment(piece, entry) for piece, entry in decoded)
        finished = workers.ahead(self._finish, segmented)
        classified = (self._classify(piece, results) for piece, results in finished)
        if self.folder is None or not self.prediction_options.outputs.heatmaps:
            return ([each.prediction for each in piece] for piece in classified)
        heated = workers.ahead(self._write_heatmap, classified)
        return ([each.prediction for each in piece] for piece, _ in heated)

    def with_metadata(self, metadata: PatientTable, warn: Callable[[str], None]) -> Pipeline:
        """Return a pipeline with data of the patients, after reporting what does not count.

        Raises:
            ConfigError: They have no effect (`options.check_metadata`).
        """
        options = self.prediction_options
        check_metadata(metadata, Abilities.of_loaded(options.segmenter, options.classifier))
        if metadata.has_patients and options.classifier is not None:
            ids = ["patient"] if metadata.everyone else list(metadata.rows)
            model = options.classifier.require_patient()
            for line in counts_of(metadata, model, ids).lines()[1:]:
                warn(line)
        return replace(self, prediction_options=replace(options, metadata=metadata))

    def _decode(self, given: ImageInput) -> DecodedImage:
        """Decode an image once, for the segmenter and for its quality flags."""
        if given.problem is not None:
            raise given.problem
        entry = decode_once(
            given.image,
            self.prediction_options.segmenter,
            self.prediction_options.input_specs,
            self.limits,
            keep=True,
        )
        return entry._replace(flags=(*given.flags, *entry.flags))

    def _segment(
        self, piece: Sequence[ImageInput], entry: Sequence[DecodedImage | ImageError]
    ) -> list[_Segmented | FailedImage]:
        decoded = [each for each in entry if isinstance(each, DecodedImage)]
        found: Iterator[NDArray[np.float32] | None] = repeat(None)
        maps: Iterator[NDArray[np.float32] | None] = repeat(None)
        faults: dict[int, str] = {}
        if self.prediction_options.segmenter is not None and decoded:
            logit_maps = self.prediction_options.segmenter.logit_maps(
                stack_inputs([each.inputs for each in decoded])
            )
            faults = logit_maps.faults
            if logit_maps.logits is not None:
                found = iter(logit_maps.logits)
            if logit_maps.attributes is not None:
                maps = iter(logit_maps.attributes)
        results: list[_Segmented | FailedImage] = []
        number = 0
        for given, each in zip(piece, entry, strict=True):
            if isinstance(each, ImageError):
                results.append(_unreadable(given, each))
                continue
            logit, attributes = next(found), next(maps)
            results.append(
                _invalid(given, faults[number])
                if number in faults
                else _Segmented(given, each._replace(inputs=()), logit, attributes)
            )
            number += 1
        return results

    def _finish(self, entry: _Segmented | FailedImage) -> _Finished | FailedImage:
        """Make the mask, flags and crops of an image, and write the requested files."""
        if isinstance(entry, FailedImage):
            return entry
        given, decoded, logit, maps = entry
        height, width, _, pixels, file_flags = decoded
        assert pixels is not None
        mask = None
        if self.prediction_options.segmenter is not None and logit is not None:
            mask = self.prediction_options.segmenter.mask_of(logit, height, width)
        cut = None
        if self.prediction_options.input_specs:
            cut = classifier_input(
                given.image, mask, self.prediction_options.input_specs, self.limits, first=decoded
            )
        self._write(given.image_id, mask, cut)
        shown = bool(self.prediction_options.outputs.heatmaps) and self.folder is not None
        attributes = self._attributes(given.image_id, maps, (height, width), pixels, shown=shown)
        return _Finished(
            given,
            height,
            width,
            None if mask is None else box_of(mask),
            None if mask is None else area_fraction(mask),
            None if mask is None or not mask.any() else touches_border(mask),
            None if mask is None else measure(mask, pixels),
            None if mask is None or self.folder is not None else np.packbits(mask),
            (
                *file_flags,
                *quality.size_flags(height, width),
                *flags_of(mask),
                *quality.flags_of(pixels, mask),
            ),
            cut,
            canvas_of(pixels, mask, attributes.small) if shown else None,
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
        """Find an image's attributes; write their masks, or keep them for the prediction."""
        found = _Attributes({}, {}, {})
        if maps is None or self.prediction_options.segmenter is None:
            return found
        for name, each in self.prediction_options.segmenter.attributes_of(maps, *size):
            found.presence[name] = each.presence
            if self.folder is None:
                found.packed[name] = np.packbits(each.mask)
            elif self.prediction_options.outputs.masks:
                write_png(self.folder.attribute(image_id, name), each.mask)
            if shown:
                height, width = reduced(pixels, OVERLAY_SIDE).shape[:2]
                found.small[name] = small_mask(each.mask, height, width)
        return found

    def _write(
        self, image_id: str, mask: NDArray[np.bool_] | None, cut: ClassifierInput | None
    ) -> None:
        if self.folder is None:
            return
        if cut is not None and self.prediction_options.outputs.crops:
            write_png(self.folder.crop(image_id), cut.crop)
        if mask is not None and self.prediction_options.outputs.masks:
            write_png(self.folder.mask(image_id), mask)

    def _classify(
        self,
        piece: Sequence[_Segmented | FailedImage],
        results: Sequence[_Finished | FailedImage | ImageError],
    ) -> list[_Classified]:
        cuts = [each.cut.inputs for each in results if isinstance(each, _Finished) and each.cut]
        outputs = None
        if self.prediction_options.classifier is not None and cuts:
            outputs = self.prediction_options.classifier.predictions(
                stack_inputs(cuts), self._patients(results)
            )
        found = []
        number = 0
        for entry, result in zip(piece, results, strict=True):
            if isinstance(result, _Finished):
                prediction: Prediction | FailedImage
                if outputs is not None and number in outputs.faults:
                    prediction = _invalid(result.given, outputs.faults[number])
                else:
                    prediction = self._prediction(result, outputs, number)
                found.append(_Classified(prediction, result.shown))
                number += 1
            elif isinstance(result, FailedImage):
                found.append(_Classified(result, None))
            else:
                assert isinstance(entry, _Segmented)
                found.append(_Classified(_unreadable(entry.given, result), None))
        return found

    def _patients(
        self, results: Sequence[_Finished | FailedImage | ImageError]
    ) -> list[Patient] | None:
        """Return what is known of the patients of the images that are classified."""
        metadata = self.prediction_options.metadata
        if metadata is None or not metadata.has_patients:
            return None
        return [
            metadata.patient(each.given.image_id)
            for each in results
            if isinstance(each, _Finished) and each.cut
        ]

    def _prediction(
        self, finished: _Finished, outputs: ClassifierOutput | None, number: int
    ) -> Prediction:
        """Combine an image's results with the classifier's outputs for the batch's n-th image."""
        metadata = self.prediction_options.metadata
        found = Prediction(
            finished.given.image_id,
            finished.given.image,
            finished.height,
            finished.width,
            finished.box,
            finished.lesion_area,
            None if finished.cut is None else finished.cut.mode,
            flags=explained(finished.flags),
            packed_mask=finished.packed_mask,
            attributes=finished.attributes,
            packed_attributes=finished.packed_attributes,
            bundles=tuple(bundle.sha256 for bundle in self.prediction_options.bundles),
            naevus_version=__version__,
            touches_border=finished.touches_border,
            measurements=finished.measurements,
            metadata={} if metadata is None else metadata.values(finished.given.image_id),
            effects=self.prediction_options.effects(finished.given.image_id),
            mm_per_pixel=None
            if metadata is None
            else metadata.mm_per_pixel(finished.given.image_id),
        )
        classifier = self.prediction_options.classifier
        if outputs is None or classifier is None or finished.cut is None:
            return found
        sets, conformal = outputs.sets, classifier.conformal
        embeddings, uncertainty = outputs.embeddings, outputs.uncertainty
        ood_score = None if outputs.ood_score is None else float(outputs.ood_score[number])
        return replace(
            found,
            probabilities=_by_code(classifier.classes, outputs.natural[number]),
            balanced_probabilities=_by_code(classifier.classes, outputs.balanced[number]),
            members=outputs.members[number],
            uncertainty=None if uncertainty is None else float(uncertainty[number]),
            prediction_set=None if sets is None else _within(classifier.classes, sets[number]),
            coverage=None if conformal is None else conformal.coverage,
            ood_score=ood_score,
            flags=explained((*finished.flags, *ood_flags(ood_score))),
            embedding=None if embeddings is None else embeddings[number],
            taxonomy=classifier.taxonomy,
            activations=activation_maps(classifier, outputs, number, finished.cut.boxes),
        )

    def _write_heatmap(self, classified: _Classified) -> None:
        prediction, shown = classified
        if isinstance(prediction, FailedImage) or shown is None or prediction.predicted is None:
            return
        assert self.folder is not None
        asked = self.prediction_options.outputs.heatmaps
        code = asked if isinstance(asked, str) else prediction.predicted
        drawn = draw_heatmap(prediction, shown, code)
        write_png(self.folder.heatmap(prediction.image_id), drawn)


def flags_of(mask: NDArray[np.bool_] | None) -> tuple[str, ...]:
    """Return the flags of a mask: ``empty_mask`` or ``implausible_mask``.

    A classifier of crops then gets the centre square, and the crop mode is ``full``.
    """
    if mask is None or plausible(mask):
        return ()
    return ("implausible_mask",) if area_fraction(mask) else ("empty_mask",)


def ood_flags(ood_score: float | None) -> tuple[str, ...]:
    """Return ``not_dermoscopy`` if an image's OOD score exceeds the limit."""
    return ("not_dermoscopy",) if ood_score is not None and ood_score > LIMIT else ()


def _unreadable(given: ImageInput, error: ImageError) -> FailedImage:
    path = str(given.image) if isinstance(given.image, Path) else given.image_id
    line = " ".join(str(error).removeprefix(f"{path}: ").split())
    return FailedImage(given.image_id, path, line)


def _invalid(given: ImageInput, fault: str) -> FailedImage:
    """Return the failure of an image for which a network's output is invalid."""
    path = str(given.image) if isinstance(given.image, Path) else given.image_id
    return FailedImage(given.image_id, path, f"{fault}; {REMEDY}")


def _by_code(classes: Sequence[str], values: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(classes, values.tolist(), strict=True))


def _within(classes: Sequence[str], inside: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(code for code, is_in in zip(classes, inside, strict=True) if is_in)
