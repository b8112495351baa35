"""Taxonomies: codes, names and what is malignant."""

from __future__ import annotations

from naevus.taxonomy import ISIC2018


def test_taxonomies_name_codes_and_malignant_classes() -> None:
    assert ISIC2018.present(["NV", "MEL"]).codes == ("MEL", "NV")
