"""Words of messages and images: counts with their nouns, names, and letters that can be drawn."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from naevus.types import Unit


def counted(count: int, noun: str) -> str:
    """Return a count and its noun, in the plural unless there is one.

    Args:
        count: The number of things.
        noun: The noun in the singular; words before the last one are kept.

    Examples:
        >>> [counted(1, "error"), counted(0, "error"), counted(1200, "lesion")]
        ['1 error', '0 errors', '1,200 lesions']
        >>> [counted(2, noun) for noun in ("diagnosis", "class", "copy", "held-out image")]
        ['2 diagnoses', '2 classes', '2 copies', '2 held-out images']
    """
    return f"{count:,} {noun if count == 1 else plural(noun)}"


def first_of(names: Sequence[str], most: int = 3) -> str:
    """Return the first names of a list, and how many others there are.

    Examples:
        >>> first_of(["a", "b"]), first_of(list("abcd")), first_of(list("abcd"), 1)
        ('a, b', 'a, b, c and 1 other', 'a and 3 others')
    """
    others = len(names) - most
    return ", ".join(names[:most]) + (f" and {counted(others, 'other')}" if others > 0 else "")


def images_of(images: int, groups: int, unit: Unit) -> str:
    """Return the numbers of images and of groups, with the noun for what a group is.

    Examples:
        >>> images_of(12, 1, "lesion"), images_of(12, 9, "patient")
        ('12 images of 1 lesion', '12 images of 9 patients')
    """
    return f"{counted(images, 'image')} of {counted(groups, unit)}"


def plural(noun: str) -> str:
    """Return the plural of a noun; words before the last one are kept.

    Examples:
        >>> plural("patient"), plural("class")
        ('patients', 'classes')
    """
    for ending, plural in (("sis", "ses"), ("ss", "sses"), ("x", "xes"), ("tch", "tches")):
        if noun.endswith(ending):
            return noun.removesuffix(ending) + plural
    return re.sub(r"(?<![aeiou])y$", "ie", noun) + "s"


_PLAIN: Final = str.maketrans(
    {"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L",
     "đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "TH", "×": "x",
     "\N{LATIN SMALL LETTER DOTLESS I}": "i", "\N{EN DASH}": "-", "\N{EM DASH}": "-"}
)  # fmt: skip
_DRAWN: Final = "©«°±·»"


def drawable(text: str) -> str:
    """Return a text for Pillow's own font, which every installation has, but without accents.

    Letters lose their accents; ``?`` stands for any other character that the font lacks.

    Examples:
        >>> drawable("Müller Läsion"), drawable("Łukasz Öß ñ é"), drawable("写真 1")
        ('Muller Lasion', 'Lukasz Oss n e', '?? 1')
    """
    letters = unicodedata.normalize("NFKD", text.translate(_PLAIN))
    return "".join(
        each if each.isascii() or each in _DRAWN else "?"
        for each in letters
        if not unicodedata.combining(each)
    )
