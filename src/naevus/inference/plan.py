"""What is done with every picture: which networks answer, and what is written."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from naevus.errors import ConfigError
from naevus.images.preprocess import Form
from naevus.images.read import DECODING
from naevus.inference.networks import check_pair
from naevus.io.parallel import BATCH

if TYPE_CHECKING:
    from naevus.inference.classifier import Classifier
    from naevus.inference.segmenter import Segmenter
    from naevus.runs.predictions import Schema
    from naevus.types import Only


CROPS: Final = Form("crop", 256)
"""The crops written where no classifier says how it wants them."""


@dataclass(frozen=True)
class Plan:
    """What is done with every picture.

    Args:
        segmenter: Makes the masks, if anything does.
        classifier: Gives the diagnoses; None where nothing is diagnosed.
        forms: In which forms pictures are cut.
        masks: Whether masks are written.
        heatmaps: Whether heat maps are written.
        embeddings: Whether embeddings are written.
    """

    segmenter: Segmenter | None
    classifier: Classifier | None
    forms: tuple[Form, ...]
    masks: bool = False
    heatmaps: bool = False
    embeddings: bool = False

    def settings(self) -> dict[str, Any]:
        """Return all that decides on what is written, but for the submission's decision."""
        return {
            "segmenter": self.segmenter and self.segmenter.settings(),
            "classifier": self.classifier and self.classifier.settings(),
            "crops": [asdict(form) for form in self.forms],
            "masks": self.masks,
            "heatmaps": self.heatmaps,
            "embeddings": self.embeddings,
            "batch": BATCH,
            "decoding": DECODING,
        }

    def members(self) -> tuple[str, ...]:
        """Return the networks that answer."""
        loaded = [each for each in (self.segmenter, self.classifier) if each is not None]
        return tuple(member.name for each in loaded for member in each.members)

    def schema(self) -> Schema:
        """Return the table's schema."""
        from naevus.runs.predictions import Schema  # noqa: PLC0415 (slow to import)

        loaded = [each for each in (self.segmenter, self.classifier) if each is not None]
        conformal = None if self.classifier is None else self.classifier.conformal
        diagnosing = () if self.classifier is None else self.classifier.members
        return Schema(
            () if self.classifier is None else self.classifier.classes,
            tuple(dict.fromkeys(bundle.sha256 for each in loaded for bundle in each.bundles)),
            {
                **self.settings(),
                "members": [member.name for member in diagnosing],
                "classes": [] if self.classifier is None else list(self.classifier.classes),
                "taxonomy": self.classifier and self.classifier.taxonomy,
                "level": conformal and conformal.level,
            },
        )


def plan_of(
    segmenter: Segmenter | None,
    classifier: Classifier | None,
    only: Only | None = None,
    *,
    heatmaps: bool = False,
    embeddings: bool = False,
) -> Plan:
    """Decide what is done with every picture.

    Raises:
        ConfigError: Bundles are missing for what is asked, or give no heat maps or embeddings.
    """
    wanted = {"heat maps": ("cam", heatmaps), "embeddings": ("embedding", embeddings)}
    for what, (output, asked) in wanted.items():
        if asked and (classifier is None or only is not None):
            raise ConfigError(f"{what} are of diagnoses, and none are made here", "leave them out")
        if asked and classifier is not None:
            classifier.require(output, what)
    if only is None:
        check_pair(segmenter, classifier)
        forms = (CROPS,) if classifier is None else classifier.forms
        return Plan(segmenter, classifier, forms, segmenter is not None, heatmaps, embeddings)
    forms = (CROPS,) if classifier is None else classifier.forms[:1]
    if segmenter is None and (only == "masks" or forms[0].mode != "full"):
        raise ConfigError(f"{only} are made by a segmentation bundle", "name one with --bundle")
    return Plan(segmenter, None, () if only == "masks" else forms, only == "masks")
