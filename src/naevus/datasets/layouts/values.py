"""How the values of tables are read: sex, image type, skin type, split and so on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from naevus.datasets.dataset import DERMOSCOPIC, SPLITS
from naevus.datasets.layouts.images import split_of
from naevus.datasets.layouts.labels import known, to_confirmations
from naevus.errors import DataError
from naevus.io.formats import key_of
from naevus.io.words import first_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pandas as pd

SEXES: Final = {
    "m": "male", "mann": "male", "mannlich": "male", "maennlich": "male", "masculine": "male",
    "f": "female", "w": "female", "frau": "female", "weiblich": "female", "woman": "female",
    "man": "male",
}  # fmt: skip
"""Spellings of sexes; any other entry is kept, in lower case."""

MALIGNANCY: Final = {
    "1": "MALIGNANT", "true": "MALIGNANT", "yes": "MALIGNANT", "ja": "MALIGNANT",
    "0": "BENIGN", "false": "BENIGN", "no": "BENIGN", "nein": "BENIGN",
}  # fmt: skip
"""Entries of columns that say whether a lesion is malignant."""

IMAGE_TYPES: Final = {
    "tile": ("tile", "tbp"),
    "clinical": ("clinic", "macro", "overview"),
    DERMOSCOPIC: ("derm",),
}
"""Words for types of images, in order of precedence."""

SKIN_TYPES: Final = ("I", "II", "III", "IV", "V", "VI")
"""Fitzpatrick's skin types, from the lightest."""


def _sexes(texts: pd.Series[str]) -> pd.Series[str]:
    spelled = known(texts)
    return spelled.map(lambda text: SEXES.get(key_of(text), text), na_action="ignore")


OLDEST: Final = 120
"""No age above it is believed, in years."""

AGES: Final = f"years from 0 to {OLDEST}, also with a decimal comma"
"""The entries of a column of ages that are understood; any others are unknown, and reported."""


def to_ages(texts: pd.Series[str]) -> pd.Series[float]:
    """Return ages in years; NaN for entries that are none (`AGES`).

    Examples:
        >>> import pandas as pd
        >>> to_ages(pd.Series(["55,5", "about 60", "400", None], dtype="string")).tolist()
        [55.5, nan, nan, nan]
    """
    import pandas as pd  # noqa: PLC0415 (slow to import)

    commas = texts.astype("string").str.strip().str.replace(",", ".")
    years = pd.to_numeric(commas, errors="coerce").astype("float64")
    return years.where(years.between(0, OLDEST))


def not_ages(texts: pd.Series[str]) -> pd.Series[str]:
    """Return the entries of a column of ages that are neither ages nor empty nor "unknown"."""
    entries = known(texts)
    return texts[entries.notna() & to_ages(texts).isna()]


def ages_left_out(entries: Sequence[tuple[str, str]]) -> str:
    """Return in a sentence which entries of a column of ages count as unknown.

    Args:
        entries: Images and their entries.

    Examples:
        >>> ages_left_out([("a", "about 60"), ("b", "400"), ("c", "400")])
        'ages that are not years from 0 to 120 count as unknown: about 60 (a), 400 (b and 1 other)'
    """
    images: dict[str, list[str]] = {}
    for image_id, entry in entries:
        images.setdefault(entry, []).append(image_id)
    named = [f"{entry} ({first_of(ids, 1)})" for entry, ids in images.items()]
    return f"ages that are not years from 0 to {OLDEST} count as unknown: {first_of(named)}"


def _splits(texts: pd.Series[str]) -> pd.Series[str]:
    """Return the splits; `refuse_unknown_splits` refuses other entries."""
    return texts.map(lambda text: split_of(text) or text, na_action="ignore")


def refuse_unknown_splits(splits: pd.Series[str], source: Path) -> None:
    """Refuse entries of a table that name no split.

    Args:
        splits: The entries, as read, by the row's name of its image.
        source: The table.

    Raises:
        DataError: There is one.
    """
    for image, split in splits[splits.notna() & ~splits.isin(SPLITS)].items():
        raise DataError(
            f"{source}: the row of {image} has the unknown split {split!r}",
            f"use one of {', '.join(SPLITS)}",
        )


def to_ids(texts: pd.Series[str]) -> pd.Series[str]:
    """Return ids of lesions, patients and groups; "unknown" and similar entries are none.

    Examples:
        >>> import pandas as pd
        >>> to_ids(pd.Series(["P1", "unknown", "-", "n/a"], dtype="string")).fillna("").tolist()
        ['P1', '', '', '']
    """
    return texts.astype("string").mask(known(texts).isna())


def to_image_types(texts: pd.Series[str]) -> pd.Series[str]:
    """Return ``dermoscopic``, ``clinical`` or ``tile`` for the image types in tables."""

    def one(text: str) -> str:
        key = key_of(text)
        for kind, words in IMAGE_TYPES.items():
            if any(word in key for word in words):
                return kind
        return key

    return texts.map(one, na_action="ignore").astype("string")


def to_skin_types(texts: pd.Series[str]) -> pd.Series[str]:
    """Return ``I`` to ``VI`` for how tables name Fitzpatrick's skin types.

    Examples:
        >>> import pandas as pd
        >>> to_skin_types(pd.Series(["iii", "3.0", "FST IV", "dark"], dtype="string")).tolist()
        ['III', 'III', 'IV', 'dark']
    """

    def one(text: str) -> str:
        last = re.sub(r"\.0+$", "", text.strip()).upper().split(" ")[-1]
        if last in SKIN_TYPES:
            return last
        return SKIN_TYPES[int(last) - 1] if last in set("123456") else text

    return texts.map(one, na_action="ignore").astype("string")


READERS: Final[dict[str, Callable[[pd.Series[str]], pd.Series[str]]]] = {
    **dict.fromkeys(("lesion_id", "group_id", "patient_id"), to_ids),
    "part": lambda texts: texts,
    "age": lambda texts: texts,  # `to_ages` reads them, after what is none was reported
    "sex": _sexes,
    "site": known,
    "confirmation": lambda texts: to_confirmations(known(texts)),
    "image_type": to_image_types,
    "fitzpatrick_skin_type": lambda texts: to_skin_types(known(texts)),
    "dermoscopic_type": known,
    "anatom_site": known,
    "split": _splits,
    "mask_path": lambda texts: texts,
}
"""How to read the columns other than diagnoses and images."""
