"""The measured figures in ``bundle.json``, as the model card shows them."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from naevus.bundles.section import Count, Finite, Fraction, Section
from naevus.types import Precision, Storage, Task


class Figure(Section):
    """A value and its 95 % interval, by group.

    Attributes:
        value: The value.
        low: The lower end of the interval, if there is one.
        high: The upper end of the interval, if there is one.
    """

    value: Finite
    low: Finite | None = None
    high: Finite | None = None

    @model_validator(mode="after")
    def _interval_is_whole(self) -> Self:
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval needs both ends")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError("the lower end of an interval is above its upper end")
        return self


class ScoreSpec(Figure):
    """A named metric.

    Attributes:
        name: The metric, such as ``balanced accuracy``.
        measured_on: The images and the networks that it was measured with.
    """

    name: str = Field(min_length=1)
    measured_on: str = Field(min_length=1)


class ClassFigures(Section):
    """The metrics of one diagnosis against all others.

    Attributes:
        code: The diagnosis.
        images: The number of evaluated images with this diagnosis.
        groups: The number of groups (lesions) of these images.
        recall: The fraction of these images that the balanced decision classifies correctly.
        precision: The fraction of correct images among those predicted as this diagnosis.
        auc: The area under the ROC curve of the natural probability.
        covered: The fraction of lesions (one image each) with the diagnosis in the prediction set.
    """

    code: str
    images: Count
    groups: Count
    recall: Figure | None = None
    precision: Fraction | None = None
    auc: Fraction | None = None
    covered: Figure | None = None


class SubgroupFigures(Section):
    """Metrics of the balanced decision in one subgroup.

    Attributes:
        attribute: The attribute, such as ``sex``.
        value: Its value, such as ``female``.
        images: The number of images in the subgroup.
        groups: The number of groups (lesions).
        small: Whether the subgroup is too small for a reliable estimate.
        balanced_accuracy: The mean recall of the classes in ``over``.
        over: The classes with enough groups in this subgroup.
        gap: The balanced accuracy minus that of all other images, over classes that both have.
        p_holm: The p value of the gap, with Holm's correction for all subgroups.
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
    """The effect of a precision on held-out images.

    Attributes:
        task: The task of the networks.
        storage: The data type of the stored weights.
        precision: The data type of the computation.
        score: The metric.
        networks: The networks, each evaluated on its held-out images.
        reference: The value of the metric, stored and computed in fp32.
        difference: The value in this precision minus ``reference``, paired by image.
        changed: The fraction of images with another prediction: another balanced decision, or a
            mask that now reaches, or no longer reaches, a Jaccard index of 0.65.
        images: The number of evaluated images.
        groups: The number of groups (lesions).
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
    """A precision that could not be measured because the networks did not run in it.

    Attributes:
        task: The task of the networks.
        storage: The data type of the stored weights.
        precision: The data type of the computation.
        problem: The error.
    """

    task: Task
    storage: Storage
    precision: Precision
    problem: str = Field(min_length=1)


class Recommendation(Section):
    """The recommended precision of a task.

    Attributes:
        task: The task of the networks.
        storage: The data type of the stored weights.
        precision: The data type of the computation.
        reason: The selection rule and the measured loss.
    """

    task: Task
    storage: Storage
    precision: Precision
    reason: str
