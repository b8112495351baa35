"""Bundles with a classifier that sees images differently than the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.bundles.bundle import write_bundle
from naevus.bundles.card import CARD
from naevus.bundles.spec import MANIFEST, BundleSpec

if TYPE_CHECKING:
    from pathlib import Path

    from naevus.bundles.bundle import Bundle
    from naevus.types import CropMode


def mixed_bundle(own: Bundle, place: Path, number: int, mode: CropMode) -> Bundle:
    """Write a bundle again; the classifier with this number gets the crop mode."""
    spec = own.spec.model_dump()
    spec["classifier"]["members"][number]["crop_mode"] = mode
    files = {each.name: each for each in own.folder.iterdir() if each.name not in {MANIFEST, CARD}}
    return write_bundle(place, BundleSpec.model_validate(spec), files)
