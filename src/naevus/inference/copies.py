"""Pictures read from files on demand, in the form that a bundle sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.datasets.sources import DecodedPictures
from naevus.images.preprocess import Form, Source

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from naevus.bundles.bundle import Bundle


def copies_for(
    bundle: Bundle, files: Mapping[str, Path], masks: Mapping[str, Path | None]
) -> DecodedPictures:
    """Return squares by id as a classification bundle sees them, at its largest input size.

    Args:
        bundle: The bundle; its crop mode is used.
        files: Picture file of each id.
        masks: Mask that the crop of each id is cut by, if it is.
    """
    spec = bundle.classifier
    form = Form(
        spec.crop_mode,
        max(member.input_size for member in spec.members),
        margin=spec.crop_margin,
        colour_constancy=spec.colour_constancy,
    )
    sources = [
        Source(image_id, path, masks.get(image_id), scaled=True) for image_id, path in files.items()
    ]
    return DecodedPictures(sources, form)
