"""What the bundles of a job can do together, known before any of their networks is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

from naevus.errors import ConfigError
from naevus.inference.engines.graphfile import output_names
from naevus.inference.ensemble import check_together, lacks_output, lacks_patient, name_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from naevus.bundles.bundle import Bundle
    from naevus.inference.classifier import Classifier
    from naevus.inference.segmenter import Segmenter


class Abilities(NamedTuple):
    """The bundles of a job by what they are used for; a bundle may be used for several.

    Attributes:
        segmenting: Those that segment lesions.
        finding: Those that segment attributes.
        classifying: Those that classify; several form an ensemble.
    """

    segmenting: tuple[Bundle, ...] = ()
    finding: tuple[Bundle, ...] = ()
    classifying: tuple[Bundle, ...] = ()

    @classmethod
    def of(
        cls, bundles: Sequence[Bundle], *, diagnose: bool = True, attributes: bool = True
    ) -> Self:
        """Return what bundles do.

        Args:
            bundles: The bundles.
            diagnose: Whether classifiers are used.
            attributes: Whether networks for attributes are used.
        """
        return cls(
            tuple(each for each in bundles if each.spec.segmenter is not None),
            tuple(each for each in bundles if attributes and each.spec.attributes is not None),
            tuple(each for each in bundles if diagnose and each.spec.classifier is not None),
        )

    @classmethod
    def of_loaded(cls, segmenter: Segmenter | None, classifier: Classifier | None) -> Self:
        """Return what loaded networks do."""
        found = cls.of(() if segmenter is None else segmenter.bundles, diagnose=False)
        lesions = segmenter is not None and segmenter.segments_lesions
        attributes = segmenter is not None and segmenter.attributes
        return cls(
            found.segmenting if lesions else (),
            found.finding if attributes else (),
            () if classifier is None else classifier.bundles,
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """The codes of the diagnoses; empty if none is predicted."""
        return self.classifying[0].classifier.classes if self.classifying else ()

    @property
    def taxonomy(self) -> str | None:
        """Name of the taxonomy of the diagnoses, if it is a known one."""
        return self.classifying[0].classifier.taxonomy if self.classifying else None

    @property
    def crops(self) -> bool:
        """Whether a classifier takes crops around the lesion."""
        return any(each.classifier.crops for each in self.classifying)

    def check(self) -> None:
        """Check that the bundles fit together.

        Raises:
            ConfigError: They differ in what an ensemble has in common, none is used, or a
                classifier needs crops and nothing segments lesions.
        """
        if self.segmenting:
            check_together(self.segmenting, "segmentation")
        if self.finding:
            check_together(self.finding, "attributes")
        if self.classifying:
            check_together(self.classifying, "classification")
        if not any(self):
            raise ConfigError("there is no bundle to predict with", "name one")
        if self.crops and not self.segmenting:
            raise ConfigError(
                f"{self.classifying[0].folder}: this classifier needs crops around the lesion",
                "name a segmentation bundle too",
            )

    def require(self, output: str, what: str) -> None:
        """Check that diagnoses are predicted, by networks that have an output.

        Args:
            output: The output's name, ``embedding`` or ``cam``.
            what: The feature that needs it, for the error message.

        Raises:
            ConfigError: Nothing classifies, or a network does not have the output.
        """
        if not self.classifying:
            raise ConfigError(f"{what} need a classifier, and none is used here", "leave them out")
        for bundle in self.classifying:
            for member in bundle.classifier.members:
                if output not in output_names(bundle.member_path(member)):
                    raise lacks_output(bundle.folder, name_of(bundle, member), output, what)

    def require_patient(self) -> None:
        """Check that every classifier has a model of the patient's data.

        Raises:
            ConfigError: Nothing classifies, or a bundle has none.
        """
        if not self.classifying:
            raise ConfigError("metadata need a classifier, and none is used", "leave them out")
        for bundle in self.classifying:
            if bundle.classifier.patient is None:
                raise lacks_patient(bundle.folder)
