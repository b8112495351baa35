"""The probabilities of classes for an image or a lesion, and what follows from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.taxonomy import TAXONOMIES

if TYPE_CHECKING:
    from collections.abc import Mapping


class ClassProbabilities:
    """The probabilities of the classes for an image or a lesion, and what follows from them."""

    probabilities: Mapping[str, float]
    balanced_probabilities: Mapping[str, float]
    taxonomy: str | None

    @property
    def predicted(self) -> str | None:
        """The class with the highest natural probability."""
        return _greatest(self.probabilities)

    @property
    def predicted_balanced(self) -> str | None:
        """The class with the highest balanced probability, which the challenge scores."""
        return _greatest(self.balanced_probabilities)

    @property
    def confidence(self) -> float | None:
        """The highest natural probability."""
        return max(self.probabilities.values()) if self.probabilities else None

    def name_of(self, code: str) -> str:
        """Return a class's name with its code, or the code alone if it has no name."""
        taxonomy = TAXONOMIES.get(self.taxonomy or "")
        if taxonomy is None:
            return code
        return f"{taxonomy.diagnoses[taxonomy.index(code)].name} ({code})"


def _greatest(probabilities: Mapping[str, float]) -> str | None:
    return max(probabilities, key=probabilities.__getitem__) if probabilities else None
