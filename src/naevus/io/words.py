"""Words of messages: counts with their nouns."""

from __future__ import annotations

import re


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
    return f"{count:,} {noun if count == 1 else _plural(noun)}"


def images_of_lesions(images: int, lesions: int) -> str:
    """Return both counts with their nouns.

    Examples:
        >>> images_of_lesions(12, 1)
        '12 images of 1 lesion'
    """
    return f"{counted(images, 'image')} of {counted(lesions, 'lesion')}"


def _plural(noun: str) -> str:
    for ending, plural in (("sis", "ses"), ("ss", "sses"), ("x", "xes"), ("tch", "tches")):
        if noun.endswith(ending):
            return noun.removesuffix(ending) + plural
    return re.sub(r"(?<![aeiou])y$", "ie", noun) + "s"
