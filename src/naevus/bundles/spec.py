"""What ``bundle.json`` says, typed and checked."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from naevus.errors import BundleError
from naevus.taxonomy import ATTRIBUTES, TAXONOMIES
from naevus.types import CropMode, Precision, Storage, Task

if TYPE_CHECKING:
    from collections.abc import Sequence


# What all parts of ``bundle.json`` have in common, and the words several of them use.

Finite = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A table of the file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# What was measured of a bundle, typed and checked: the figures of its model card.

Count = Annotated[int, Field(ge=0)]


class Figure(Section):
    """A value and its 95 % interval, by group.

    Attributes:
        value: The figure.
        low: Lower end of its interval, where there is one.
        high: Upper end of it.
    """

    value: Finite
    low: Finite | None = None
    high: Finite | None = None

    @model_validator(mode="after")
    def _interval_is_whole(self) -> Self:
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval needs both ends")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError("an interval's lower end is above its upper one")
        return self


class ScoreSpec(Figure):
    """A figure with what it was measured on.

    Attributes:
        name: What was measured, such as ``balanced accuracy``.
        measured_on: What it was measured on, and by which networks.
    """

    name: str = Field(min_length=1)
    measured_on: str = Field(min_length=1)


class ClassFigures(Section):
    """How one diagnosis is told from the others.

    Attributes:
        code: The diagnosis.
        images: How many images of it were judged.
        groups: Of how many groups (lesions).
        recall: The fraction of them that the balanced decision answers rightly.
        precision: The fraction of such answers that is right.
        auc: Area under the ROC curve of its natural probability.
        covered: The fraction of its lesions, one image each, whose prediction set holds it.
    """

    code: str
    images: Count
    groups: Count
    recall: Figure | None = None
    precision: Fraction | None = None
    auc: Fraction | None = None
    covered: Figure | None = None


class SubgroupFigures(Section):
    """The balanced decision for one value of one attribute of the images.

    Attributes:
        attribute: Such as ``sex``.
        value: Such as ``female``.
        images: How many images it has.
        groups: Of how many groups (lesions).
        small: Whether these are too few to say much.
        balanced_accuracy: Over the classes ``over``.
        over: The classes with enough groups here; subgroups differ in them.
        gap: Balanced accuracy here minus that of all others, over classes that both have.
        p_holm: Of a gap as wide by chance, corrected for all subgroups.
    """

    attribute: str
    value: str
    images: Count
    groups: Count
    small: bool
    balanced_accuracy: Figure | None = None
    over: tuple[str, ...] = ()
    gap: Finite | None = None
    p_holm: Fraction | None = None


class StorageCost(Section):
    """What a precision changes on images that the networks never saw.

    Attributes:
        task: Which networks.
        storage: How their numbers are stored.
        precision: What they were computed in.
        score: What was measured.
        networks: By which networks, each on images that it never saw.
        reference: Its value for numbers in fp32, computed in fp32.
        difference: Its value in this precision minus ``reference``, paired by image.
        changed: The fraction of images whose answer changes: their balanced decision, or whether
            their mask reaches a Jaccard index of 0.65.
        images: How many images were judged.
        groups: Of how many groups (lesions).
    """

    task: Task
    storage: Storage
    precision: Precision
    score: str = Field(min_length=1)
    networks: str = Field(min_length=1)
    reference: Finite
    difference: Figure
    changed: Fraction
    images: Count
    groups: Count


class StorageRefusal(Section):
    """A precision whose cost could not be measured, for networks did not run in it there.

    Attributes:
        task: Which networks.
        storage: How their numbers were stored.
        precision: What they were to be computed in.
        problem: What happened.
    """

    task: Task
    storage: Storage
    precision: Precision
    problem: str = Field(min_length=1)


class Recommendation(Section):
    """Which of the measured precisions is recommended, by a rule.

    Attributes:
        task: For which networks.
        storage: How numbers are stored.
        precision: What is computed in.
        reason: The rule, and what came of it.
    """

    task: Task
    storage: Storage
    precision: Precision
    reason: str


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
        storage: How its numbers are stored.
    """

    file: FileName
    architecture: str
    input_size: int = Field(ge=1, le=8192)
    folds: tuple[int, ...] = ()
    storage: Storage = "fp32"


class ClassifierMember(Member):
    """A network that gives logits of classes.

    Attributes:
        class_weights: w_c, how much more than its share each class counted in training.
        class_priors: π_c, the classes' fractions of the training data; they sum to 1.
        cam_offset: Where a thing lies, seen from where its activation maps show it: cells down,
            cells to the right (`inference.offset`).
    """

    class_weights: tuple[Positive, ...]
    class_priors: tuple[Fraction, ...]
    cam_offset: tuple[Cells, Cells] = (0.0, 0.0)


class PostprocessingSpec(Section):
    """How a lesion probability becomes a mask: the settings of ``images.masks.Postprocessing``."""

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    largest: bool = True
    holes: bool = True
    smooth: Annotated[float, Field(ge=0, le=1)] = 0.0


class SegmenterSpec(Section):
    """Segments lesions.

    Attributes:
        members: The networks whose mean logit is the answer.
        colour_constancy: Whether shades of grey is applied to what the networks see.
        postprocessing: How a lesion probability becomes a mask.
    """

    members: tuple[Member, ...] = Field(min_length=1)
    colour_constancy: bool = False
    postprocessing: PostprocessingSpec = PostprocessingSpec()


class ConformalSpec(Section):
    """Prediction sets: the dictionary of ``evaluation.calibration.conformal.Conformal``.

    Attributes:
        classes: Codes, in the order of the logits.
        coverage: The promised coverage.
        thresholds: The least natural probability with which each class is in a set.
        groups: How many groups (lesions) each threshold stands on.
    """

    classes: tuple[str, ...]
    coverage: Annotated[float, Field(gt=0, lt=1)]
    thresholds: tuple[Fraction, ...]
    groups: tuple[Annotated[int, Field(ge=0)], ...]


class ClassifierSpec(Section):
    """Gives probabilities of diagnoses.

    Attributes:
        members: The networks whose mean logit is the answer.
        classes: Codes in the order of the logits.
        taxonomy: Name of the set of diagnoses that the classes are of, where it is a known one.
        crop_mode: What the networks see (``images.crops``).
        crop_margin: Margin round the lesion's box, as a fraction of its longer side.
        colour_constancy: Whether shades of grey is applied to what the networks see.
        temperature: Divides the natural logits.
        offsets: Added to them then, one a class; none where none were fitted.
        conformal: Thresholds of prediction sets, where they were found.
        calibrated_on: Whose answers to which images temperature, offsets and thresholds are from.
        ood: File of the statistics of the training images' features, for OOD scores.
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
    ood: FileName | None = None

    @model_validator(mode="after")
    def _classes_fit(self) -> Self:
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise ValueError("a classifier needs two or more different classes")
        for member in self.members:
            if not len(self.classes) == len(member.class_weights) == len(member.class_priors):
                raise ValueError("classes, class weights and class priors must be equally many")
            if not math.isclose(sum(member.class_priors), 1.0, rel_tol=0, abs_tol=1e-3):
                raise ValueError("class priors must sum to 1")
        if self.offsets and len(self.offsets) != len(self.classes):
            raise ValueError("offsets must be one for each class, or none")
        sets = self.conformal
        if sets is not None and not (
            self.classes == sets.classes
            and len(sets.thresholds) == len(sets.groups) == len(sets.classes)
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
        file: The drawn image, and what the networks say of it.
        answered_by: What gave these answers.
        tolerances: By the member's file, how far an engine's answers may be from them, for each
            precision that was measured.
    """

    file: FileName
    answered_by: str = Field(min_length=1)
    tolerances: dict[FileName, dict[Precision, Positive]]


class TrainingData(Section):
    """What networks learnt from.

    Attributes:
        task: What was learnt.
        name: The data set, and its source.
        images: How many images it has for the task.
        licence: The data's licence, where it is known.
    """

    task: Task
    name: str
    images: int = Field(ge=1)
    licence: str | None = None


class PresenceSpec(Section):
    """How the likeliest pixels of an attribute's map tell whether it is there.

    The probability is the logistic function of ``slope * logit(peak) + intercept``, the peak being
    the mean probability of the likeliest hundredth of the pixels (``evaluation.attributes``).
    """

    slope: Positive = 1.0
    intercept: Finite = 0.0


class AttributesSpec(Section):
    """Finds dermoscopic attributes.

    Attributes:
        members: The networks whose mean logit is the answer; one whose file is a segmenter's too
            gives both, and runs once.
        names: The attributes in the order of the maps.
        thresholds: Above which probability a pixel shows an attribute, one for each.
        presence: How the probability that an attribute is there follows from its map, likewise;
            none where that was not fitted: then it is the peak.
        colour_constancy: Whether shades of grey is applied to what the networks see.
        chosen_on: By whose answers to which images thresholds and presence were chosen.
    """

    members: tuple[Member, ...] = Field(min_length=1)
    names: tuple[str, ...]
    thresholds: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.5,) * len(ATTRIBUTES)
    presence: tuple[PresenceSpec, ...] = ()
    colour_constancy: bool = False
    chosen_on: str | None = None

    @model_validator(mode="after")
    def _attributes_fit(self) -> Self:
        if self.names != tuple(ATTRIBUTES):
            raise ValueError(f"the attributes must be {', '.join(ATTRIBUTES)}, in this order")
        if not len(self.names) == len(self.thresholds) == (len(self.presence) or len(self.names)):
            raise ValueError("names, thresholds and presence (or none) must be equally many")
        return self


class BundleSpec(Section):
    """The content of ``bundle.json``.

    Attributes:
        schema_version: Version of this schema.
        segmenter: What segments lesions, if anything does.
        classifier: What diagnoses, if anything does.
        attributes: What finds attributes, if anything does.
        licence: Under which licence the networks may be used, where that is said.
        training_data: What the networks learnt from.
        scores: Figures for the model card.
        by_class: Figures of each diagnosis.
        subgroups: Figures by sex, age and the like, where the data tells them.
        storage_costs: What other precisions than 32 bits change, where that was measured.
        storage_refusals: Which of them did not run on the machine that measured.
        recommended: Which precision is recommended for each task, by these.
        limits: What is known not to have been tried, in sentences for the model card.
        provenance: Where the bundle comes from; printed on the model card.
        sample: By what engines are judged before they are trusted, where that is there.
        files: SHA-256 of every other file of the folder, by name.
    """

    schema_version: Literal[1] = 1
    segmenter: SegmenterSpec | None = None
    classifier: ClassifierSpec | None = None
    attributes: AttributesSpec | None = None
    licence: str | None = None
    training_data: tuple[TrainingData, ...] = ()
    scores: tuple[ScoreSpec, ...] = ()
    by_class: tuple[ClassFigures, ...] = ()
    subgroups: tuple[SubgroupFigures, ...] = ()
    storage_costs: tuple[StorageCost, ...] = ()
    storage_refusals: tuple[StorageRefusal, ...] = ()
    recommended: tuple[Recommendation, ...] = ()
    limits: tuple[str, ...] = ()
    provenance: dict[str, str | int | float] = Field(default_factory=dict)
    sample: SampleSpec | None = None
    files: dict[FileName, Sha256] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if not self.tasks:
            raise ValueError("a bundle needs a segmenter, a classifier or attributes")
        return self

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What the bundle can do."""
        able: list[Task] = []
        if self.segmenter is not None:
            able.append("segmentation")
        if self.classifier is not None:
            able.append("classification")
        if self.attributes is not None:
            able.append("attributes")
        return tuple(able)

    @property
    def members(self) -> tuple[Member, ...]:
        """All networks, the segmenter's first; one that does two tasks stands once."""
        found: dict[str, Member] = {}
        for task in get_args(Task):
            for member in self._members(task):
                found.setdefault(member.file, member)
        return tuple(found.values())

    def recommended_precision(self, task: Task) -> Precision:
        """Return what a task's networks, as they are stored, were measured to bear; else fp32."""
        stored = {member.storage for member in self._members(task)}
        for choice in self.recommended:
            if choice.task == task and stored == {choice.storage}:
                return choice.precision
        return "fp32"

    def _members(self, task: Task) -> Sequence[Member]:
        parts = {
            "segmentation": self.segmenter,
            "classification": self.classifier,
            "attributes": self.attributes,
        }
        part = parts[task]
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
    ood = spec.classifier and spec.classifier.ood
    if ood and ood not in spec.files:
        raise BundleError(f"{where}: {ood} has no hash", EXPORT_AGAIN)
    _check_sample(spec, where)
    return spec


def _check_sample(spec: BundleSpec, where: str) -> None:
    if spec.sample is None:
        return
    if spec.sample.file not in spec.files:
        raise BundleError(f"{where}: sample {spec.sample.file} has no hash", EXPORT_AGAIN)
    for member in spec.members:
        if "fp32" not in spec.sample.tolerances.get(member.file, {}):
            raise BundleError(f"{where}: member {member.file} has no tolerance", EXPORT_AGAIN)


_FILE_NAME: TypeAdapter[str] = TypeAdapter(FileName)


def is_file_name(name: str) -> bool:
    """Tell whether a bundle may have a file of this name: no folder, nothing hidden."""
    try:
        _FILE_NAME.validate_python(name)
    except ValidationError:
        return False
    return True
