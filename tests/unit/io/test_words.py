"""Counts with their nouns."""

from __future__ import annotations

import pytest

from naevus.io.words import counted, images_of, plural


@pytest.mark.parametrize(
    ("noun", "plural"),
    [
        ("error", "errors"),
        ("class", "classes"),
        ("diagnosis", "diagnoses"),
        ("copy", "copies"),
        ("day", "days"),
        ("box", "boxes"),
        ("patch", "patches"),
        ("epoch", "epochs"),
        ("near-duplicate", "near-duplicates"),
    ],
)
def test_one_thing_is_singular_and_none_are_many(noun: str, plural: str) -> None:
    assert counted(1, noun) == f"1 {noun}"
    assert counted(0, noun) == f"0 {plural}"
    assert counted(10_015, noun) == f"10,015 {plural}"


def test_images_of_one_lesion() -> None:
    assert images_of(1, 1, "lesion") == "1 image of 1 lesion"
    assert images_of(2000, 1200, "patient") == "2,000 images of 1,200 patients"
    assert [plural(unit) for unit in ("lesion", "patient", "group")] == [
        "lesions", "patients", "groups",
    ]  # fmt: skip
