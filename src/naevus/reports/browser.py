"""A page to leaf through pictures, in one file that needs no network."""

from __future__ import annotations

import base64
import io
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import jinja2
import numpy as np
from PIL import Image

from naevus.images import geometry, masks
from naevus.io.files import write_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

_QUALITY = 85


class Leaf(NamedTuple):
    """One picture of the page, as the template shows it.

    Attributes:
        name: The picture's id.
        facts: What is known of it, name and value.
        width: Of the embedded picture, in pixels.
        height: Likewise.
        jpeg: The picture as a base64 JPEG.
        outline: The lesion's outline as the data of an SVG path, empty where there is no mask.
    """

    name: str
    facts: list[tuple[str, str]]
    width: int
    height: int
    jpeg: str
    outline: str


def leaf(
    name: str,
    facts: Iterable[tuple[str, str]],
    pixels: NDArray[np.uint8],
    mask: NDArray[np.bool_] | None,
    longest: int = 640,
) -> Leaf:
    """Return a picture made ready for the page.

    Args:
        name: The picture's id.
        facts: What is known of it, name and value.
        pixels: H x W x 3 uint8 RGB.
        mask: The lesion, h x w bool of the same proportions, or ``None``.
        longest: Longer side of the embedded picture, in pixels; it is never enlarged.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, longest / max(height, width))
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    stream = io.BytesIO()
    small = Image.fromarray(geometry.resize(pixels, height, width))
    small.save(stream, "JPEG", quality=_QUALITY)
    path = ""
    if mask is not None:
        scaled = geometry.resize(mask.astype(np.uint8) * np.uint8(255), height, width) > 127
        path = "".join(_svg(points) for points in masks.outline(scaled))
    return Leaf(
        name, list(facts), width, height, base64.b64encode(stream.getvalue()).decode(), path
    )


def write_browser(leaves: Iterable[Leaf], path: Path, *, title: str) -> None:
    """Write the page: arrow keys leaf through it, ``m`` hides and shows the outlines.

    Args:
        leaves: The pictures, in order.
        path: Where to, as HTML.
        title: Stands above the pictures.

    Raises:
        NaevusError: The file cannot be written.
    """
    records = [each._asdict() for each in leaves]
    write_text(path, _template().render(title=title, leaves=records))


@cache
def _template() -> jinja2.Template:
    loader = jinja2.PackageLoader("naevus.reports", "templates")
    return jinja2.Environment(loader=loader, autoescape=True).get_template("browser.html")


def _svg(points: NDArray[np.int32]) -> str:
    return "M" + "L".join(f"{x + 0.5:g} {y + 0.5:g}" for x, y in points.tolist()) + "Z"
