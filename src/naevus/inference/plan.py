"""What is done with every picture: which networks answer, and what is written."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from naevus.datasets.forms import Form
from naevus.errors import ConfigError
from naevus.inference.prediction import check_pair
from naevus.inference.stream import BATCH
from naevus.inference.table import Schema

if TYPE_CHECKING:
    from naevus.inference.predictor import Classifier, Segmenter

Only = Literal["masks", "crops"]

CROPS: Final = Form("crop", 256)
"""The crops written where no classifier says how it wants them."""


@dataclass(frozen=True)
class Plan:
    """What is done with every picture; ``classifier`` is None where nothing is diagnosed."""

    segmenter: Segmenter | None
    classifier: Classifier | None
    forms: tuple[Form, ...]
    masks: bool

    def settings(self) -> dict[str, Any]:
        """Return all that decides on what is written, but for the submission's decision."""
        return {
            "segmenter": self.segmenter and self.segmenter.settings(),
            "classifier": self.classifier and self.classifier.settings(),
            "crops": [asdict(form) for form in self.forms],
            "masks": self.masks,
            "batch": BATCH,
        }

    def members(self) -> tuple[str, ...]:
        """Return the networks that answer."""
        loaded = [each for each in (self.segmenter, self.classifier) if each is not None]
        return tuple(member.name for each in loaded for member in each.members)

    def schema(self) -> Schema:
        """Return the table's schema."""
        loaded = [each for each in (self.segmenter, self.classifier) if each is not None]
        diagnosing = () if self.classifier is None else self.classifier.members
        return Schema(
            () if self.classifier is None else self.classifier.classes,
            tuple(bundle.sha256 for each in loaded for bundle in each.bundles),
            {
                **self.settings(),
                "members": [member.name for member in diagnosing],
                "classes": [] if self.classifier is None else list(self.classifier.classes),
                "taxonomy": self.classifier and self.classifier.taxonomy,
            },
        )


def plan_of(segmenter: Segmenter | None, classifier: Classifier | None, only: Only | None) -> Plan:
    """Decide what is done with every picture.

    Raises:
        ConfigError: Bundles are missing for what is asked.
    """
    if only is None:
        check_pair(segmenter, classifier)
        forms = (CROPS,) if classifier is None else classifier.forms
        return Plan(segmenter, classifier, forms, segmenter is not None)
    forms = (CROPS,) if classifier is None else classifier.forms[:1]
    if segmenter is None and (only == "masks" or forms[0].mode != "full"):
        raise ConfigError(f"{only} are made by a segmentation bundle", "name one with --bundle")
    return Plan(segmenter, None, () if only == "masks" else forms, only == "masks")
