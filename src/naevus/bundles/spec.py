"""What ``bundle.json`` says, typed and checked."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from naevus.bundles.figures import (
    ClassFigures,
    PrecisionChoice,
    PrecisionCost,
    PrecisionRefusal,
    ScoreSpec,
    SubgroupFigures,
)
from naevus.bundles.section import Finite, Section, Share
from naevus.errors import BundleError
from naevus.taxonomy import TAXONOMIES
from naevus.types import Computed, CropMode, Precision, Task

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "EXPORT_AGAIN",
    "MANIFEST",
    "BundleSpec",
    "ClassifierMember",
    "ClassifierSpec",
    "CleaningSpec",
    "ConformalSpec",
    "Member",
    "Precision",
    "SampleSpec",
    "SegmenterSpec",
    "Task",
    "TrainingData",
    "is_file_name",
    "parse_manifest",
]

MANIFEST = "bundle.json"
"""The file that names all others of a bundle."""

EXPORT_AGAIN = "export the bundle again or take an undamaged copy"

# A plain name: no folder, no parent, nothing hidden. It is all that keeps a bundle in its folder.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,200}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Cells = Annotated[float, Field(ge=-1, le=1)]


class Member(Section):
    """One network.

    Attributes:
        file: Its ONNX graph.
        architecture: What it is, such as ``unet:tu-tf_efficientnet_lite0``.
        input_size: Side of the square it sees, pixels.
        folds: The folds it did not train on: none where weights of different folds were averaged.
        precision: How its numbers are stored.
    """

    file: FileName
    architecture: str
    input_size: int = Field(ge=1, le=8192)
    folds: tuple[int, ...] = ()
    precision: Precision = "fp32"


class ClassifierMember(Member):
    """A network that gives logits of classes.

    Attributes:
        weights: w_c, how much more than its share each class counted in training.
        shares: π_c, the classes' shares in the training data; they sum to 1.
        cell_offset: Where a thing lies, seen from where its activation maps show it: cells down,
            cells to the right (`inference.offset`).
    """

    weights: tuple[Positive, ...]
    shares: tuple[Share, ...]
    cell_offset: tuple[Cells, Cells] = (0.0, 0.0)


class CleaningSpec(Section):
    """How a lesion probability becomes a mask: the settings of ``images.masks.Cleaning``."""

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    largest: bool = True
    holes: bool = True
    smooth: Annotated[float, Field(ge=0, le=1)] = 0.0


class SegmenterSpec(Section):
    """Outlines lesions.

    Attributes:
        members: The networks whose mean logit is the answer.
        colour_constancy: Whether shades of grey is applied to what the networks see.
        cleaning: How a lesion probability becomes a mask.
    """

    members: tuple[Member, ...] = Field(min_length=1)
    colour_constancy: bool = False
    cleaning: CleaningSpec = CleaningSpec()


class ConformalSpec(Section):
    """Prediction sets: the dictionary of ``evaluation.calibration.conformal.Conformal``.

    Attributes:
        codes: The classes, in the order of the logits.
        level: The promised coverage.
        thresholds: The least natural probability with which each class is in a set.
        groups: How many groups (lesions) each threshold stands on.
    """

    codes: tuple[str, ...]
    level: Annotated[float, Field(gt=0, lt=1)]
    thresholds: tuple[Share, ...]
    groups: tuple[Annotated[int, Field(ge=0)], ...]


class ClassifierSpec(Section):
    """Gives probabilities of diagnoses.

    Attributes:
        members: The networks whose mean logit is the answer.
        classes: Codes in the order of the logits.
        taxonomy: Name of the set of diagnoses that the classes are of, where it is a known one.
        crop_mode: What the networks see (``images.crops``).
        crop_margin: Margin round the lesion's box, as a share of its longer side.
        colour_constancy: Whether shades of grey is applied to what the networks see.
        temperature: Divides the natural logits.
        offsets: Added to them then, one a class; none where none were fitted.
        conformal: Thresholds of prediction sets, where they were found.
        calibrated_on: Whose answers to which pictures temperature, offsets and thresholds are from.
        reference: File of the training pictures' statistics, that unlike pictures are told by.
    """

    members: tuple[ClassifierMember, ...] = Field(min_length=1)
    classes: tuple[str, ...]
    taxonomy: str | None = None
    crop_mode: CropMode = "full"
    crop_margin: Annotated[float, Field(ge=0, le=1)] = 0.15
    colour_constancy: bool = False
    temperature: Positive = 1.0
    offsets: tuple[Finite, ...] = ()
    conformal: ConformalSpec | None = None
    calibrated_on: str | None = None
    reference: FileName | None = None

    @model_validator(mode="after")
    def _classes_fit(self) -> Self:
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise ValueError("a classifier needs two or more different classes")
        for member in self.members:
            if not len(self.classes) == len(member.weights) == len(member.shares):
                raise ValueError("classes, weights and shares must be equally many")
            if not math.isclose(sum(member.shares), 1.0, rel_tol=0, abs_tol=1e-3):
                raise ValueError("shares must sum to 1")
        if self.offsets and len(self.offsets) != len(self.classes):
            raise ValueError("offsets must be one for each class, or none")
        sets = self.conformal
        if sets is not None and not (
            self.classes == sets.codes
            and len(sets.thresholds) == len(sets.groups) == len(sets.codes)
        ):
            raise ValueError("conformal needs a threshold and a count for each class, in order")
        if self.taxonomy is not None:
            known = TAXONOMIES.get(self.taxonomy)
            if known is None:
                raise ValueError(f"unknown taxonomy {self.taxonomy!r}")
            if not known.holds(self.classes):
                raise ValueError(f"classes are not those of taxonomy {self.taxonomy!r}, in order")
        return self

    @property
    def names(self) -> dict[str, str]:
        """The diagnoses' names by code, where the set of diagnoses is known."""
        known = TAXONOMIES.get(self.taxonomy or "")
        return {one.code: one.name for one in known.diagnoses} if known else {}


class SampleSpec(Section):
    """By what engines are judged before they are trusted (`bundles.sample`).

    Attributes:
        file: The drawn picture, and what the networks say of it.
        answered_by: What gave these answers.
        tolerances: By the member's file, how far an engine's answers may be from them, for each
            precision that was measured.
    """

    file: FileName
    answered_by: str = Field(min_length=1)
    tolerances: dict[FileName, dict[Computed, Positive]]


class TrainingData(Section):
    """What networks learnt from.

    Attributes:
        task: What was learnt.
        name: The data set, and its source.
        pictures: How many pictures it has for the task.
        licence: The data's licence, where it is known.
    """

    task: Task
    name: str
    pictures: int = Field(ge=1)
    licence: str | None = None


class BundleSpec(Section):
    """The content of ``bundle.json``.

    Attributes:
        schema_version: Version of this schema.
        segmenter: What outlines lesions, if anything does.
        classifier: What diagnoses, if anything does.
        licence: Under which licence the networks may be used, where that is said.
        training_data: What the networks learnt from.
        scores: Figures for the model card.
        by_class: Figures of each diagnosis.
        subgroups: Figures by sex, age and the like, where the data tells them.
        precision_costs: What other precisions than 32 bits change, where that was measured.
        precision_refusals: Which of them did not run on the machine that measured.
        precision_choices: Which precision is recommended for each task, by these.
        limits: What is known not to have been tried, in sentences for the model card.
        provenance: Where the bundle comes from; printed on the model card.
        sample: By what engines are judged before they are trusted, where that is there.
        files: SHA-256 of every other file of the folder, by name.
    """

    schema_version: Literal[1] = 1
    segmenter: SegmenterSpec | None = None
    classifier: ClassifierSpec | None = None
    licence: str | None = None
    training_data: tuple[TrainingData, ...] = ()
    scores: tuple[ScoreSpec, ...] = ()
    by_class: tuple[ClassFigures, ...] = ()
    subgroups: tuple[SubgroupFigures, ...] = ()
    precision_costs: tuple[PrecisionCost, ...] = ()
    precision_refusals: tuple[PrecisionRefusal, ...] = ()
    precision_choices: tuple[PrecisionChoice, ...] = ()
    limits: tuple[str, ...] = ()
    provenance: dict[str, str | int | float] = Field(default_factory=dict)
    sample: SampleSpec | None = None
    files: dict[FileName, Sha256] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if self.segmenter is None and self.classifier is None:
            raise ValueError("a bundle needs a segmenter or a classifier")
        return self

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What the bundle can do."""
        able: list[Task] = []
        if self.segmenter is not None:
            able.append("segmentation")
        if self.classifier is not None:
            able.append("classification")
        return tuple(able)

    @property
    def members(self) -> tuple[Member, ...]:
        """All networks, the segmenter's first."""
        return (*self._members("segmentation"), *self._members("classification"))

    def bears(self, task: Task) -> Computed:
        """Return what a task's networks, as they are stored, were measured to bear; else f32."""
        stored = {member.precision for member in self._members(task)}
        for choice in self.precision_choices:
            if choice.task == task and stored == {choice.stored}:
                return choice.computed
        return "f32"

    def _members(self, task: Task) -> Sequence[Member]:
        part = self.segmenter if task == "segmentation" else self.classifier
        return () if part is None else part.members


def parse_manifest(content: bytes, where: str) -> BundleSpec:
    """Read the content of a ``bundle.json``.

    Args:
        content: UTF-8 JSON.
        where: What errors call it.

    Raises:
        BundleError: It is not of this schema, or a file that it names has no hash.
    """
    try:
        spec = BundleSpec.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        problem = first["msg"].removeprefix("Value error, ")
        raise BundleError(
            f"{where}: {f'{place}: ' if place else ''}{problem}", EXPORT_AGAIN
        ) from error
    for member in spec.members:
        if member.file not in spec.files:
            raise BundleError(f"{where}: member {member.file} has no hash", EXPORT_AGAIN)
    reference = spec.classifier and spec.classifier.reference
    if reference and reference not in spec.files:
        raise BundleError(f"{where}: reference {reference} has no hash", EXPORT_AGAIN)
    _check_sample(spec, where)
    return spec


def _check_sample(spec: BundleSpec, where: str) -> None:
    if spec.sample is None:
        return
    if spec.sample.file not in spec.files:
        raise BundleError(f"{where}: sample {spec.sample.file} has no hash", EXPORT_AGAIN)
    for member in spec.members:
        if "f32" not in spec.sample.tolerances.get(member.file, {}):
            raise BundleError(f"{where}: member {member.file} has no tolerance", EXPORT_AGAIN)


_FILE_NAME: TypeAdapter[str] = TypeAdapter(FileName)


def is_file_name(name: str) -> bool:
    """Tell whether a bundle may have a file of this name: no folder, nothing hidden."""
    try:
        _FILE_NAME.validate_python(name)
    except ValidationError:
        return False
    return True
