"""Masks that cannot be right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from naevus.datasets.audit.findings import Finding
from naevus.errors import PictureError
from naevus.images.masks import area_share, plausible
from naevus.images.read import Header, Limits, read_grey

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def mask_findings(
    image_id: str, path: Path, picture: Header | None, limits: Limits
) -> list[Finding]:
    """Return what is wrong with one mask file.

    Args:
        image_id: The picture it belongs to.
        path: The mask file.
        picture: Header of the picture, where it could be read.
        limits: What is refused from the header alone.
    """
    try:
        grey = read_grey(path, limits)
    except PictureError as error:
        return [Finding("unusable mask", "error", image_id, error.problem)]
    findings = []
    height, width = grey.shape
    if picture is not None and (picture.width, picture.height) != (width, height):
        detail = f"mask {width} x {height}, picture {picture.width} x {picture.height}"
        findings.append(Finding("mask of another size", "error", image_id, detail))
    findings.extend(_value_findings(image_id, grey))
    mask = grey > 127
    if not plausible(mask):
        detail = f"covers {area_share(mask):.2%} of the picture"
        findings.append(Finding("implausible mask", "warning", image_id, detail))
    return findings


def _value_findings(image_id: str, grey: NDArray[np.uint8]) -> list[Finding]:
    values = np.flatnonzero(np.bincount(grey.ravel(), minlength=256))
    strange = values[(values != 0) & (values != 255)]
    if not strange.size:
        return []
    shown = ", ".join(str(value) for value in strange[:5])
    detail = f"{strange.size} values other than 0 and 255 ({shown})"
    lost = values.max() <= 127  # all of the foreground reads as background
    return [Finding("mask not binary", "error" if lost else "warning", image_id, detail)]
