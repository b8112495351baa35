"""Sets of diagnoses as data: codes in a fixed order, with their names."""

from __future__ import annotations

from dataclasses import dataclass

from naevus.errors import DataError


@dataclass(frozen=True)
class Diagnosis:
    """One diagnosis: its challenge code, its name, and whether it is malignant."""

    code: str
    name: str
    malignant: bool


@dataclass(frozen=True)
class Taxonomy:
    """An ordered set of diagnoses; the order is that of every probability vector.

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

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes, in order."""
        return tuple(diagnosis.code for diagnosis in self.diagnoses)

    def index(self, code: str) -> int:
        """Return the position of ``code``.

        Raises:
            DataError: The code is not one of this taxonomy's.
        """
        try:
            return self.codes.index(code)
        except ValueError:
            raise DataError(
                f"unknown diagnosis {code!r}", f"use one of {', '.join(self.codes)}"
            ) from None

    def __len__(self) -> int:
        return len(self.diagnoses)


_MEL = Diagnosis("MEL", "melanoma", malignant=True)
_NV = Diagnosis("NV", "melanocytic naevus", malignant=False)
_BCC = Diagnosis("BCC", "basal cell carcinoma", malignant=True)
_BKL = Diagnosis("BKL", "benign keratosis", malignant=False)
_DF = Diagnosis("DF", "dermatofibroma", malignant=False)
_VASC = Diagnosis("VASC", "vascular lesion", malignant=False)

ISIC2018 = Taxonomy(
    "isic2018",
    (
        _MEL,
        _NV,
        _BCC,
        Diagnosis("AKIEC", "actinic keratosis or intraepithelial carcinoma", malignant=True),
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
"""The eight diagnoses of ISIC 2019 and the unknown."""

BINARY = Taxonomy(
    "binary",
    (
        Diagnosis("BENIGN", "benign lesion", malignant=False),
        Diagnosis("MALIGNANT", "malignant lesion", malignant=True),
    ),
)
"""Benign against malignant."""

TAXONOMIES = {taxonomy.name: taxonomy for taxonomy in (ISIC2018, ISIC2019, BINARY)}
