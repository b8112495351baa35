"""Map spellings of diagnoses in files to the codes of a taxonomy."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

import pandas as pd

from naevus.datasets.dataset import Problem
from naevus.errors import DataError
from naevus.io.formats import key_of
from naevus.io.words import counted
from naevus.taxonomy import BINARY, ISIC2018, ISIC2019, MILK10K, SAME, Taxonomy, own_taxonomy

if TYPE_CHECKING:
    from collections.abc import Iterable

WORDS = {
    "naevus": "nevus", "naevi": "nevus", "nevi": "nevus", "nevuses": "nevus", "navus": "nevus",
    "navi": "nevus", "keratoses": "keratosis", "keratose": "keratosis", "keratosen": "keratosis",
    "melanomas": "melanoma", "melanom": "melanoma", "melanome": "melanoma", "melanomen": "melanoma",
    "carcinomas": "carcinoma", "karzinom": "carcinoma", "karzinome": "carcinoma",
    "lesions": "lesion", "lasion": "lesion", "lasionen": "lesion", "laesion": "lesion",
    "laesionen": "lesion", "lentigines": "lentigo", "granulomas": "granuloma",
    "angiomas": "angioma", "angiom": "angioma", "angiome": "angioma",
    "hemangiomas": "hemangioma", "haemangioma": "hemangioma", "haemangiomas": "hemangioma",
    "hamangiom": "hemangioma", "haemangiom": "hemangioma", "hamangiome": "hemangioma",
    "angiokeratomas": "angiokeratoma", "angiokeratom": "angiokeratoma",
    "dermatofibromas": "dermatofibroma", "dermatofibrom": "dermatofibroma",
    "dermatofibrome": "dermatofibroma", "histiocytomas": "histiocytoma",
    "seborrhoeic": "seborrheic",
    "seb": "seborrheic", "seborrhoic": "seborrheic", "seborrhoische": "seborrheic",
    "seborrhoischen": "seborrheic", "aktinische": "actinic", "aktinischen": "actinic",
    "solare": "solar", "benigne": "benign", "maligne": "malignant", "malignes": "malignant",
    "malignant": "malignant", "gutartig": "benign", "gutartige": "benign", "bosartig": "malignant",
    "boesartig": "malignant", "bosartige": "malignant", "vaskulare": "vascular",
    "vaskulaere": "vascular", "gefasslasion": "vascular lesion",
    "gefasslasionen": "vascular lesion", "basalzellkarzinom": "basal cell carcinoma",
    "basalzellkarzinome": "basal cell carcinoma", "basalzellcarcinom": "basal cell carcinoma",
    "basaliom": "basal cell carcinoma", "basaliome": "basal cell carcinoma",
    "plattenepithelkarzinom": "squamous cell carcinoma",
    "plattenepithelkarzinome": "squamous cell carcinoma", "spinaliom": "squamous cell carcinoma",
    "spinaliome": "squamous cell carcinoma", "muttermal": "nevus", "muttermale": "nevus",
    "alterswarze": "seborrheic keratosis", "alterswarzen": "seborrheic keratosis",
    "bowens": "bowen", "diseases": "disease",
}  # fmt: skip
"""Words without accents and their normal form: plurals, British and German spellings."""

NAMES = {
    "MEL": (
        "mel", "mm", "melanoma", "malignant melanoma", "lentigo maligna",
        "lentigo maligna melanoma", "metastatic melanoma",
        "malignant melanocytic proliferations melanoma",
    ),
    "NV": (
        "nv", "nev", "mn", "nevus", "melanocytic nevus", "mole", "moles", "common nevus",
        "atypical nevus",
    ),
    "BCC": ("bcc", "bkz", "basal cell carcinoma"),
    "AKIEC": (
        "akiec", "actinic keratosis", "solar or actinic keratosis", "solar keratosis",
        "bowen disease", "bowen s disease", "morbus bowen", "bowen", "bod", "ak iec",
        "squamous cell carcinoma in situ", "intraepithelial carcinoma", "intraepidermal carcinoma",
        "intraepithelial squamous cell carcinoma",
        "actinic keratosis or intraepithelial carcinoma",
        "actinic keratosis intraepithelial carcinoma",
        "actinic keratosis and intraepithelial carcinoma",
    ),
    "AK": ("ak", "ack"),
    "BKL": (
        "bkl", "sk", "sek", "seborrheic k", "benign keratosis", "benign keratosis like lesion",
        "pigmented benign keratosis", "seborrheic keratosis", "seborrheickeratosis",
        "solar lentigo", "lichenoid keratosis", "lichen planus like keratosis", "lplk",
        "benign lichenoid keratosis", "large cell acanthoma", "senile lentigo", "lentigo solar",
        "lentigo senilis",
    ),
    "DF": ("df", "dermatofibroma", "histiocytoma", "fibrous histiocytoma"),
    "VASC": (
        "vasc", "vascular lesion", "vascular", "hemangioma", "angioma", "cherry angioma",
        "cherry hemangioma", "angiokeratoma", "pyogenic granuloma", "lymphangioma",
        "nevus flammeus", "port wine stain", "benign soft tissue proliferations vascular",
        "vascular malformation", "hemorrhage", "granuloma pyogenicum",
    ),
    "SCC": (
        "scc", "squamous cell carcinoma", "invasive squamous cell carcinoma", "pek",
        "keratoacanthoma",
    ),
    "SCCKA": ("sccka", "squamous cell carcinoma keratoacanthoma"),
    "INF": ("inf", "inflammatory or infectious", "inflammatory and infectious"),
    "BEN_OTH": ("ben oth", "other benign proliferation", "other benign"),
    "MAL_OTH": ("mal oth", "other malignant proliferation", "other malignant"),
    "UNK": ("unk",),
    "BENIGN": ("benign", "benign lesion"),
    "MALIGNANT": ("malignant", "malignant lesion"),
}  # fmt: skip
"""The names of each code, in lower case and without punctuation, after `WORDS`."""

_SPELLINGS = {name: code for code, names in NAMES.items() for name in names}

BEGINNINGS = (
    ("melanoma ", "MEL"),
    ("basal cell carcinoma ", "BCC"),
    ("squamous cell carcinoma in situ ", "AKIEC"),
    ("squamous cell carcinoma ", "SCC"),
    ("actinic keratosis ", "AKIEC"),
    ("bowen ", "AKIEC"),
    ("seborrheic keratosis ", "BKL"),
    ("lichen planus like keratosis ", "BKL"),
    ("solar lentigo ", "BKL"),
    ("dermatofibroma ", "DF"),
    ("hemangioma ", "VASC"),
    ("angiokeratoma ", "VASC"),
)
"""Diagnoses whose name is followed by a subtype."""

NO_MELANOCYTES = frozenset(
    ("sebaceous", "sebaceus", "epidermal", "comedonicus", "depigmentosus", "anemicus",
     "lipomatosus", "connective", "becker", "beckers", "verrucous", "inflammatory", "ilven",
     "araneus")
)  # fmt: skip
"""Names with nevus that are not melanocytic, and so not the challenges' NV."""

NO_NEVUS = frozenset(("melanoma", "mel", "malignant", "carcinoma", "bcc", "scc", "like"))
"""Words beside nevus that say it is something else, or more."""

KINDS = {
    "NV": frozenset(
        ("acquired", "acral", "atypical", "blue", "clark", "combined", "common", "compound",
         "congenital", "dermal", "dysplastic", "halo", "intradermal", "junctional", "persistent",
         "recurrent", "reed", "spitz")
    ),
    "MEL": frozenset(
        ("acral", "invasive", "lentiginous", "nodular", "persistent", "recurrent", "spreading",
         "superficial")
    ),
    "BCC": frozenset(
        ("infiltrating", "micronodular", "morpheaform", "nodular", "pigmented", "sclerosing",
         "superficial")
    ),
}  # fmt: skip
"""Kinds of a diagnosis, which may be alternatives: "Reed or Spitz nevus" is a nevus."""

_ALTERNATIVES = re.compile(r"[/?]|\b(?:or|oder|bzw|vs|versus)\b")

_UNCERTAIN = re.compile(
    r"^like\b|\b(?:no|non|not|nor|neither|without|free|absent|negative?|false|ruled?|exclu\w*"
    r"|(?:un)?likely|suspect\w*|suspici\w*|possib\w*|probab\w*|presum\w*|question\w*|query|maybe"
    r"|perhaps|uncertain|unclear|equivocal|doubtful|doubted|differential|ddx?|mimics?|mimickers?"
    r"|simulators?|kein\w*|nicht|ohne|weder|auszuschl\w*|ausschlu\w*|ausgeschlossen\w*|suspekt\w*"
    r"|verda\w*|v a|va|fraglich\w*|moe?glich\w*|(?:un)?wahrscheinlich\w*|vermut\w*|eventuell\w*"
    r"|evtl|unklar\w*|ae?hnlich\w*)\b"
)
"""Words of negation and uncertainty, English and German: with them, a name is no diagnosis."""

_UNSPECIFIED = re.compile(
    r" (?:nos|not otherwise (?:specified|classified)|nicht nae?her bezeichnet\w*"
    r"|ohne nae?here angaben?)\b"
)

NO_LABEL = frozenset(
    ("", "unknown", "other", "others", "indeterminate", "nan", "na", "n a", "none", "null",
     "not available", "not known", "undetermined", "unbekannt", "unklar", "keine", "missing")
)  # fmt: skip
"""Entries that mean an unknown diagnosis."""

_HAM = (24306, 34320)
"""The ISIC ids of HAM10000, whose squamous cell carcinomas are intraepithelial (AKIEC)."""

CONFIRMATIONS: Final = {
    "histo": "histopathology",
    "histopathology": "histopathology",
    "follow_up": "follow-up",
    "serial imaging showing no change": "follow-up",
    "consensus": "consensus",
    "single image expert consensus": "consensus",
    "confocal": "confocal",
    "confocal microscopy with consensus dermoscopy": "confocal",
}
"""Entries that say how a diagnosis was confirmed; any other is kept as it is."""


def to_codes(
    labels: pd.Series[str],
    problems: list[Problem],
    taxonomy: Taxonomy | None = None,
    *,
    source: object = None,
) -> tuple[pd.Series[str], Taxonomy]:
    """Convert diagnoses into codes: from codes in any case, or from names as data sets write them.

    Args:
        labels: Diagnoses as read; missing ones and those in `NO_LABEL` have no code.
        problems: The list to which diagnoses without a code are added.
        taxonomy: The taxonomy to use; by default that of `taxonomy_of`.
        source: The file; if given, it is an error if most diagnoses are not understood.

    Returns:
        The codes, ``pd.NA`` if there is none, and the taxonomy.

    Raises:
        DataError: Most of the diagnoses are not understood.
    """
    if taxonomy is not None and taxonomy.name == OWN:
        return _as_they_are(labels)
    times = Counter(labels.dropna().tolist())
    distinct = {label: code_of(label) for label in times}
    taxonomy = taxonomy or taxonomy_of(code for code in distinct.values() if code)
    codes: dict[str, str] = {}
    strange: list[tuple[str, int]] = []
    for label, code in distinct.items():
        known = in_taxonomy(code, taxonomy) if code else None
        if known:
            codes[label] = known
        elif code != "" and not (code == "UNK" and known is None):
            strange.append((label, times[label]))
    strange.sort(key=lambda each: (-each[1], each[0]))
    understood = sum(times[label] for label in codes)
    if source is not None and sum(count for _, count in strange) > understood:
        shown = ", ".join(f"{label!r} ({count})" for label, count in strange[:12])
        more = f" and {len(strange) - 12} more" if len(strange) > 12 else ""
        raise DataError(
            f"{source}: most diagnoses are not understood: {shown}{more}",
            "spell them as the page on own images lists, or take them as they are with "
            "--taxonomy own",
        )
    problems.extend(
        Problem("unknown diagnosis", label, f"{counted(count, 'image')}; not in {taxonomy.name}")
        for label, count in strange
    )
    return labels.map(codes).astype("string"), taxonomy


OWN = "own"
"""The name of a data set's own taxonomy: its labels unchanged."""


def taxonomy_of(codes: Iterable[str]) -> Taxonomy:
    """Return the taxonomy with most of ``codes``; ISIC 2018 comes first."""
    distinct = set(codes)

    def fitting(taxonomy: Taxonomy) -> int:
        return sum(in_taxonomy(code, taxonomy) is not None for code in distinct)

    return max((ISIC2018, ISIC2019, MILK10K, BINARY), key=fitting)


def in_taxonomy(code: str | None, taxonomy: Taxonomy) -> str | None:
    """Return the code of the diagnosis ``code`` in a taxonomy, or None if it has no such class."""
    if code is None:
        return None
    if code in taxonomy.codes:
        return code
    return next((same for same in SAME.get(code, ()) if same in taxonomy.codes), None)


def code_of(label: str) -> str | None:
    """Return the code of a diagnosis: "" if there is no diagnosis, None if it is not understood.

    A diagnosis that is negated or doubted is not understood. One with alternatives has a code if
    all of them have the same.

    Examples:
        >>> [code_of(name) for name in ("Actinic_Keratoses", "Blue nevus, Cellular", "Läsion")]
        ['AKIEC', 'NV', None]
        >>> [code_of(name) for name in ("melanoma, nos", "melanoma excluded", "melanoma vs nevus")]
        ['MEL', None, None]
    """
    text = _text_of(label)
    if text in NO_LABEL:
        return ""
    text = _UNSPECIFIED.sub("", text)
    if text in _SPELLINGS and "?" not in label:
        return _SPELLINGS[text]
    parts = _ALTERNATIVES.split(label.casefold().replace("_", " "))
    if len(parts) > 1:
        return _common(parts)
    beginning, code = next((each for each in BEGINNINGS if text.startswith(each[0])), ("", None))
    rest = text.removeprefix(beginning)
    if _UNCERTAIN.search(rest):
        return None
    words = set(rest.split())
    if code is None and "nevus" in words and not words & (NO_MELANOCYTES | NO_NEVUS):
        return "NV"
    return code


def _text_of(label: str) -> str:
    return " ".join(WORDS.get(word, word) for word in key_of(label).split("_"))


def _common(parts: Iterable[str]) -> str | None:
    """Return the code that all alternatives have, if only as its kinds."""
    read = {_text_of(part): code_of(part) for part in parts}
    codes = {code for code in read.values() if code}
    if len(codes) != 1:
        return None
    (code,) = codes
    unclear = [set(text.split()) for text, own in read.items() if own != code]
    return code if all(words and words <= KINDS.get(code, set()) for words in unclear) else None


def with_ham_classes(codes: pd.Series[str], image_ids: pd.Series[str]) -> pd.Series[str]:
    """Return codes with squamous cell carcinomas of HAM10000's ids as AKIEC, as published."""
    numbers = pd.to_numeric(image_ids.str.extract(r"^ISIC_(\d{7})", expand=False))
    ham = numbers.between(*_HAM).fillna(value=False).to_numpy(dtype=bool)
    return codes.mask((codes == "SCC").fillna(value=False).to_numpy(dtype=bool) & ham, "AKIEC")


def to_confirmations(labels: pd.Series[str]) -> pd.Series[str]:
    """Return how diagnoses were confirmed: histopathology, follow-up, consensus or confocal."""
    spelled = labels.str.lower()
    return spelled.map(CONFIRMATIONS).astype("string").fillna(spelled)


def known(texts: pd.Series[str]) -> pd.Series[str]:
    """Return ``texts`` in lower case, with ``pd.NA`` for "unknown" and similar entries."""
    spelled = texts.astype("string").str.lower()
    return spelled.mask(_keys(spelled).isin(NO_LABEL | {"unk"}))


def _keys(texts: pd.Series[str]) -> pd.Series[str]:
    keys = texts.map(lambda text: key_of(text).replace("_", " "), na_action="ignore")
    return keys.astype("string")


def _as_they_are(labels: pd.Series[str]) -> tuple[pd.Series[str], Taxonomy]:
    texts = labels.astype("string").str.strip()
    texts = texts.mask(_keys(texts).isin(NO_LABEL))
    return texts, own_taxonomy(sorted(texts.dropna().unique()))
