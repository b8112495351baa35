"""Bringing two sets of diagnoses together: finer classes folded into coarser ones.

Predictions of one taxonomy can be scored against a ground truth of another where each class of the
one has its place in the other: by its name, or as benign or malignant. How is always said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from naevus.errors import DataError
from naevus.taxonomy import BINARY, SAME, Taxonomy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_SIDES = {False: "BENIGN", True: "MALIGNANT"}


@dataclass(frozen=True)
class Folding:
    """How predicted and true classes become those that are scored.

    Attributes:
        taxonomy: The classes that are scored.
        predicted: Predicted code → scored code.
        true: True code → scored code, or None: such images are left out.
        description: How, in a sentence; empty where nothing changes.
    """

    taxonomy: Taxonomy
    predicted: dict[str, str]
    true: dict[str, str | None]
    description: str = ""

    def natural(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return natural probabilities of the scored classes: those folded together add up.

        Args:
            probabilities: N x C, in the order of ``predicted``.
        """
        summed: NDArray[np.float64] = probabilities @ self._matrix()
        return summed

    def balanced(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return balanced probabilities: scored classes count alike, and classes within each.

        Args:
            probabilities: N x C balanced probabilities, in the order of ``predicted``.
        """
        matrix = self._matrix()
        if len(set(self.predicted.values())) == len(self.taxonomy) == len(matrix):
            return probabilities
        means = probabilities @ (matrix / np.maximum(matrix.sum(axis=0), 1.0))
        fractions: NDArray[np.float64] = means / means.sum(axis=1, keepdims=True)
        return fractions

    def sets(self, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return prediction sets of the scored classes: one that a class is folded into is in it.

        Args:
            inside: N x C, in the order of ``predicted``.
        """
        folded: NDArray[np.bool_] = inside.astype(np.float64) @ self._matrix() > 0
        return folded

    def _matrix(self) -> NDArray[np.float64]:
        places = [self.taxonomy.index(code) for code in self.predicted.values()]
        return np.eye(len(self.taxonomy))[places]


def folding_of(
    predicted: Taxonomy, true: Taxonomy, present: Sequence[str], benign: Sequence[str] = ()
) -> Folding:
    """Return how predictions of one taxonomy are scored by a ground truth of another.

    Where one of them tells benign from malignant alone, the other is folded into that. Else true
    classes are matched with the predicted ones; images of those that are not there are left
    out.

    Args:
        predicted: The classes that are predicted.
        true: The classes of the ground truth.
        present: The codes that the ground truth has.
        benign: Codes that count as benign though their taxonomy calls them malignant.

    Raises:
        DataError: The taxonomies do not meet, or a code of ``benign`` would not count.
    """
    coarse = [each.codes == BINARY.codes for each in (predicted, true)]
    if coarse[0] != coarse[1]:
        fine = true if coarse[0] else predicted
        sides = _sides(fine, benign)
        description = _describe_sides(sides, "ground truth" if coarse[0] else "predictions")
        own = {code: code for code in BINARY.codes}
        if coarse[0]:
            return Folding(BINARY, own, dict(sides), description)
        return Folding(BINARY, sides, dict(own), description)
    if benign:
        raise DataError(
            f"--benign {' '.join(benign)}: nothing is folded into benign and malignant here",
            "leave it out",
        )
    places = {code: _place(code, predicted) for code in true.codes}
    met = [code for code in dict.fromkeys(present) if places.get(code)]
    if not met:
        raise DataError(
            f"the taxonomies do not meet: predicted are {', '.join(predicted.codes)}, the ground "
            f"truth has {', '.join(dict.fromkeys(present)) or 'no diagnosis'}",
            "name a data set with the same diagnoses, or read it with another --taxonomy",
        )
    return Folding(
        predicted,
        {code: code for code in predicted.codes},
        places,
        _describe_places(places, present),
    )


def _sides(fine: Taxonomy, benign: Sequence[str]) -> dict[str, str]:
    strange = [code for code in benign if code not in fine.codes]
    if strange:
        raise DataError(
            f"--benign {strange[0]}: is none of the classes", f"use {', '.join(fine.codes)}"
        )
    unknown = [one.code for one in fine.diagnoses if one.malignant is None]
    if unknown:
        raise DataError(
            "the taxonomies do not meet: nothing tells whether "
            f"{', '.join(unknown)} are benign or malignant",
            "spell the diagnoses as the page on data sets lists",
        )
    return {
        one.code: _SIDES[bool(one.malignant) and one.code not in benign] for one in fine.diagnoses
    }


def _place(code: str, predicted: Taxonomy) -> str | None:
    if code in predicted.codes:
        return code
    return next((same for same in SAME.get(code, ()) if same in predicted.codes), None)


def _describe_sides(sides: dict[str, str], whose: str) -> str:
    listed = {
        side: ", ".join(code for code, its in sides.items() if its == side)
        for side in _SIDES.values()
    }
    return (
        f"{whose} folded into benign ({listed['BENIGN'] or 'none'}) and malignant "
        f"({listed['MALIGNANT'] or 'none'})"
    )


def _describe_places(places: dict[str, str | None], present: Sequence[str]) -> str:
    there = list(dict.fromkeys(present))
    found = {code: places.get(code) for code in there}
    renamed = [f"{code} as {place}" for code, place in found.items() if place not in {None, code}]
    left = [code for code, place in found.items() if place is None]
    description = []
    if renamed:
        description.append(f"ground truth {', '.join(renamed)}")
    if left:
        count = sum(code in left for code in present)
        description.append(
            f"left out are {count} images of {', '.join(left)}, which are not predicted"
        )
    return "; ".join(description)
