"""Taxonomies: ordered sets of diagnoses, with codes and names, and the lesion attributes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from naevus.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


ATTRIBUTES: Final[dict[str, str]] = {
    "globules": "globules",
    "milia_like_cyst": "milia-like cysts",
    "negative_network": "negative network",
    "pigment_network": "pigment network",
    "streaks": "streaks",
}
"""The dermoscopic attributes of ISIC 2018 Task 2, named and ordered as in its files."""


@dataclass(frozen=True)
class Diagnosis:
    """A diagnosis: its code, its name, and whether it is malignant (None: unknown)."""

    code: str
    name: str
    malignant: bool | None


@dataclass(frozen=True)
class Taxonomy:
    """An ordered set of diagnoses; every probability vector has the same order.

    Examples:
        >>> ISIC2018.codes
        ('MEL', 'NV', 'BCC', 'AKIEC', 'BKL', 'DF', 'VASC')
        >>> ISIC2018.index("BKL")
        4
        >>> [diagnosis.name for diagnosis in ISIC2018.diagnoses if diagnosis.malignant][0]
        'melanoma'
    """

    name: str
    diagnoses: tuple[Diagnosis, ...]

    @cached_property
    def codes(self) -> tuple[str, ...]:
        """The codes, in order."""
        return tuple(diagnosis.code for diagnosis in self.diagnoses)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {code: place for place, code in enumerate(self.codes)}

    def index(self, code: str) -> int:
        """Return the position of ``code``.

        Raises:
            DataError: The taxonomy does not have this code.
        """
        try:
            return self._places[code]
        except KeyError:
            raise DataError(
                f"unknown diagnosis {code!r}", f"use one of {', '.join(self.codes)}"
            ) from None

    def present(self, codes: Iterable[str]) -> Taxonomy:
        """Return a taxonomy with only the classes in ``codes``, in the order of this one."""
        there = set(codes)
        return taxonomy_with([code for code in self.codes if code in there])

    def holds(self, codes: Sequence[str]) -> bool:
        """Return whether ``codes`` is a subset of the classes, in the same order."""
        return list(codes) == [code for code in self.codes if code in set(codes)]

    def __len__(self) -> int:
        return len(self.diagnoses)


_MEL = Diagnosis("MEL", "melanoma", malignant=True)
_NV = Diagnosis("NV", "melanocytic naevus", malignant=False)
_BCC = Diagnosis("BCC", "basal cell carcinoma", malignant=True)
_AKIEC = Diagnosis("AKIEC", "actinic keratosis or intraepithelial carcinoma", malignant=True)
_BKL = Diagnosis("BKL", "benign keratosis", malignant=False)
_DF = Diagnosis("DF", "dermatofibroma", malignant=False)
_VASC = Diagnosis("VASC", "vascular lesion", malignant=False)

ISIC2018 = Taxonomy(
    "isic2018",
    (
        _MEL,
        _NV,
        _BCC,
        _AKIEC,
        _BKL,
        _DF,
        _VASC,
    ),
)
"""The seven diagnoses of ISIC 2018 Task 3, in the challenge's order."""

ISIC2019 = Taxonomy(
    "isic2019",
    (
        _MEL,
        _NV,
        _BCC,
        Diagnosis("AK", "actinic keratosis", malignant=True),
        _BKL,
        _DF,
        _VASC,
        Diagnosis("SCC", "squamous cell carcinoma", malignant=True),
        Diagnosis("UNK", "none of the others", malignant=False),
    ),
)
"""The eight diagnoses of ISIC 2019, and the class for unknown ones."""

MILK10K = Taxonomy(
    "milk10k",
    (
        _AKIEC,
        _BCC,
        Diagnosis("BEN_OTH", "other benign proliferation", malignant=False),
        _BKL,
        _DF,
        Diagnosis("INF", "inflammatory or infectious", malignant=False),
        Diagnosis("MAL_OTH", "other malignant proliferation", malignant=True),
        _MEL,
        _NV,
        Diagnosis("SCCKA", "squamous cell carcinoma or keratoacanthoma", malignant=True),
        _VASC,
    ),
)
"""The eleven diagnoses of MILK10k, in the order of its tables."""

BINARY = Taxonomy(
    "binary",
    (
        Diagnosis("BENIGN", "benign lesion", malignant=False),
        Diagnosis("MALIGNANT", "malignant lesion", malignant=True),
    ),
)
"""Benign against malignant."""

TAXONOMIES = {taxonomy.name: taxonomy for taxonomy in (ISIC2018, ISIC2019, MILK10K, BINARY)}

SAME = {
    "AKIEC": ("AK",),
    "AK": ("AKIEC",),
    "SCC": ("SCCKA",),
    "SCCKA": ("SCC",),
}
"""Codes that other taxonomies use for the same diagnosis."""


def taxonomy_with(codes: Sequence[str]) -> Taxonomy:
    """Return the taxonomy with exactly these classes, in this order.

    A known taxonomy is preferred, then a subset of a known one. Otherwise the taxonomy is the data
    set's own.

    Examples:
        >>> taxonomy_with(("MEL", "NV")).name
        'isic2018: MEL, NV'
        >>> taxonomy_with(ISIC2018.codes) is ISIC2018
        True
    """
    for taxonomy in TAXONOMIES.values():
        if taxonomy.codes == tuple(codes):
            return taxonomy
    for taxonomy in TAXONOMIES.values():
        if set(codes) <= set(taxonomy.codes):
            chosen = tuple(taxonomy.diagnoses[taxonomy.index(code)] for code in codes)
            return Taxonomy(f"{taxonomy.name}: {', '.join(codes)}", chosen)
    return own_taxonomy(codes)


def known_taxonomy(codes: Sequence[str]) -> str | None:
    """Return the name of the first known taxonomy with these classes, or a superset in order."""
    for taxonomy in TAXONOMIES.values():
        if taxonomy.codes == tuple(codes):
            return taxonomy.name
    for taxonomy in TAXONOMIES.values():
        if taxonomy.holds(codes):
            return taxonomy.name
    return None


def own_taxonomy(codes: Sequence[str]) -> Taxonomy:
    """Return a data set's own taxonomy; names of unknown codes are the codes themselves."""
    known = {one.code: one for each in TAXONOMIES.values() for one in each.diagnoses}
    return Taxonomy(
        "own", tuple(known.get(code, Diagnosis(code, code, malignant=None)) for code in codes)
    )
