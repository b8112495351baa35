"""Merge fine classes into coarse ones, so that predictions and ground truth match.

Predictions in one taxonomy can be scored against ground truth in another if each class maps to
one in the other: by name, or as benign or malignant. The mapping is always reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from naevus.errors import DataError
from naevus.io.words import counted
from naevus.taxonomy import BINARY, SAME, Taxonomy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_SIDES = {False: "BENIGN", True: "MALIGNANT"}


@dataclass(frozen=True)
class Folding:
    """The mapping of predicted and true classes to the scored ones.

    Attributes:
        taxonomy: The scored classes.
        predicted: Predicted code → scored code.
        true: True code → scored code, or None: such images are left out.
        description: The mapping in a sentence; empty if nothing changes.
    """

    taxonomy: Taxonomy
    predicted: dict[str, str]
    true: dict[str, str | None]
    description: str = ""

    def natural(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return natural probabilities of the scored classes: the sums over their members.

        Args:
            probabilities: N x C, in the order of ``predicted``.
        """
        summed: NDArray[np.float64] = probabilities @ self._matrix()
        return summed

    def balanced(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return balanced probabilities: scored classes, and classes within each, weigh the same.

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
        """Return prediction sets of the scored classes: one is in if any class folded into it is.

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
    """Return the mapping for scoring predictions of one taxonomy against another one.

    If one of them only distinguishes benign from malignant, the other is folded into these.
    Otherwise true classes are matched with predicted ones, and images of unmatched classes are
    left out.

    Args:
        predicted: The predicted classes.
        true: The classes of the ground truth.
        present: The codes that occur in the ground truth.
        benign: Codes to count as benign although their taxonomy calls them malignant.

    Raises:
        DataError: The taxonomies do not match, or a code of ``benign`` has no effect.
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
            f"--benign {' '.join(benign)}: no classes are folded into benign and malignant here",
            "leave it out",
        )
    places = {code: _place(code, predicted) for code in true.codes}
    met = [code for code in dict.fromkeys(present) if places.get(code)]
    if not met:
        raise DataError(
            f"the taxonomies do not match: predicted are {', '.join(predicted.codes)}, the ground "
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
            f"--benign {strange[0]}: not one of the classes", f"use {', '.join(fine.codes)}"
        )
    unknown = [one.code for one in fine.diagnoses if one.malignant is None]
    if unknown:
        raise DataError(
            "the taxonomies do not match: it is unknown whether "
            f"{', '.join(unknown)} are benign or malignant",
            "spell the diagnoses as the page on own images lists",
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
            f"left out, because it is not predicted: {counted(count, 'image')} of {', '.join(left)}"
        )
    return "; ".join(description)
