"""Masks that cannot be right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naevus.datasets.audit.findings import Finding
from naevus.errors import PictureError
from naevus.images.maskfile import MaskFile, fitted, orientation_uncertain, read_mask_file
from naevus.images.masks import area_share, plausible
from naevus.images.read import Header, Limits, probe_with_turn

if TYPE_CHECKING:
    from pathlib import Path


def mask_findings(
    image_id: str, path: Path, image: Path, picture: Header | None, limits: Limits
) -> list[Finding]:
    """Return what is wrong with one mask file.

    Args:
        image_id: The picture it belongs to.
        path: The mask file.
        image: The picture's file.
        picture: Header of the picture, where it could be read.
        limits: What is refused from the header alone.
    """
    try:
        found = read_mask_file(path, limits)
    except PictureError as error:
        return [Finding("unusable mask", "error", image_id, error.problem)]
    findings = [
        *_fitting(image_id, found, path, image, picture, limits),
        *_encoding(image_id, found),
    ]
    if not plausible(found.mask):
        detail = f"covers {area_share(found.mask):.2%} of the picture"
        findings.append(Finding("implausible mask", "warning", image_id, detail))
    return findings


def _fitting(
    image_id: str, found: MaskFile, path: Path, image: Path, picture: Header | None, limits: Limits
) -> list[Finding]:
    if picture is None:
        return []
    header, turn = probe_with_turn(image, limits)
    height, width = found.mask.shape
    try:
        fitted(found.mask, path, header, turn)
    except PictureError:
        detail = f"mask {width} x {height}, picture {header.width} x {header.height}"
        return [Finding("mask of another size", "error", image_id, detail)]
    if orientation_uncertain(header, turn):
        detail = "EXIF turns the image; whether the mask is turned too, its size does not tell"
        return [Finding("mask maybe turned", "warning", image_id, detail)]
    return []


def _encoding(image_id: str, found: MaskFile) -> list[Finding]:
    if found.usual:
        return []
    detail = f"read as {found.encoding}"
    if found.values == 2:
        return [Finding("mask written unusually", "warning", image_id, detail)]
    return [Finding("mask not binary", "warning", image_id, f"{detail}; {found.values} values")]
