"""Options that several commands have, each defined once."""

from __future__ import annotations

from typing import Annotated

import typer

Megapixels = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        help="Refuse images with more megapixels than this; by default 150 of a JPEG, which is "
        "decoded scaled, and 100 of other formats.",
        show_default=False,
    ),
]
"""The largest images that are read; `naevus.images.read.Limits.of_megapixels` takes it."""
