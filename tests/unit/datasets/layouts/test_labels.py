"""Spellings of diagnoses are mapped to codes."""

from __future__ import annotations

import pandas as pd
import pytest

from naevus.datasets.layouts.labels import NO_LABEL, code_of, to_codes
from naevus.io.formats import key_of

SPELLINGS = {
    "MEL": ("Melanomas", "MELANOMA", "malignant melanoma", "Melanoma in situ", "melanoma, nos",
            "Malignes Melanom", "melanoma (0.76 to 1.5 mm)", "lentigo maligna", "mel"),
    "NV": ("nevi", "Naevi", "melanocytic_nevi", "Melanocytic-Naevus", "Nävus", "Muttermal",
           "dysplastic nevus", "nevus spilus", "Spitz naevus", "NEV", "common nevus", "moles"),
    "BCC": ("Basal Cell Carcinomas", "basalzellkarzinom", "BASALIOM", "basal-cell carcinoma"),
    "AKIEC": ("Actinic_Keratoses", "actinic keratosis", "Bowen's disease", "Bowens disease",
              "Morbus Bowen", "aktinische Keratosen", "AKIEC", "Squamous cell carcinoma in situ"),
    "AK": ("ak", "ACK"),
    "SCC": ("squamous cell carcinomas", "Plattenepithelkarzinom", "Spinaliom", "scc"),
    "BKL": ("benign-keratoses", "Seborrhoeic keratosis", "seborrhoische Keratose", "SK", "SEK",
            "solar lentigines", "Lichen planus-like keratosis", "Alterswarzen"),
    "DF": ("Dermatofibromas", "Dermatofibrom", "df"),
    "VASC": ("vascular lesions", "Haemangioma", "Hämangiom", "angiomas", "Angiokeratoma",
             "Pyogenic granulomas", "Gefäßläsion", "nevus flammeus"),
    "BENIGN": ("benign", "Benign ", "gutartig"),
    "MALIGNANT": ("malignant", "bösartig", "boesartig"),
}  # fmt: skip


@pytest.mark.parametrize("code", SPELLINGS)
def test_every_spelling_of_a_diagnosis_has_its_code(code: str) -> None:
    assert {name: code_of(name) for name in SPELLINGS[code]} == dict.fromkeys(SPELLINGS[code], code)


@pytest.mark.parametrize("name", ["sebaceous nevus", "no nevus", "wart", "lentigo", "scar", "x1"])
def test_names_without_a_code_are_not_understood(name: str) -> None:
    assert code_of(name) is None


@pytest.mark.parametrize("name", ["unknown", " Unknown", "N/A", "", "-", "unbekannt", "NaN"])
def test_empty_labels_are_not_counted_as_misunderstood(name: str) -> None:
    problems: list[object] = []
    labels = pd.Series([name, "nv", name, name], dtype="string")
    codes, _ = to_codes(labels, problems, source="here")  # type: ignore[arg-type]
    assert codes.fillna("none").tolist() == ["none", "NV", "none", "none"]
    assert problems == []
    assert key_of(name) in NO_LABEL or key_of(name).replace("_", " ") in NO_LABEL
