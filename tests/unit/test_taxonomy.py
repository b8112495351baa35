"""Taxonomies: codes, names and what is malignant."""

from __future__ import annotations

from naevus.taxonomy import ISIC2018


def test_taxonomies_say_what_is_what() -> None:
    assert ISIC2018.present(["NV", "MEL"]).codes == ("MEL", "NV")
