"""The options of a prediction job: its networks and outputs, checked before anything runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from naevus import __version__
from naevus.errors import ConfigError
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
    from naevus.types import Only


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
        masks: Whether to write masks.
        heatmaps: Whether to write heatmaps; or the class that they show, in place of the
            predicted one.
        embeddings: Whether to write embeddings.
        crops: Whether to write the crops of ``input_specs``.
        nested: Whether to write images into subfolders (`naevus.io.files.nested`).
        batch_size: Images per batch.
        metadata: Data of the patients by image id, if there are any.
    """

    segmenter: Segmenter | None
    classifier: Classifier | None
    input_specs: tuple[InputSpec, ...]
    masks: bool = False
    heatmaps: bool | str = False
    embeddings: bool = False
    crops: bool = True
    nested: bool = False
    batch_size: int = BATCH
    metadata: PatientTable | None = None

    def settings(self) -> dict[str, Any]:
        """Return all settings that affect the outputs, except the submission's decision."""
        return {
            "segmenter": self.segmenter and self.segmenter.settings(),
            "classifier": self.classifier and self.classifier.settings(),
            "crops": [asdict(input_spec) for input_spec in self.input_specs],
            "masks": self.masks,
            "write_crops": self.crops,
            "heatmaps": self.heatmaps,
            "embeddings": self.embeddings,
            "nested": self.nested,
            "batch": self.batch_size,
            "decoding": DECODING,
            **self._metadata_settings(),
        }

    def _metadata_settings(self) -> dict[str, Any]:
        """Return what identifies the metadata; nothing where there are none."""
        if self.metadata is None:
            return {}
        columns = list(self.metadata.columns)
        return {"metadata": {"sha256": self.metadata.sha256(), "columns": columns}}

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
    only: Only | None = None,
    *,
    heatmaps: bool | str = False,
    embeddings: bool = False,
    masks: bool = True,
    crops: bool = True,
    nested: bool = False,
    batch_size: int = BATCH,
    metadata: PatientTable | None = None,
) -> PredictionOptions:
    """Create the options of a job.

    Raises:
        ConfigError: A bundle is missing, or has no heatmaps, embeddings or model of the patient's
            data; the heatmaps' class is unknown; or an option has no effect.
    """
    _check_files(segmenter, only, masks=masks, crops=crops, batch_size=batch_size)
    if metadata is not None:
        check_metadata(metadata, segmenter, None if only is not None else classifier)
    how: Any = {"nested": nested, "batch_size": batch_size}
    wanted = {"heatmaps": ("cam", bool(heatmaps)), "embeddings": ("embedding", embeddings)}
    for what, (output, asked) in wanted.items():
        if asked and (classifier is None or only is not None):
            raise ConfigError(f"{what} need a classifier, and none is used here", "leave them out")
        if asked and classifier is not None:
            classifier.require(output, what)
    if isinstance(heatmaps, str) and classifier is not None:
        heatmaps = asked_class(heatmaps, classifier.classes)
    input_specs = (CROPS,) if classifier is None else classifier.input_specs
    if only is None:
        check_pair(segmenter, classifier)
        return PredictionOptions(
            segmenter,
            classifier,
            () if classifier is None and not crops else input_specs,
            masks=masks and segmenter is not None,
            heatmaps=heatmaps,
            embeddings=embeddings,
            crops=crops,
            metadata=metadata,
            **how,
        )
    if segmenter is None and (only == "masks" or input_specs[0].mode != "full"):
        raise ConfigError(f"{only} need a segmentation bundle", "name one with --bundle")
    return PredictionOptions(
        segmenter,
        None,
        () if only == "masks" else input_specs[:1],
        only == "masks",
        metadata=metadata,
        **how,
    )


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


def _check_files(
    segmenter: Segmenter | None, only: Only | None, *, masks: bool, crops: bool, batch_size: int
) -> None:
    """Check that options about the written files have an effect.

    Raises:
        ConfigError: One has none.
    """
    left_out = [name for name, wanted in (("masks", masks), ("crops", crops)) if not wanted]
    if left_out and only is not None:
        raise ConfigError(
            f"no {' and no '.join(left_out)}: has no effect where only {only} are written",
            "leave out one of the two options",
        )
    if not masks and segmenter is None:
        raise ConfigError("no masks: no bundle here segments", "leave the option out")
    if batch_size < 1:
        raise ConfigError(f"a batch of {batch_size} images", "use 1 or more")
