"""The options of a prediction job: its networks and outputs, checked before anything runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, get_args

from naevus import __version__
from naevus.errors import ConfigError
from naevus.evaluation.patient import Effects, effects
from naevus.images.preprocess import InputSpec
from naevus.images.read import DECODING
from naevus.inference.abilities import Abilities
from naevus.inference.heatmaps import asked_class
from naevus.io.parallel import BATCH
from naevus.io.settings import check_choice
from naevus.taxonomy import TAXONOMIES
from naevus.types import Decision, Only

if TYPE_CHECKING:
    from naevus.bundles.bundle import Bundle
    from naevus.datasets.patient_table import PatientTable
    from naevus.inference.classifier import Classifier
    from naevus.inference.segmenter import Segmenter
    from naevus.runs.prediction_tables import Schema
    from naevus.taxonomy import Taxonomy


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
        ConfigError: An option is unknown or has no effect, or a batch has no image.

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
        """Check the choices, and the options that exclude each other."""
        if self.only is not None:
            check_choice("only", self.only, get_args(Only))
        check_choice("decision", self.decision, get_args(Decision))
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
        one = "of each image" if self.metadata.scale is None else self.metadata.scale
        scale = {"mm_per_pixel": one} if self.metadata.has_scale else {}
        hashed = self.metadata.sha256()
        return {"metadata": {"sha256": hashed, "columns": columns, **known, **scale}}

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


def check_options(
    outputs: OutputOptions, abilities: Abilities, metadata: PatientTable | None = None
) -> None:
    """Check that bundles can write what is asked for; none of their networks is loaded.

    Raises:
        ConfigError: A bundle is missing, or has no heatmaps, embeddings or model of the patient's
            data; the heatmaps' class is unknown; or an option has no effect.
    """
    only = outputs.only
    diagnosing = abilities if only is None else abilities._replace(classifying=())
    segments = bool(abilities.segmenting or abilities.finding)
    if not outputs.masks and not segments:
        raise ConfigError("no masks: no bundle here segments", "leave the option out")
    if metadata is not None:
        check_metadata(metadata, diagnosing)
    if outputs.heatmaps:
        diagnosing.require("cam", "heatmaps")
    if outputs.embeddings:
        diagnosing.require("embedding", "embeddings")
    if isinstance(outputs.heatmaps, str):
        asked_class(outputs.heatmaps, abilities.classes)
    if only is None:
        abilities.check()
    elif not segments and (only == "masks" or abilities.crops or not abilities.classifying):
        raise ConfigError(f"{only} need a segmentation bundle", "name one with --bundle")


def prediction_options_of(
    segmenter: Segmenter | None,
    classifier: Classifier | None,
    outputs: OutputOptions = OUTPUTS,
    metadata: PatientTable | None = None,
) -> PredictionOptions:
    """Create the options of a job, with the outputs that its networks have.

    Raises:
        ConfigError: See `check_options`.
    """
    check_options(outputs, Abilities.of_loaded(segmenter, classifier), metadata)
    only = outputs.only
    input_specs = (CROPS,) if classifier is None else classifier.input_specs
    if only is None:
        outputs = replace(outputs, masks=outputs.masks and segmenter is not None)
        if isinstance(outputs.heatmaps, str) and classifier is not None:
            asked = asked_class(outputs.heatmaps, classifier.classes)
            outputs = replace(outputs, heatmaps=asked)
        if classifier is None and not outputs.crops:
            input_specs = ()
        return PredictionOptions(segmenter, classifier, input_specs, outputs, metadata)
    crop = next((each for each in input_specs if each.mode != "full"), input_specs[0])
    input_specs = () if only == "masks" else (crop,)
    outputs = replace(outputs, only=None, masks=only == "masks")
    return PredictionOptions(segmenter, None, input_specs, outputs, metadata)


def check_metadata(metadata: PatientTable, abilities: Abilities) -> None:
    """Check that metadata have an effect.

    Raises:
        ConfigError: The patient's data need a classifier with a model of them, or the scale a
            segmenter of lesions, and there is none.
    """
    if metadata.has_patients:
        abilities.require_patient()
    if metadata.has_scale and not abilities.segmenting:
        raise ConfigError(
            "a scale in mm per pixel has no effect: no bundle here segments lesions",
            "leave it out, or add a segmentation bundle",
        )


def check_tables(outputs: OutputOptions, rows: int, abilities: Abilities) -> Taxonomy | None:
    """Check that the tables that are asked for can be written.

    Returns:
        The taxonomy of the submission; None if none is asked for.

    Raises:
        NaevusError: A workbook cannot be written, the decision has no effect, or a submission
            needs other diagnoses.
    """
    if outputs.decision != "balanced" and not outputs.submission:
        raise ConfigError(
            f"the decision {outputs.decision!r} is that of a submission, which is not asked for",
            "ask for it (--submission), or leave the decision out",
        )
    if outputs.xlsx:
        from naevus.io.workbooks import check_workbooks  # noqa: PLC0415 (slow to import)

        check_workbooks(rows)
    return _submitted(abilities, outputs.only) if outputs.submission else None


def _submitted(abilities: Abilities, only: Only | None) -> Taxonomy:
    """Return the taxonomy of a submission.

    Raises:
        ConfigError: There is none.
    """
    taxonomy = None if only else TAXONOMIES.get(abilities.taxonomy or "")
    if taxonomy is None or taxonomy.codes != abilities.classes:
        raise ConfigError(
            "a submission needs the diagnoses of a challenge, which are not predicted here",
            "leave it out (--submission), or use another bundle",
        )
    return taxonomy
