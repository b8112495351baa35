"""What a report is made of: answers with their truth, and what is known of how they came about."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from naevus.datasets.sources import mask_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from naevus.datasets.dataset import Dataset
    from naevus.evaluation.tables import Diagnosed
    from naevus.inference.classifier import Classifier

Facts = dict[str, dict[str, str]]
"""Names and values by the title they stand under."""


class Count(NamedTuple):
    """How many pictures, and lesions where that is known, there are of something."""

    what: str
    pictures: int
    lesions: int | None = None


@dataclass(frozen=True)
class Results:
    """The answers of a run or of a prediction.

    Attributes:
        name: Of the folder.
        unseen: Whether the pictures are known to be new to the networks: held out by a fold.
        diagnosed: What is known of diagnoses, if anything.
        outlined: ``image_id, group_id`` and the fields of `MaskScore`, if there are masks.
        masks: The folder of predicted masks, if there is one.
        own_masks: Whether the classifier was given these masks, not the data set's.
        records: Rows of the data set by image id; None where it is not at hand.
        history: ``fold, epoch`` and what training noted; None for predictions.
        counts: From how many pictures there are to how many are judged.
        unanswered: ``image_id, why`` of the pictures without an answer.
        facts: Configuration, versions and hashes.
        command: What makes the same again.
        classifier_of: Gives the classifier that answered a picture, to draw its heat map with;
            None where it is not at hand.
        notes: What does not count, in sentences.
    """

    name: str
    unseen: bool
    diagnosed: Diagnosed | None
    outlined: pd.DataFrame | None
    masks: Path | None
    own_masks: bool
    records: pd.DataFrame | None
    history: pd.DataFrame | None
    counts: tuple[Count, ...]
    unanswered: pd.DataFrame
    facts: Facts
    command: str
    classifier_of: Callable[[str], Classifier | None]
    notes: tuple[str, ...] = ()

    @property
    def pictures(self) -> pd.DataFrame:
        """``image_id, group_id`` of every picture with an answer that can be judged."""
        tables = [self.outlined] if self.outlined is not None else []
        if self.diagnosed is not None:
            tables.append(self.diagnosed.table)
        both = pd.concat([table[["image_id", "group_id"]] for table in tables])
        return both.drop_duplicates("image_id", ignore_index=True)

    def predicted_mask(self, image_id: str) -> Path | None:
        """Return the file of a picture's predicted mask, if there is one."""
        file = self.masks and mask_file(self.masks, image_id)
        return file if file and file.exists() else None


def records_of(
    dataset: Dataset | None, ids: pd.Series[str], parts: list[str] | None
) -> pd.DataFrame | None:
    """Return the data set's rows of some pictures by image id.

    Args:
        dataset: None: there are none.
        ids: The pictures.
        parts: Those that were trained on; None: all. Of a picture that stands in several, each
            column is the first that is known.
    """
    if dataset is None:
        return None
    if parts and set(parts) <= set(dataset.parts):
        dataset = dataset.part(*parts)
    rows = dataset.table[dataset.table["image_id"].isin(ids)]
    return rows.groupby("image_id").first()


def flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Yield the settings of nested tables by their dotted names."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{before}{name}.")
        else:
            yield before + name, _told(value)


def _told(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def in_lines(*commands: list[str]) -> str:
    """Return commands as they are typed, one a line."""
    return "\n".join(map(shlex.join, commands))
