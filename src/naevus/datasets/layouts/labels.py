"""Diagnoses as files spell them, turned into a taxonomy's codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from naevus.datasets.records import Problem
from naevus.taxonomy import BINARY, ISIC2018, ISIC2019, Taxonomy

if TYPE_CHECKING:
    from collections.abc import Sequence

_SPELLINGS = {
    "melanoma": "MEL",
    "melanoma in situ": "MEL",
    "melanoma invasive": "MEL",
    "melanoma metastasis": "MEL",
    "melanoma nos": "MEL",
    "nevus": "NV",
    "naevus": "NV",
    "melanocytic nevus": "NV",
    "melanocytic naevus": "NV",
    "melanocytic nevi": "NV",
    "basal cell carcinoma": "BCC",
    "actinic keratosis": "AKIEC",
    "solar or actinic keratosis": "AKIEC",
    "bowen's disease": "AKIEC",
    "squamous cell carcinoma in situ": "AKIEC",
    "actinic keratosis or intraepithelial carcinoma": "AKIEC",
    "squamous cell carcinoma": "SCC",
    "squamous cell carcinoma nos": "SCC",
    "squamous cell carcinoma invasive": "SCC",
    "benign keratosis": "BKL",
    "pigmented benign keratosis": "BKL",
    "seborrheic keratosis": "BKL",
    "solar lentigo": "BKL",
    "lichenoid keratosis": "BKL",
    "lichen planus like keratosis": "BKL",
    "dermatofibroma": "DF",
    "vascular lesion": "VASC",
    "hemangioma": "VASC",
    "angioma": "VASC",
    "angiokeratoma": "VASC",
    "pyogenic granuloma": "VASC",
    "unknown": "",
    "other": "",
}
"""Names as HAM10000 and the ISIC Archive write them, in lower case and without punctuation."""

_SAME = {"AKIEC": "AK", "AK": "AKIEC"}
"""What the challenges of 2018 and 2019 call the same diagnosis."""

_CONFIRMATIONS = {
    "histo": "histopathology",
    "histopathology": "histopathology",
    "follow_up": "follow-up",
    "serial imaging showing no change": "follow-up",
    "consensus": "consensus",
    "single image expert consensus": "consensus",
    "confocal": "confocal",
    "confocal microscopy with consensus dermoscopy": "confocal",
}


def to_codes(
    labels: pd.Series[str], problems: list[Problem], taxonomy: Taxonomy | None = None
) -> tuple[pd.Series[str], Taxonomy]:
    """Turn diagnoses into codes: codes in any case, or the names HAM and the Archive use.

    Args:
        labels: Diagnoses as read, indexed by image id; absent ones stay absent.
        problems: Where diagnoses that no code stands for are noted.
        taxonomy: The taxonomy to use; chosen by `taxonomy_of` when absent.

    Returns:
        The codes, ``pd.NA`` where there is none, and the taxonomy.
    """
    distinct = {label: _code(label) for label in labels.dropna().unique()}
    taxonomy = taxonomy or taxonomy_of(tuple(distinct.values()))
    codes: dict[str, str] = {}
    for label, code in distinct.items():
        known = code if code in taxonomy.codes else _SAME.get(code, "")
        if known in taxonomy.codes:
            codes[label] = known
        elif code:
            count = int((labels == label).sum())
            problems.append(
                Problem(
                    "unknown diagnosis",
                    label,
                    f"{count} pictures; not in the taxonomy {taxonomy.name}",
                )
            )
    return labels.map(codes).astype("string"), taxonomy


def taxonomy_of(codes: Sequence[str]) -> Taxonomy:
    """Return the taxonomy that knows most of ``codes``, the challenge's of 2018 first."""

    def fitting(taxonomy: Taxonomy) -> int:
        return sum(bool({code, _SAME.get(code)} & set(taxonomy.codes)) for code in codes)

    return max((ISIC2018, ISIC2019, BINARY), key=fitting)


def to_confirmations(labels: pd.Series[str]) -> pd.Series[str]:
    """Return how diagnoses were confirmed: histopathology, follow-up, consensus or confocal."""
    spelled = labels.str.lower()
    return spelled.map(_CONFIRMATIONS).astype("string").fillna(spelled)


def known(texts: pd.Series[str]) -> pd.Series[str]:
    """Return ``texts`` in lower case, with ``pd.NA`` for "unknown" and the like."""
    return texts.str.lower().replace({"unknown": pd.NA, "nan": pd.NA, "none": pd.NA})


def _code(label: str) -> str:
    spelled = " ".join(label.replace(",", " ").replace("-", " ").replace("_", " ").split())
    return _SPELLINGS.get(spelled.lower(), spelled.upper())
