"""What was measured of a bundle, typed and checked: the figures of its model card."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from naevus.bundles.section import Finite, Section, Share
from naevus.types import Computed, Precision, Task

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
        on: What it was measured on, and by which networks.
    """

    name: str = Field(min_length=1)
    on: str = Field(min_length=1)


class ClassFigures(Section):
    """How one diagnosis is told from the others.

    Attributes:
        code: The diagnosis.
        pictures: How many pictures of it were judged.
        groups: Of how many groups (lesions).
        recall: The share of them that the balanced decision answers rightly.
        precision: The share of such answers that is right.
        auc: Area under the ROC curve of its natural probability.
        covered: The share of its lesions, one picture each, whose prediction set holds it.
    """

    code: str
    pictures: Count
    groups: Count
    recall: Figure | None = None
    precision: Share | None = None
    auc: Share | None = None
    covered: Figure | None = None


class SubgroupFigures(Section):
    """The balanced decision for one value of one attribute of the pictures.

    Attributes:
        attribute: Such as ``sex``.
        value: Such as ``female``.
        pictures: How many pictures it has.
        groups: Of how many groups (lesions).
        small: Whether these are too few to say much.
        balanced_accuracy: Over the classes ``over``.
        over: The classes with enough groups here; subgroups differ in them.
        gap: Balanced accuracy here minus that of all others, over classes that both have.
        p_holm: Of a gap as wide by chance, corrected for all subgroups.
    """

    attribute: str
    value: str
    pictures: Count
    groups: Count
    small: bool
    balanced_accuracy: Figure | None = None
    over: tuple[str, ...] = ()
    gap: Finite | None = None
    p_holm: Share | None = None


class PrecisionCost(Section):
    """What a precision changes on pictures that the networks never saw.

    Attributes:
        task: Which networks.
        stored: How their numbers are stored.
        computed: What they were computed in.
        score: What was measured.
        networks: By which networks, each on pictures that it never saw.
        reference: Its value for numbers in fp32, computed in f32.
        difference: Its value in this precision minus ``reference``, paired by picture.
        changed: The share of pictures whose answer changes: their balanced decision, or whether
            their mask reaches a Jaccard index of 0.65.
        pictures: How many pictures were judged.
        groups: Of how many groups (lesions).
    """

    task: Task
    stored: Precision
    computed: Computed
    score: str = Field(min_length=1)
    networks: str = Field(min_length=1)
    reference: Finite
    difference: Figure
    changed: Share
    pictures: Count
    groups: Count


class PrecisionRefusal(Section):
    """A precision whose cost could not be measured, for networks did not run in it there.

    Attributes:
        task: Which networks.
        stored: How their numbers were stored.
        computed: What they were to be computed in.
        problem: What happened.
    """

    task: Task
    stored: Precision
    computed: Computed
    problem: str = Field(min_length=1)


class PrecisionChoice(Section):
    """Which of the measured precisions is recommended, by a rule.

    Attributes:
        task: For which networks.
        stored: How numbers are stored.
        computed: What is computed in.
        why: The rule, and what came of it.
    """

    task: Task
    stored: Precision
    computed: Computed
    why: str
