"""The options of a prediction job: its networks and outputs, checked before anything runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from naevus import __version__
from naevus.errors import ConfigError
from naevus.evaluation.patient import Effects, effects
from naevus.images.preprocess import InputSpec
from naevus.images.read import DECODING
from naevus.inference.heatmaps import asked_class
from naevus.io.parallel import BATCH

if TYPE_CHECKING:
    from naevus.bundles.bundle import Bundle
    from naevus.datasets.patient_table import PatientTable
    from naevus.inference.classifier import Classifier
    from naevus.inference.segmenter import Segmenter
    from naevus.runs.prediction_tables import Schema
    from naevus.types import Decision, Only


@dataclass(frozen=True)
class OutputOptions:
    """What a prediction job writes beside its table.

    Args:
        only: Write only masks or only crops, without classification.
        masks: Whether to write masks.
        crops: Whether to write crops.
        heatmaps: Whether to write class activation maps of the predicted class; or a class, such
            as ``"MEL"``, to write those of it for all images.
        embeddings: Whether to write the networks' features.
        nested: Whether to write images into 256 subfolders, by a hash of the image id.
        xlsx: Whether to write ``predictions.xlsx``, too.
        submission: Whether to write ``submission.csv``, for ISIC 2018 Task 3.
        decision: Which probabilities ``submission.csv`` contains.
        batch_size: Images per batch; it changes the last bits of the predictions.

    Raises:
        ConfigError: An option has no effect, or a batch has no image.

    Examples:
        >>> OutputOptions(heatmaps="MEL", crops=False).heatmaps
        'MEL'
    """

    only: Only | None = None
    masks: bool = True
    crops: bool = True
    heatmaps: bool | str = False
    embeddings: bool = False
    nested: bool = False
    xlsx: bool = False
    submission: bool = False
    decision: Decision = "balanced"
    batch_size: int = BATCH

    def __post_init__(self) -> None:
        """Check the options that exclude each other."""
        left_out = [name for name in ("masks", "crops") if not getattr(self, name)]
        if left_out and self.only is not None:
            raise ConfigError(
                f"no {' and no '.join(left_out)} (--no-{left_out[0]}): has no effect where only "
                f"{self.only} are written (--only {self.only})",
                "leave out one of the two options",
            )
        if self.batch_size < 1:
            raise ConfigError(f"a batch of {self.batch_size} images", "use 1 or more")


OUTPUTS: Final = OutputOptions()
"""What a job writes if nothing else is asked for."""


def check_pair(segmenter: Segmenter | None, classifier: Classifier | None) -> None:
    """Check that a segmenter and a classifier can predict together.

    Raises:
        ConfigError: Both are missing, or the classifier needs crops and there is no segmenter.
    """
    if segmenter is None and classifier is None:
        raise ConfigError("there is no bundle to predict with", "name one")
    segments = segmenter is not None and segmenter.segments_lesions
    if classifier is not None and classifier.needs_mask and not segments:
        raise ConfigError(
            f"{classifier.bundles[0].folder}: this classifier needs crops around the lesion",
            "name a segmentation bundle too",
        )


CROPS: Final = InputSpec("crop", 256)
"""Crops to write if there is no classifier."""


@dataclass(frozen=True)
class PredictionOptions:
    """The networks and outputs of a job.

    Args:
        segmenter: The segmenter, if there is one.
        classifier: The classifier, if there is one.
        input_specs: Input specs of the crops.
        outputs: What is written, if the job has a folder.
        metadata: Data of the patients by image id, if there are any.
    """

    segmenter: Segmenter | None
    classifier: Classifier | None
    input_specs: tuple[InputSpec, ...]
    outputs: OutputOptions = OUTPUTS
    metadata: PatientTable | None = None

    def settings(self) -> dict[str, Any]:
        """Return all settings that affect what is written of images."""
        outputs = self.outputs
        return {
            "segmenter": self.segmenter and self.segmenter.settings(),
            "classifier": self.classifier and self.classifier.settings(),
            "crops": [asdict(input_spec) for input_spec in self.input_specs],
            "masks": outputs.masks,
            "write_crops": outputs.crops,
            "heatmaps": outputs.heatmaps,
            "embeddings": outputs.embeddings,
            "nested": outputs.nested,
            "batch": outputs.batch_size,
            "decoding": DECODING,
            **self._metadata_settings(),
        }

    def _metadata_settings(self) -> dict[str, Any]:
        """Return what identifies the metadata; nothing where there are none."""
        if self.metadata is None:
            return {}
        columns = list(self.metadata.columns)
        known = {} if self.known is None else {"known": self.known}
        return {"metadata": {"sha256": self.metadata.sha256(), "columns": columns, **known}}

    @cached_property
    def known(self) -> dict[str, list[str]] | None:
        """The sexes and sites that change the odds; None if no metadata do."""
        if self.metadata is None or self.classifier is None or not self.metadata.has_patients:
            return None
        return self.classifier.require_patient().known

    def effects(self, image_id: str) -> Effects:
        """Return which metadata of an image change the odds."""
        if self.metadata is None or self.known is None:
            return Effects()
        return effects(self.metadata.values(image_id), self.known)

    def _loaded(self) -> list[Segmenter | Classifier]:
        return [each for each in (self.segmenter, self.classifier) if each is not None]

    def members(self) -> tuple[str, ...]:
        """Return the names of the networks."""
        return tuple(member.name for each in self._loaded() for member in each.members)

    @cached_property
    def bundles(self) -> tuple[Bundle, ...]:
        """The bundles of the networks, each once."""
        found = {bundle.sha256: bundle for each in self._loaded() for bundle in each.bundles}
        return tuple(found.values())

    def schema(self) -> Schema:
        """Return the table's schema."""
        from naevus.runs.prediction_tables import Schema  # noqa: PLC0415 (slow to import)

        conformal = None if self.classifier is None else self.classifier.conformal
        classification = () if self.classifier is None else self.classifier.members
        return Schema(
            () if self.classifier is None else self.classifier.classes,
            tuple(bundle.sha256 for bundle in self.bundles),
            attributes=() if self.segmenter is None else self.segmenter.attributes,
            metadata=() if self.metadata is None else self.metadata.columns,
            millimetres=self.metadata is not None and self.metadata.has_scale,
            about={
                **self.settings(),
                "naevus_version": __version__,
                "members": [member.name for member in classification],
                "classes": [] if self.classifier is None else list(self.classifier.classes),
                "taxonomy": self.classifier and self.classifier.taxonomy,
                "coverage": conformal and conformal.coverage,
            },
        )


def prediction_options_of(
    segmenter: Segmenter | None,
    classifier: Classifier | None,
    outputs: OutputOptions = OUTPUTS,
    metadata: PatientTable | None = None,
) -> PredictionOptions:
    """Create the options of a job, with the outputs that its networks have.

    Raises:
        ConfigError: A bundle is missing, or has no heatmaps, embeddings or model of the patient's
            data; the heatmaps' class is unknown; or an option has no effect.
    """
    only = outputs.only
    if not outputs.masks and segmenter is None:
        raise ConfigError("no masks: no bundle here segments", "leave the option out")
    if metadata is not None:
        check_metadata(metadata, segmenter, None if only is not None else classifier)
    _check_features(outputs, classifier)
    input_specs = (CROPS,) if classifier is None else classifier.input_specs
    if only is None:
        check_pair(segmenter, classifier)
        outputs = replace(outputs, masks=outputs.masks and segmenter is not None)
        if isinstance(outputs.heatmaps, str) and classifier is not None:
            asked = asked_class(outputs.heatmaps, classifier.classes)
            outputs = replace(outputs, heatmaps=asked)
        if classifier is None and not outputs.crops:
            input_specs = ()
        return PredictionOptions(segmenter, classifier, input_specs, outputs, metadata)
    if segmenter is None and (only == "masks" or input_specs[0].mode != "full"):
        raise ConfigError(f"{only} need a segmentation bundle", "name one with --bundle")
    input_specs = () if only == "masks" else input_specs[:1]
    outputs = replace(outputs, only=None, masks=only == "masks")
    return PredictionOptions(segmenter, None, input_specs, outputs, metadata)


def _check_features(outputs: OutputOptions, classifier: Classifier | None) -> None:
    """Check that the classifier has the outputs of networks that are asked for.

    Raises:
        ConfigError: It has not, or there is none.
    """
    wanted = {
        "heatmaps": ("cam", outputs.heatmaps),
        "embeddings": ("embedding", outputs.embeddings),
    }
    for what, (output, asked) in wanted.items():
        if asked and (classifier is None or outputs.only is not None):
            raise ConfigError(f"{what} need a classifier, and none is used here", "leave them out")
        if asked and classifier is not None:
            classifier.require(output, what)


def check_metadata(
    metadata: PatientTable, segmenter: Segmenter | None, classifier: Classifier | None
) -> None:
    """Check that metadata have an effect.

    Raises:
        ConfigError: The patient's data need a classifier with a model of them, or the scale a
            segmenter of lesions, and there is none.
    """
    if metadata.has_patients:
        if classifier is None:
            raise ConfigError("metadata need a classifier, and none is used", "leave them out")
        classifier.require_patient()
    if metadata.has_scale and not (segmenter is not None and segmenter.segments_lesions):
        raise ConfigError(
            "a scale in mm per pixel has no effect: no bundle here segments lesions",
            "leave it out, or add a segmentation bundle",
        )
