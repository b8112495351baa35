"""What ``bundle.json`` says, typed and checked."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from naevus.images.crops import CropMode
from naevus.taxonomy import TAXONOMIES

# A plain name: no folder, no parent, nothing hidden. It is all that keeps a bundle in its folder.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,200}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]

Task = Literal["segmentation", "classification"]
Precision = Literal["fp32", "fp16", "int8"]
"""How the numbers of a graph are stored; int8 graphs also compute in it."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Member(_Section):
    """One network.

    Attributes:
        file: Its ONNX graph.
        architecture: What it is, such as ``unet:tu-tf_efficientnet_lite0``.
        input_size: Side of the square it sees, pixels.
        folds: The folds it did not train on: several where weights were averaged.
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
    """

    weights: tuple[Positive, ...]
    shares: tuple[Share, ...]


class CleaningSpec(_Section):
    """How a lesion probability becomes a mask: the settings of ``images.masks.Cleaning``."""

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    largest: bool = True
    holes: bool = True
    smooth: Annotated[float, Field(ge=0, le=1)] = 0.0


class SegmenterSpec(_Section):
    """Outlines lesions.

    Attributes:
        members: The networks whose mean logit is the answer.
        colour_constancy: Whether shades of grey is applied to what the networks see.
        cleaning: How a lesion probability becomes a mask.
    """

    members: tuple[Member, ...] = Field(min_length=1)
    colour_constancy: bool = False
    cleaning: CleaningSpec = CleaningSpec()


class ClassifierSpec(_Section):
    """Gives probabilities of diagnoses.

    Attributes:
        members: The networks whose mean logit is the answer.
        classes: Codes in the order of the logits.
        taxonomy: Name of the set of diagnoses, where it is a known one.
        crop_mode: What the networks see (``images.crops``).
        crop_margin: Margin round the lesion's box, as a share of its longer side.
        colour_constancy: Whether shades of grey is applied to what the networks see.
        temperature: Divides the natural logits.
    """

    members: tuple[ClassifierMember, ...] = Field(min_length=1)
    classes: tuple[str, ...]
    taxonomy: str | None = None
    crop_mode: CropMode = "full"
    crop_margin: Annotated[float, Field(ge=0, le=1)] = 0.15
    colour_constancy: bool = False
    temperature: Positive = 1.0

    @model_validator(mode="after")
    def _classes_fit(self) -> Self:
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise ValueError("a classifier needs two or more different classes")
        for member in self.members:
            if not len(self.classes) == len(member.weights) == len(member.shares):
                raise ValueError("classes, weights and shares must be equally many")
            if not math.isclose(sum(member.shares), 1.0, rel_tol=0, abs_tol=1e-3):
                raise ValueError("shares must sum to 1")
        if self.taxonomy is not None:
            known = TAXONOMIES.get(self.taxonomy)
            if known is None:
                raise ValueError(f"unknown taxonomy {self.taxonomy!r}")
            if known.codes != self.classes:
                raise ValueError(f"classes are not those of taxonomy {self.taxonomy!r}, in order")
        return self


class BundleSpec(_Section):
    """The content of ``bundle.json``.

    Attributes:
        schema_version: Version of this schema.
        segmenter: What outlines lesions, if anything does.
        classifier: What diagnoses, if anything does.
        licence: Under which licence the networks may be used, where that is said.
        provenance: Where the bundle comes from; printed on the model card.
        files: SHA-256 of every other file of the folder, by name.
    """

    schema_version: Literal[1] = 1
    segmenter: SegmenterSpec | None = None
    classifier: ClassifierSpec | None = None
    licence: str | None = None
    provenance: dict[str, str | int | float] = Field(default_factory=dict)
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
        outlining = () if self.segmenter is None else self.segmenter.members
        diagnosing = () if self.classifier is None else self.classifier.members
        return (*outlining, *diagnosing)
