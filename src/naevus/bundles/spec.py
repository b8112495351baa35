"""The typed and validated content of ``bundle.json``."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self, get_args

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from naevus.bundles.figures import (
    ClassFigures,
    Recommendation,
    ScoreSpec,
    StorageCost,
    StorageRefusal,
    SubgroupFigures,
)
from naevus.bundles.section import (
    Cells,
    FileName,
    Finite,
    Fraction,
    Positive,
    Section,
    Sha256,
)
from naevus.errors import BundleError
from naevus.taxonomy import ATTRIBUTES, TAXONOMIES
from naevus.types import CropMode, Precision, Storage, Task, Unit

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEMA: Final = 1
"""The version of the schema that this version of naevus writes and reads."""

MANIFEST = "bundle.json"
"""The file that lists all other files of a bundle."""

EXPORT_AGAIN = "export the bundle again or take an undamaged copy"


class Member(Section):
    """One network.

    Attributes:
        file: The ONNX graph.
        architecture: The architecture, such as ``unet:tu-tf_efficientnet_lite0``.
        input_size: The side of the square input in pixels.
        folds: The held-out folds; empty if weights of different folds were averaged.
        storage: The data type of the stored weights.
    """

    file: FileName
    architecture: str
    input_size: int = Field(ge=1, le=8192)
    folds: tuple[int, ...] = ()
    storage: Storage = "fp32"


class ClassifierMember(Member):
    """A network that outputs class logits.

    Attributes:
        class_weights: w_c, the relative weight of each class in the training loss.
        class_priors: π_c, the fraction of each class in the training data; they sum to 1.
        crop_mode: The network's input, if it differs from the classifier's.
        cam_offset: The measured shift of a structure from its place in the activation map, in
            cells downwards and to the right (`inference.cam`).
    """

    class_weights: tuple[Positive, ...]
    class_priors: tuple[Fraction, ...]
    crop_mode: CropMode | None = None
    cam_offset: tuple[Cells, Cells] = (0.0, 0.0)


class PostprocessingSpec(Section):
    """Settings that turn lesion probabilities into a mask (``images.masks.Postprocessing``).

    Attributes:
        threshold: The probability above which a pixel belongs to the lesion.
        largest: Whether only the largest region is kept.
        holes: Whether holes are filled.
        smooth: Radius over which the contour is smoothed, as a fraction of the shorter side.
    """

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    largest: bool = True
    holes: bool = True
    smooth: Annotated[float, Field(ge=0, le=1)] = 0.0


class SegmenterSpec(Section):
    """An ensemble that segments lesions.

    Attributes:
        members: The networks; their logits are averaged.
        colour_constancy: Whether shades of grey is applied to the input.
        postprocessing: Settings that turn probabilities into a mask.
    """

    members: tuple[Member, ...] = Field(min_length=1)
    colour_constancy: bool = False
    postprocessing: PostprocessingSpec = PostprocessingSpec()


class ConformalSpec(Section):
    """Thresholds of prediction sets (``evaluation.conformal.Conformal``).

    Attributes:
        classes: The class codes in the order of the logits.
        coverage: The nominal coverage.
        thresholds: The minimum natural probability of each class in a set, unless it is the most
            probable one, which is in every set; 1: it is in a set only as that.
        groups: The number of groups (lesions) that each threshold was fitted on.
    """

    classes: tuple[str, ...]
    coverage: Annotated[float, Field(gt=0, lt=1)]
    thresholds: tuple[Fraction, ...]
    groups: tuple[Annotated[int, Field(ge=0)], ...]


Terms = tuple[Finite, ...]


class PatientSpec(Section):
    """How the patient's data change the log odds (``evaluation.patient.PatientModel``).

    Attributes:
        classes: The class codes in the order of the logits.
        ages: Ages in years, rising; terms of other ages are interpolated.
        age: One term per class for each age.
        sex: One term per class for each known sex.
        site: One term per class for each known site.
        conformal: Thresholds of prediction sets for images with patient data.
        fitted_on: The predictions and data that terms and thresholds were fitted on.
    """

    classes: tuple[str, ...]
    ages: tuple[Finite, ...] = Field(min_length=2)
    age: tuple[Terms, ...]
    sex: dict[str, Terms] = Field(default_factory=dict)
    site: dict[str, Terms] = Field(default_factory=dict)
    conformal: ConformalSpec | None = None
    fitted_on: str | None = None

    @model_validator(mode="after")
    def _terms_fit(self) -> Self:
        if len(self.age) != len(self.ages) or sorted(set(self.ages)) != list(self.ages):
            raise ValueError("there must be terms for each age, and ages must rise")
        every = [*self.age, *self.sex.values(), *self.site.values()]
        if any(len(terms) != len(self.classes) for terms in every):
            raise ValueError("there must be one term for each class")
        if self.conformal is not None and self.conformal.classes != self.classes:
            raise ValueError("the prediction sets have other classes")
        return self


class ClassifierSpec(Section):
    """An ensemble that predicts probabilities of diagnoses.

    Attributes:
        members: The networks; their logits are averaged.
        classes: The class codes in the order of the logits.
        taxonomy: The name of the set of diagnoses, if it is a known one.
        crop_mode: The input of the networks (``images.preprocess``), unless a member has its own.
        crop_margin: The margin around the lesion's box, as a fraction of its longer side.
        colour_constancy: Whether shades of grey is applied to the input.
        temperature: The divisor of the natural logits.
        offsets: One value per class, added to the divided logits; empty if none were fitted.
        conformal: Thresholds of prediction sets, if they were fitted.
        calibrated_on: The predictions on which temperature, offsets and thresholds were fitted.
        ood: The file with feature statistics of the training images, for OOD scores.
        patient: The effect of the patient's age, sex and site, if it was fitted.
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
    patient: PatientSpec | None = None

    @model_validator(mode="after")
    def _classes_fit(self) -> Self:
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise ValueError("a classifier needs two or more different classes")
        for member in self.members:
            if not len(self.classes) == len(member.class_weights) == len(member.class_priors):
                raise ValueError(
                    "classes, class weights and class priors must have the same length"
                )
            if not math.isclose(sum(member.class_priors), 1.0, rel_tol=0, abs_tol=1e-3):
                raise ValueError("class priors must sum to 1")
        if self.offsets and len(self.offsets) != len(self.classes):
            raise ValueError("there must be one offset for each class, or none")
        sets = self.conformal
        if sets is not None and not (
            self.classes == sets.classes
            and len(sets.thresholds) == len(sets.groups) == len(sets.classes)
        ):
            raise ValueError("conformal needs one threshold and one count per class, in order")
        if self.taxonomy is not None:
            known = TAXONOMIES.get(self.taxonomy)
            if known is None:
                raise ValueError(f"unknown taxonomy {self.taxonomy!r}")
            if not known.holds(self.classes):
                raise ValueError(f"classes differ from those of taxonomy {self.taxonomy!r}")
        return self

    @model_validator(mode="after")
    def _patient_fits(self) -> Self:
        if self.patient is not None and self.patient.classes != self.classes:
            raise ValueError("the patient's data must have the same classes, in order")
        return self

    def mode_of(self, member: ClassifierMember) -> CropMode:
        """Return the input of a member."""
        return member.crop_mode or self.crop_mode

    @property
    def crop_modes(self) -> tuple[CropMode, ...]:
        """The different inputs of the members, in order."""
        return tuple(dict.fromkeys(map(self.mode_of, self.members)))

    @property
    def crops(self) -> bool:
        """Whether a member takes crops around the lesion."""
        return self.crop_modes != ("full",)

    @property
    def names(self) -> dict[str, str]:
        """The names of the diagnoses by code; empty for an unknown taxonomy."""
        known = TAXONOMIES.get(self.taxonomy or "")
        return {one.code: one.name for one in known.diagnoses} if known else {}


class SampleSpec(Section):
    """A sample with reference outputs, to check an engine before its first use.

    Attributes:
        file: The file with a synthetic image and the networks' outputs (`bundles.sample`).
        answered_by: The software that computed the reference outputs.
        tolerances: The maximum distance from the reference outputs, by member file and measured
            precision.
    """

    file: FileName
    answered_by: str = Field(min_length=1)
    tolerances: dict[FileName, dict[Precision, Positive]]


class TrainingData(Section):
    """A data set that networks were trained on.

    Attributes:
        task: The task.
        name: The data set and its source.
        images: The number of images for the task.
        licence: The licence of the data, if known.
    """

    task: Task
    name: str
    images: int = Field(ge=1)
    licence: str | None = None


class PresenceSpec(Section):
    """Coefficients for the probability that an attribute is present.

    The probability is the logistic function of ``slope * logit(peak) + intercept``. The peak is the
    mean probability of the highest one per cent of pixels (``evaluation.attributes``).

    Attributes:
        slope: The factor of the peak's log-odds.
        intercept: The log-odds of presence at a peak of one half.
    """

    slope: Positive = 1.0
    intercept: Finite = 0.0


class AttributesSpec(Section):
    """An ensemble that segments dermoscopic attributes.

    Attributes:
        members: The networks; their logits are averaged. A network that is also a member of the
            segmenter runs once for both tasks.
        names: The attributes in the order of the output maps.
        thresholds: The pixel threshold of each attribute.
        presence: The presence coefficients of each attribute. If they are empty, the probability
            of presence is the peak itself.
        colour_constancy: Whether shades of grey is applied to the input.
        chosen_on: The predictions on which thresholds and presence were fitted.
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
            raise ValueError(
                "names, thresholds and presence (unless empty) must have the same length"
            )
        return self


class BundleSpec(Section):
    """The content of ``bundle.json``.

    Attributes:
        schema_version: The version of this schema.
        segmenter: The ensemble that segments lesions, if there is one.
        classifier: The ensemble that predicts diagnoses, if there is one.
        attributes: The ensemble that segments attributes, if there is one.
        licence: The licence of the networks, if known.
        training_data: The data sets that the networks were trained on.
        scores: The scores of the model card.
        by_class: The metrics of each diagnosis.
        subgroups: The metrics by sex, age and other attributes, if the data set has them.
        unit: What the groups of images are that the figures are computed by.
        storage_costs: The measured effects of precisions other than fp32.
        storage_refusals: Precisions that did not run on the machine used for measuring.
        recommended: The recommended precision of each task.
        limits: Known limits, as sentences for the model card.
        provenance: The origin of the bundle, as shown on the model card.
        sample: A sample with reference outputs to check engines with, if there is one.
        files: The SHA-256 of every other file in the folder, by name.
    """

    schema_version: Literal[1] = SCHEMA
    segmenter: SegmenterSpec | None = None
    classifier: ClassifierSpec | None = None
    attributes: AttributesSpec | None = None
    licence: str | None = None
    training_data: tuple[TrainingData, ...] = ()
    scores: tuple[ScoreSpec, ...] = ()
    by_class: tuple[ClassFigures, ...] = ()
    subgroups: tuple[SubgroupFigures, ...] = ()
    unit: Unit = "lesion"
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
        """The tasks that the bundle has networks for."""
        tasks: tuple[Task, ...] = get_args(Task)
        return tuple(task for task in tasks if self.part_of(task) is not None)

    @property
    def members(self) -> tuple[Member, ...]:
        """All networks, the segmenter's first; a network for two tasks is listed once."""
        found: dict[str, Member] = {}
        for task in get_args(Task):
            for member in self.members_of(task):
                found.setdefault(member.file, member)
        return tuple(found.values())

    def recommended_precision(self, task: Task) -> Precision:
        """Return the recommended precision for a task's networks as stored, or fp32."""
        stored = {member.storage for member in self.members_of(task)}
        for choice in self.recommended:
            if choice.task == task and stored == {choice.storage}:
                return choice.precision
        return "fp32"

    def part_of(self, task: Task) -> SegmenterSpec | ClassifierSpec | AttributesSpec | None:
        """Return the specification of a task's networks, if there are any."""
        return {
            "segmentation": self.segmenter,
            "classification": self.classifier,
            "attributes": self.attributes,
        }[task]

    def members_of(self, task: Task) -> Sequence[Member]:
        """Return the networks for a task."""
        part = self.part_of(task)
        return () if part is None else part.members


def parse_manifest(content: bytes, where: str) -> BundleSpec:
    """Parse the content of a ``bundle.json``.

    Args:
        content: UTF-8 JSON.
        where: The name of the file in error messages.

    Raises:
        BundleError: The content violates the schema, or a listed file has no hash.
    """
    _check_version(content, where)
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


def _check_version(content: bytes, where: str) -> None:
    """Reject another schema by its number: the errors of its entries would say less."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return  # pydantic says what is wrong
    version = found.get("schema_version", SCHEMA) if isinstance(found, dict) else SCHEMA
    if isinstance(version, int) and version > SCHEMA:
        raise BundleError(
            f"{where}: has a newer schema than {SCHEMA}, which this naevus reads", "update naevus"
        )


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
    """Report whether a name is allowed in a bundle: no folder, nothing hidden."""
    try:
        _FILE_NAME.validate_python(name)
    except ValidationError:
        return False
    return True
