"""Spellings of diagnoses are mapped to codes."""

from __future__ import annotations

import pandas as pd
import pytest

from naevus.datasets.dataset import Problem
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


NEGATED = (
    "non-nevus", "Non Nevus", "non_nevus", "no nevus", "kein Nävus", "keine Nävi", "ohne Naevus",
    "nicht Nävus", "melanoma excluded", "Melanoma ruled out", "melanoma, unlikely", "melanoma free",
    "melanoma_negative", "Melanom ausgeschlossen", "Melanom unwahrscheinlich", "melanoma: no",
    "basal cell carcinoma excluded", "Basaliom, auszuschließen", "nevus, r/o melanoma",
    "non-melanocytic nevus", "melanoma-like nevus", "nevus-like lesion", "malignant blue nevus",
)  # fmt: skip
DOUBTED = (
    "nevus?", "melanoma (?)", "suspected nevus", "suspicious nevus", "melanoma suspected",
    "melanoma - probable", "doubtful nevus",
    "possible nevus", "V.a. Nävus", "Verdacht auf Nävus", "Nävus, fraglich",
    "Melanom (möglich)", "Melanom wahrscheinlich", "verdächtiger Nävus", "melanoma, DD nevus",
    "nevus, differential dermatofibroma", "Melanom: moeglich", "seborrheic keratosis, uncertain",
)  # fmt: skip
ALTERNATIVES = (
    "melanoma vs nevus", "melanoma vs. nevus", "nevus versus BCC", "dermatofibroma or melanoma",
    "BKL or nevus", "nevus / BCC", "nevus/bcc", "nevus_or_melanoma", "Melanom oder Nävus",
    "melanoma or dysplastic", "melanoma / atypical nevus", "nevus or wart", "nevus w/o atypia",
    "actinic keratosis vs seborrheic keratosis", "Hämangiom bzw. Nävus", "nevus BCC",
)  # fmt: skip


@pytest.mark.parametrize("name", NEGATED + DOUBTED + ALTERNATIVES)
def test_what_is_negated_doubted_or_one_of_two_is_no_diagnosis(name: str) -> None:
    assert code_of(name) is None


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("reed or spitz nevus", "NV"),
        ("Nevus, Atypical, Dysplastic, or Clark", "NV"),
        ("Nevus, Recurrent or persistent", "NV"),
        ("compound/junctional naevus", "NV"),
        ("Melanoma Invasive, Acral or Acral-lentiginous", "MEL"),
        ("Melanoma in situ, Recurrent or persistent", "MEL"),
        ("Melanoma Invasive, On chronically sun-exposed skin or lentigo maligna melanoma", "MEL"),
        ("Melanoma Invasive, Pigmented spindle cell nevus like", "MEL"),
        ("Melanoma Invasive, Arising in a congenital nevus", "MEL"),
        ("Basal cell carcinoma, Sclerosing or morpheaform", "BCC"),
        ("Solar or actinic keratosis", "AKIEC"),
        ("Actinic keratoses and intraepithelial carcinoma / Bowen's disease", "AKIEC"),
        ("solar lentigo / seborrheic keratosis", "BKL"),
        ("Lichen planus-like keratosis, early", "BKL"),
        ("Melanom, nicht näher bezeichnet", "MEL"),
        ("melanoma, not otherwise classified", "MEL"),
        ("benign nevus", "NV"),
    ],
)
def test_alternatives_of_one_diagnosis_are_that_diagnosis(name: str, code: str) -> None:
    assert code_of(name) == code


def test_a_negated_diagnosis_is_reported_with_its_count() -> None:
    problems: list[Problem] = []
    labels = pd.Series(["nevus", "nevus", "melanoma", "non_nevus"], dtype="string")
    codes, _ = to_codes(labels, problems, source="here")
    assert codes.fillna("none").tolist() == ["NV", "NV", "MEL", "none"]
    assert problems == [Problem("unknown diagnosis", "non_nevus", "1 image; not in isic2018")]


@pytest.mark.parametrize("name", ["unknown", " Unknown", "N/A", "", "-", "unbekannt", "NaN"])
def test_empty_labels_are_not_counted_as_misunderstood(name: str) -> None:
    problems: list[object] = []
    labels = pd.Series([name, "nv", name, name], dtype="string")
    codes, _ = to_codes(labels, problems, source="here")  # type: ignore[arg-type]
    assert codes.fillna("none").tolist() == ["none", "NV", "none", "none"]
    assert problems == []
    assert key_of(name) in NO_LABEL or key_of(name).replace("_", " ") in NO_LABEL
